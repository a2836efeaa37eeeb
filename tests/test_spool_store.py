import contextlib
import errno
import os
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from unittest import mock

from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from digipoort_msa.interfaces import IIncoming, IIntake
from digipoort_msa.spool.operations import DueQuery, Stored
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.store import Incoming, Spool
from tests.requirements import proves
from tests.spooling import SpoolTestCase, envelope

BIG = b"0123456789abcdef" * 16 * 1024  # 256 KiB


class StoreTests(SpoolTestCase):
    def write(self, octets: bytes, piece: int = 32 * 1024) -> Incoming:
        incoming = self.spool.receive("example.nl")
        for start in range(0, len(octets), piece):
            room = incoming.write(octets[start : start + piece])
            if room is not None:
                self.result(room)
        return incoming

    def commit(self, incoming: Incoming) -> str:
        return self.result(incoming.commit(envelope(incoming.queue_id)))

    def due(self) -> list[Stored]:
        return list(self.result(self.spool.due(DueQuery(None, 1e12, 100, frozenset()))).messages)

    def octets(self, stored: Stored) -> bytes:
        reader = self.spool.content(stored).open()
        octets = b"".join(iter(lambda: self.result(reader.read()), b""))
        reader.close()
        return octets

    def bodies(self) -> list[str]:
        return sorted(os.listdir(self.directory / "bodies"))

    def restart(self) -> None:
        self.stop(self.spool)
        self.spool = self.started()

    def test_interfaces(self) -> None:
        verifyObject(IIntake, self.spool)
        verifyObject(IIncoming, self.spool.receive("example.nl"))

    @proves("M6", "M4")
    def test_every_size_comes_back_byte_for_byte(self) -> None:
        small = self.spool.small
        octets = bytes(range(256)) * (small // 256)
        for content in (b"", b"\x00\xff", octets, octets + b"x", BIG * 3):
            incoming = self.write(content)
            location = self.commit(incoming)
            self.assertTrue(Path(location).is_file())
            self.assertEqual(len(content) > small, incoming.queue_id in location)
        self.restart()
        stored = self.due()
        self.assertEqual([0, 2, small, small + 1, len(BIG) * 3], [message.size for message in stored])
        self.assertEqual([False, True, True, True, False], [message.eight_bit for message in stored])
        self.assertEqual([b"", b"\x00\xff", octets, octets + b"x", BIG * 3], list(map(self.octets, stored)))
        self.assertEqual(5, self.recovery.messages)

    def test_a_drip_of_octets_costs_what_they_are(self) -> None:
        """Kept one by one, two octets at a time would cost twenty times as much."""
        incoming = self.spool.receive("example.nl")
        tracemalloc.start()
        try:
            for number in range(30_000):
                incoming.write(b"%02d" % (number % 100))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 4 * 60_000)

    def test_abort_leaves_nothing(self) -> None:
        for octets in (b"small", BIG):
            incoming = self.write(octets)
            incoming.abort()
            incoming.abort()
            with self.assertRaises(ValueError):
                incoming.commit(envelope(incoming.queue_id))
        self.threads.run_until(lambda: not self.bodies())

    def test_another_messages_envelope(self) -> None:
        incoming = self.write(b"x")
        with self.assertRaises(ValueError):
            incoming.commit(envelope("0000000000000009"))

    @proves("M6")
    def test_a_database_error_leaves_neither_row_nor_file(self) -> None:
        failing = sqlite3.OperationalError("disk I/O error")
        for octets in (b"small", BIG):
            incoming = self.write(octets)
            broken = mock.patch("digipoort_msa.spool.operations.insert", side_effect=failing)
            with broken, self.assertRaises(sqlite3.OperationalError):
                self.commit(incoming)
        self.assertEqual([], self.due())
        self.assertEqual([], self.bodies())

    def test_a_file_error_leaves_neither_row_nor_file(self) -> None:
        incoming = self.write(BIG)
        with mock.patch("os.fsync", side_effect=OSError(errno.EIO, "broken")), self.assertRaises(OSError):
            self.commit(incoming)
        self.assertEqual([], self.due())
        self.assertEqual([], self.bodies())

    @proves("D2")
    def test_a_nearly_full_disk_takes_no_message_and_lets_the_old_ones_go(self) -> None:
        """On a full one no outcome could be recorded: the backlog would stay for ever, delivered again at
        each start."""
        self.kept()
        (stored,) = self.due()
        full = mock.Mock(f_bavail=100, f_frsize=4096)
        for octets in (b"small", BIG):
            incoming = self.write(octets)
            with (
                mock.patch("os.statvfs", return_value=full),
                self.assertRaisesRegex(OSError, "409600 octets"),
            ):
                self.commit(incoming)
        with mock.patch("os.statvfs", return_value=full):
            refused = self.write(b"small")
            refusal = refused.commit(envelope(refused.queue_id))
            forgotten = self.spool.forget(stored)  # in the same batch
            self.assertRaises(OSError, self.result, refusal)
            self.result(forgotten)
        self.assertEqual(([], []), (self.due(), self.bodies()))

    def test_a_locked_database_fails_the_commit(self) -> None:
        self.spool._running._connection.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(self.directory / "spool.sqlite3", isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
            self.kept()
        other.execute("COMMIT")
        self.assertEqual([], self.due())

    def test_group_commit(self) -> None:
        incoming = [self.write(b"x" * 100) for _ in range(200)]
        committed = [each.commit(envelope(each.queue_id)) for each in incoming]
        for deferred in committed:
            self.result(deferred)
        self.assertLess(self.spool.transactions, 50)
        self.assertEqual(100, len(self.due()))  # a page

    def test_listeners_hear_of_kept_messages(self) -> None:
        heard: list[Stored] = []
        self.spool.arrived = heard.append
        queue_id = self.kept(b"octets")
        self.assertEqual([queue_id], [stored.envelope.queue_id for stored in heard])
        self.assertEqual(b"octets", heard[0].octets)

    def test_delivered_messages_leave_no_file(self) -> None:
        self.commit(self.write(BIG))
        (stored,) = self.due()
        self.result(self.spool.forget(stored))
        self.assertEqual(([], []), (self.due(), self.bodies()))

    def test_a_body_file_that_cannot_be_removed_is_swept_out_later(self) -> None:
        self.commit(self.write(BIG))
        (stored,) = self.due()
        with mock.patch("pathlib.Path.unlink", side_effect=OSError(errno.EIO, "broken")):
            self.result(self.spool.forget(stored))
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))
        self.restart()
        self.assertEqual(1, self.recovery.orphans)

    def test_one_process_at_a_time(self) -> None:
        clock = mock.patch("time.monotonic", side_effect=[0, 1, 2, 3])
        with mock.patch("time.sleep"), clock, self.assertRaisesRegex(SpoolError, "in use"):
            Spool(self.threads, self.directory).start()

    def test_not_started(self) -> None:
        incoming = Spool(self.threads, self.directory).receive("example.nl")
        incoming.write(b"x")
        with self.assertRaisesRegex(SpoolError, "not been started"):
            incoming.commit(envelope(incoming.queue_id))

    @proves("D2")
    def test_recovery(self) -> None:
        kept, lost = self.write(BIG), self.write(BIG)
        self.commit(kept)
        self.commit(lost)
        self.stop(self.spool)
        bodies = self.directory / "bodies"
        (bodies / "HALF.incoming").write_bytes(b"half")
        (bodies / "ORPHAN").write_bytes(b"delivered, but the crash came before the file was removed")
        (bodies / lost.queue_id).unlink()
        self.spool = self.started()
        self.assertEqual(
            (2, 1, 1), (self.recovery.messages, self.recovery.half_received, self.recovery.orphans)
        )
        self.assertEqual((lost.queue_id,), self.recovery.missing)
        self.assertEqual([kept.queue_id], self.bodies())
        self.assertEqual([kept.queue_id], [stored.envelope.queue_id for stored in self.due()])
        self.restart()
        self.assertEqual((lost.queue_id,), self.recovery.missing)

    def test_a_body_in_constant_memory(self) -> None:
        piece = bytes(64 * 1024)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        incoming = self.spool.receive("example.nl")
        for _ in range(50 * 16):
            if (room := incoming.write(piece)) is not None:
                self.result(room)
        self.commit(incoming)
        (stored,) = self.due()
        reader = self.spool.content(stored).open()
        total = 0
        while segment := self.result(reader.read()):
            total += len(segment)
        reader.close()
        self.assertEqual(50 * 1024 * 1024, total)
        self.assertLess(tracemalloc.get_traced_memory()[1], 3 * 1024 * 1024)


CHILD = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from digipoort_msa.spool.store import Spool
from tests.spooling import envelope

spool = Spool(reactor, Path(sys.argv[1]))

async def submit(number):
    while True:
        incoming = spool.receive("example.nl")
        for _ in range(1 if number else 40):
            room = incoming.write(incoming.queue_id.encode() * 256)
            if room:
                await room
        await incoming.commit(envelope(incoming.queue_id))
        sys.stdout.write(incoming.queue_id + "\\n")
        sys.stdout.flush()

def start():
    spool.start()
    for number in range(20):
        ensureDeferred(submit(number)).addErrback(lambda failure: failure.printTraceback())

reactor.callWhenRunning(start)
reactor.run()
"""


class CrashTests(TestCase):
    @proves("M6", "D2")
    async def test_what_was_acknowledged_survives_sigkill(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder) / "spool"
            acknowledged: set[str] = set()
            for round_ in range(3):
                acknowledged |= self.submit_and_kill(directory, lines=50 + 170 * round_)
            spool = Spool(reactor, directory)
            recovery = spool.start()
            self.assertEqual((), recovery.missing)
            self.assertGreaterEqual(recovery.messages, len(acknowledged))
            found = await self.all_found(spool)
            await spool.stop()
            self.assertEqual(set(), acknowledged - found)

    def submit_and_kill(self, directory: Path, lines: int) -> set[str]:
        """Kill it in the middle of its commits; returns what it had acknowledged until then."""
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(directory)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert child.stdout is not None
        output = b""
        try:
            while output.count(b"\n") < lines:
                ready, _, _ = select.select([child.stdout], [], [], 30)
                octets = os.read(child.stdout.fileno(), 65536) if ready else b""
                if not octets:
                    self.fail(f"the child ended early, after {output!r}")
                output += octets
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            child.wait(30)
        with child.stdout:
            output += child.stdout.read()
        whole, _, _ = output.rpartition(b"\n")
        return set(whole.decode().split())

    async def all_found(self, spool: Spool) -> set[str]:
        found: set[str] = set()
        while True:
            page = await spool.due(DueQuery(None, 1e12, 500, frozenset(found)))
            for stored in page.messages:
                queue_id = stored.envelope.queue_id
                reader = spool.content(stored).open()
                octets = b""
                while segment := await reader.read():
                    octets += segment
                reader.close()
                self.assertEqual(queue_id.encode() * (stored.size // 16), octets)
                found.add(queue_id)
            if not page.messages:
                return found
