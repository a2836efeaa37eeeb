"""The queues of all realms over one spool: each has what is its own, so that a realm whose way out hangs
holds up no other.

Once a second they look around: for what has come due, and for what another process (``digipoort-msa queue``)
has changed.  What operators want done to a message, its removal or its return, is done here while the message
is not being delivered: at once, or after the attempt that is under way.
"""

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.spool.disk import reply_to
from digipoort_msa.spool.queue import Queue
from digipoort_msa.spool.rows import Stored
from digipoort_msa.spool.store import Spool
from digipoort_msa.spool.upkeep import AT_ONCE
from digipoort_msa.spool.verdicts import not_returned

LOOK = 1.0  # seconds between looks


class Queues:
    """Every realm's queue.

    :param clock: the reactor.
    :param queues: one for each realm that is configured.
    :param now: as for a :class:`Queue`.
    """

    def __init__(
        self,
        spool: Spool,
        clock: IReactorTime,
        queues: Iterable[Queue],
        *,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._spool = spool
        self._now = now or clock.seconds
        self._queues = {queue.realm: queue for queue in queues}
        self._running = False
        self._version: int | None = None  # of the spool, when it was last looked at
        self._wishes = True  # there may be some; a crash leaves them
        self._awaited: frozenset[str] = frozenset()  # was active when there were wishes: of it, perhaps
        self._carrying_out: Deferred[None] | None = None
        self._look = LoopingCall(self._look_around)
        self._look.clock = clock

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what is due; the spool has been started."""
        self._running = True
        self._spool.arrived = self._arrived
        for queue in self._queues.values():
            queue.start()
        self._look.start(LOOK, now=True)
        self._watched(Deferred.fromCoroutine(self._hold_unknown_realms()), "holding what is of no realm")

    def stop(self) -> "Deferred[None]":
        """Take no more; fires when every queue has stopped (:meth:`Queue.stop`)."""
        if not self._running:
            return succeed(None)
        self._running = False
        self._spool.arrived = None
        self._look.stop()
        stopped = gatherResults([queue.stop() for queue in self._queues.values()])
        if self._carrying_out is not None:  # which has the queues resume: they have been stopped by now
            self._carrying_out.cancel()
        return stopped.addCallback(lambda _: None)

    @property
    def active(self) -> int:
        """How many messages are being delivered now."""
        return len(self._active())

    def flush(self, realm: str) -> None:
        """Try a realm's deferred messages now: its way out is open again."""
        if self._running and realm in self._queues:
            flushed = Deferred.fromCoroutine(self._queues[realm].flush())
            self._watched(flushed, f"flushing the queue of {realm}")

    async def _hold_unknown_realms(self) -> None:
        """What nothing would ever try is an operator's to decide: no message waits for ever."""
        for realm, messages in sorted((await self._spool.realms()).items()):
            if realm not in self._queues:
                await self._spool.hold_realm(realm, f"its realm {realm} is not configured")
                log.emit(log.REALM_UNKNOWN, realm=realm, messages=messages)

    def _arrived(self, stored: Stored) -> None:
        queue = self._queues.get(stored.envelope.realm)
        if queue is not None:
            queue.arrived(stored)

    def _active(self) -> frozenset[str]:
        return frozenset().union(*(queue.active for queue in self._queues.values()))

    # -- looking ---------------------------------------------------------------------------------------

    def _look_around(self) -> "Deferred[None]":
        looked = Deferred.fromCoroutine(self._look_for_changes())
        return self._watched(looked, "looking at the queues")

    async def _look_for_changes(self) -> None:
        version = await self._spool.data_version()
        changed = self._version is not None and version != self._version
        self._version = version
        for realm, queue in self._queues.items():  # none waits for another
            self._watched(Deferred.fromCoroutine(queue.look(changed)), f"looking at the queue of {realm}")
        active = self._active()
        if changed:
            self._wishes, self._awaited = True, active
        elif not self._awaited <= active:
            self._wishes, self._awaited = True, self._awaited & active
        if self._wishes and self._carrying_out is None and self._running:
            self._carry_out()

    def _watched(self, deferred: "Deferred[None]", where: str) -> "Deferred[None]":
        return deferred.addErrback(self._failed, where)

    def _failed(self, failure: Failure, where: str) -> None:
        if self._running:
            log.failure(log.DEFECT, failure, where=where)

    # -- operators' wishes -----------------------------------------------------------------------------

    def _carry_out(self) -> None:
        """Begin with what is wished; nobody waits for it, since a notification may take its time."""
        self._wishes = False
        self._carrying_out = Deferred.fromCoroutine(self._carry_out_all())
        self._carrying_out.addBoth(self._carried_out)

    def _carried_out(self, result: object) -> None:
        self._carrying_out = None
        if isinstance(result, Failure):
            self._wishes = True  # the next look tries again
            if not result.check(CancelledError):
                self._failed(result, "removing and returning messages")

    async def _carry_out_all(self) -> None:
        done: set[str] = set()
        more = True
        while more:
            removed, to_return = await self._wished(done)
            for stored in to_return:
                done.add(stored.envelope.queue_id)
                await self._give_back(stored)
            more = bool(to_return) or len(removed) == AT_ONCE

    async def _wished(self, done: Iterable[str]) -> tuple[Sequence[str], Sequence[Stored]]:
        """Have a piece removed of what is to be removed, and say what is to be returned, as far as it is not
        active.

        Nothing becomes active meanwhile: it might lose its content while it is being delivered."""
        queues = self._queues.values()
        for queue in queues:
            queue.pause()
        try:
            removed, to_return = await self._spool.wished(self._active().union(done))
            for queue in queues:
                queue.drop([*removed, *(stored.envelope.queue_id for stored in to_return)])
        finally:
            for queue in queues:
                queue.resume()
        for queue_id in removed:
            log.emit(log.REMOVED, queue_id=queue_id)
        return removed, to_return

    async def _give_back(self, stored: Stored) -> None:
        try:
            await self._given_back(stored)
        except Exception as error:
            if isinstance(error, CancelledError) or reply_to(error) is not None:  # it can be done later
                raise
            # A defect: it would be the same the next time, and must not keep others from being returned.
            self._failed(Failure(), f"returning {stored.envelope.queue_id}")

    async def _given_back(self, stored: Stored) -> None:
        realm = stored.envelope.realm
        if realm in self._queues:
            await self._queues[realm].give_back(stored)
        else:
            attempt = not_returned(stored, f"there is no realm {realm} now", self._now())
            await self._spool.record(stored, attempt)
