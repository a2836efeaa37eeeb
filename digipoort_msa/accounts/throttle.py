"""Guessing is slowed, then stopped; a business is never locked out by strangers (A8).

Failed logins are counted five ways: for an account from one source, for a source, for the network around it
(:mod:`.networks` says what these are), for an account from anywhere, and for all strangers together.  Each
count drains at an even pace, its whole limit in one window, and an attempt is looked at only while the counts
that bear on it are below their limits.  So over time guesses come at the draining pace, however many
connections make them.  Before that, each attempt waits, longer the more failures came before it, whether it
is right or wrong: hanging up early tells nothing.

Each limit that strangers can use up is a weapon in their hands, against whoever else it bears on.  So:

====================  ==============================  =====================================================
count of              stops                           does not bear on
====================  ==============================  =====================================================
account and source    one guesser                     anyone else
source                one guesser at many accounts    a pair that is trusted (below)
network               a hoster's or a customer's      a pair that is trusted, a source that is known
                      many addresses
account               a botnet at one account         a pair that is trusted
strangers             a botnet at many accounts       a pair that is trusted, a source that is known
====================  ==============================  =====================================================

- A pair of account and source is *trusted* for long after a login: only its own failures count then.  The
  business goes on, whatever strangers, or the neighbours behind its own address, do.
- A source that is trusted for some account is *known*: it is no stranger for the others either (an office of
  many accounts), but guesses from there have their limits still.
- Nothing is locked that time does not open again.

What is left to an attacker with many networks: while he goes on, those who have not logged in from where they
are have to wait.  With one network, or one address, he keeps out its other strangers alone.

Of the attempts that are made at the same moment, no more are looked at than failures are left
(:mod:`.turns`).  Else a thousand connections at once would be a thousand guesses.  And one that was let in
before a limit was reached by others gets no verdict: :meth:`Attempt.failed` and :meth:`Attempt.succeeded`
look again.  Of a realm's strangers there are never more than a few under way: far from their limit still,
they could fill the queue before the threads that verify, and a business would find no place in it.

Names count as they are typed, whether there is such an account or not (A5).  All is in memory, and bounded:
names are cut, and the entries longest unused are dropped first.  To drop an entry is to forgive it, so each
kind has room for all that the limit of the strangers lets them fail in a window, twice; only without that
limit could they push a count out with others.  :mod:`.logins` keeps all this over a restart.
"""

import enum
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

from attrs import define, field
from twisted.internet.defer import Deferred

from digipoort_msa import log
from digipoort_msa.accounts.counts import Key, LeakyCounts
from digipoort_msa.accounts.networks import place_of
from digipoort_msa.accounts.trust import Trust
from digipoort_msa.accounts.turns import Limit, Turns
from digipoort_msa.interfaces import Throttled

_DAY = 86_400.0
_NAME = 80  # characters of a name that are remembered; a longer one ends in its digest
_STRANGERS_AT_ONCE = 50  # attempts at one realm that are looked at
_TOLD = 1000  # full counts that the log has been told of


class Kind(enum.Enum):
    """What is remembered; the values are the operator's words."""

    PAIR = "account-and-source"
    SOURCE = "source"
    NETWORK = "network"
    ACCOUNT = "account"
    STRANGERS = "strangers"
    TRUSTED = "trusted"


_ALL: Key = ("", "", "")


class Throttle:
    """The counts, and the judgement over an attempt.  For the reactor's thread."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        per_account_and_source: int = 10,
        per_source: int = 50,
        per_network: int = 200,
        per_account: int = 100,
        strangers: int = 5000,
        window: float = 900.0,
        first_delay: float = 0.25,
        longest_delay: float = 8.0,
        trust_for: float = 400 * _DAY,
        entries: int = 20_000,
        trusted_entries: int = 100_000,
    ) -> None:
        """
        :param now: a clock that nobody sets, in seconds; such as ``time.monotonic``.
        :param per_account_and_source: failures on one account from one source in a window.
        :param per_source: failures from one source, on any account.
        :param per_network: failures from the network around it.
        :param per_account: failures on one account, from any source.
        :param strangers: failures in all, but for those of trusted pairs; 0 for no limit.
        :param window: seconds in which a full count drains.
        :param first_delay: seconds that an attempt waits after one failure; doubled for each further one.
        :param longest_delay: seconds at most; 0 for no delays.
        :param trust_for: seconds that a source stays trusted for an account after a login.
        :param entries: how much is remembered of each kind of count, at least.
        :param trusted_entries: how many trusted pairs are remembered.
        """
        entries = max(entries, 2 * strangers)

        def counts(limit: int) -> LeakyCounts:
            return LeakyCounts(now, limit=limit, window=window, entries=entries)

        self._pairs = counts(per_account_and_source)
        self._sources = counts(per_source)
        self._networks = counts(per_network)
        self._accounts = counts(per_account)
        self._strangers = counts(strangers) if strangers else None
        self.strangers_at_once = counts(_STRANGERS_AT_ONCE)  # by realm; for turns, nothing is ever added
        self.trust = Trust(now, seconds=trust_for, entries=trusted_entries)
        self.turns = Turns()
        self._now = now
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._told: OrderedDict[tuple[Kind, Key], float] = OrderedDict()  # until when not to tell again

    @property
    def counts(self) -> Mapping[Kind, LeakyCounts]:
        """Those that have a limit."""
        counts = {
            Kind.PAIR: self._pairs,
            Kind.SOURCE: self._sources,
            Kind.NETWORK: self._networks,
            Kind.ACCOUNT: self._accounts,
        }
        return {**counts, Kind.STRANGERS: self._strangers} if self._strangers is not None else counts

    @property
    def records(self) -> Mapping[Kind, LeakyCounts | Trust]:
        """All that is remembered."""
        return {**self.counts, Kind.TRUSTED: self.trust}

    def attempt(self, realm: str, name: str, source: str) -> "Attempt":
        """
        :param name: as it will be looked up.
        :param source: an IP address.
        """
        place = place_of(source)
        account = bounded(name)
        counted = [
            (Kind.PAIR, self._pairs, (realm, account, place.source)),
            (Kind.SOURCE, self._sources, ("", "", place.source)),
            (Kind.ACCOUNT, self._accounts, (realm, account, "")),
        ]
        if place.network:
            counted.append((Kind.NETWORK, self._networks, ("", "", place.network)))
        if self._strangers is not None:
            counted.append((Kind.STRANGERS, self._strangers, _ALL))
        return Attempt(self, counted)

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return min(self._longest_delay, self._first_delay * 2.0 ** min(failures - 1, 60)) if failures else 0.0

    def tell_if_full(self, kind: Kind, counts: LeakyCounts, key: Key) -> None:
        """Log that a limit has been reached; of each once in a window."""
        wait = counts.wait(key)
        if wait <= 0 or self._told.get((kind, key), 0.0) > self._now():
            return
        self._told[kind, key] = self._now() + counts.window
        self._told.move_to_end((kind, key))
        if len(self._told) > _TOLD:
            self._told.popitem(last=False)
        realm, account, source = key
        log.emit(
            _FULL[kind],
            realm=realm,
            account=account,
            source=source,
            limit=counts.limit,
            seconds=math.ceil(wait),
        )

    def forget(self, kind: Kind, key: Key) -> None:
        """An operator wants it as if there had been nothing."""
        self._told.pop((kind, key), None)
        record = self.records.get(kind)
        if record is not None:
            record.forget(key)


_FULL = {
    Kind.PAIR: log.PAIR_THROTTLED,
    Kind.SOURCE: log.SOURCE_THROTTLED,
    Kind.NETWORK: log.SOURCE_THROTTLED,
    Kind.ACCOUNT: log.ACCOUNT_THROTTLED,
    Kind.STRANGERS: log.STRANGERS_THROTTLED,
}


@define(eq=False)
class Attempt:
    """One login: first :meth:`admit`, then :meth:`begin`, in the end :meth:`failed` or :meth:`succeeded` if
    there is a verdict, and :meth:`end`."""

    _throttle: Throttle
    #: The pair's, the source's and the account's, which slow it as well; then those too wide for that.
    _counted: Sequence[tuple[Kind, LeakyCounts, Key]]
    _taken: Sequence[Limit] = field(default=(), init=False)

    def admit(self) -> float:
        """
        :return: seconds to wait before looking at it.
        :raise Throttled: it is not to be looked at.
        """
        bearing = self._bearing()
        longest, whose = 0.0, Kind.PAIR
        for kind, counts, key in bearing:
            wait = counts.wait(key)
            if wait > longest:
                longest, whose = wait, kind
        if longest > 0:
            raise Throttled(longest, _WHOSE[whose])
        failures = max([counts.value(key) for _, counts, key in bearing[:3]])
        return self._throttle.delay(math.ceil(failures - 1e-6))

    def begin(self) -> "Deferred[None]":
        """
        :return: fires when it is to be looked at, which may take as long as those do that are looked at now;
            :meth:`end` has to follow.  Cancelling gives up.
        :raise Throttled: (as the failure) others reached a limit meanwhile.
        """
        counted = [(counts, key) for _, counts, key in self._counting()]
        if self._is_strangers:
            counted.append(self._crowd)

        def bearing() -> Sequence[Limit]:
            self.admit()
            limits = [(counts, key) for _, counts, key in self._bearing()]
            return [*limits, self._crowd] if self._is_strangers else limits

        def begun(_: None) -> None:
            self._taken = counted

        return self._throttle.turns.take(bearing, counted).addCallback(begun)

    def end(self) -> None:
        """Others may be looked at."""
        taken, self._taken = self._taken, ()
        if taken:
            self._throttle.turns.give_back(taken)

    def failed(self) -> None:
        """It was wrong; count it everywhere.

        :raise Throttled: others reached a limit meanwhile; the client must not learn that it was wrong.
        """
        self.admit()
        for kind, counts, key in self._counting():
            counts.add(key)
            self._throttle.tell_if_full(kind, counts, key)

    def succeeded(self) -> None:
        """It was right; the source is trusted for this account from now on.

        Nothing is forgiven, or one who has an account could guess at others between his logins.

        :raise Throttled: others reached a limit meanwhile; the client must not learn that it was right.
        """
        self.admit()
        self._throttle.trust.add(self._pair)

    @property
    def _pair(self) -> Key:
        return self._counted[0][2]

    @property
    def _trusted(self) -> bool:
        return self._throttle.trust.holds(self._pair)

    def _counting(self) -> Sequence[tuple[Kind, LeakyCounts, Key]]:
        """The counts that a failure adds to."""
        trusted = self._trusted
        return [each for each in self._counted if each[0] is not Kind.STRANGERS or not trusted]

    def _bearing(self) -> Sequence[tuple[Kind, LeakyCounts, Key]]:
        """The counts that bear on it; see the module's table."""
        if self._trusted:
            return self._counted[:1]
        return self._counted if self._is_strangers else self._counted[:3]

    @property
    def _is_strangers(self) -> bool:
        return not self._trusted and not self._throttle.trust.knows(self._pair[2])

    @property
    def _crowd(self) -> Limit:
        """The strangers of its realm."""
        return self._throttle.strangers_at_once, (self._pair[0], "", "")


_WHOSE = {
    Kind.PAIR: "to this account from this source",
    Kind.SOURCE: "from this source",
    Kind.NETWORK: "from this network",
    Kind.ACCOUNT: "to this account, by strangers",
    Kind.STRANGERS: "of strangers, in all",
}


def bounded(name: str) -> str:
    """A name as it is remembered: what strangers type costs little memory, and can be written down."""
    writable = name.encode("utf-8", "backslashreplace")
    if len(name) <= _NAME:
        return writable.decode()
    digest = blake2b(writable, digest_size=16).hexdigest()
    return f"{name[: _NAME - len(digest) - 1]}~{digest}".encode("utf-8", "backslashreplace").decode()
