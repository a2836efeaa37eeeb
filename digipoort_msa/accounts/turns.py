"""Turns: of the attempts that are made at once, no more are looked at than failures are left.

The others wait, in their order, and have not been verified when they hear that a limit was reached meanwhile.
To verify them and to keep the verdict to ourselves would not do: a right password is known before the wrong
ones beside it are counted, since the cache answers at once and refusals may be levelled (:mod:`.refusals`).
So a hundred connections would be a hundred guesses.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence

from attrs import Factory, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from digipoort_msa.accounts.counts import Key, LeakyCounts

Limit = tuple[LeakyCounts, Key]


@frozen(eq=False)
class _Waiter:
    bearing: Callable[[], Sequence[Limit]]
    counted: Sequence[Limit]
    turn: "Deferred[None]" = Factory(Deferred)


class Turns:
    """Those that are taken, and who waits for one."""

    def __init__(self) -> None:
        self._taken: Counter[Limit] = Counter()
        self._waiting: dict[Limit, deque[_Waiter]] = {}  # by a limit that has no room for them
        self._given_back: deque[Limit] = deque()
        self._at_work = False

    def take(self, bearing: Callable[[], Sequence[Limit]], counted: Sequence[Limit]) -> "Deferred[None]":
        """
        :param bearing: gives the limits that bear on an attempt, or raises why it is not to be looked at any
            more; asked as often as there may be room.
        :param counted: the limits that it will count for, if it fails.
        :return: fires when it may be looked at; :meth:`give_back` has to follow, whatever comes of it.  To
            cancel it is to give up waiting.
        """
        waiter = _Waiter(bearing, counted)
        full = self._try(waiter)
        if full is not None:
            self._waiting.setdefault(full, deque()).append(waiter)
        return waiter.turn

    def give_back(self, counted: Sequence[Limit]) -> None:
        """The attempt is over, and has been counted if it failed."""
        for limit in counted:
            self._taken[limit] -= 1
            if not self._taken[limit]:
                del self._taken[limit]
            if limit in self._waiting:
                self._given_back.append(limit)
        if self._at_work:
            return  # an attempt that we have just let in is over already
        self._at_work = True
        try:
            while self._given_back:
                self._go_on(self._given_back.popleft())
        finally:
            self._at_work = False

    def _try(self, waiter: _Waiter) -> Limit | None:
        """Let an attempt in, or turn it down.

        :return: a limit that has no room for it, if it has to wait.
        """
        if waiter.turn.called:
            return None  # it has given up
        try:
            bearing = waiter.bearing()
        except Exception:  # noqa: BLE001 -- it is for the one who waits
            waiter.turn.errback(Failure())
            return None
        for limit in bearing:
            counts, key = limit
            if counts.room(key) <= self._taken[limit]:
                return limit
        for limit in waiter.counted:
            self._taken[limit] += 1
        waiter.turn.callback(None)
        return None

    def _go_on(self, limit: Limit) -> None:
        """Look at those who wait for a limit, as long as it has room."""
        waiting = self._waiting.get(limit)
        while waiting:
            full = self._try(waiting[0])
            if full == limit:
                return
            waiter = waiting.popleft()
            if full is not None:
                self._waiting.setdefault(full, deque()).append(waiter)
        self._waiting.pop(limit, None)
