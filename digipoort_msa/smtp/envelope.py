"""The values of a mail transaction: paths, parameters, the envelope and its trace (RFC 5321 2.3.1).

All are frozen, and are checked when they are made: a :class:`Path` cannot hold a control character, so
no code that receives one has to look again (GHSA-v3q9-hj7j-63hq).
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from attrs import field, frozen

from digipoort_msa.smtp.reply import Reply

#: C0 and C1 controls, the line ends that only Unicode knows, and lone surrogates, which UTF-8 cannot write.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _without_controls(instance: object, attribute: object, value: str) -> None:
    if CONTROL.search(value):
        raise ValueError("an address cannot hold a control character")


def _one_word(instance: object, attribute: object, value: str | None) -> None:
    if value is not None and (not value or " " in value or CONTROL.search(value)):
        raise ValueError("a parameter's value cannot be empty, or hold a blank or a control character")


@frozen
class Path:
    """A reverse-path or forward-path without its angle brackets, exactly as the client wrote it (M1).

    Both parts empty is the null reverse-path ``<>``; ``Path("postmaster", "")`` is the one forward-path
    without a domain that RFC 5321 4.5.1 allows.  A quoted local-part keeps its quotes.
    """

    local_part: str = field(validator=_without_controls)
    domain: str = field(validator=_without_controls)

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}" if self.domain else self.local_part

    @classmethod
    def from_text(cls, text: str) -> "Path":
        """The inverse of ``str()``: for paths read back from our own storage."""
        local_part, at, domain = text.rpartition("@")
        return cls(local_part, domain) if at else cls(domain, "")

    @property
    def is_null(self) -> bool:
        return not self.local_part and not self.domain

    @property
    def is_ascii(self) -> bool:
        """False where SMTPUTF8 is needed to pass this path on (RFC 6531 3.4)."""
        return self.local_part.isascii() and self.domain.isascii()


NULL_PATH = Path("", "")


@frozen
class MailParameters:
    """What MAIL said besides the reverse-path."""

    size: int | None = None  # octets, RFC 1870
    body_8bitmime: bool = False  # BODY=8BITMIME, RFC 6152
    smtputf8: bool = False  # RFC 6531
    auth: str | None = None  # RFC 4954 5, decoded; None where absent
    ret: Literal["FULL", "HDRS"] | None = None  # RFC 3461 4.3; None where absent
    envid: str | None = field(default=None, validator=_one_word)  # RFC 3461 4.4, in xtext; None where absent


class Notify(StrEnum):
    """When a sender wants to be told of a recipient (RFC 3461 4.1)."""

    NEVER = "NEVER"  # on its own only
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@frozen
class RcptParameters:
    """What RCPT said besides the forward-path."""

    notify: frozenset[Notify] | None = None  # None where absent: of failures, and of delays as we see fit
    #: RFC 3461 4.2, RFC 6533 3: ``rfc822;`` and xtext, or ``utf-8;`` and an address in one of its forms, as
    #: the client wrote it; None where absent.  :func:`digipoort_msa.smtp.xtext.original_recipient` reads it.
    orcpt: str | None = field(default=None, validator=_one_word)

    def wants(self, notify: Notify) -> bool:
        """Is the sender to be told of this kind of news (RFC 3461 4.1)?"""
        return notify in (self.notify or {Notify.FAILURE, Notify.DELAY})


NO_PARAMETERS = RcptParameters()


@frozen
class Trace:
    """The facts of a session that ``Received:`` and the log show (RFC 5321 4.4); nothing learnt in clear."""

    session_id: str
    server_name: str
    client_address: str  # an IP address, or "local" for a unix socket
    client_name: str | None  # EHLO's argument under TLS; None where the client gave none (T5)
    tls: str | None  # such as "TLSv1.3 TLS_AES_256_GCM_SHA384"


@frozen
class Envelope:
    """A message's envelope as it is spooled and delivered."""

    queue_id: str
    realm: str
    account: str
    session_id: str
    reverse_path: Path
    recipients: tuple[Path, ...]
    received_at: float  # seconds since the epoch, UTC
    parameters: MailParameters = MailParameters()
    recipient_parameters: Mapping[Path, RcptParameters] = field(factory=dict)  # of those that have some
    next_hop: str | None = None  # where an operator wants it to go instead of where its realm's messages go

    def parameters_of(self, path: Path) -> RcptParameters:
        """What RCPT said of one recipient."""
        return self.recipient_parameters.get(path, NO_PARAMETERS)


class Arrival(StrEnum):
    """How far a 2yz brings a message: what a notification of success may claim (RFC 3464 2.3.3)."""

    RELAYED = "relayed"  # to a hop that knows nothing of notifications: the report is ours to make
    DELIVERED = "delivered"  # where it was to go: the report is ours to make
    PASSED_ON = "passed-on"  # to a hop that took on what NOTIFY asks: any report is its own (RFC 3461 5.2.1)


@frozen
class Outcome:
    """What became of one recipient in one delivery attempt."""

    reply: Reply  # the hop's own reply, or ours where there was none
    hop: str  # "core.example.nl:25", a Maildir's path, ...
    arrival: Arrival = Arrival.RELAYED  # what a 2yz means


class Action(StrEnum):
    """What a notification says of a recipient (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@frozen
class Fate:
    """One recipient's part of a notification."""

    path: Path
    action: Action
    reply: Reply  # the words that decided it: the hop's, or ours
    hop: str | None = None  # who said them; None where it was us
