import errno
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool.bodies import IN_FLIGHT, Bodies, BodyFile, IncomingBody
from digipoort_msa.spool.sealing import Sealing, sealed_size
from tests.requirements import proves

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")

#: Every way in which a body file touches the disk.
CALLS = ("open", "write", "fchmod", "fsync", "close", "rename", "unlink")


class Faults:
    """A disk of which one call fails, or that one and all that come after it.

    :param number: which, counted from 1.
    :ivar happened: the names of the calls, in order.
    """

    def __init__(self, number: int, error: int, *, after: bool = False, lasting: bool = False) -> None:
        self.happened: list[str] = []
        self._number = number
        self._error = error
        self._after = after  # the call has its effect, and fails all the same
        self._lasting = lasting

    @property
    def met(self) -> bool:
        return len(self.happened) >= self._number

    @contextmanager
    def injected(self) -> Iterator[None]:
        with ExitStack() as patches:
            for name in CALLS:
                patches.enter_context(mock.patch(f"os.{name}", self._double(name, getattr(os, name))))
            yield

    def _double(self, name: str, call: Any) -> Any:
        def double(*arguments: Any, **keywords: Any) -> Any:
            self.happened.append(name)
            count = len(self.happened)
            fails = count == self._number or (self._lasting and count > self._number)
            if fails and name != "close" and not self._after:
                raise OSError(self._error, os.strerror(self._error))
            result = call(*arguments, **keywords)  # close() lets go of the number, whatever it says
            if fails:
                if name == "open":  # nobody has the number then
                    os.closerange(result, result + 1)
                raise OSError(self._error, os.strerror(self._error))
            return result

        return double


class BodiesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)
        self.bodies = Bodies(self.directory)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))


class BodyFileTests(BodiesTestCase):
    def test_under_its_final_name_only_when_kept(self) -> None:
        file = BodyFile(self.bodies, "A1")
        file.write(b"one ")
        file.write(b"two")
        self.assertEqual(["A1.incoming"], self.names())
        self.assertEqual(0o600, stat.S_IMODE((self.directory / "A1.incoming").stat().st_mode))
        file.keep()
        self.assertEqual(["A1"], self.names())
        self.assertEqual(b"one two", (self.directory / "A1").read_bytes())

    @proves("M6")
    def test_file_then_name_then_directory(self) -> None:
        file = BodyFile(self.bodies, "A1")
        file.write(b"x")
        synced: list[str] = []

        def fsync(descriptor: int) -> None:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            synced.append(f"{'file' if is_file else 'directory'} with {self.names()}")

        with mock.patch("os.fsync", fsync):
            file.keep()
        self.assertEqual(["file with ['A1.incoming']", "directory with ['A1']"], synced)

    def test_never_over_another_file_or_through_a_link(self) -> None:
        (self.directory / "A1.incoming").symlink_to(self.directory / "elsewhere")
        with self.assertRaises(FileExistsError):
            BodyFile(self.bodies, "A1").write(b"x")
        self.assertEqual(["A1.incoming"], self.names())

    def test_short_writes_are_completed(self) -> None:
        file = BodyFile(self.bodies, "A1")
        write = os.write
        with mock.patch("os.write", lambda descriptor, octets: write(descriptor, octets[:3])):
            file.write(b"0123456789")
        file.keep()
        self.assertEqual(b"0123456789", (self.directory / "A1").read_bytes())

    def test_its_digest_is_of_what_is_in_it(self) -> None:
        for sealing in (None, Sealing(bytes(32))):
            file = BodyFile(self.bodies, "A1", sealing and sealing.sealer("A1"))
            for piece in (b"one ", b"", bytearray(200_000), b"two"):
                file.write(piece)
            digest = file.keep()
            stored = (self.directory / "A1").read_bytes()
            self.assertEqual(hashlib.sha256(stored).digest(), digest)
            self.assertEqual(200_007 if sealing is None else sealed_size(200_007), len(stored))

    def test_nothing_of_a_sealed_content_is_on_the_disk_in_clear(self) -> None:
        file = BodyFile(self.bodies, "A1", Sealing(bytes(32)).sealer("A1"))
        for _ in range(100):
            file.write(b"the secret " * 500)
            self.assertNotIn(b"secret", (self.directory / "A1.incoming").read_bytes())
        file.keep()
        self.assertNotIn(b"secret", (self.directory / "A1").read_bytes())

    def test_whatever_the_umask(self) -> None:
        for umask in (0, 0o777):
            self.addCleanup(os.umask, os.umask(umask))
            file = BodyFile(self.bodies, f"A{umask}")
            file.write(b"x")
            file.keep()
            mode = (self.directory / f"A{umask}").stat().st_mode
            self.assertEqual(0o600, stat.S_IMODE(mode))

    def test_another_s_file_is_not_removed(self) -> None:
        (self.directory / "A1.incoming").write_bytes(b"another's")
        (self.directory / "A1").write_bytes(b"another's")
        file = BodyFile(self.bodies, "A1")
        self.assertRaises(FileExistsError, file.write, b"x")
        file.discard()
        self.assertEqual(["A1", "A1.incoming"], self.names())

    @proves("M6")
    def test_an_fsync_that_failed_is_not_asked_again(self) -> None:
        """The second would say that all is well: the kernel has forgotten what it could not write."""
        file = BodyFile(self.bodies, "A1")
        file.write(b"x")
        with mock.patch("os.fsync", side_effect=BROKEN):
            self.assertRaises(OSError, file.keep)
        self.assertRaises(ValueError, file.keep)
        self.assertRaises(ValueError, file.write, b"x")
        self.assertEqual(["A1.incoming"], self.names())
        file.discard()
        self.assertEqual([], self.names())

    def test_a_write_that_failed_is_not_followed_by_another(self) -> None:
        file = BodyFile(self.bodies, "A1")
        file.write(b"one ")
        with mock.patch("os.write", side_effect=FULL):
            self.assertRaises(OSError, file.write, b"two ")
        self.assertRaises(ValueError, file.write, b"three")
        self.assertRaises(ValueError, file.keep)

    def test_nothing_is_not_kept(self) -> None:
        self.assertRaises(ValueError, BodyFile(self.bodies, "A1").keep)

    def test_what_is_kept_is_complete(self) -> None:
        file = BodyFile(self.bodies, "A1")
        file.write(b"x")
        file.keep()
        self.assertRaises(ValueError, file.write, b"x")
        self.assertRaises(ValueError, file.keep)
        self.assertEqual(b"x", (self.directory / "A1").read_bytes())

    def test_sweeping(self) -> None:
        for name in ("A1", "A2.incoming", "A3.incoming"):
            (self.directory / name).touch()
        self.assertEqual(2, self.bodies.sweep())
        self.assertEqual(["A1"], list(self.bodies.names()))


class OpeningTests(BodiesTestCase):
    """Whatever is in a file's place; none of it may be followed, or waited for."""

    def test_a_file(self) -> None:
        (self.directory / "A1").write_bytes(b"x")
        with self.bodies.open("A1") as file:
            self.assertEqual(b"x", file.read())
            self.assertFalse(os.get_inheritable(file.fileno()))

    def test_nothing(self) -> None:
        for queue_id in ("A1", "A1/A2", "A" * 300, "A\0"):
            self.assertRaisesRegex(Damaged, "missing", self.bodies.open, queue_id)
        (self.directory / "A1").touch()
        self.assertRaisesRegex(Damaged, "missing", self.bodies.open, "A1/A2")

    def test_a_link(self) -> None:
        (self.directory / "A2").write_bytes(b"x")
        (self.directory / "A1").symlink_to(self.directory / "A2")
        self.assertRaises(Damaged, self.bodies.open, "A1")

    def test_what_is_no_file(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        (self.directory / "folder").mkdir()
        os.mkfifo(self.directory / "fifo")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.directory / "socket"))
        for name in ("folder", "fifo", "socket"):
            self.assertRaises(Damaged, self.bodies.open, name)
        self.assertEqual(before + 1, len(os.listdir("/proc/self/fd")))  # the listener

    def test_what_may_pass_is_no_damage(self) -> None:
        (self.directory / "A1").write_bytes(b"x")
        for error in (errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EIO):
            with mock.patch("os.open", side_effect=OSError(error, os.strerror(error))):
                self.assertRaises(OSError, self.bodies.open, "A1")


class FaultTests(BodiesTestCase):
    """The Nth call to the system fails, for every N."""

    CONTENT = (bytes(200_000), b"more ", bytes(150_000), b"end")

    def outcome(self, faults: Faults, sealing: Sealing | None) -> list[Any]:
        """A content is written and kept, the thread pool being at once; what ``keep`` came to, each time."""
        file = BodyFile(self.bodies, "A1", sealing and sealing.sealer("A1"))
        body = IncomingBody(file, lambda function, *rest: succeed(rest).addCallback(lambda r: function(*r)))
        outcomes: list[Any] = []
        with faults.injected():
            for piece in self.CONTENT:
                self.assertIsNone(body.write(piece))
            body.keep().addBoth(outcomes.append)
        return outcomes

    def each(self, **how: bool) -> Iterator[tuple[Faults, Any, list[str]]]:
        for sealing in (None, Sealing(bytes(32))):
            for error in (errno.EIO, errno.ENOSPC):
                number = 1
                while True:
                    faults = Faults(number, error, **how)
                    open_before = os.listdir("/proc/self/fd")
                    (outcome,) = self.outcome(faults, sealing)
                    self.assertEqual(open_before, os.listdir("/proc/self/fd"), faults.happened)
                    if not faults.met:
                        self.assertEqual(["A1"], self.names())
                        self.assertIn("write", faults.happened)
                        self.assertGreater(number, 8)
                        (self.directory / "A1").unlink()
                        break
                    self.assertEqual(error, outcome.value.errno, faults.happened)
                    yield faults, outcome, self.names()
                    self.bodies.sweep()
                    for name in self.bodies.names():  # which the start does: there is no row
                        self.bodies.remove(name)
                    number += 1

    @proves("D2", "M6")
    def test_one_fails(self) -> None:
        """The failure is told once, and nothing is left."""
        for faults, _, names in self.each():
            self.assertEqual([], names, faults.happened)

    @proves("D2", "M6")
    def test_one_fails_but_has_its_effect(self) -> None:
        """A file that the failing call itself has made is not known to be ours; the next start sweeps it."""
        for faults, _, names in self.each(after=True):
            self.assertEqual(["A1.incoming"] if faults.happened == ["open"] else [], names, faults.happened)

    @proves("D2", "M6")
    def test_all_that_come_after_fail_too(self) -> None:
        """The first is told; what cannot be removed is swept out at the next start."""
        for faults, _, names in self.each(lasting=True):
            self.assertLessEqual(len(names), 1, faults.happened)

    def test_no_step_is_tried_again(self) -> None:
        """After the failure only what undoes is called."""
        for faults, _, _ in self.each():
            number = faults._number
            self.assertLessEqual(set(faults.happened[number:]), {"close", "unlink"}, faults.happened)


class IncomingBodyTests(BodiesTestCase):
    """The I/O pool is either at once, or a list that the test works off."""

    def setUp(self) -> None:
        super().setUp()
        self.jobs: list[tuple[Deferred, object, tuple]] = []
        self.later = IncomingBody(BodyFile(self.bodies, "A1"), self.in_thread)
        self.at_once = IncomingBody(BodyFile(self.bodies, "A2"), self.run_now)

    def in_thread(self, function: object, *arguments: object) -> Deferred:
        deferred: Deferred = Deferred()
        self.jobs.append((deferred, function, arguments))
        return deferred

    def run_now(self, function: object, *arguments: object) -> Deferred:
        return succeed(None).addCallback(lambda _: function(*arguments))  # type: ignore[operator]

    def work(self) -> None:
        deferred, function, arguments = self.jobs.pop(0)
        succeed(None).addCallback(lambda _: function(*arguments)).chainDeferred(deferred)  # type: ignore[operator]

    def test_the_writer_waits_while_too_much_is_under_way(self) -> None:
        piece = bytes(64 * 1024)
        waits = [self.later.write(piece) for _ in range(4)]
        self.assertEqual([None] * 4, waits)
        room = self.later.write(piece)
        assert room is not None
        self.assertNoResult(room)
        self.assertGreater(5 * len(piece), IN_FLIGHT)
        self.work()
        self.assertIsNone(self.successResultOf(room))
        self.assertEqual(1, len(self.jobs))  # what had piled up is on its way

    def test_one_job_at_a_time_in_order(self) -> None:
        pieces = [bytes([number]) * 100_000 for number in range(10)]
        for piece in pieces:
            self.later.write(piece)
        kept = self.later.keep()
        while self.jobs:
            self.assertEqual(1, len(self.jobs))
            self.work()
        content = b"".join(pieces)
        self.assertEqual(hashlib.sha256(content).digest(), self.successResultOf(kept))
        self.assertEqual(content, (self.directory / "A1").read_bytes())

    def test_the_end_is_written_however_small(self) -> None:
        self.at_once.write(b"small")
        self.successResultOf(self.at_once.keep())
        self.assertEqual(b"small", (self.directory / "A2").read_bytes())

    @proves("M6")
    def test_a_full_disk_fails_keep_and_leaves_nothing(self) -> None:
        with mock.patch("os.write", side_effect=FULL):
            self.at_once.write(bytes(200_000))
        self.assertIsNone(self.at_once.write(bytes(2_000_000)))
        self.assertEqual(errno.ENOSPC, self.failureResultOf(self.at_once.keep(), OSError).value.errno)
        self.assertEqual([], self.names())

    def test_an_error_frees_a_writer_that_waits(self) -> None:
        room = self.later.write(bytes(2 * IN_FLIGHT))
        assert room is not None
        with mock.patch("os.write", side_effect=FULL):
            self.work()
        self.successResultOf(room)

    def test_a_failing_fsync_leaves_nothing(self) -> None:
        self.at_once.write(b"x")
        with mock.patch("os.fsync", side_effect=BROKEN):
            self.failureResultOf(self.at_once.keep(), OSError)
        self.assertEqual([], self.names())

    def test_a_failing_directory_fsync_leaves_nothing(self) -> None:
        self.at_once.write(b"x")
        with mock.patch("digipoort_msa.spool.bodies.sync_directory", side_effect=BROKEN):
            self.failureResultOf(self.at_once.keep(), OSError)
        self.assertEqual([], self.names())

    def test_discarding_waits_for_the_job_under_way(self) -> None:
        room = self.later.write(bytes(2 * IN_FLIGHT))
        discarded = self.later.discard()
        assert room is not None
        self.successResultOf(room)
        self.work()
        self.assertEqual(["A1.incoming"], self.names())
        self.work()
        self.successResultOf(discarded)
        self.assertEqual([], self.names())
        self.assertEqual([], self.jobs)
