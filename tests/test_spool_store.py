import contextlib
import errno
import os
import resource
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from unittest import mock

from twisted.internet import reactor
from twisted.logger import LogEvent
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface.verify import verifyObject

from digipoort_msa import log
from digipoort_msa.interfaces import IIncoming, IIntake
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.spool import schema
from digipoort_msa.spool.incoming import Incoming
from digipoort_msa.spool.rows import Attempt, DueQuery, Result, Stored
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.states import State
from digipoort_msa.spool.store import Spool
from tests.requirements import proves
from tests.spooling import DEFERRED, FAILED, SpoolTestCase, envelope

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

    def refusal(self, incoming: Incoming) -> reply.Reply:
        with self.assertRaises(Refused) as caught:
            self.commit(incoming)
        return caught.exception.reply

    @proves("M6")
    def test_a_database_error_leaves_neither_row_nor_file(self) -> None:
        failing = sqlite3.OperationalError("disk I/O error")
        first, second = self.write(b"small"), self.write(BIG)
        for incoming in (first, second):
            with mock.patch("digipoort_msa.spool.operations.insert", side_effect=failing):
                self.assertEqual(reply.NOT_STORED, self.refusal(incoming))
        self.assertEqual(([], []), (self.due(), self.bodies()))

    def test_a_file_error_leaves_neither_row_nor_file(self) -> None:
        for number, answer in (
            (errno.EIO, reply.NOT_STORED),
            (errno.ENOSPC, reply.INSUFFICIENT_STORAGE),
            (errno.EDQUOT, reply.INSUFFICIENT_STORAGE),
        ):
            for step in ("os.write", "os.fsync"):
                with mock.patch(step, side_effect=OSError(number, "broken")):
                    incoming = self.write(BIG)
                    self.assertEqual(answer, self.refusal(incoming))
                self.assertEqual(([], []), (self.due(), self.bodies()))
                self.look()

    def test_a_defect_is_not_the_disks(self) -> None:
        incoming = self.write(b"small")
        self.commit(incoming)
        again = self.write(b"small")
        again.queue_id = incoming.queue_id
        with self.assertRaises(sqlite3.IntegrityError):
            self.commit(again)
        self.kept()

    def look(self) -> None:
        """A second passes; the disk is looked at."""
        self.threads.advance(1.0)
        self.threads.run_until(lambda: self.spool._look.call is not None)  # the next one waits for its end

    @proves("D2")
    def test_a_nearly_full_disk_takes_no_message_and_lets_the_old_ones_go(self) -> None:
        """On a full one no outcome could be recorded: the backlog would stay for ever, delivered again at
        each start."""
        self.kept()
        (stored,) = self.due()
        full = mock.Mock(f_bavail=100, f_frsize=4096)
        begun = [self.write(b"small"), self.write(BIG), self.write(b"small")]
        with mock.patch("os.statvfs", return_value=full):
            for incoming in begun[:2]:
                self.assertEqual(reply.INSUFFICIENT_STORAGE, self.refusal(incoming))
            refusal = begun[2].commit(envelope(begun[2].queue_id))
            forgotten = self.spool.forget(stored)  # in the same batch
            self.assertRaises(Refused, self.result, refusal)
            self.result(forgotten)
            with self.assertRaisesRegex(Refused, "409600 octets.*watermark") as caught:
                self.spool.receive("example.nl")
        self.assertEqual(reply.INSUFFICIENT_STORAGE, caught.exception.reply)
        self.assertEqual(([], []), (self.due(), self.bodies()))
        self.look()
        self.kept()

    def test_below_the_watermark_what_was_begun_is_kept(self) -> None:
        incoming = self.write(b"small")
        watermark = 256 * 1024 * 1024
        with mock.patch("os.statvfs", return_value=mock.Mock(f_bavail=watermark - 1, f_frsize=1)):
            self.look()
            self.assertRaises(Refused, self.spool.receive, "example.nl")
            self.commit(incoming)
        with mock.patch("os.statvfs", return_value=mock.Mock(f_bavail=watermark, f_frsize=1)):
            self.look()
            self.spool.receive("example.nl")

    @proves("D2")
    def test_a_spool_that_cannot_be_written_comes_back_by_itself(self) -> None:
        """A real write fails here: no file may grow past the log's size."""
        said: list[LogEvent] = []
        self.patch(log._logger, "observer", said.append)
        self.kept()
        incoming = self.write(b"small" * 1000)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = (self.directory / "spool.sqlite3-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            self.assertEqual(reply.NOT_STORED, self.refusal(incoming))
            for _ in range(2):
                with self.assertRaises(Refused) as caught:
                    self.spool.receive("example.nl")
                self.look()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assertEqual(reply.NOT_STORED, caught.exception.reply)
        self.assertEqual(["spool-unwritable"], [event["event"] for event in said])
        self.look()
        self.assertEqual(["spool-unwritable", "spool-writable"], [event["event"] for event in said])
        self.kept()
        self.assertEqual(2, len(self.due()))

    def test_a_database_that_is_full(self) -> None:
        connection = self.spool._running._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        self.assertEqual(reply.INSUFFICIENT_STORAGE, self.refusal(self.write(b"small" * 5000)))
        connection.execute("PRAGMA max_page_count = 1000000")
        self.look()
        self.kept()

    def test_a_locked_database_fails_the_commit(self) -> None:
        self.spool._running._connection.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(self.directory / "spool.sqlite3", isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaisesRegex(Refused, "locked"):
            self.kept()
        other.execute("COMMIT")
        self.look()
        self.assertEqual([], self.due())

    def test_a_notification_comes_with_the_record_or_not_at_all(self) -> None:
        heard: list[Stored] = []
        queue_id = self.kept()
        (stored,) = self.due()
        self.spool.arrived = heard.append
        notification = Stored(envelope("0000000000000002"), 4, False, b"told", since=1.0)
        results = (Result(stored.envelope.recipients[0], State.RETURNED, FAILED, "hop"),)
        attempt = Attempt(queue_id, results, 1.0, 2.0, notification=notification)
        failing = sqlite3.OperationalError("disk I/O error")
        broken = mock.patch("digipoort_msa.spool.sequences.promote", side_effect=failing)
        with broken, self.assertRaises(sqlite3.OperationalError):
            self.result(self.spool.record(stored, attempt))
        self.assertEqual([queue_id], [message.envelope.queue_id for message in self.due()])
        for _ in range(2):  # the second time there is nothing to tell
            self.result(self.spool.record(stored, attempt))
        self.assertEqual([b"told"], [self.octets(message) for message in heard])
        self.assertEqual(heard, self.due())

    def test_of_a_sequence_only_the_head_is_heard_of(self) -> None:
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: f"{realm} {account}")
        heard: list[Stored] = []
        self.spool.arrived = heard.append
        kept = [self.kept() for _ in range(3)]
        self.assertEqual(kept[:1], [stored.envelope.queue_id for stored in heard])
        for queue_id in kept:
            (stored,) = self.due()
            self.assertEqual(queue_id, stored.envelope.queue_id)
            self.result(self.spool.forget(stored))
        self.assertEqual([], self.due())

    def test_wishes(self) -> None:
        first, second, third = (self.kept(recipients=("a@b.nl", "c@d.nl")) for _ in range(3))
        self.result(self.spool.hold(second, "damaged", 1.0))
        self.rows("UPDATE message SET next_attempt = NULL, wish = 'remove' WHERE queue_id = ?", first)
        self.rows("UPDATE message SET wish = 'return' WHERE queue_id = ?", second)
        self.rows("UPDATE message SET next_attempt = NULL, wish = 'remove' WHERE queue_id = ?", third)
        removed, (wished,) = self.result(self.spool.wished(frozenset([third])))
        self.assertEqual([first], removed)
        self.assertEqual((second, 2), (wished.envelope.queue_id, len(wished.envelope.recipients)))
        self.assertEqual(([third], ()), self.result(self.spool.wished(frozenset([second]))))

    def test_flush_and_realms(self) -> None:
        for _ in range(3):
            self.kept()
        realm = "overheidstransactiepoort.nl"
        for stored in self.due():
            results = (Result(stored.envelope.recipients[0], State.DEFERRED, DEFERRED, "hop"),)
            attempt = Attempt(stored.envelope.queue_id, results, 1.0, 1e9)
            self.result(self.spool.record(stored, attempt))
        self.assertEqual({realm: 3}, self.result(self.spool.realms()))
        with mock.patch("digipoort_msa.spool.upkeep.AT_ONCE", 2):
            self.assertEqual(0, self.result(self.spool.flush("other.nl", 5.0)))
            self.assertEqual(3, self.result(self.spool.flush(realm, 5.0)))
        page = self.result(self.spool.due(DueQuery(realm, 5.0, 9, frozenset())))
        self.assertEqual(3, len(page.messages))

    def test_rows_that_make_no_sense_are_held(self) -> None:
        queue_id, other = self.kept(), self.kept()
        self.rows("UPDATE message SET parameters = 'x' WHERE queue_id = ?", queue_id)
        page = self.result(self.spool.due(DueQuery(None, 1e12, 9, frozenset())))
        self.assertEqual((queue_id,), page.unreadable)
        self.assertEqual([other], [stored.envelope.queue_id for stored in self.due()])
        states = self.rows("SELECT state FROM recipient WHERE queue_id = ?", queue_id)
        self.assertEqual([("held",)], states)

    def test_a_damaged_database_is_refused_at_the_start(self) -> None:
        for number in range(50):
            self.kept(b"%d" % number * 2000)
        self.stop(self.spool)
        with open(self.directory / "spool.sqlite3", "r+b") as file:
            file.seek(8 * 4096)
            file.write(b"\xa5" * 4096 * 4)
        with self.assertRaisesRegex(SpoolError, "spool.sqlite3 is damaged: .*queue backup"):
            self.started()

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
        (bodies / "lost+found").mkdir()  # a folder is not ours, and no reason not to start
        self.spool = self.started()
        (bodies / "lost+found").rmdir()
        self.assertEqual(
            (2, 1, 1), (self.recovery.messages, self.recovery.half_received, self.recovery.orphans)
        )
        self.assertEqual((lost.queue_id,), self.recovery.missing)
        self.assertEqual([kept.queue_id], self.bodies())
        self.assertEqual([kept.queue_id], [stored.envelope.queue_id for stored in self.due()])
        self.restart()
        self.assertEqual((lost.queue_id,), self.recovery.missing)

    @proves("D2")
    def test_what_was_under_way(self) -> None:
        """Is named at the next start where it has not ended: what is held may be delivered later, too."""
        waiting, held, ended = self.kept(), self.kept(), self.kept()
        for queue_id in (waiting, held, ended):
            self.spool.underway.begin(queue_id)
        self.result(self.spool.hold(held, "by an operator", 1000.0))
        self.rows("DELETE FROM message WHERE queue_id = ?", ended)
        self.restart()
        self.assertEqual((waiting, held), self.recovery.underway)
        self.restart()
        self.assertEqual((), self.recovery.underway)

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


FAULTY_CHILD = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.spool.store import Spool
from tests.spooling import envelope

async def submit():
    spool = Spool(reactor, Path(sys.argv[1]))
    spool.start()
    while True:
        try:
            incoming = spool.receive("example.nl")
            incoming.write(b"x" * 100)
            await incoming.commit(envelope(incoming.queue_id))
        except Refused:
            os.kill(os.getpid(), signal.SIGKILL)
        print(incoming.queue_id, flush=True)

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(submit()).addErrback(lambda f: f.printTraceback()))
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

    @proves("M6", "D2")
    async def test_what_an_fsync_failed_for_does_not_come_back_after_a_crash(self) -> None:
        """The commit is whole in the log's file when its fsync fails; a recovery would find it there."""
        if shutil.which("strace") is None:
            raise SkipTest("strace is not installed")
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder) / "spool"
            schema.prepare(directory)
            schema.connect(directory).close()
            acknowledged = self.submit_until_refused(directory)
            spool = Spool(reactor, directory)
            spool.start()
            page = await spool.due(DueQuery(None, 1e12, 500, frozenset()))
            await spool.stop()
            self.assertEqual(acknowledged, [stored.envelope.queue_id for stored in page.messages])

    def submit_until_refused(self, directory: Path) -> list[str]:
        """Every fsync but the first few fails; returns what was acknowledged by then."""
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
        strace += ["-e", "inject=fdatasync:error=EIO:when=6+"]  # of each thread
        child = subprocess.run(
            [*strace, sys.executable, "-c", FAULTY_CHILD, str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
            timeout=60,
            check=False,
        )
        acknowledged = child.stdout.decode().split()
        if not acknowledged:
            raise SkipTest("strace may not trace here")
        return acknowledged

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
