import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool import schema
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.writer import Writer, rewrite
from tests.requirements import proves
from tests.spooling import PATIENCE, ThreadCalls


def insert(connection: sqlite3.Connection, values: Sequence[int]) -> list[int]:
    connection.executemany("INSERT INTO number VALUES (?)", [(value,) for value in values])
    return list(values)


def count(connection: sqlite3.Connection, asked: Sequence[None]) -> list[int]:
    return [connection.execute("SELECT count(*) FROM number").fetchone()[0]] * len(asked)


class WriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = ThreadCalls()
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.execute("CREATE TABLE number (value INTEGER PRIMARY KEY CHECK (value >= 0))")
        self.writer = Writer(self.threads, connection)
        self.results: list[object] = []
        self.blocked = threading.Event()
        self.addCleanup(self.blocked.set)

    def start(self) -> None:
        self.writer.start()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        stopped: list[object] = []
        self.writer.stop().addCallback(stopped.append)
        self.threads.run_until(lambda: bool(stopped))

    def submit(self, *values: int) -> None:
        for value in values:
            self.writer.submit(insert, value).addBoth(self.results.append)

    def wait(self, results: int) -> None:
        self.threads.run_until(lambda: len(self.results) >= results)

    def block(self, connection: sqlite3.Connection, asked: Sequence[None]) -> list[None]:
        self.blocked.wait(PATIENCE)
        return [None] * len(asked)

    @proves("M6")
    def test_what_arrives_during_a_commit_shares_the_next(self) -> None:
        self.start()
        self.writer.submit(self.block, None)
        self.submit(*range(100))
        self.blocked.set()
        self.wait(100)
        self.assertEqual(list(range(100)), self.results)
        self.assertLessEqual(self.writer.transactions, 2)

    def test_one_call_into_the_reactor_fires_a_whole_batch(self) -> None:
        self.submit(*range(50))
        self.start()
        self.wait(1)
        self.assertEqual(50, len(self.results))

    def test_a_failing_operation_takes_no_other_down(self) -> None:
        self.submit(1, -1, 2, 1, 3)
        self.start()
        self.wait(5)
        self.assertEqual([1, 2, 3], [result for result in self.results if isinstance(result, int)])
        for failed in (self.results[1], self.results[3]):
            failed.trap(sqlite3.IntegrityError)  # type: ignore[attr-defined]

    def test_reading_counts_as_no_transaction(self) -> None:
        self.writer.submit(count, None).addBoth(self.results.append)
        self.start()
        self.wait(1)
        self.assertEqual([0], self.results)
        self.assertEqual(0, self.writer.transactions)

    def test_stop_finishes_what_was_submitted(self) -> None:
        self.submit(*range(1000))
        self.start()
        self.stop()
        self.assertEqual(1000, len(self.results))
        self.failureResultOf(self.writer.submit(insert, 1), SpoolError)

    def test_a_cancelled_wait_does_no_harm(self) -> None:
        deferred = self.writer.submit(insert, 1)
        deferred.cancel()
        deferred.addErrback(lambda _: None)
        self.submit(2)
        self.start()
        self.wait(1)
        self.assertEqual([2], self.results)

    @proves("D2")
    def test_where_the_disk_does_not_take_all_the_new_ones_go_first(self) -> None:
        def fill(connection: sqlite3.Connection, values: Sequence[int]) -> list[int]:
            raise sqlite3.OperationalError("database or disk is full")

        for number in range(3):
            self.writer.submit(fill, number, new=True).addBoth(self.results.append)
            self.submit(number)
        self.start()
        self.wait(6)
        self.assertEqual({0, 1, 2}, {result for result in self.results if isinstance(result, int)})
        for result in self.results:
            if isinstance(result, Failure):
                result.trap(sqlite3.OperationalError)

    def test_a_disk_that_takes_nothing_is_asked_once_for_a_batch(self) -> None:
        asked: list[int] = []

        def broken(connection: sqlite3.Connection, values: Sequence[int]) -> list[int]:
            asked.append(len(values))
            raise sqlite3.OperationalError("disk I/O error")

        for number in range(100):
            self.writer.submit(broken, number).addBoth(self.results.append)
        self.start()
        self.wait(100)
        self.assertLessEqual(len(asked), 2)
        self.submit(1)
        self.wait(101)
        self.assertEqual(1, self.results[-1])

    def test_to_rewrite_is_to_write(self) -> None:
        """The probe is a real transaction, though it changes nothing."""
        with tempfile.TemporaryDirectory() as folder:
            schema.prepare(Path(folder))
            connection = schema.connect(Path(folder))
            log = Path(folder) / "spool.sqlite3-wal"
            before = log.stat().st_size
            connection.execute("BEGIN IMMEDIATE")
            rewrite(connection, [None])
            connection.execute("COMMIT")
            self.assertGreater(log.stat().st_size, before)
            self.assertEqual((schema.VERSION,), connection.execute("PRAGMA user_version").fetchone())
            connection.close()
