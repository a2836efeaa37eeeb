"""The known-good sources of each account: where somebody has logged in to it.

Only a login adds one, so strangers can neither add nor displace any.  One account, whose password may be
stolen, could add many (an IPv6 customer has 65,536 sources): so an account has a few, and of those the
longest unused goes first.  In all there is a bound as well; there, the account that has not logged in for
longest loses one.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from digipoort_msa.accounts.counts import Changing, Key

_SOURCES = 32  # of one account
_Account = tuple[str, str]  # (realm, account)


class Trust(Changing):
    """Until when each source is trusted for each account.  The keys name all three."""

    def __init__(self, now: Callable[[], float], *, seconds: float, entries: int) -> None:
        """
        :param seconds: how long a source stays trusted after a login.
        :param entries: how many are remembered in all.
        """
        self.seconds = seconds
        self._now = now
        self.entries = entries
        self._changed = set()
        # Each account's few sources are in the order of their last logins: a dict has half of the size.
        self._until: OrderedDict[_Account, dict[str, float]] = OrderedDict()
        self._known: dict[str, tuple[int, float]] = {}  # source: of how many accounts, and until when at most
        self._size = 0

    def holds(self, key: Key) -> bool:
        """Is this source trusted for this account?"""
        realm, account, source = key
        sources = self._until.get((realm, account))
        return sources is not None and sources.get(source, 0.0) > self._now()

    def knows(self, source: str) -> bool:
        """Is it trusted for any account?"""
        return source in self._known and self._known[source][1] > self._now()

    def add(self, key: Key) -> None:
        """Somebody logged in."""
        self._put(key, self._now() + self.seconds)

    def remaining(self, key: Key) -> float:
        """Seconds until the trust ends."""
        realm, account, source = key
        sources = self._until.get((realm, account))
        return max(0.0, sources.get(source, 0.0) - self._now()) if sources else 0.0

    def restore(self, key: Key, remaining: float) -> None:
        """Set by the seconds until it ends; never longer than a login of now would give."""
        if remaining > 0:
            self._put(key, self._now() + min(remaining, self.seconds))

    def forget(self, key: Key) -> None:
        realm, account, source = key
        sources = self._until.get((realm, account))
        if sources is not None and source in sources:
            self._drop((realm, account), source)

    def current(self) -> Iterator[Key]:
        """Those that are trusted now."""
        now = self._now()
        for (realm, account), sources in self._until.items():
            for source, until in sources.items():
                if until > now:
                    yield realm, account, source

    def __len__(self) -> int:
        return self._size

    def _put(self, key: Key, until: float) -> None:
        realm, account, source = key
        owner = (realm, account)
        sources = self._until.setdefault(owner, {})
        of, known_until = self._known.get(source, (0, 0.0))
        if sources.pop(source, None) is None:
            of += 1
            self._size += 1
        self._known[source] = (of, max(until, known_until))
        sources[source] = until
        self._until.move_to_end(owner)
        self._mark(key)
        if len(sources) > _SOURCES:
            self._drop(owner, next(iter(sources)))
        if self._size > self.entries:
            longest = next(iter(self._until))
            self._drop(longest, next(iter(self._until[longest])))

    def _drop(self, owner: _Account, source: str) -> None:
        """A source is no longer among an account's."""
        del self._until[owner][source]
        self._size -= 1
        if not self._until[owner]:
            del self._until[owner]
        of, until = self._known.pop(source)
        if of > 1:
            self._known[source] = (of - 1, until)
        self._mark((*owner, source))
