"""What all sessions of a listener share: limits, names, and the replies made from them once."""

from collections.abc import Mapping

from attrs import field, frozen

from digipoort_msa.smtp import extensions, reply
from digipoort_msa.smtp.reply import Reply


@frozen
class SessionSettings:
    """The settings of a session, and what follows from them."""

    hostname: str
    message_size: int = 52_428_800  # octets (M3)
    recipients: int = 1000  # in one transaction (M9)
    errors: int = 50  # refused commands in one session, then 421
    authentication_failures: int = 3  # in one session, then 421 (A6)
    mechanisms: tuple[str, ...] = ()  # that can succeed here (T3); before TLS they are shown only (T2)
    retired: frozenset[str] = frozenset()  # those whose time is over
    greeting: Reply = field(init=False)
    hello: Reply = field(init=False)
    clear_ehlo: Reply = field(init=False)
    secure_ehlo: Reply = field(init=False)
    mail_parsers: Mapping[str, extensions.ParameterParser] = field(init=False)
    rcpt_parsers: Mapping[str, extensions.ParameterParser] = field(init=False)

    def __attrs_post_init__(self) -> None:
        clear = extensions.offered(self.message_size, self.mechanisms, in_clear=True)
        secure = extensions.offered(self.message_size, self.mechanisms, in_clear=False)
        derived = {
            "greeting": reply.greeting(self.hostname),
            "hello": reply.hello(self.hostname),
            "clear_ehlo": reply.hello(self.hostname, *(extension.keyword for extension in clear)),
            "secure_ehlo": reply.hello(self.hostname, *(extension.keyword for extension in secure)),
            "mail_parsers": extensions.mail_parameters(secure),
            "rcpt_parsers": extensions.rcpt_parameters(secure),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
