"""The writer: whom it tells, and how it reads a message."""

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from digipoort_msa.interfaces import IContent, IContentReader, INotifications
from digipoort_msa.notification import MOST_FATES, Notifications, Texts
from tests.next_hop import Content
from tests.notifying import (
    HOSTNAME,
    MESSAGE,
    NOW,
    RETRY_UNTIL,
    envelope,
    fate,
    groups,
    notifications,
    parts,
    read,
    text,
)
from tests.requirements import proves


def segments(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


@implementer(IContent, IContentReader)
class Broken:
    """Content of which nothing, or not all, can be read."""

    eight_bit = False
    size = len(MESSAGE)

    def __init__(self, *segments: bytes, at_open: bool = False) -> None:
        self.segments = list(segments)
        self.at_open = at_open
        self.closed = False

    def open(self) -> "Broken":
        if self.at_open:
            raise FileNotFoundError("gone")
        return self

    def read(self) -> "Deferred[bytes]":
        return succeed(self.segments.pop(0)) if self.segments else fail(OSError("damage"))

    def close(self) -> None:
        self.closed = True


@proves("D2")
class NotificationsTests(SynchronousTestCase):
    def write(self, content: Any, *fates: Any, **fields: Any) -> bytes:
        writer = fields.pop("writer", None) or notifications()
        deferred = writer.write(envelope(**fields), content, fates or (fate(),), "0NOTICE", NOW, RETRY_UNTIL)
        octets = self.successResultOf(deferred)
        assert isinstance(octets, bytes)
        return octets

    def test_interface(self) -> None:
        verifyObject(INotifications, notifications())

    def test_whom(self) -> None:
        own = notifications(tellable=lambda envelope: str(envelope.reverse_path) == "own@example.nl")
        self.assertIsNone(own.may_tell(envelope("own@example.nl")))
        reason = "<else@example.nl> is not known to be an address of the account bedrijf"
        self.assertEqual(own.may_tell(envelope("else@example.nl")), reason)
        anyone = notifications()
        self.assertEqual(anyone.may_tell(envelope("")), "the reverse-path is null")

    def test_written(self) -> None:
        content = Content(MESSAGE)
        octets = self.write(content)
        self.assertEqual(parts(octets)[2][0], "text/rfc822-headers")
        self.assertEqual(read(octets)["To"], "sender@example.nl")
        self.assertEqual(groups(octets)[1]["Action"], "failed")
        self.assertEqual(content.closed, 1)
        self.assertEqual(self.write(Content(MESSAGE)), octets)

    def test_segments(self) -> None:
        """Cut anywhere, it is the same message."""
        whole = self.write(Content(MESSAGE), ret="FULL")
        for size in (1, 7, 100):
            self.assertEqual(self.write(Content(*segments(MESSAGE, size)), ret="FULL"), whole)

    def test_full_size(self) -> None:
        for size, kind in ((len(MESSAGE), "message/rfc822"), (len(MESSAGE) - 1, "text/rfc822-headers")):
            writer = notifications(full_size=size)
            octets = self.write(Content(MESSAGE), writer=writer, ret="FULL")
            self.assertEqual(parts(octets)[2][0], kind)

    def test_the_largest(self) -> None:
        """256 KiB come back whole, and no more is ever read."""
        body = b"x" * 62 + b"\r\n"
        message = b"Subject: x\r\n\r\n" + body * 4095 + b"y" * 48 + b"\r\n"
        self.assertEqual(len(message), 256 * 1024)
        writer = notifications(full_size=10**9)
        octets = self.write(Content(message), writer=writer, ret="FULL")
        self.assertEqual(parts(octets)[2], ("message/rfc822", message))
        read_so_far = []

        class Endless(Content):
            def open(self) -> Any:
                reader = super().open()
                plain = reader.read

                def reading() -> Any:
                    read_so_far.append(1)
                    return plain()

                reader.read = reading  # type: ignore[method-assign]
                return reader

        content = Endless(*segments(message * 20, 65536))
        octets = self.write(content, writer=writer, ret="FULL")
        self.assertEqual(parts(octets)[2], ("text/rfc822-headers", b"Subject: x\r\n"))
        self.assertEqual((len(read_so_far), content.closed), (4, 1))

    def test_content_that_cannot_be_read(self) -> None:
        """The sender is told all the same."""
        for content in (Broken(), Broken(MESSAGE[:20]), Broken(at_open=True)):
            octets = self.write(content, ret="FULL")
            self.assertEqual(parts(octets)[2], ("text/rfc822-headers", b""))
            self.assertIn("0ORIGINAL", text(octets))
            self.assertEqual(content.closed, not content.at_open)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 3)

    def test_content_that_is_shorter_than_it_says(self) -> None:
        octets = self.write(Content(MESSAGE, size=len(MESSAGE) + 9), ret="FULL")
        self.assertEqual(parts(octets)[2][0], "text/rfc822-headers")

    def test_the_settings(self) -> None:
        texts = Texts.read(("en",))
        writer = Notifications(
            HOSTNAME, texts, lambda _: True, sender="noreply@example.nl", contact="070 765 43 21"
        )
        octets = self.write(Content(MESSAGE), writer=writer)
        self.assertEqual(read(octets)["From"], "Digipoort MSA <noreply@example.nl>")
        self.assertIn("ask 070 765 43 21 and mention", text(octets).replace("\n", " "))
        self.assertGreaterEqual(MOST_FATES, 100)
        with self.assertRaises(ValueError):
            Notifications(HOSTNAME, texts, lambda _: True, sender="a\u00e9@b.nl")
