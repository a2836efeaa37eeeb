"""What each account last used to log in, and when; until it is written down (:mod:`.ledger`).

Only a login counts, so strangers can add nothing: there are at most as many entries as there are accounts,
times the mechanisms.
"""

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

#: (realm, account, mechanism)
UsageKey = tuple[str, str, str]


@frozen
class Use:
    """Logins of one account with one mechanism."""

    first: float  # seconds since the epoch
    last: float
    source: str  # the IP address of the last one
    logins: int

    def after(self, earlier: "Use") -> "Use":
        """The two together.  A clock that was turned back leaves the latest time that there was."""
        last = self if self.last >= earlier.last else earlier
        return evolve(last, first=min(self.first, earlier.first), logins=self.logins + earlier.logins)


class Usage:
    """The logins since someone took them to write them down."""

    def __init__(self, now: Callable[[], float]) -> None:
        """:param now: seconds since the epoch."""
        self._now = now
        self._fresh: dict[UsageKey, Use] = {}

    def succeeded(self, realm: str, account: str, mechanism: str, source: str) -> None:
        """Somebody logged in."""
        now = self._now()
        self._add((realm, account, mechanism), Use(now, now, source, 1))

    def take(self) -> Mapping[UsageKey, Use]:
        """All there is; it is the caller's then."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def give_back(self, uses: Mapping[UsageKey, Use]) -> None:
        """They were not written down."""
        fresh = self.take()
        self._fresh = dict(uses)
        for key, use in fresh.items():
            self._add(key, use)

    def _add(self, key: UsageKey, use: Use) -> None:
        earlier = self._fresh.get(key)
        self._fresh[key] = use if earlier is None else use.after(earlier)
