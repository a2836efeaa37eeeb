"""What a session has to say: one frozen event each.

An :class:`Asks` event awaits a verdict: the session is paused until it is answered, which is what keeps
replies in order under PIPELINING.  The others only tell.
"""

from enum import Enum
from typing import ClassVar

from attrs import frozen

from digipoort_msa.smtp.envelope import MailParameters, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.states import Verb


class Asks:
    """Base of the events that await :meth:`Session.answer`."""

    __slots__ = ()

    verb: ClassVar[Verb]  # what it is about, for the log


class Wait(Enum):
    """The answers that are no events."""

    NEED_DATA = "more octets from the client are needed"
    PAUSED = "a verdict is awaited"
    SEND = "replies have piled up: send them, then ask again"


@frozen
class Mail(Asks):
    """MAIL; a positive answer opens the transaction."""

    verb: ClassVar[Verb] = Verb.MAIL

    reverse_path: Path
    parameters: MailParameters


@frozen
class Recipient(Asks):
    """RCPT."""

    verb: ClassVar[Verb] = Verb.RCPT

    forward_path: Path
    parameters: RcptParameters


@frozen
class ContentBegins(Asks):
    """DATA, or the first BDAT; answer 354 or a refusal.  The 354 is not sent to a BDAT."""

    verb: ClassVar[Verb] = Verb.DATA


@frozen
class Content:
    """A segment of content, unstuffed and checked."""

    octets: bytes


@frozen
class ContentEnds(Asks):
    """The content is complete and well-formed; answer once it is stored."""

    verb: ClassVar[Verb] = Verb.END_OF_DATA


@frozen
class Aborted:
    """The open transaction is over without an end of data; let go of what was stored."""


@frozen
class Authenticate(Asks):
    """AUTH; answer 334 (:func:`reply.challenge`), 235 or a refusal."""

    verb: ClassVar[Verb] = Verb.AUTH

    mechanism: str  # upper case, one of those offered
    initial_response: bytes | None  # decoded; b"" is "="


@frozen
class Response(Asks):
    """The client's response to a challenge, decoded; answer as for :class:`Authenticate`."""

    verb: ClassVar[Verb] = Verb.AUTH

    octets: bytes


@frozen
class Cancelled:
    """The exchange is over by the client's doing: ``*``, or what was no base64."""


@frozen
class StartTLS:
    """The 220 is in the output: send it and begin the handshake.  This session is over."""


@frozen
class Rejected:
    """A command was refused by the protocol itself; for the log."""

    command: str
    reply: Reply


@frozen
class Close:
    """Send what is to be sent and close; an open transaction or exchange is over.  Nothing follows."""

    reason: str


Event = (
    Mail
    | Recipient
    | ContentBegins
    | Content
    | ContentEnds
    | Aborted
    | Authenticate
    | Response
    | Cancelled
    | StartTLS
    | Rejected
    | Close
)
