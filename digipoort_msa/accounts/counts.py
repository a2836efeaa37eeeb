"""Counts that drain: a leaky bucket for each key, at most so many of them.

A count is kept as the moment at which it will have drained to nothing.  So time need not be worked in, and a
count of before a restart is right as soon as that moment is known.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from math import floor

#: (realm, account, source); "" for what a count does not go by.
Key = tuple[str, str, str]


class Changing:
    """What remembers which of its keys have changed, for whoever writes them down."""

    entries: int  # how many keys there may be
    _changed: set[Key] | None  # since they were taken; None: too many to tell

    def take_changes(self) -> set[Key] | None:
        """The keys whose count has changed since the last time; ``None``: any may have."""
        changed, self._changed = self._changed, set()
        return changed

    def give_back(self, keys: Iterable[Key] | None) -> None:
        """What was taken has not been kept."""
        if keys is None:
            self._changed = None
        else:
            for key in keys:
                self._mark(key)

    def _mark(self, key: Key) -> None:
        if self._changed is not None:
            self._changed.add(key)
            if len(self._changed) > 2 * self.entries:
                self._changed = None


class LeakyCounts(Changing):
    """Counts that drain at an even pace, at most ``entries`` of them: the longest unused go first."""

    def __init__(self, now: Callable[[], float], *, limit: int, window: float, entries: int) -> None:
        """
        :param now: a clock that nobody sets, in seconds.
        :param limit: what a count may reach.
        :param window: seconds in which a count of ``limit`` drains to nothing.
        """
        self.limit = limit
        self.window = window
        self._now = now
        self._pace = limit / window
        self.entries = entries
        self._changed = set()
        self._empty_at: OrderedDict[Key, float] = OrderedDict()  # when each will have drained

    def value(self, key: Key) -> float:
        """The count now."""
        return max(0.0, (self._empty_at.get(key, 0.0) - self._now()) * self._pace)

    def wait(self, key: Key) -> float:
        """Seconds until there is room for one more; 0 where there is."""
        over = self.value(key) - (self.limit - 1)
        return over / self._pace if over > 1e-6 else 0.0

    def room(self, key: Key) -> int:
        """How many more there is room for."""
        return 0 if self.wait(key) else max(1, floor(self.limit - self.value(key)))

    def add(self, key: Key) -> None:
        """Count one more."""
        now = self._now()
        self._put(key, max(now, self._empty_at.get(key, 0.0)) + 1 / self._pace)
        while self._empty_at and (
            len(self._empty_at) > self.entries or next(iter(self._empty_at.values())) <= now
        ):
            self._mark(self._empty_at.popitem(last=False)[0])

    def remaining(self, key: Key) -> float:
        """Seconds until the count has drained."""
        return max(0.0, self._empty_at.get(key, 0.0) - self._now())

    def restore(self, key: Key, remaining: float) -> None:
        """Set a count by the seconds until it has drained; a whole window at most, whatever is asked for."""
        if remaining > 0:
            self._put(key, self._now() + min(remaining, self.window))

    def forget(self, key: Key) -> None:
        """As if there had been no failure."""
        if self._empty_at.pop(key, None) is not None:
            self._mark(key)

    def current(self) -> Iterator[Key]:
        """Those with a count above nothing."""
        now = self._now()
        return (key for key, empty_at in self._empty_at.items() if empty_at > now)

    def _put(self, key: Key, empty_at: float) -> None:
        self._empty_at[key] = empty_at
        self._empty_at.move_to_end(key)
        self._mark(key)

    def __len__(self) -> int:
        return len(self._empty_at)
