"""The spool: where a message is from its end of data until the core has it (M6, D2).

A message whose content is small lies whole in its row; larger content streams into a body file while it
arrives (``bodies``).  The 250 may be sent when ``commit`` has fired: the transaction that holds the row is
then on stable storage, and so, before it, was the file.  Messages that are committed together share one
transaction (``writer``).

A disk that is nearly full takes no new message: on a full one nothing could be recorded either, so that no
message would ever go, and each restart would deliver some of them again.

One process works a spool, which a lock makes sure of; the operator's tools look in beside it
(``inspection``).
"""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.interfaces import IContent, IIncoming, IIntake
from digipoort_msa.smtp.envelope import Envelope, RcptParameters
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.spool import operations, schema
from digipoort_msa.spool.bodies import Bodies, BodyFile, IncomingBody
from digipoort_msa.spool.content import FileContent, SmallContent
from digipoort_msa.spool.operations import Attempt, DueMessages, DueQuery, Stored
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.writer import Writer

SMALL = 64 * 1024  # octets: content up to this size lies in its row
RESERVE = 64 * 1024 * 1024  # octets of the disk that new messages leave free


@frozen
class Recovery:
    """What a start found."""

    messages: int  # in the spool
    half_received: int  # files of messages that were never acknowledged, removed
    orphans: int  # body files of messages that had been delivered, removed
    missing: tuple[str, ...]  # queue ids whose body file is not there: kept, marked, not tried


@implementer(IIntake)
class Spool:
    """The spool in one folder.

    :param reactor: for the results of the threads.
    :param directory: the folder, made if it is missing.
    :param small: octets of content that are kept in the database; more goes to a file.
    :param io_threads: threads that write and read body files.
    :param reserve: octets of the disk that new messages leave free, for recording what becomes of the old.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        directory: Path,
        *,
        small: int = SMALL,
        io_threads: int = 4,
        reserve: int = RESERVE,
        queue_ids: Callable[[], str] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.small = small
        self.arrived: Callable[[Stored], None] | None = None  # told of every message that is kept
        self._reactor = reactor
        self._reserve = reserve
        self._queue_ids = queue_ids or QueueIds()
        self._pool = ThreadPool(minthreads=0, maxthreads=io_threads, name="spool-io")
        self._bodies = Bodies(self.directory / schema.BODIES)
        self._location = str(self.directory / schema.DATABASE)
        self._lock: int | None = None
        self._writer: Writer | None = None

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> Recovery:
        """Open the spool and mend what a crash has left; blocks, and is called before anything is served
        (after twistd has forked).

        :raise SpoolError: the spool cannot be used.
        """
        schema.prepare(self.directory)
        self._lock = schema.lock(self.directory, wait=2.0)
        if self._lock is None:
            raise SpoolError(f"the spool in {self.directory} is in use by another process")
        try:
            connection = schema.connect(self.directory)
            recovery = _recover(connection, self._bodies)
        except BaseException:
            os.close(self._lock)
            raise
        self._writer = Writer(self._reactor, connection)
        self._writer.start()
        self._pool.start()
        return recovery

    def stop(self) -> "Deferred[None]":
        """Finish what was begun and let go of the folder; what comes later fails."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._writer is None:
            return
        await self._writer.stop()
        if self._lock is not None:
            self._pool.stop()
            os.close(self._lock)
            self._lock = None

    @property
    def transactions(self) -> int:
        """How many transactions have been committed since the start."""
        return self._running.transactions

    @property
    def _running(self) -> Writer:
        if self._writer is None:
            raise SpoolError("the spool has not been started")
        return self._writer

    # -- in: IIntake --------------------------------------------------------------------------------------

    def receive(self, realm: str) -> "Incoming":
        return Incoming(self, self._queue_ids())

    def _keep(self, stored: Stored) -> "Deferred[None]":
        return self._running.submit(self._insert, stored).addCallback(self._kept, stored)

    def _insert(self, connection: sqlite3.Connection, messages: Sequence[Stored]) -> list[None]:
        """``operations.insert``, where there is room; in the database's thread."""
        disk = os.statvfs(self.directory)
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve + sum(message.size for message in messages if message.octets is not None):
            raise OSError(
                errno.ENOSPC,
                f"{free} octets are free and {self._reserve} are kept for recording deliveries: free some",
                str(self.directory),
            )
        return operations.insert(connection, messages)

    def _kept(self, _: None, stored: Stored) -> None:
        if self.arrived is not None:
            self.arrived(stored)

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    # -- out: for the queue ------------------------------------------------------------------------------

    def content(self, stored: Stored) -> IContent:
        """The content of a message that ``due`` or ``arrived`` gave."""
        if stored.octets is not None:
            return SmallContent(stored.octets, stored.eight_bit)
        path = self._bodies.path(stored.envelope.queue_id)
        return FileContent(path, stored.size, stored.eight_bit, self._in_thread)

    def due(self, query: DueQuery) -> "Deferred[DueMessages]":
        return self._running.submit(operations.due, query)

    def forget(self, stored: Stored) -> "Deferred[None]":
        """Every recipient has been delivered, and no other keeps the message here."""
        queue_id = stored.envelope.queue_id
        forgotten = self._running.submit(operations.forget, queue_id)
        return forgotten if stored.octets is not None else forgotten.addCallback(self._remove, queue_id)

    def record(self, stored: Stored, attempt: Attempt) -> "Deferred[None]":
        """Record an attempt to deliver ``stored``; fires when that is durable."""
        gone = self._running.submit(operations.record, attempt)
        has_file = stored.octets is None
        return gone.addCallback(
            lambda gone: self._remove(None, attempt.queue_id) if gone and has_file else None
        )

    def purge(self, held: frozenset[str]) -> "Deferred[list[str]]":
        """Remove what an operator wants removed, but for ``held``; fires with the queue ids."""
        return self._running.submit(operations.purge, held).addCallback(self._remove_all)

    def data_version(self) -> "Deferred[int]":
        """Changes when another process has changed the spool."""
        return self._running.submit(operations.data_version, None)

    def _remove(self, _: None, queue_id: str) -> "Deferred[None]":
        # The message is gone already; a file that stays behind is swept out at the next start.
        return self._in_thread(self._bodies.remove, queue_id).addErrback(_left_behind, queue_id)

    async def _removed(self, queue_ids: list[str]) -> list[str]:
        for queue_id in queue_ids:
            await self._remove(None, queue_id)
        return queue_ids

    def _remove_all(self, queue_ids: list[str]) -> "Deferred[list[str]]":
        return Deferred.fromCoroutine(self._removed(queue_ids))


@implementer(IIncoming)
class Incoming:
    """A message on its way in."""

    def __init__(self, spool: Spool, queue_id: str) -> None:
        self.queue_id = queue_id
        self.size = 0
        self.eight_bit = False
        self._spool = spool
        self._octets = bytearray()  # as long as the content is small
        self._body: IncomingBody | None = None  # from then on
        self._spent = False

    def sender(self, envelope: Envelope) -> None:
        """The spool takes them all."""

    def recipient(self, path: MailPath, parameters: RcptParameters) -> None:
        """The spool takes them all."""

    def write(self, octets: bytes) -> "Deferred[None] | None":
        if self._spent:
            return None
        self.size += len(octets)
        self.eight_bit = self.eight_bit or not octets.isascii()
        if self._body is not None:
            return self._body.write(octets)
        self._octets += octets
        if self.size <= self._spool.small:
            return None
        file = BodyFile(self._spool._bodies, self.queue_id)
        self._body = IncomingBody(file, self._spool._in_thread)
        begun, self._octets = bytes(self._octets), bytearray()
        return self._body.write(begun)

    def commit(self, envelope: Envelope) -> "Deferred[str]":
        if self._spent:
            raise ValueError(f"{self.queue_id} has been committed or aborted")
        if envelope.queue_id != self.queue_id:
            raise ValueError(f"the envelope of {envelope.queue_id} was given to {self.queue_id}")
        self._spent = True
        octets = bytes(self._octets) if self._body is None else None
        stored = Stored(envelope, self.size, self.eight_bit, octets, since=envelope.received_at)
        if self._body is None:
            return self._spool._keep(stored).addCallback(lambda _: self._spool._location)
        return Deferred.fromCoroutine(self._commit_body(self._body, stored))

    async def _commit_body(self, body: IncomingBody, stored: Stored) -> str:
        await body.keep()
        try:
            await self._spool._keep(stored)
        except BaseException:
            await body.discard()
            raise
        return str(self._spool._bodies.path(self.queue_id))

    def abort(self) -> None:
        if not self._spent:
            self._spent = True
            self._octets.clear()
            if self._body is not None:
                self._body.discard().addErrback(_left_behind, self.queue_id)


def _left_behind(failure: Failure, queue_id: str) -> None:
    log.failure(log.DEFECT, failure, where=f"removing the body file of {queue_id}")


def _recover(connection: sqlite3.Connection, bodies: Bodies) -> Recovery:
    """Bring rows and files into agreement again, and drop what was to be removed.

    Nothing needs doing for a message that was being delivered: that it was is known to the process alone,
    so its row says that it is due."""
    half_received = bodies.sweep()
    connection.execute("BEGIN IMMEDIATE")
    operations.purge(connection, [frozenset()])
    operations.mark_missing(connection, bodies.exists)
    operations.unmark_found(connection, bodies.exists, time.time())
    connection.execute("COMMIT")
    orphans = 0
    for queue_id in bodies.names():
        if not operations.has_file(connection, queue_id):
            bodies.remove(queue_id)
            orphans += 1
    (messages,) = connection.execute("SELECT count(*) FROM message").fetchone()
    missing = connection.execute("SELECT queue_id FROM message WHERE missing = 1 ORDER BY queue_id")
    return Recovery(messages, half_received, orphans, tuple(queue_id for (queue_id,) in missing))
