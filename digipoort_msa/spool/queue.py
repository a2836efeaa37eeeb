"""The queue: hands due messages to the delivery, and records what became of each recipient (D2, D3).

A message that has just been kept is tried at once, from memory.  What does not fit into the bounded
waiting room is read back from the spool in pages when its turn comes, so that memory does not grow with
the backlog; new messages and old ones take turns.  Being delivered is a state of this object alone: the
rows say "due" until the outcome is recorded, and so a crash at any moment leads to another try, never to
a loss.

Once a second the queue asks whether another process (``digipoort-msa queue retry``) has changed the
spool, and whether a deferred message has come due.
"""

import random
from collections import deque
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.interfaces import IDelivery
from digipoort_msa.smtp.envelope import Outcome, Path
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.operations import Attempt, DueMessages, DueQuery, Result, Stored
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.schema import State
from digipoort_msa.spool.store import Spool

LOOK = 1.0  # seconds between looks at the clock and for changes by others
WAITING_MESSAGES = 256
WAITING_OCTETS = 4 * 1024 * 1024
RECORD_AGAIN = 10.0  # seconds until an outcome that could not be recorded is tried again

# What is recorded where there was no reply of a hop.
_NO_OUTCOME = Outcome(Reply(451, "4.3.0", ("The delivery met an unexpected error",)), "here")

_EVENTS = {State.DELIVERED: log.DELIVERED, State.DEFERRED: log.DEFERRED, State.FAILED: log.FAILED}


class Queue:
    """Works off one spool through one delivery.

    :param clock: the reactor; its ``seconds`` are those of the epoch.
    :param active: how many messages are delivered at the same time.
    :param grace: seconds that ``stop`` waits for deliveries under way.
    """

    def __init__(
        self,
        spool: Spool,
        delivery: IDelivery,
        clock: IReactorTime,
        *,
        schedule: Schedule | None = None,
        active: int = 20,
        grace: float = 30.0,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._spool = spool
        self._delivery = delivery
        self._clock = clock
        self._schedule = schedule or Schedule()
        self._limit = active
        self._grace = grace
        self._random = random
        self._running = False
        self._active: dict[str, Deferred[None]] = {}
        self._fresh: deque[Stored] = deque()  # just kept
        self._fresh_octets = 0
        self._paged: deque[Stored] = deque()  # read back
        self._unreadable: set[str] = set()  # queue ids; kept, and not tried
        self._backlog = False  # there may be due messages that are neither waiting nor active
        self._turn = False
        self._paging = False
        self._purging = False  # nothing is taken meanwhile, so that nothing that goes is being delivered
        self._next_due: float | None = None
        self._version: int | None = None
        self._emptied: Deferred[None] | None = None
        self._look = LoopingCall(self._look_around)
        self._look.clock = clock

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what is due; the spool has been started."""
        self._running = True
        self._backlog = True
        self._spool.arrived = self._arrived
        self._look.start(LOOK, now=True)
        self._fill()

    def stop(self) -> "Deferred[None]":
        """Take no more; fires when the active deliveries have ended, or after ``grace`` seconds, when those
        that are left are cancelled (they are due again at the next start)."""
        if not self._running:
            return succeed(None)
        self._running = False
        self._spool.arrived = None
        self._look.stop()
        self._fresh.clear()
        self._paged.clear()
        if not self._active:
            return succeed(None)
        self._emptied = Deferred()
        grace = self._clock.callLater(self._grace, self._cancel)
        return self._emptied.addBoth(lambda _: grace.cancel() if grace.active() else None)

    def _cancel(self) -> None:
        for delivery in list(self._active.values()):
            delivery.cancel()
        if self._emptied is not None and not self._emptied.called:
            self._emptied.callback(None)

    @property
    def active(self) -> int:
        """How many messages are being delivered now."""
        return len(self._active)

    # -- taking ----------------------------------------------------------------------------------------

    def _arrived(self, stored: Stored) -> None:
        octets = len(stored.octets or b"")
        if len(self._fresh) < WAITING_MESSAGES and self._fresh_octets + octets <= WAITING_OCTETS:
            self._fresh.append(stored)
            self._fresh_octets += octets
            self._fill()
        else:
            self._backlog = True

    def _fill(self) -> None:
        """Take messages while there is room."""
        while self._running and not self._purging and len(self._active) < self._limit:
            if self._backlog and not self._paging and not self._paged:
                self._read_page()
            stored = self._next()
            if stored is None:
                return
            self._attempt(stored)

    def _next(self) -> Stored | None:
        # Old and new take turns: neither can starve the other.
        if self._paged and (not self._fresh or self._paged_turn()):
            return self._paged.popleft()
        if self._fresh:
            stored = self._fresh.popleft()
            self._fresh_octets -= len(stored.octets or b"")
            return stored
        return None

    def _paged_turn(self) -> bool:
        self._turn = not self._turn
        return self._turn

    def _held(self) -> frozenset[str]:
        waiting = (stored.envelope.queue_id for room in (self._fresh, self._paged) for stored in room)
        return frozenset(self._active).union(waiting, self._unreadable)

    def _read_page(self) -> None:
        self._paging = True
        self._backlog = False
        query = DueQuery(self._clock.seconds(), self._limit, self._held())
        page = self._spool.due(query)
        page.addCallbacks(self._page_read, self._page_failed, callbackArgs=(query,))

    def _page_read(self, page: DueMessages, query: DueQuery) -> None:
        # Results come in the order of the transactions: a message that was delivered before the page was
        # read is not in it, one whose delivery ended later is still held here.
        self._paging = False
        held = self._held()
        self._paged.extend(stored for stored in page.messages if stored.envelope.queue_id not in held)
        self._backlog = self._backlog or len(page.messages) + len(page.unreadable) == query.limit
        for queue_id in page.unreadable:
            log.emit(log.ROW_UNREADABLE, queue_id=queue_id)
        self._unreadable.update(page.unreadable)
        self._next_due = page.next_due
        if not self._running:
            self._paged.clear()
        self._fill()

    def _page_failed(self, failure: Failure) -> None:
        self._paging = False
        self._next_due = self._clock.seconds()  # so that the next look tries again
        if self._running:
            log.failure(log.DEFECT, failure, where="reading the queue")

    def _look_around(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._look_for_changes()).addErrback(
            lambda failure: (
                log.failure(log.DEFECT, failure, where="looking at the queue") if self._running else None
            )
        )

    async def _look_for_changes(self) -> None:
        version = await self._spool.data_version()
        if version != self._version:
            if self._version is not None:
                await self._purge()
                self._backlog = True
            self._version = version
        if self._next_due is not None and self._next_due <= self._clock.seconds():
            self._backlog = True
        self._fill()

    async def _purge(self) -> None:
        self._purging = True
        try:
            removed = set(await self._spool.purge(frozenset(self._active)))
        finally:
            self._purging = False
        if removed:
            self._fresh = deque(s for s in self._fresh if s.envelope.queue_id not in removed)
            self._paged = deque(s for s in self._paged if s.envelope.queue_id not in removed)
            self._fresh_octets = sum(len(stored.octets or b"") for stored in self._fresh)
        for queue_id in removed:
            log.emit(log.REMOVED, queue_id=queue_id)

    # -- delivering ------------------------------------------------------------------------------------

    def _attempt(self, stored: Stored) -> None:
        queue_id = stored.envelope.queue_id
        attempt = Deferred.fromCoroutine(self._deliver(stored))
        self._active[queue_id] = attempt
        attempt.addBoth(self._released, queue_id)

    async def _deliver(self, stored: Stored) -> None:
        envelope, content = stored.envelope, self._spool.content(stored)
        try:
            outcomes = await maybeDeferred(self._delivery.deliver, envelope, content)
        except Exception:  # noqa: BLE001 -- IDelivery: a defect, and 4yz for all
            if not self._running:
                return  # cancelled: no outcome at all, due again at the next start
            log.failure(log.DEFECT, Failure(), where=f"delivering {envelope.queue_id}")
            outcomes = {}
        now = self._clock.seconds()
        delay = self._schedule.delay(stored.attempts + 1, self._random)
        given_up = self._schedule.given_up(stored.since, now, stored.attempts + 1)
        results = tuple(
            _result(path, outcomes.get(path, _NO_OUTCOME), given_up) for path in envelope.recipients
        )
        await self._record(stored, Attempt(envelope.queue_id, results, now, now + delay))

    async def _record(self, stored: Stored, attempt: Attempt) -> None:
        all_delivered = all(result.state is State.DELIVERED for result in attempt.results)
        while True:
            try:
                if stored.sole and all_delivered:
                    await self._spool.forget(stored)
                else:
                    await self._spool.record(stored, attempt)
            except Exception:  # noqa: BLE001
                # A full disk, say.  To let go of the message now would be to deliver it again and again.
                if not self._running:
                    return
                log.failure(log.DEFECT, Failure(), where=f"recording a delivery of {attempt.queue_id}")
                await deferLater(self._clock, RECORD_AGAIN)
            else:
                break
        _report(attempt)
        if any(result.state is State.DEFERRED for result in attempt.results):
            self._next_due = min(self._next_due or attempt.next_attempt, attempt.next_attempt)

    def _released(self, result: object, queue_id: str) -> None:
        del self._active[queue_id]
        if isinstance(result, Failure) and not result.check(CancelledError):
            log.failure(log.DEFECT, result, where="the queue")
        if not self._running and not self._active and self._emptied is not None:
            if not self._emptied.called:
                self._emptied.callback(None)
            return
        self._fill()


def _report(attempt: Attempt) -> None:
    for result in attempt.results:
        log.emit(
            _EVENTS[result.state],
            queue_id=attempt.queue_id,
            recipient=str(result.path),
            hop=result.hop,
            reply=str(result.reply),
            delay=round(attempt.next_attempt - attempt.now),
        )


def _result(path: Path, outcome: Outcome, given_up: bool) -> Result:
    if 200 <= outcome.reply.code < 300:
        state = State.DELIVERED
    elif outcome.reply.permanent or given_up:
        state = State.FAILED
    else:
        state = State.DEFERRED
    return Result(path, state, outcome.reply, outcome.hop)
