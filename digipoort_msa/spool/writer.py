"""Group commit: one thread owns the database, and takes the operations that have piled up together.

While one transaction is being committed (which is waiting for the disk), more operations arrive; the next
transaction takes them all.  So a lone message is committed at once, and a hundred at the price of one.
When it is durable, one call into the reactor fires all their Deferreds, in the order in which the
operations were run.

If an operation fails, the transaction is rolled back and each operation is tried in a transaction of its
own: only those that fail alone have failed.  If it is the disk that fails, the new messages of the batch have
failed, and the rest of it is tried once more without them: what becomes of the old ones is recorded as long
as anything can be written.

A COMMIT whose write or fsync failed has not happened, and must not happen later.  SQLite goes by its shared
index of the write-ahead log, which does not have the failed frames, and the next commit is written over
them, in full, with an fsync of its own; nothing ever builds on a page of which an fsync has failed.  But
they may be whole in the log's file, and a recovery after a crash, which reads that file, would take them for
a commit.  So the thread writes over them at once (a transaction that changes nothing), before anyone hears
of the failure.  To close the connection and open it anew would be that very recovery.  What remains: a
message that was refused with 4xx may still be delivered if the disk takes neither that write nor a later one
and the process then ends, or if the power fails just then.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from digipoort_msa.spool.disk import reply_to
from digipoort_msa.spool.schema import SpoolError

A = TypeVar("A")
R = TypeVar("R")
Operation = Callable[[sqlite3.Connection, Sequence[A]], Sequence[R]]

BATCH = 256  # operations in one transaction: with small bodies of 64 KiB, 16 MiB at most


@frozen(eq=False)
class _Request:
    operation: Operation[Any, Any]
    argument: Any
    new: bool
    deferred: "Deferred[Any]"


class Writer:
    """The thread that owns a spool's database connection."""

    def __init__(self, reactor: IReactorFromThreads, connection: sqlite3.Connection) -> None:
        self.transactions = 0  # how many were committed, for the tests and the benchmark
        self._reactor = reactor
        self._connection = connection
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._stopped: Deferred[None] | None = None
        self._begun = False  # the transaction under way
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, operation: "Operation[A, R]", argument: A, *, new: bool = False) -> "Deferred[R]":
        """Run an operation; the Deferred fires with its result when that is durable.

        :param new: it is a new message's: the first to go where the disk does not take all.
        """
        if self._stopped is not None:
            return fail(SpoolError("the spool has been stopped"))
        deferred: Deferred[R] = Deferred()
        self._requests.put(_Request(operation, argument, new, deferred))
        return deferred

    def stop(self) -> "Deferred[None]":
        """Finish what was submitted and close the connection."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._requests.put(None)
        return self._stopped

    def _work(self) -> None:
        running = True
        while running:
            batch = []
            request = self._requests.get()
            while request is not None:
                batch.append(request)
                if len(batch) == BATCH or self._requests.empty():
                    break
                request = self._requests.get()
            running = request is not None
            if batch:
                self._reactor.callFromThread(_fire, self._commit(batch))
        self._connection.close()
        self._reactor.callFromThread(self._stopped.callback, None)  # type: ignore[union-attr]

    def _commit(self, batch: Sequence[_Request]) -> "list[tuple[Deferred[Any], Any]]":
        try:
            return self._transaction(batch)
        except Exception as error:  # noqa: BLE001 -- whatever it is belongs to those who wait
            failure = Failure()
            begun = self._begun
            self._roll_back()
            if reply_to(error) is None:
                again = [[request] for request in batch] if len(batch) > 1 else []
            else:
                if begun:
                    self._write_over()
                others = [request for request in batch if not request.new]
                again = [others] if begun and 0 < len(others) < len(batch) else []
        tried_again = {id(request) for requests in again for request in requests}
        outcomes = [(request.deferred, failure) for request in batch if id(request) not in tried_again]
        return outcomes + [outcome for requests in again for outcome in self._commit(requests)]

    def _transaction(self, batch: Sequence[_Request]) -> "list[tuple[Deferred[Any], Any]]":
        groups: dict[Operation[Any, Any], list[_Request]] = {}
        for request in batch:
            groups.setdefault(request.operation, []).append(request)
        outcomes: list[tuple[Deferred[Any], Any]] = []
        self._begun = False
        self._connection.execute("BEGIN IMMEDIATE")
        self._begun = True
        before = self._connection.total_changes
        for operation, requests in groups.items():
            results = operation(self._connection, [request.argument for request in requests])
            outcomes += zip((request.deferred for request in requests), results, strict=True)
        changed = self._connection.total_changes != before
        self._connection.execute("COMMIT")
        self.transactions += changed
        return outcomes

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            self._connection.execute("ROLLBACK")

    def _write_over(self) -> None:
        """Put something else in the place of a commit that has failed."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            rewrite(self._connection, [None])
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()


def rewrite(connection: sqlite3.Connection, asked: Sequence[None]) -> list[None]:
    """Write to the database, and change nothing: the smallest proof that it can be written."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")
    return [None] * len(asked)


def _fire(outcomes: "list[tuple[Deferred[Any], Any]]") -> None:
    for deferred, result in outcomes:
        deferred.callback(result)  # a Failure starts the errbacks
