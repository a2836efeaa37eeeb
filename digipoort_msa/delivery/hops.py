"""The hops of a relay: each with its connections and its health, those of the settings and those in passing.

A hop that the settings name is there for good.  One that the DNS or an operator names comes when a delivery
first asks for it, and goes when none has for a while; there are only so many of these.
"""

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.health import Health
from digipoort_msa.delivery.hop import Hop, Limits
from digipoort_msa.delivery.line import Line
from digipoort_msa.delivery.pool import Pool

_KEPT = 600.0  # seconds that a hop in passing stays without a delivery
_MOST = 64  # hops in passing
_NEW = 1.0  # seconds within which a delivery is still making up its mind


@define(eq=False)
class Member:
    """One hop of the relay."""

    hop: Hop
    pool: Pool
    health: Health
    passing: bool = False
    last_used: float = 0.0  # by the reactor's clock, of one in passing


async def probe(pool: Pool, line: Line) -> None:
    """Open a session and keep it for the next delivery.

    :raise HopFailure: it cannot be opened.
    """
    while await line.take([pool.slots]) is None:
        if pool.stopping:
            raise HopFailure(failures.STOPPING)
    try:
        pool.hand_back(await pool.session(fresh=True))
    finally:
        pool.leave()


class Hops:
    """All hops that the relay knows now."""

    def __init__(self, reactor: IReactorTime, make: Callable[[Hop, Limits], Member]) -> None:
        """:param make: a member that stays for good."""
        self._reactor = reactor
        self._make = make
        self._members: dict[Hop, Member] = {}
        self._leaving: set[Pool] = set()
        self._sweep: IDelayedCall | None = None

    def add(self, hop: Hop, limits: Limits) -> None:
        """One that stays for good."""
        if hop not in self._members:
            self._members[hop] = self._make(hop, limits)

    def get(self, hop: Hop, limits: Limits) -> Member:
        """One that is there, or else one in passing.

        :raise HopFailure: there are too many.
        """
        member = self._members.get(hop)
        if member is None:
            self._make_room()
            member = self._members[hop] = self._make(hop, limits)
            member.passing = True
        if member.passing:
            member.last_used = self._reactor.seconds()
            if self._sweep is None:
                self._sweep = self._reactor.callLater(_KEPT, self._swept)
        return member

    def stop(self, grace: float) -> "Deferred[Any]":
        """Stop every pool (:meth:`Pool.stop`); no hop is probed any more."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for member in list(self._members.values()):
            self._drop(member, grace)
        return DeferredList([pool.stop(grace) for pool in self._leaving])

    def _make_room(self) -> None:
        passing = [member for member in self._members.values() if member.passing]
        if len(passing) + len(self._leaving) < _MOST:
            return
        newest = self._reactor.seconds() - _NEW
        unused = [member for member in passing if member.pool.unused and member.last_used < newest]
        if not unused:
            raise HopFailure(failures.TOO_MANY_HOPS)
        self._drop(min(unused, key=lambda member: member.last_used))

    def _swept(self) -> None:
        self._sweep = None
        passing = [member for member in self._members.values() if member.passing]
        for member in passing:
            if not member.pool.unused:
                member.last_used = self._reactor.seconds()
            elif self._reactor.seconds() - member.last_used >= _KEPT:
                self._drop(member)
                passing = [other for other in passing if other is not member]
        if passing:
            oldest = min(member.last_used for member in passing)
            seconds = oldest + _KEPT - self._reactor.seconds()
            self._sweep = self._reactor.callLater(min(max(seconds, 1.0), _KEPT), self._swept)

    def _drop(self, member: Member, grace: float = 10.0) -> None:
        del self._members[member.hop]
        member.health.stop()
        self._leaving.add(member.pool)
        member.pool.stop(grace).addCallback(lambda _: self._leaving.discard(member.pool))
