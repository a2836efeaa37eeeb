"""Who may send, and to whom (M7, RFC 6409 6.1): addresses held against patterns.

A pattern is an address in which ``*`` stands for any run of characters.  Domains compare without case, as
DNS does; local-parts as well, since a pattern that misses by case alone is never what was meant.
"""

import re
from collections.abc import Iterable, Mapping

from attrs import define, frozen
from zope.interface import implementer

from digipoort_msa.interfaces import IPolicy
from digipoort_msa.policy.rule import Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused


@frozen
class AddressPatterns:
    """Any of several patterns."""

    _expression: re.Pattern[str]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> "AddressPatterns":
        # By lower(): to re.IGNORECASE, "\u0131" and "\u017f" are "i" and "s", and so another's domain ours.
        alternatives = (".*".join(map(re.escape, pattern.lower().split("*"))) for pattern in patterns)
        expression = "|".join(f"(?:{one})" for one in alternatives)
        return cls(re.compile(expression or "(?!)", re.DOTALL))

    def match(self, path: Path) -> bool:
        return self._expression.fullmatch(str(path).lower()) is not None


@implementer(IPolicy)
@define
class Senders(Rule):
    """The realm's senders: only those that a pattern lists.  The null reverse-path passes."""

    _allowed: AddressPatterns

    def sender(self, account: str, path: Path, parameters: MailParameters) -> None:
        if not path.is_null and not self._allowed.match(path):
            raise Refused(reply.SENDER_NOT_YOURS, f"<{path}> is not among the realm's senders")


def is_own(account: str, path: Path, granted: Mapping[str, AddressPatterns]) -> bool:
    """Is an address an account's own: its name, where that is an address, or one that it was given?

    :param granted: by account.
    """
    if "@" in account and account.lower() == str(path).lower():
        return True
    return account in granted and granted[account].match(path)


@implementer(IPolicy)
@define
class BoundSender(Rule):
    """An account sends from its own name, where that is an address, and from the patterns it was given.

    The null reverse-path is refused: nothing that a business submits has no sender.
    """

    _granted: Mapping[str, AddressPatterns]  # by account

    def sender(self, account: str, path: Path, parameters: MailParameters) -> None:
        if path.is_null or not is_own(account, path, self._granted):
            raise Refused(reply.SENDER_NOT_YOURS, f"<{path}> is not an address of {account}")


@implementer(IPolicy)
@define
class Recipients(Rule):
    """The realm's recipients: only those that a pattern lists."""

    _allowed: AddressPatterns

    def recipient(self, account: str, envelope: Envelope, path: Path, parameters: RcptParameters) -> None:
        if not self._allowed.match(path):
            raise Refused(reply.RECIPIENT_NOT_ALLOWED, f"<{path}> is not among the realm's recipients")
