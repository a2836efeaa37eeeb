"""The spool: where a message is from its end of data until the core has it (M6, D2).

A message whose content is small lies whole in its row; larger content streams into a body file while it
arrives (``bodies``).  The 250 may be sent when ``commit`` has fired: the transaction that holds the row is
then on stable storage, and so, before it, was the file.  Messages that are committed together share one
transaction (``writer``).

What the disk does not take is refused with a 4xx and leaves nothing behind (``disk``).

One process works a spool, which a lock makes sure of; the operator's tools look in beside it
(``inspection``).
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.interfaces import IContent, IIntake
from digipoort_msa.smtp.envelope import Envelope
from digipoort_msa.spool import operations, schema, upkeep
from digipoort_msa.spool.bodies import Bodies, BodyFile, IncomingBody
from digipoort_msa.spool.content import content_of, in_row
from digipoort_msa.spool.disk import Disk
from digipoort_msa.spool.incoming import Incoming
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.recovery import Recovery, recover
from digipoort_msa.spool.rows import Attempt, DueMessages, DueQuery, Stored
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.underway import Underway
from digipoort_msa.spool.writer import Operation, Writer, rewrite

SMALL = 64 * 1024  # octets: content up to this size lies in its row
WATERMARK = 256 * 1024 * 1024  # octets: with less of the disk free no message is begun
LOOK = 1.0  # seconds between looks at the disk

#: Gives the sequence that the messages of a realm's account belong to; ``None``: to none.
Sequences = Callable[[str, str], str | None]


@implementer(IIntake)
class Spool:
    """The spool in one folder.

    :param reactor: for the results of the threads, and to look at the disk now and then.
    :param directory: the folder, made if it is missing.
    :param small: octets of content that are kept in the database; more goes to a file.
    :param io_threads: threads that write and read body files.
    :param watermark: octets of the disk; see ``disk``.
    :param sequences: which messages go one after the other; ``None``: none do.
    :param sealing: encrypts what is kept; ``None``: it is kept in clear.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        directory: Path,
        *,
        small: int = SMALL,
        io_threads: int = 4,
        watermark: int = WATERMARK,
        sequences: Sequences | None = None,
        sealing: Sealing | None = None,
        queue_ids: Callable[[], str] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.small = small
        self.underway: Underway  # from the start on
        self.arrived: Callable[[Stored], None] | None = None  # told of every message that is kept and due
        self._reactor = reactor
        self._sequences = sequences or (lambda realm, account: None)
        self._sealing = sealing
        self._queue_ids = queue_ids or QueueIds()
        self._pool = ThreadPool(minthreads=0, maxthreads=io_threads, name="spool-io")
        self._bodies = Bodies(self.directory / schema.BODIES)
        self._disk = Disk(self.directory, watermark)
        self._look = LoopingCall(self._look_at_the_disk)
        self._look.clock = cast(IReactorTime, reactor)
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
            recovery = recover(connection, self._bodies, self.directory)
            for queue_id in recovery.underway:
                log.emit(log.INTERRUPTED, queue_id=queue_id)
            for queue_id in recovery.removed:
                log.emit(log.REMOVED, queue_id=queue_id)
            self.underway = Underway(self.directory / schema.UNDERWAY)
            self._disk.measure()
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            raise SpoolError(f"the spool in {self.directory} cannot be used: {error}") from error
        except BaseException:
            os.close(self._lock)
            raise
        self._disk.tell()
        self._writer = Writer(self._reactor, connection)
        self._writer.start()
        self._pool.start()
        self._look.start(LOOK, now=False)
        return recovery

    def stop(self) -> "Deferred[None]":
        """Finish what was begun and let go of the folder; what comes later fails."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._writer is None:
            return
        if self._look.running:
            self._look.stop()
        await self._writer.stop()
        if self._lock is not None:
            self._pool.stop()
            self.underway.close()
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

    # -- the disk --------------------------------------------------------------------------------------

    def _look_at_the_disk(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._look_once()).addErrback(
            lambda failure: log.failure(log.DEFECT, failure, where="looking at the disk")
        )

    async def _look_once(self) -> None:
        try:
            await self._in_thread(self._disk.measure)
            self._disk.tell()
            if self._disk.writable:
                return
            await self._in_thread(self._disk.probe)
            await self._running.submit(rewrite, None)
        except (OSError, sqlite3.Error) as error:
            self._disk.failed(error)
        except SpoolError:  # it has been stopped
            return
        else:
            self._disk.came_back()

    def _submit(self, operation: "Operation[Any, Any]", argument: Any) -> "Deferred[Any]":
        return self._running.submit(operation, argument).addErrback(self._not_done)

    def _not_done(self, failure: Failure) -> Failure:
        self._disk.failed(failure.value)
        return failure

    def _not_kept(self, failure: Failure) -> Failure:
        refused = self._disk.failed(failure.value)
        if refused is None:
            return failure
        raise refused from failure.value

    # -- in: IIntake --------------------------------------------------------------------------------------

    def receive(self, realm: str) -> "Incoming":
        self._disk.check()
        return Incoming(self._queue_ids(), self.small, self._begin_body, self._keep, self._not_kept)

    def _begin_body(self, queue_id: str) -> IncomingBody:
        sealer = None if self._sealing is None else self._sealing.sealer(queue_id)
        return IncomingBody(BodyFile(self._bodies, queue_id, sealer), self._in_thread)

    def _keep(
        self, envelope: Envelope, size: int, eight_bit: bool, octets: bytes | None, digest: bytes | None
    ) -> "Deferred[str]":
        if octets is None:
            location = str(self._bodies.path(envelope.queue_id))
        else:
            content = in_row(envelope.queue_id, octets, self._sealing)
            octets, digest = content.octets, content.digest
            location = self._location
        stored = Stored(
            envelope,
            size,
            eight_bit,
            octets,
            since=envelope.received_at,
            sequence=self._sequences(envelope.realm, envelope.account),
            digest=digest,
            sealed_by=None if self._sealing is None else self._sealing.name,
        )
        kept = self._running.submit(self._insert, stored, new=True)
        kept.addCallbacks(self._kept, self._not_kept, callbackArgs=(stored,))
        return kept.addCallback(lambda _: location)

    def _insert(self, connection: sqlite3.Connection, messages: Sequence[Stored]) -> list[bool]:
        """``operations.insert``, where there is room; in the database's thread."""
        self._disk.require(sum(len(message.octets) for message in messages if message.octets is not None))
        return operations.insert(connection, messages)

    def _kept(self, due: bool, stored: Stored) -> None:
        if due and self.arrived is not None:
            self.arrived(stored)

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    # -- out: for the queue ------------------------------------------------------------------------------

    def content(self, stored: Stored) -> IContent:
        """The content of a message that ``due``, ``wished`` or ``arrived`` gave."""
        return content_of(stored, self._bodies, self._sealing, self._in_thread)

    def due(self, query: DueQuery) -> "Deferred[DueMessages]":
        """What a realm's queue has to try."""
        return self._submit(operations.due, query)

    def forget(self, stored: Stored) -> "Deferred[None]":
        """Every recipient has been delivered, and no other keeps the message here."""
        forgotten = self._submit(operations.forget, stored)
        if stored.octets is not None:
            return forgotten
        return forgotten.addCallback(lambda _: self._remove([stored.envelope.queue_id]))

    def record(self, stored: Stored, attempt: Attempt) -> "Deferred[None]":
        """Record an attempt to deliver ``stored``, and keep its notification; fires when that is durable.

        The notification's content is given in clear, without a digest.
        """
        return Deferred.fromCoroutine(self._record(stored, attempt))

    async def _record(self, stored: Stored, attempt: Attempt) -> None:
        notification = attempt.notification
        if notification is not None:
            notification = self._in_row(notification)
            attempt = evolve(attempt, notification=notification)
        recorded: operations.Recorded = await self._submit(operations.record, attempt)
        if recorded.notified and notification is not None:
            self._kept(True, notification)
        if recorded.gone and stored.octets is None:
            await self._remove([attempt.queue_id])

    def _in_row(self, stored: Stored) -> Stored:
        content = in_row(stored.envelope.queue_id, stored.octets or b"", self._sealing)
        return evolve(stored, octets=content.octets, digest=content.digest, sealed_by=content.sealed_by)

    def hold(self, queue_id: str, reason: str, now: float) -> "Deferred[None]":
        """Try a message no more until an operator says so: it is damaged, say."""
        return self._submit(operations.hold, (queue_id, reason))

    def hold_realm(self, realm: str, reason: str) -> "Deferred[None]":
        """Try nothing of a realm more until an operator says so."""
        return Deferred.fromCoroutine(self._hold_realm(realm, reason))

    async def _hold_realm(self, realm: str, reason: str) -> None:
        after, more = "", True
        while more:
            held: list[str] = await self._submit(upkeep.hold_realm, (realm, reason, after))
            after, more = max(held, default=after), len(held) == upkeep.AT_ONCE

    def flush(self, realm: str, now: float) -> "Deferred[int]":
        """Every deferred message of a realm is due now; fires with their number."""
        return Deferred.fromCoroutine(self._flush(realm, now))

    async def _flush(self, realm: str, now: float) -> int:
        flushed = piece = 0
        while flushed == 0 or piece == upkeep.AT_ONCE:
            piece = await self._submit(upkeep.flush, (realm, now))
            flushed += piece
            if not piece:
                break
        return flushed

    def wished(self, held: frozenset[str]) -> "Deferred[tuple[list[str], tuple[Stored, ...]]]":
        """Carry out what operators wish of the messages that are not in ``held``, a piece of it.

        :return: the ids of those that are removed now, of which fewer than ``upkeep.AT_ONCE`` were the last;
            and then some of those to be returned, with all of their unfinished recipients, which stay until
            ``record`` has been told their end (then there may be more).
        """
        return Deferred.fromCoroutine(self._wished(held))

    async def _wished(self, held: frozenset[str]) -> tuple[list[str], tuple[Stored, ...]]:
        removed: list[str] = await self._submit(upkeep.purge, held)
        await self._remove(removed)
        if len(removed) == upkeep.AT_ONCE:
            return removed, ()
        return removed, await self._submit(upkeep.returns, held)

    def realms(self) -> "Deferred[dict[str, int]]":
        """How many messages each realm has here."""
        return self._submit(upkeep.realms, None)

    def data_version(self) -> "Deferred[int]":
        """Changes when another process has changed the spool."""
        return self._submit(upkeep.data_version, None)

    def _remove(self, queue_ids: Sequence[str]) -> "Deferred[None]":
        # The messages are gone already; a file that stays behind is swept out at the next start.
        return self._in_thread(self._remove_files, queue_ids)

    def _remove_files(self, queue_ids: Sequence[str]) -> None:
        for queue_id in queue_ids:
            try:
                self._bodies.remove(queue_id)
            except OSError:
                _left_behind(Failure(), queue_id)


def _left_behind(failure: Failure, queue_id: str) -> None:
    log.failure(log.DEFECT, failure, where=f"removing the body file of {queue_id}")
