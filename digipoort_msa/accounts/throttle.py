"""Guessing is slowed, then stopped; a business is never locked out by strangers (A8).

Failed logins are counted three ways: for an account from one source, for a source, and for an account from
anywhere.  A source is an IPv4 address or an IPv6 /64, since a single host has one whole; many a customer has
65,536 of those, so the /48 around it is counted too, with room for a few such hosts.

Each count drains at an even pace, its whole limit in one window, and an attempt is looked at only while all
counts are below their limits.  So over time guesses come at the draining pace, however many connections make
them.  Before that, each attempt waits, longer the more failures came before it, whether it is right or wrong:
hanging up early tells nothing.

Two things keep a lock from being a weapon:

- A source that logged in to an account recently is trusted *for that account*: only its own failures there
  count.  Strangers may use up what the account, or a shared address, allows; the business goes on.
- Nothing is locked that time does not open again.

An attempt that was let in while a limit was reached by others, made at the same moment, gets no verdict:
:meth:`Attempt.failed` and :meth:`Attempt.succeeded` look again.  Else a thousand connections at once
would be a thousand guesses.

Names count as they are typed, whether there is such an account or not (A5).  All is in memory, and bounded:
keys are digests, and the entries longest unused are dropped first.
"""

import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from attrs import frozen

from digipoort_msa.accounts.framing import framed
from digipoort_msa.interfaces import Throttled

_DAY = 86_400.0
_SOURCES_IN_A_SITE = 4  # as many failures are let pass from an IPv6 /48 as from so many sources


class LeakyCounts:
    """Counts that drain at an even pace, at most ``entries`` of them."""

    def __init__(self, now: Callable[[], float], *, limit: int, window: float, entries: int) -> None:
        """
        :param limit: what a count may reach.
        :param window: seconds in which a count of ``limit`` drains to nothing.
        """
        self._now = now
        self._limit = limit
        self._pace = limit / window
        self._entries = entries
        self._empty_at: OrderedDict[bytes, float] = OrderedDict()  # when each will have drained

    def value(self, key: bytes) -> float:
        """The count now."""
        return max(0.0, (self._empty_at.get(key, 0.0) - self._now()) * self._pace)

    def wait(self, key: bytes) -> float:
        """Seconds until there is room for one more; 0 where there is."""
        over = self.value(key) - (self._limit - 1)
        return over / self._pace if over > 1e-6 else 0.0

    def add(self, key: bytes) -> None:
        """Count one more."""
        now = self._now()
        self._empty_at[key] = max(now, self._empty_at.get(key, 0.0)) + 1 / self._pace
        self._empty_at.move_to_end(key)
        while self._empty_at and (
            len(self._empty_at) > self._entries or next(iter(self._empty_at.values())) <= now
        ):
            self._empty_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._empty_at)


class Throttle:
    """The counts, and the judgement over an attempt.  For the reactor's thread."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        per_account_and_source: int = 10,
        per_source: int = 50,
        per_account: int = 100,
        window: float = 900.0,
        first_delay: float = 0.25,
        longest_delay: float = 8.0,
        trust_for: float = 30 * _DAY,
        entries: int = 20_000,
    ) -> None:
        """
        :param now: the clock, in seconds; such as ``reactor.seconds``.
        :param per_account_and_source: failures on one account from one source in a window.
        :param per_source: failures from one source, on any account.
        :param per_account: failures on one account, from any source.
        :param window: seconds in which a full count drains.
        :param first_delay: seconds that an attempt waits after one failure; doubled for each further one.
        :param longest_delay: seconds at most; 0 for no delays.
        :param trust_for: seconds that a source stays trusted for an account after a login.
        :param entries: how much is remembered of each kind.
        """

        def counts(limit: int) -> LeakyCounts:
            return LeakyCounts(now, limit=limit, window=window, entries=entries)

        self._now = now
        self._pairs = counts(per_account_and_source)
        self._sources = counts(per_source)
        self._sites = counts(per_source * _SOURCES_IN_A_SITE)
        self._accounts = counts(per_account)
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._trust_for = trust_for
        self._entries = entries
        self._trusted: OrderedDict[bytes, float] = OrderedDict()  # pairs, and until when
        self._key = secrets.token_bytes(16)

    def attempt(self, realm: str, name: str, source: str) -> "Attempt":
        """
        :param name: as it will be looked up.
        :param source: an IP address.
        """
        network, site = _networks(source)
        pair = self._digest(realm, name, network)
        counts = [
            (self._pairs, pair),
            (self._sources, self._digest(network)),
            (self._accounts, self._digest(realm, name)),
        ]
        if site:
            counts.append((self._sites, self._digest(site)))
        return Attempt(self, pair, tuple(counts))

    def trusts(self, pair: bytes) -> bool:
        return self._trusted.get(pair, 0.0) > self._now()

    def trust(self, pair: bytes) -> None:
        self._trusted[pair] = self._now() + self._trust_for
        self._trusted.move_to_end(pair)
        if len(self._trusted) > self._entries:
            self._trusted.popitem(last=False)

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return min(self._longest_delay, self._first_delay * 2.0 ** min(failures - 1, 60)) if failures else 0.0

    def _digest(self, *parts: str) -> bytes:
        """A key of 16 octets, however long the name: what strangers type costs no memory."""
        return hashlib.blake2b(framed(*parts), digest_size=16, key=self._key).digest()


@frozen
class Attempt:
    """One login: first :meth:`admit`, in the end :meth:`failed` or :meth:`succeeded`."""

    _throttle: Throttle
    _pair: bytes
    _counts: tuple[tuple[LeakyCounts, bytes], ...]  # the account and source's first

    def admit(self) -> float:
        """
        :return: seconds to wait before looking at it.
        :raise Throttled: it is not to be looked at.
        """
        bearing = self._counts[:1] if self._throttle.trusts(self._pair) else self._counts
        wait = max([counts.wait(key) for counts, key in bearing])
        if wait > 0:
            raise Throttled(wait)
        failures = max([counts.value(key) for counts, key in bearing])
        return self._throttle.delay(math.ceil(failures - 1e-6))

    def failed(self) -> None:
        """It was wrong; count it everywhere.

        :raise Throttled: others reached a limit meanwhile; the client must not learn that it was wrong.
        """
        self.admit()
        for counts, key in self._counts:
            counts.add(key)

    def succeeded(self) -> None:
        """It was right; the source is trusted for this account from now on.

        Nothing is forgiven, or one who has an account could guess at others between his logins.

        :raise Throttled: others reached a limit meanwhile; the client must not learn that it was right.
        """
        self.admit()
        self._throttle.trust(self._pair)


@lru_cache(maxsize=4096)
def _networks(source: str) -> tuple[str, str | None]:
    """What one host can vary freely counts as one; and of IPv6 the /48."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return source, None  # a unix socket's peer
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped), None
        return f"{int(address) >> 64:x}/64", f"{int(address) >> 80:x}/48"
    return str(address), None
