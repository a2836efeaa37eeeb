"""A delivery status notification as a whole message: ``multipart/report`` (RFC 3464, RFC 6522, RFC 3834).

Nothing here reads a clock or draws a number: the same news make the same octets.

A notification is ASCII, so that it passes every hop, but for two cases: its addressee's own address is not
ASCII (it travels with SMTPUTF8 then, and RFC 6533 gives the types of its parts), or a message with 8-bit
octets comes back whole because its sender asked for that.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from textwrap import indent, wrap

from attrs import frozen

from digipoort_msa.notification.fields import (
    field,
    mailbox,
    quoted_printable,
    unstructured,
    words,
)
from digipoort_msa.notification.original import Original, Part
from digipoort_msa.notification.status import News, delivery_status, said
from digipoort_msa.notification.templates import Texts
from digipoort_msa.smtp.envelope import Action, Fate
from digipoort_msa.smtp.trace import rfc5322_date

LARGEST = 512 * 1024  # octets of a notification
_LARGEST_TEXT = 88 * 1024  # of the text part; texts at their longest, all in quoted-printable
_FRAME = 8 * 1024  # of everything around the parts
MOST_LISTED = 10  # recipients in the text for people
_LONGEST_REPLY = 300  # characters of a reply in that text
_LONGEST_SUBJECT = 250  # characters

_DISPLAY_NAME = "Digipoort MSA"
_SENDER = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}")
_RULE = "-" * 72

#: What the lists of recipients and a missing contact are made of.
_PHRASES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "there": "At {hop}:",
        "reason": "The reason:",
        "more": "and {number} more",
        "contact": "the administrator of {hostname}",
    },
    "nl": {
        "there": "Bij {hop}:",
        "reason": "De reden:",
        "more": "en nog {number} andere",
        "contact": "de beheerder van {hostname}",
    },
}


@frozen
class Author:
    """On whose behalf notifications are written; one for each realm.

    :raise ValueError: ``sender`` cannot stand in a From field as it is.
    """

    hostname: str
    texts: Texts
    sender: str | None = None
    contact: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.sender is not None and not _SENDER.fullmatch(self.sender):
            raise ValueError(
                f"{self.sender!r} cannot be the sender of notifications: name@example.nl, in ASCII"
            )

    @property
    def address(self) -> str:
        return self.sender or f"MAILER-DAEMON@{self.hostname}"


def report(author: Author, news: News, original: Original, *, whole: bool) -> bytes:
    """Write a notification.

    :param whole: may the message come back whole?  It does only where its sender asked for that and the news
        are of a failure (RFC 3461 4.3).
    :return: the message, :data:`LARGEST` octets at most.
    """
    subject, text = _texts(author, news, original)
    explanation = Part(
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n",
        quoted_printable((line.encode("utf-8", "replace") for line in text.splitlines()), _LARGEST_TEXT),
    )
    room = LARGEST - _FRAME - len(explanation.body)
    status = _status_part(author, news, room)
    returned = original.returned(
        whole=whole and news.failed and news.envelope.parameters.ret == "FULL",
        eight_bit=not _content_was_refused(news),
        utf8=news.utf8,
        most=room - len(status.body),
    )
    parts = (explanation, status, returned)
    boundary = _boundary(news.queue_id, parts)
    eight_bit = any(part.eight_bit for part in parts)
    octets = [_header(author, news, original, subject), _content_type(boundary, eight_bit), b"\r\n"]
    for part in parts:
        octets += (b"--", boundary, b"\r\n", part.header, b"\r\n", part.body, b"\r\n")
    octets += (b"--", boundary, b"--\r\n")
    return b"".join(octets)


def _header(author: Author, news: News, original: Original, subject: str) -> bytes:
    message_id = original.message_id or ""
    return b"".join(
        (
            field("From", f"{_DISPLAY_NAME} <{author.address}>"),
            f"To: <{mailbox(news.envelope.reverse_path)}>\r\n".encode("utf-8", "replace"),
            unstructured("Subject", subject),
            field("Date", rfc5322_date(news.now)),
            field("Message-ID", f"<{_identifier(news.queue_id)}@{author.hostname}>"),
            field("In-Reply-To", message_id),
            field("References", message_id),
            field("Auto-Submitted", "auto-replied"),  # RFC 3834 5
            field("MIME-Version", "1.0"),
        )
    )


def _content_type(boundary: bytes, eight_bit: bool) -> bytes:
    encoding = b"Content-Transfer-Encoding: 8bit\r\n" if eight_bit else b""  # RFC 2045 6.4
    return (
        b"Content-Type: multipart/report; report-type=delivery-status;\r\n"
        b' boundary="' + boundary + b'"\r\n' + encoding
    )


def _boundary(queue_id: str, parts: tuple[Part, ...]) -> bytes:
    """One that is in no part; ``=_`` is in no quoted-printable either (RFC 2045 6.7)."""
    number = 0
    while True:
        boundary = f"=_{_identifier(queue_id)}.{number}".encode()
        if not any(b"--" + boundary in part.body for part in parts):
            return boundary
        number += 1


def _identifier(queue_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", queue_id)[:50]


def _status_part(author: Author, news: News, most: int) -> Part:
    octets = delivery_status(news, author.hostname, most)
    if news.utf8:
        encoding = b"7bit" if octets.isascii() else b"8bit"
        header = b"message/global-delivery-status\r\nContent-Transfer-Encoding: " + encoding
    else:
        header = b"message/delivery-status"
    return Part(b"Content-Type: " + header + b"\r\n", octets)


def _content_was_refused(news: News) -> bool:
    """Does the hop take no such content (X.6.x, RFC 3463 3.7)?  Then no notification with it either."""
    return any((fate.reply.enhanced or "")[1:4] == ".6." for fate in news.fates)


# -- the texts for people ---------------------------------------------------------------------------
def _texts(author: Author, news: News, original: Original) -> tuple[str, str]:
    """The subject in the first language, and the texts of all of them."""
    kinds = [action for action in Action if any(fate.action is action for fate in news.fates)]
    subject, texts = "", []
    for language in author.texts.languages:
        for action in kinds:
            text = author.texts.of(action, language)
            values = _values(author, news, original, action, language)
            subject = subject or words(text.subject.substitute(values), _LONGEST_SUBJECT)
            texts.append(text.body.substitute(values))
    return subject, f"\n{_RULE}\n\n".join(texts)


def _values(author: Author, news: News, original: Original, action: Action, language: str) -> dict[str, str]:
    """What the names of a text stand for; all of it printable."""
    phrases = _PHRASES[language]
    envelope = news.envelope
    fates = [fate for fate in news.fates if fate.action is action]
    return {
        "contact": words(author.contact or phrases["contact"].format(hostname=author.hostname), 500),
        "date": _date(envelope.received_at),
        "hostname": author.hostname,
        "now": _date(news.now),
        "queue_id": words(envelope.queue_id, 100),
        "recipients": "\n\n".join(_listed(fates, phrases)),
        "retry_until": _date(news.retry_until),
        "sender": words(str(envelope.reverse_path), 400),
        "subject": original.subject or "-",
    }


def _listed(fates: list[Fate], phrases: Mapping[str, str]) -> Iterator[str]:
    for fate in fates[:MOST_LISTED]:
        who = phrases["there"].format(hop=words(fate.hop, 200)) if fate.hop else phrases["reason"]
        reply = words(said(fate.reply, _LONGEST_REPLY), _LONGEST_REPLY)
        yield "\n".join(
            (
                f"    <{words(str(fate.path), 400)}>",
                f"        {who}",
                indent("\n".join(wrap(reply, 64, break_on_hyphens=False)), "        "),
            )
        )
    if len(fates) > MOST_LISTED:
        yield "    " + phrases["more"].format(number=len(fates) - MOST_LISTED)


def _date(seconds: float) -> str:
    """For readers of every language."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
