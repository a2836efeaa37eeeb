"""What is known of logins, over restarts of the MSA."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.accounts import ledger as ledger_module
from digipoort_msa.accounts.ledger import DATABASE, Changes, Ledger, LedgerError, Wish
from digipoort_msa.accounts.logins import INTERVAL, Logins
from digipoort_msa.accounts.throttle import Kind, Throttle
from digipoort_msa.accounts.usage import Usage
from digipoort_msa.interfaces import Throttled
from tests.account_doubles import Inline
from tests.msa import _Events
from tests.requirements import proves

LIMITS = {"per_account_and_source": 3, "per_source": 5, "per_account": 8, "window": 80.0, "trust_for": 1000.0}
NOON = 1_700_000_000.0


class OneThread(Inline):
    def stop(self):
        """Nothing runs."""


class LoginsTestCase(_Events, SynchronousTestCase):
    def setUp(self):
        self.collect_events()
        self.directory = Path(self.mktemp())
        self.wall = Clock()
        self.wall.advance(NOON)
        self.start()

    def start(self):
        """A fresh process: its clock begins anew."""
        self.clock = Clock()
        self.throttle = Throttle(self.clock.seconds, **LIMITS)
        self.usage = Usage(self.wall.seconds)
        self.logins = Logins(
            self.throttle,
            self.usage,
            self.directory,
            self.clock,
            now=self.wall.seconds,
            threads=OneThread(),
        )
        self.logins.start()
        self.addCleanup(self.logins.stop)

    def kill(self):
        """What SIGKILL leaves: the files as they are, the journal among them, and no lock."""
        left = Path(self.mktemp())
        shutil.copytree(self.directory, left)
        if self.logins._ledger is not None:
            self.logins._ledger.close()
            self.logins._ledger = None
        self.directory = left

    def advance(self, seconds):
        self.wall.advance(seconds)
        self.clock.advance(seconds)

    def fail_times(self, times, name="piet", source="192.0.2.1"):
        for _ in range(times):
            attempt = self.throttle.attempt("one.nl", name, source)
            attempt.admit()
            attempt.failed()

    def log_in(self, name="piet", source="192.0.2.1", mechanism="PLAIN"):
        self.throttle.attempt("one.nl", name, source).succeeded()
        self.usage.succeeded("one.nl", name, mechanism, source)

    def wait(self, name="piet", source="192.0.2.1"):
        """Seconds until an attempt is looked at."""
        try:
            self.throttle.attempt("one.nl", name, source).admit()
        except Throttled as throttled:
            return throttled.retry_after
        return 0


@proves("A8")
class RestartTests(LoginsTestCase):
    def test_an_orderly_stop_keeps_all(self):
        self.fail_times(3)
        self.log_in("jan", "192.0.2.7")
        self.logins.stop()
        self.wall.advance(5)
        self.start()
        self.assertAlmostEqual(self.wait(), 80 / 3 - 5, places=3)
        for number in range(8):
            self.fail_times(1, "jan", f"10.0.{number}.1")
        self.assertEqual(self.wait("jan", "192.0.2.7"), 0)
        self.assertGreater(self.wait("jan", "192.0.2.8"), 0)

    def test_every_kind_is_kept(self):
        self.fail_times(3)
        self.log_in("jan", "2001:db8::1")
        before = {kind: list(record.current()) for kind, record in self.throttle.records.items()}
        self.assertTrue(all(before.values()))
        self.logins.stop()
        self.start()
        after = {kind: list(record.current()) for kind, record in self.throttle.records.items()}
        self.assertEqual(before, after)

    def test_a_killed_process_loses_a_second(self):
        self.fail_times(2)
        self.advance(INTERVAL)
        self.fail_times(1)
        self.kill()
        self.start()
        self.assertEqual(self.wait(), 0)
        self.fail_times(1)
        self.assertGreater(self.wait(), 0)

    def test_time_passes_meanwhile(self):
        self.fail_times(3)
        self.logins.stop()
        self.wall.advance(80)
        self.start()
        self.assertEqual(
            {kind: len(counts) for kind, counts in self.throttle.counts.items() if len(counts)}, {}
        )
        with closing(sqlite3.connect(self.directory / DATABASE)) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM standing").fetchone(), (0,))

    def test_a_clock_that_is_set_back(self):
        """A day, while the MSA is down: nobody waits longer than a whole window, no trust is longer."""
        self.fail_times(3)
        self.log_in("jan", "192.0.2.7")
        self.logins.stop()
        self.wall.rightNow -= 86_400
        self.start()
        self.assertAlmostEqual(self.wait(), 80 / 3, places=3)
        self.assertAlmostEqual(self.throttle.trust.remaining(("one.nl", "jan", "192.0.2.7")), 1000)

    def test_a_clock_that_is_set_back_while_it_runs(self):
        self.fail_times(3)
        self.advance(2)
        self.wall.rightNow -= 86_400
        self.assertAlmostEqual(self.wait(), 80 / 3 - 2)

    def test_other_limits(self):
        """A window that has become shorter holds for what was counted before."""
        self.fail_times(3)
        self.logins.stop()
        self.throttle = Throttle(self.clock.seconds, **{**LIMITS, "window": 30.0})
        logins = Logins(
            self.throttle, self.usage, self.directory, self.clock, now=self.wall.seconds, threads=OneThread()
        )
        logins.start()
        self.addCleanup(logins.stop)
        self.assertAlmostEqual(self.wait(), 10)

    def test_more_than_there_is_room_for(self):
        rows = [(Kind.SOURCE, ("", "", f"10.0.0.{number}"), NOON + 50 + number) for number in range(100)]
        assert self.logins._ledger is not None
        self.logins._ledger.exchange(Changes(rows))
        self.kill()
        self.patch(ledger_module, "_PATIENCE", 0)
        throttle = Throttle(self.clock.seconds, entries=10, strangers=0, **LIMITS)
        logins = Logins(
            throttle, self.usage, self.directory, self.clock, now=self.wall.seconds, threads=OneThread()
        )
        logins.start()
        self.addCleanup(logins.stop)
        self.assertEqual(len(throttle.counts[Kind.SOURCE]), 10)
        self.assertGreater(throttle.counts[Kind.SOURCE].remaining(("", "", "10.0.0.99")), 0)

    def test_written_only_what_has_changed(self):
        assert self.logins._ledger is not None
        self.fail_times(1)
        self.advance(INTERVAL)
        written = []
        self.patch(self.logins._ledger, "_write", written.append)
        self.advance(10 * INTERVAL)
        self.assertEqual(written, [])
        self.log_in("jan", "192.0.2.1")
        self.advance(INTERVAL)
        (changes,) = written
        self.assertEqual([kind for kind, _, _ in changes.standing], [Kind.TRUSTED])
        self.assertEqual(list(changes.usage), [("one.nl", "jan", "PLAIN")])


class FaultTests(LoginsTestCase):
    """Nobody who logs in waits for the ledger, or is refused for its sake."""

    def test_a_damaged_file(self):
        self.logins.stop()
        (self.directory / DATABASE).write_bytes(b"no database" * 1000)
        self.start()
        self.fail_times(3)
        self.assertGreater(self.wait(), 0)
        self.advance(60)
        (event,) = self.events("ledger-unusable")
        self.assertIn("stop the MSA and move it away", event["reason"])

    def test_rows_that_make_no_sense(self):
        assert self.logins._ledger is not None
        self.logins._ledger._connection.execute(
            "INSERT INTO standing VALUES ('source', '', '', '192.0.2.1', 'soon')"
        )
        self.kill()
        self.start()
        (event,) = self.events("ledger-unusable")
        self.assertRegex(event["reason"], "makes no sense .*: stop the MSA and move it away")
        self.assertEqual(self.wait(), 0)

    def test_another_msa_has_it(self):
        self.patch(ledger_module, "_PATIENCE", 0)
        self.start()
        (event,) = self.events("ledger-unusable")
        self.assertIn("another MSA works with", event["reason"])

    def test_it_cannot_be_written_for_a_while(self):
        ledger = self.logins._ledger
        assert ledger is not None
        write = ledger._write

        def full(changes):
            raise sqlite3.OperationalError("database or disk is full")

        self.patch(ledger, "_write", full)
        self.fail_times(2)
        self.log_in("jan")
        self.advance(INTERVAL)
        self.advance(30)
        (event,) = self.events("ledger-unusable")
        self.assertIn("disk is full", event["reason"])
        self.patch(ledger, "_write", write)
        self.log_in("jan")
        self.advance(30)
        self.assertEqual(len(self.events("ledger-usable")), 1)
        self.kill()
        self.start()
        self.assertGreater(self.throttle.trust.remaining(("one.nl", "jan", "192.0.2.1")), 0)
        assert self.logins._ledger is not None
        (use,) = self.logins._ledger.usage("one.nl").values()
        self.assertEqual((use.logins, use.first, use.last), (2, NOON, NOON + 31))

    def test_our_own_defect(self):
        assert self.logins._ledger is not None
        self.patch(self.logins._ledger, "exchange", lambda changes: 1 / 0)
        self.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.wait(), 0)
        self.patch(self.logins._ledger, "exchange", lambda changes: [])

    def test_the_last_write_fails(self):
        def full(changes):
            raise LedgerError("full")

        ledger = self.logins._ledger
        assert ledger is not None
        self.patch(ledger, "exchange", full)
        self.logins.stop()
        self.assertEqual(len(self.events("ledger-unusable")), 1)

    def test_a_million_sources_that_nothing_is_written_of(self):
        """Memory stays bounded where the ledger cannot follow."""
        self.kill()
        throttle = Throttle(self.clock.seconds, entries=10, strangers=0)
        for number in range(1000):
            attempt = throttle.attempt("one.nl", f"name{number}", f"10.0.{number % 250}.{number // 250}")
            attempt.failed()
        for record in throttle.counts.values():
            self.assertLessEqual(len(record._changed or ()), 20)


class WishTests(LoginsTestCase):
    def test_carried_out(self):
        self.fail_times(3)
        self.fail_times(3, "jan", "10.0.0.1")
        self.advance(INTERVAL)
        with closing(Ledger(self.directory, working=False)) as command:
            number = command.leave(Wish("one.nl", "piet"))
            self.advance(INTERVAL)
            self.assertEqual(command.outcome(number), 2)
            self.assertEqual(command.matching(Wish("one.nl", "piet")), [])
        self.assertEqual(self.wait(), 0)
        self.assertGreater(self.wait("jan", "10.0.0.1"), 0)
        (event,) = self.events("throttle-cleared")
        self.assertEqual(event["cleared"], 2)

    def test_left_by_one_while_no_msa_ran(self):
        self.fail_times(3)
        self.logins.stop()
        with closing(Ledger(self.directory, working=False)) as command:
            command.leave(Wish())
        self.start()
        self.advance(0)
        self.assertEqual(self.wait(), 0)


class ThreadTests(_Events, TestCase):
    """With a real thread, and the real clocks."""

    async def test_beside_the_reactor(self):
        self.collect_events()
        directory = Path(self.mktemp())
        throttle = Throttle(reactor.seconds)
        logins = Logins(throttle, Usage(reactor.seconds), directory, reactor)
        logins.start()
        throttle.attempt("one.nl", "piet", "192.0.2.1").failed()
        with closing(Ledger(directory, working=False)) as command:
            while not list(command.standing(Kind.PAIR)):
                await deferLater(reactor, 0.01)
            throttle.attempt("one.nl", "jan", "192.0.2.1").failed()
            logins.stop()
            self.assertEqual(len(list(command.standing(Kind.PAIR))), 2)
        self.assertEqual(self.events("ledger-unusable"), [])
