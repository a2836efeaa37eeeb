import errno
import os
import stat
import tempfile
from pathlib import Path
from unittest import mock

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool.bodies import IN_FLIGHT, Bodies, BodyFile, IncomingBody
from tests.requirements import proves

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


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

    def test_sweeping(self) -> None:
        for name in ("A1", "A2.incoming", "A3.incoming"):
            (self.directory / name).touch()
        self.assertEqual(2, self.bodies.sweep())
        self.assertEqual(["A1"], list(self.bodies.names()))


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
        self.successResultOf(kept)
        self.assertEqual(b"".join(pieces), (self.directory / "A1").read_bytes())

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
