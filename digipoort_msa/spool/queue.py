"""The queue of one realm: hands due messages to its delivery, and records what became of each recipient
(D2, D3).

A message that has just been kept is tried at once, from memory.  What does not fit into the bounded
waiting room is read back from the spool in pages when its turn comes, so that memory does not grow with
the backlog; new messages and old ones take turns.  Of a sequence the spool gives out the one message alone
whose turn it is.

Being delivered is a state of this object alone: the rows say "due" until the outcome is recorded, and so a
crash at any moment leads to another try, never to a loss.  What is still named as ``underway`` after one may
be delivered twice.

:class:`~digipoort_msa.spool.queues.Queues` holds the queues of all realms, has each look around once a
second, and carries out what operators want while it is paused.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.interfaces import Damaged, IContent, IDelivery, INotifications
from digipoort_msa.smtp.envelope import Envelope, Outcome, Path
from digipoort_msa.spool.disk import reply_to
from digipoort_msa.spool.rows import Attempt, DueMessages, DueQuery, Stored
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.states import State
from digipoort_msa.spool.store import Spool
from digipoort_msa.spool.verdicts import NobodyToTell, Verdicts, damaged, not_returned
from digipoort_msa.spool.waiting import WaitingRoom

RECORD_AGAIN = 10.0  # seconds until an outcome that could not be recorded is tried again
PAGES = 4  # messages that are read back at once, for each that is delivered at a time
RECORDING = 2  # active messages at most, outcomes to be recorded among them, for each delivered at a time
CHECK_CLOCK = 600.0  # seconds between looks for messages that wait for a time that no schedule sets

_EVENTS = {
    State.DELIVERED: log.DELIVERED,
    State.DEFERRED: log.DEFERRED,
    State.RETURNED: log.RETURNED,
    State.HELD: log.HELD,
}


class Queue:
    """Works off one realm's messages through one delivery.

    :param clock: the reactor: what waiting is measured by.
    :param now: the wall clock, in seconds since the epoch: what the spool's times are; unset means that of
        ``clock``.
    :param active: how many messages are delivered at the same time; of no more than ``RECORDING`` times as
        many is the outcome not on the disk yet.
    :param grace: seconds that ``stop`` waits for deliveries under way.
    """

    def __init__(
        self,
        realm: str,
        spool: Spool,
        delivery: IDelivery,
        notifications: INotifications,
        clock: IReactorTime,
        *,
        schedule: Schedule | None = None,
        active: int = 20,
        grace: float = 30.0,
        random: Callable[[], float] = random.random,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.realm = realm
        self._spool = spool
        self._delivery = delivery
        self._clock = clock
        self._now = now or clock.seconds
        self._schedule = schedule or Schedule()
        self._verdicts = Verdicts(notifications, self._schedule)
        self._limit = active
        self._grace = grace
        self._random = random
        self._running = False
        self._active: dict[str, Deferred[None]] = {}  # until its outcome has been recorded
        self._delivering = 0  # how many of them are with the delivery
        self._waiting = WaitingRoom()
        self._left_alone: set[str] = set()  # queue ids: kept, and not tried before the next start
        self._backlog = False  # there may be due messages that are neither waiting nor active
        self._paging = False
        self._filling = False
        self._paused = False
        self._flushing = False
        self._next_due: float | None = None
        self._looked: float | None = None  # when
        self._clock_checked = 0.0  # when
        self._emptied: Deferred[None] | None = None

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what is due; the spool has been started."""
        self._running = True
        self._backlog = True
        self._fill()

    def stop(self) -> "Deferred[None]":
        """Take no more; fires when the active deliveries have ended, or after ``grace`` seconds, when those
        that are left are cancelled (they are due again at the next start)."""
        if not self._running:
            return succeed(None)
        self._running = False
        self._waiting.clear()
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
    def active(self) -> Collection[str]:
        """The queue ids of what is being delivered now."""
        return self._active.keys()

    # -- what happens elsewhere ------------------------------------------------------------------------

    def arrived(self, stored: Stored) -> None:
        """A message of this realm has just been kept, and is due."""
        if not self._waiting.admit(stored):
            self._backlog = True
        self._fill()

    async def look(self, changed: bool) -> None:
        """Look around, once a second: what has come due?

        :param changed: another process has changed the spool: what waits here may be held by now, or is to
            go elsewhere, and is read again.
        """
        now = self._now()
        if changed:
            self._waiting.clear()
        turned_back = self._looked is not None and now < self._looked
        self._looked = now
        if changed or (self._next_due is not None and self._next_due <= now):
            self._backlog = True
        self._fill()
        if turned_back or now >= self._clock_checked + CHECK_CLOCK:
            self._clock_checked = now
            await self._check_clock(now)

    async def flush(self) -> None:
        """Try what is deferred now: the way out is open again."""
        if not self._running or self._flushing:
            return
        self._flushing = True
        try:
            await self._spool.flush(self.realm, self._now())
        finally:
            self._flushing = False
        self._backlog = True
        self._fill()

    def pause(self) -> None:
        """Take nothing until ``resume``: nothing becomes active meanwhile."""
        self._paused = True

    def resume(self) -> None:
        """Take messages again; others may be due by now, what stood in their way being gone."""
        self._paused = False
        self._backlog = True
        self._fill()

    def drop(self, queue_ids: Iterable[str]) -> None:
        """These have gone, or are not to be tried: let go of those that wait here."""
        self._waiting.drop(queue_ids)

    async def give_back(self, stored: Stored) -> None:
        """Return a message to its sender at an operator's word, or hold it where that cannot be done; it is
        not active."""
        queue_id = stored.envelope.queue_id
        try:
            attempt = await self._verdicts.returned(stored, self._spool.content(stored), self._now())
        except (NobodyToTell, Damaged) as refusal:
            attempt = not_returned(stored, str(refusal), self._now())
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 -- it must not keep others from being returned
            log.failure(log.DEFECT, Failure(), where=f"returning {queue_id}")
            attempt = not_returned(stored, str(error), self._now())
        await self._spool.record(stored, attempt)
        self._recorded(stored, attempt)
        self._fill()

    async def _check_clock(self, now: float) -> None:
        # What was set by a clock that has been turned back since might wait for years.
        query = DueQuery(self.realm, self._schedule.horizon(now), 0, frozenset())
        if (await self._spool.due(query)).next_due is not None:
            log.emit(log.CLOCK_TURNED_BACK, realm=self.realm)
            await self.flush()

    # -- taking ----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Take messages while there is room."""
        if self._filling:  # an attempt has ended at once: the loop below goes on, and no deeper
            return
        self._filling = True
        try:
            while self._running and not self._paused and self._has_room:
                if self._backlog and not self._paging and self._waiting.paged < self._limit:
                    self._read_page()
                stored = self._waiting.next()
                if stored is None:
                    return
                self._attempt(stored)
        except Exception:  # noqa: BLE001 -- whoever has room again has an outcome, which must not be lost
            log.failure(log.DEFECT, Failure(), where=f"the queue of {self.realm}")
            self._next_due = self._now()  # so that the next look tries again
        finally:
            self._filling = False

    @property
    def _has_room(self) -> bool:
        # The outcomes of some may still be on their way to the disk.  Where there is a backlog, the way out
        # does not wait for that; where there is none, it is better that more of them share a transaction.
        most = RECORDING * self._limit if self._waiting.paged else self._limit
        return self._delivering < self._limit and len(self._active) < most

    def _held(self) -> frozenset[str]:
        return self._waiting.queue_ids.union(self._active, self._left_alone)

    def _read_page(self) -> None:
        self._paging = True
        self._backlog = False
        query = DueQuery(self.realm, self._now(), PAGES * self._limit, self._held())
        page = self._spool.due(query)
        page.addCallbacks(self._page_read, self._page_failed, callbackArgs=(query,))

    def _page_read(self, page: DueMessages, query: DueQuery) -> None:
        # Results come in the order of the transactions: a message that was delivered before the page was
        # read is not in it, one whose delivery ended later is still held here.
        self._paging = False
        held = self._held()
        self._waiting.add_page(stored for stored in page.messages if stored.envelope.queue_id not in held)
        self._backlog = self._backlog or len(page.messages) + len(page.unreadable) == query.limit
        for queue_id in page.unreadable:
            log.emit(log.ROW_UNREADABLE, queue_id=queue_id)
        self._next_due = page.next_due
        if not self._running:
            self._waiting.clear()
        self._fill()

    def _page_failed(self, failure: Failure) -> None:
        self._paging = False
        self._next_due = self._now()  # so that the next look tries again
        if self._running:
            log.failure(log.DEFECT, failure, where=f"reading the queue of {self.realm}")

    # -- delivering ------------------------------------------------------------------------------------

    def _attempt(self, stored: Stored) -> None:
        queue_id = stored.envelope.queue_id
        self._spool.underway.begin(queue_id)
        attempt = Deferred.fromCoroutine(self._deliver(stored))
        self._active[queue_id] = attempt
        attempt.addBoth(self._released, queue_id)

    async def _deliver(self, stored: Stored) -> None:
        envelope, content = stored.envelope, self._spool.content(stored)
        outcomes: dict[Path, Outcome] = {}
        try:
            outcomes = dict(await self._delivered(envelope, content))
        except Damaged as damage:
            await self._hold(stored, damage)
            return
        except Exception:  # noqa: BLE001 -- IDelivery: a defect, and 4yz for all
            if not self._running:
                return  # cancelled: no outcome at all, due again at the next start
            log.failure(log.DEFECT, Failure(), where=f"delivering {envelope.queue_id}")
        attempt = await self._verdicts.attempt(stored, content, outcomes, self._now(), self._random)
        all_delivered = all(result.state is State.DELIVERED for result in attempt.results)
        if all_delivered and stored.sole and attempt.notification is None:
            recorded = await self._insist(envelope.queue_id, self._spool.forget, stored)
        else:
            recorded = await self._insist(envelope.queue_id, self._spool.record, stored, attempt)
        if recorded:
            self._spool.underway.end(envelope.queue_id)
            self._recorded(stored, attempt)

    async def _delivered(self, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
        self._delivering += 1
        try:
            return await maybeDeferred(self._delivery.deliver, envelope, content)
        finally:
            self._delivering -= 1
            self._fill()

    async def _hold(self, stored: Stored, damage: Damaged) -> None:
        queue_id = stored.envelope.queue_id
        log.emit(log.CONTENT_DAMAGED, queue_id=queue_id, reason=str(damage))
        if await self._insist(queue_id, self._spool.hold, queue_id, damaged(damage), self._now()):
            self._spool.underway.end(queue_id)
        self._backlog = self._backlog or stored.sequence is not None

    async def _insist(self, queue_id: str, write: Callable[..., "Deferred[Any]"], *arguments: Any) -> bool:
        """Write to the spool, again and again until it is done or the queue stops; was it done?

        A full disk may be in the way, say: to let go of the message then would be to deliver it again and
        again.  Whatever is raised is a defect.
        """
        while True:
            try:
                await write(*arguments)
            except Exception as error:
                if not self._running:
                    return False
                if reply_to(error) is None:  # a defect: it would be the same the next time
                    raise
                log.failure(log.DEFECT, Failure(), where=f"recording a delivery of {queue_id}")
                await deferLater(self._clock, RECORD_AGAIN)
            else:
                return True

    def _recorded(self, stored: Stored, attempt: Attempt) -> None:
        _report(stored, attempt)
        if any(result.state is State.DEFERRED for result in attempt.results):
            next_due = attempt.next_attempt if self._next_due is None else self._next_due
            self._next_due = min(next_due, attempt.next_attempt)
        if stored.sequence is not None:  # the next of it may be due by now
            self._backlog = True

    def _released(self, result: object, queue_id: str) -> None:
        del self._active[queue_id]
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._left_alone.add(queue_id)  # its row says that it is due: it would be tried without end
            log.failure(log.DEFECT, result, where=f"the queue, which leaves {queue_id} alone")
        if not self._running and not self._active and self._emptied is not None:
            if not self._emptied.called:
                self._emptied.callback(None)
            return
        self._fill()


def _report(stored: Stored, attempt: Attempt) -> None:
    for result in attempt.results:
        log.emit(
            _EVENTS[result.state],
            queue_id=attempt.queue_id,
            recipient=str(result.path),
            hop=result.hop,
            reply=str(result.reply),
            delay=round(attempt.next_attempt - attempt.now),
            reason=result.reason,
        )
    if attempt.notification is not None:
        log.emit(
            log.TOLD,
            queue_id=attempt.queue_id,
            sender=str(stored.envelope.reverse_path),
            notification=attempt.notification.envelope.queue_id,
        )
