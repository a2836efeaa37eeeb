"""The Maildir: the spool's octets, durably, once."""

import errno
import mailbox
import os
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.delivery import maildir
from digipoort_msa.delivery.maildir import Maildir
from digipoort_msa.interfaces import IDelivery
from tests.next_hop import MESSAGE, Content, envelope
from tests.requirements import proves


class ImmediatePool(ThreadPool):
    """Runs everything at once, in the caller's thread."""

    def callInThreadWithCallback(self, onResult: Any, func: Any, *args: Any, **kw: Any) -> None:
        try:
            result = func(*args, **kw)
        except OSError:
            onResult(False, Failure())
        else:
            onResult(True, result)


class ImmediateReactor:
    def callFromThread(self, function: Any, *arguments: Any, **kw: Any) -> None:
        function(*arguments, **kw)


@proves("D1", "D2")
class MaildirTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "core"
        self.maildir = Maildir(self.folder, ImmediateReactor(), ImmediatePool(0, 1))

    def deliver(self, content: Content = MESSAGE, *recipients: str, queue_id: str = "Q1") -> list[Any]:
        outcomes = self.successResultOf(
            self.maildir.deliver(envelope(*recipients, queue_id=queue_id), content)
        )
        return list(outcomes.values())

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())

    def test_is_a_delivery(self) -> None:
        verifyObject(IDelivery, self.maildir)

    def test_delivered(self) -> None:
        [outcome] = self.deliver()
        path = self.folder / "new" / "Q1"
        self.assertEqual((outcome.reply.code, outcome.hop), (250, str(path)))
        self.assertEqual(path.read_bytes(), MESSAGE.octets)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        for folder in (self.folder, *self.folder.iterdir()):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        self.assertEqual(len(mailbox.Maildir(self.folder)), 1)

    def test_one_copy_for_all_recipients(self) -> None:
        self.assertEqual(len(self.deliver(MESSAGE, "a@example.nl", "b@example.nl")), 2)
        self.assertEqual(self.files(), ["new/Q1"])

    def test_segments(self) -> None:
        content = Content(b"Subject: \xe9\0\r\n", b"", b"\n\r.\r\n", b"x" * 300_000, b"no line end")
        content = Content(*filter(None, content.segments))
        self.deliver(content)
        self.assertEqual((self.folder / "new/Q1").read_bytes(), content.octets)
        self.assertEqual(content.closed, 1)

    def test_nothing(self) -> None:
        self.deliver(Content())
        self.assertEqual((self.folder / "new/Q1").read_bytes(), b"")

    def test_repeated(self) -> None:
        """We died before the outcome was kept: there is one copy all the same, wherever a reader put it."""
        for content in (MESSAGE, Content(b"a\r\n", b"b\r\n")):
            for place in ("new/Q1", "cur/Q1:2,S", "cur/Q1"):
                self.setUp()
                self.deliver(content)
                (self.folder / "new/Q1").rename(self.folder / place)
                [outcome] = self.deliver(content)
                self.assertEqual(outcome.reply.code, 250)
                self.assertEqual(self.files(), [place])

    def test_repeated_after_a_death_between_rename_and_sync(self) -> None:
        """The file is there, its name may not be on stable storage: that is seen to before the 250."""
        for place in ("new", "cur"):
            self.setUp()
            self.deliver()
            (self.folder / "new/Q1").rename(self.folder / place / "Q1")
            synced: list[str] = []
            patched = self.patch(maildir, "_sync", lambda folder, synced=synced: synced.append(folder.name))
            self.deliver()
            patched.restore()
            self.assertEqual(synced, [place])

    def test_every_folder_that_is_made_is_durable(self) -> None:
        self.folder = Path(self.mktemp()).absolute() / "a/b"
        self.maildir = Maildir(self.folder, ImmediateReactor(), ImmediatePool(0, 1))
        synced: list[Path] = []
        self.patch(maildir, "_sync", synced.append)
        self.deliver()
        grandparent = self.folder.parent.parent
        self.assertLessEqual({self.folder, self.folder.parent, grandparent, grandparent.parent}, set(synced))

    def test_what_readers_keep_is_listed_when_it_has_changed(self) -> None:
        """A reader may keep 100,000 messages; one that has just been moved there is seen all the same."""
        self.deliver(queue_id="Q1")
        listed: list[str] = []
        listdir = os.listdir
        self.patch(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
        cur = self.folder / "cur"
        os.utime(cur, (1.0, 1.0))
        for number in range(5):
            self.deliver(queue_id=f"R{number}")
        self.assertEqual(listed, [cur])
        for number in range(5):  # each within the same tick as the one before
            (self.folder / f"new/R{number}").rename(cur / f"R{number}:2,S")
            self.deliver(queue_id=f"R{number}")
        self.assertEqual(self.files(), [*(f"cur/R{number}:2,S" for number in range(5)), "new/Q1"])

    def test_ids_that_begin_alike(self) -> None:
        self.deliver(queue_id="Q1")
        self.deliver(queue_id="Q12")
        self.assertEqual(self.files(), ["new/Q1", "new/Q12"])

    def test_a_draft_of_a_dead_delivery(self) -> None:
        self.deliver(queue_id="Q0")
        (self.folder / "tmp/Q1").write_bytes(b"half a mess")
        self.deliver()
        self.assertEqual(self.files(), ["new/Q0", "new/Q1"])
        self.assertEqual((self.folder / "new/Q1").read_bytes(), MESSAGE.octets)

    def test_sizes_that_differ(self) -> None:
        for size in (1, 4, 8):
            [outcome] = self.deliver(Content(b"a\r\n", b"b\r\n", size=size))
            self.assertEqual(outcome.reply.code, 451)
            self.assertEqual(self.files(), [])

    def test_reader_fails(self) -> None:
        content = Content(b"a\r\n", b"b\r\n")
        reader = content.open()
        segments = iter([b"a\r\n"])
        reader.read = lambda: Deferred.fromCoroutine(read(segments))
        self.patch(content, "open", lambda: reader)
        [outcome] = self.deliver(content)
        self.assertEqual(outcome.reply.code, 451)
        self.assertEqual(self.files(), [])

    def test_errors(self) -> None:
        for call in ("write", "fsync", "rename"):
            for number, code in (
                (errno.ENOSPC, "452 4.3.1"),
                (errno.EDQUOT, "452 4.3.1"),
                (errno.EIO, "451 4.3.0"),
            ):
                self.setUp()
                self.deliver(queue_id="Q0")
                patched = self.patch(os, call, failing(number))
                [outcome] = self.deliver()
                patched.restore()
                self.assertEqual(str(outcome.reply)[:9], code)
                self.assertEqual(self.files(), ["new/Q0"])

    def test_no_folder(self) -> None:
        self.folder.parent.mkdir()
        self.folder.write_text("a file")
        [outcome] = self.deliver()
        self.assertEqual(str(outcome.reply)[:9], "451 4.3.0")

    def test_order(self) -> None:
        """Written, synced, renamed, and the rename synced: nothing else survives a power cut."""
        self.deliver(queue_id="Q0")
        calls: list[str] = []
        for name in ("write", "fsync", "rename"):
            original = getattr(os, name)
            self.patch(
                os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a))[1]
            )
        self.deliver()
        self.assertEqual(calls, ["write", "fsync", "rename", "fsync"])

    def test_queue_ids_are_names(self) -> None:
        for queue_id in ("../x", "", ".hidden", "a/b", "a\0"):
            self.failureResultOf(self.maildir.deliver(envelope(queue_id=queue_id), MESSAGE), ValueError)


async def read(segments: Any) -> bytes:
    for segment in segments:
        return segment
    raise OSError(errno.EIO, "the spool is gone")


def failing(number: int) -> Any:
    def call(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call
