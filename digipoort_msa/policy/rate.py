"""How much may be submitted in a time: messages, octets and recipients, of an account and of a realm (L4).

A limit is a bucket that drains at an even pace, its whole content in one window.  So a limit of 100 in an
hour takes 100 at once, then one each 36 seconds; what is over is told when there is room, ``450 4.7.1``.
What a transaction takes is counted when it is asked for, so that many at once cannot have the same room, and
given back when it comes to nothing, but for what has drained by then: else whoever held transactions open
would save up room.  What could never fit is refused for good.

Counts are in memory: a restart begins anew.  Only accounts have any, so their number is bounded by nature,
and by ``_MOST`` besides.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum

from attrs import define, field, frozen

from digipoort_msa.identity import Identity
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused

_MOST = 100_000  # accounts that one limit counts; those that used it longest ago are forgotten first


class Unit(Enum):
    """What is counted."""

    MESSAGES = "messages"
    OCTETS = "octets"
    RECIPIENTS = "recipients"


@frozen
class Limit:
    """So many of a unit in a window."""

    unit: Unit
    most: int
    window: float  # seconds
    each_account: bool  # else all accounts of the realm together


@define(eq=False)
class Bucket:
    """One limit's counts."""

    limit: Limit
    _now: Callable[[], float]
    _empty_at: OrderedDict[str, float] = field(factory=OrderedDict, init=False)

    def wait(self, account: str, amount: int) -> float:
        """Seconds until there is room for so many more; infinite where there never is."""
        if amount > self.limit.most:
            return math.inf
        pace = self.limit.most / self.limit.window
        full = max(0.0, self._empty_at.get(self._key(account), 0.0) - self._now()) * pace
        over = full + amount - self.limit.most
        return over / pace if over > 1e-6 * self.limit.most else 0.0

    def add(self, account: str, amount: int) -> float:
        """Count so many more.

        :return: the moment, for :meth:`give_back`.
        """
        self._count(account, amount)
        return self._now()

    def give_back(self, account: str, amount: int, since: float) -> None:
        """Do not count so many that were added from a moment on; what has drained is past."""
        drained = (self._now() - since) * self.limit.most / self.limit.window
        if drained < amount:
            self._count(account, drained - amount)

    def _count(self, account: str, amount: float) -> None:
        key, now = self._key(account), self._now()
        until = max(now, self._empty_at.get(key, 0.0)) + amount * self.limit.window / self.limit.most
        self._empty_at[key] = until
        self._empty_at.move_to_end(key)
        while self._empty_at and (len(self._empty_at) > _MOST or next(iter(self._empty_at.values())) <= now):
            self._empty_at.popitem(last=False)

    def _key(self, account: str) -> str:
        return account if self.limit.each_account else ""

    def __len__(self) -> int:
        return len(self._empty_at)


class RateRule(Rule):
    """See the module."""

    def __init__(self, limits: Sequence[Limit], now: Callable[[], float]) -> None:
        """:param now: the clock, in seconds; such as ``reactor.seconds``."""
        self._buckets = tuple(Bucket(limit, now) for limit in limits)

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return _Judgement(self._buckets, identity.name)


@define(eq=False)
class _Judgement(Judgement):
    _buckets: tuple[Bucket, ...]
    _account: str
    _taken: dict[Bucket, tuple[int, float]] = field(factory=dict, init=False)  # how much, and since when
    _octets: int = field(default=0, init=False)

    def sender(self, path: Path, parameters: MailParameters) -> None:
        if parameters.size:  # only a promise: it is counted when it has come
            self._room(Unit.OCTETS, parameters.size)  # first, since what never fits need not come back
        self._take(Unit.MESSAGES, 1)

    def recipient(self, envelope: Envelope, path: Path, parameters: RcptParameters) -> None:
        if path not in envelope.recipients:
            self._take(Unit.RECIPIENTS, 1)

    def open(self, envelope: Envelope) -> None:
        """Recipients that were refused, by another rule or the next hop, are none."""
        for bucket, (amount, since) in self._taken.items():
            if bucket.limit.unit is Unit.RECIPIENTS:
                # On trial, those that were refused here are among the envelope's.
                accepted = min(amount, len(envelope.recipients))
                bucket.give_back(self._account, amount - accepted, since)
                self._taken[bucket] = accepted, since

    def write(self, octets: bytes) -> None:
        self._octets += len(octets)

    def complete(self) -> None:
        self._take(Unit.OCTETS, self._octets)

    def abort(self) -> None:
        for bucket, (amount, since) in self._taken.items():
            bucket.give_back(self._account, amount, since)

    def _take(self, unit: Unit, amount: int) -> None:
        for bucket in self._room(unit, amount):
            now = bucket.add(self._account, amount)
            before, since = self._taken.get(bucket, (0, now))
            self._taken[bucket] = before + amount, since

    def _room(self, unit: Unit, amount: int) -> list[Bucket]:
        """The buckets of a unit, all of which have room.

        :raise Refused: one has none.
        """
        buckets = [bucket for bucket in self._buckets if bucket.limit.unit is unit]
        for bucket in buckets:
            wait, limit = bucket.wait(self._account, amount), bucket.limit
            whose = "the account" if limit.each_account else "the realm"
            cause = f"{limit.most} {unit.value} in {limit.window:g} s for {whose}"
            if math.isinf(wait):
                raise Refused(reply.rate_never(unit.value), f"{amount} at once, of {cause}")
            if wait:
                raise Refused(reply.rate_exceeded(unit.value, math.ceil(wait)), f"over {cause}")
        return buckets
