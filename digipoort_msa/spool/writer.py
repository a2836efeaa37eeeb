"""Group commit: one thread owns the database, and takes the operations that have piled up together.

While one transaction is being committed (which is waiting for the disk), more operations arrive; the next
transaction takes them all.  So a lone message is committed at once, and a hundred at the price of one.
When it is durable, one call into the reactor fires all their Deferreds, in the order in which the
operations were run.

If an operation fails, the transaction is rolled back and each operation is tried in a transaction of its
own: only those that fail alone have failed.
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

from digipoort_msa.spool.schema import SpoolError

A = TypeVar("A")
R = TypeVar("R")
Operation = Callable[[sqlite3.Connection, Sequence[A]], Sequence[R]]

BATCH = 256  # operations in one transaction: with small bodies of 64 KiB, 16 MiB at most


@frozen(eq=False)
class _Request:
    operation: Operation[Any, Any]
    argument: Any
    deferred: "Deferred[Any]"


class Writer:
    """The thread that owns a spool's database connection."""

    def __init__(self, reactor: IReactorFromThreads, connection: sqlite3.Connection) -> None:
        self.transactions = 0  # how many were committed, for the tests and the benchmark
        self._reactor = reactor
        self._connection = connection
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._stopped: Deferred[None] | None = None
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, operation: "Operation[A, R]", argument: A) -> "Deferred[R]":
        """Run an operation; the Deferred fires with its result when that is durable."""
        if self._stopped is not None:
            return fail(SpoolError("the spool has been stopped"))
        deferred: Deferred[R] = Deferred()
        self._requests.put(_Request(operation, argument, deferred))
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
        groups: dict[Operation[Any, Any], list[_Request]] = {}
        for request in batch:
            groups.setdefault(request.operation, []).append(request)
        outcomes: list[tuple[Deferred[Any], Any]] = []
        begun = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            begun = True
            before = self._connection.total_changes
            for operation, requests in groups.items():
                results = operation(self._connection, [request.argument for request in requests])
                outcomes += zip((request.deferred for request in requests), results, strict=True)
            changed = self._connection.total_changes != before
            self._connection.execute("COMMIT")
            self.transactions += changed
        except Exception:  # noqa: BLE001 -- whatever it is belongs to those who wait
            failure = Failure()
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                self._connection.execute("ROLLBACK")
            if begun and len(batch) > 1:
                return [outcome for request in batch for outcome in self._commit([request])]
            return [(request.deferred, failure) for request in batch]
        return outcomes


def _fire(outcomes: "list[tuple[Deferred[Any], Any]]") -> None:
    for deferred, result in outcomes:
        deferred.callback(result)  # a Failure starts the errbacks
