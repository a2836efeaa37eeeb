"""Notifications under test: news to tell, and a reading of what was written."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

from digipoort_msa.notification.notifications import Notifications
from digipoort_msa.notification.original import Original
from digipoort_msa.notification.report import Author, report
from digipoort_msa.notification.status import News
from digipoort_msa.notification.templates import Texts
from digipoort_msa.smtp.envelope import (
    Action,
    Envelope,
    Fate,
    MailParameters,
    Path,
    RcptParameters,
)
from digipoort_msa.smtp.reply import Reply

HOSTNAME = "msa.example.nl"
RECEIVED, NOW, RETRY_UNTIL = 1_700_000_000.0, 1_700_003_600.0, 1_700_259_200.0
REFUSED = Reply(550, "5.1.1", ("no such user",))
LATER = Reply(451, "4.4.1", ("core.example:25 cannot be reached: timeout",))
HOP = "core.example:25"
MESSAGE = (
    b"Received: from a\r\n\tby b\r\n"
    b"Subject: =?utf-8?q?Aangifte_=E2=82=AC?=\r\n"
    b"Message-ID: <one@example.nl>\r\n"
    b"\r\n"
    b"The body\r\n"
)
HEADER_FIELDS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
]
TEXTS = Texts.read(("nl", "en"))


def fate(
    path: str = "one@core.example",
    action: Action = Action.FAILED,
    reply: Reply = REFUSED,
    hop: str | None = HOP,
) -> Fate:
    return Fate(Path.from_text(path), action, reply, hop)


def envelope(
    sender: str = "sender@example.nl",
    recipient_parameters: dict[Path, RcptParameters] | None = None,
    queue_id: str = "0ORIGINAL",
    **parameters: Any,
) -> Envelope:
    return Envelope(
        queue_id=queue_id,
        realm="overheidstransactiepoort.nl",
        account="bedrijf",
        session_id="S1",
        reverse_path=Path.from_text(sender),
        recipients=(Path("one", "core.example"),),
        received_at=RECEIVED,
        parameters=MailParameters(**parameters),
        recipient_parameters=recipient_parameters or {},
    )


def news(*fates: Fate, queue_id: str = "0NOTICE", **envelope_fields: Any) -> News:
    return News(envelope(**envelope_fields), fates or (fate(),), queue_id, NOW, RETRY_UNTIL)


def written(
    *fates: Fate, message: bytes = MESSAGE, whole: bool = True, texts: Texts = TEXTS, **fields: Any
) -> bytes:
    """A whole notification."""
    author = Author(HOSTNAME, texts, None, "Loket, 070 123 45 67")
    return report(author, news(*fates, **fields), Original(message, complete=True), whole=whole)


def notifications(**settings: Any) -> Notifications:
    return Notifications(HOSTNAME, TEXTS, settings.pop("tellable", lambda _: True), **settings)


def read(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def parts(octets: bytes) -> list[tuple[str, bytes]]:
    """Each part's media type and its octets as they stand, found without a parser's help."""
    boundary = read(octets).get_boundary()
    assert boundary is not None
    _, *found = (b"\r\n" + octets).split(b"\r\n--" + boundary.encode())
    assert found.pop() == b"--\r\n", "no end"
    types = [part.get_content_type() for part in read(octets).iter_parts()]
    return list(zip(types, (part.partition(b"\r\n\r\n")[2] for part in found), strict=True))


def groups(octets: bytes) -> list[dict[str, str]]:
    """The fields of the second part: the message's, then each recipient's; read by hand."""
    result = []
    for block in parts(octets)[1][1].decode().strip("\r\n").split("\r\n\r\n"):
        fields = {}
        for line in block.replace("\r\n ", " ").split("\r\n"):
            name, colon, value = line.partition(":")
            assert colon, line
            assert name not in fields, name
            fields[name] = value.strip()
        result.append(fields)
    return result


def text(octets: bytes) -> str:
    """The first part."""
    part = next(iter(read(octets).iter_parts()))
    return str(part.get_content()).replace("\r\n", "\n")
