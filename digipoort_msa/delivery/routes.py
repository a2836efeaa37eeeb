"""From the entries of a relay's list to hops: those of the settings as they are, others by the DNS.

A name that gives no hop now hides no other entry; only where no entry gives any is there nothing to try.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.choice import Candidate, Entry
from digipoort_msa.delivery.failures import HopFailure, NoHop
from digipoort_msa.delivery.hop import MX, Hop, Limits, NextHop, Target
from digipoort_msa.delivery.records import Answer, ExchangerRecord, LookupFailed, ServiceRecord
from digipoort_msa.smtp.reply import Reply


class Resolving(Protocol):
    """What is asked of a resolver; :class:`~digipoort_msa.delivery.resolving.Resolver` is one.

    Both fail with :class:`~digipoort_msa.delivery.records.LookupFailed`.
    """

    def mx(self, domain: str) -> "Deferred[Answer[ExchangerRecord]]":
        """The MX records of a domain."""

    def srv(self, service: str) -> "Deferred[Answer[ServiceRecord]]":
        """The SRV records of a service."""


class Routes:
    """Where the messages of one relay go.

    :ivar fixed_entries: what :meth:`entries` gives, where there is never anything to look up; else ``None``.
    """

    def __init__(self, hops: Sequence[NextHop | Hop], usual: Limits, resolver: Resolving | None) -> None:
        """:raise ValueError: there is no hop, or one to be looked up and nothing to do that with."""
        if not hops:
            raise ValueError("a relay needs at least one next hop")
        self._usual = usual
        self._resolver = resolver
        self._waiting: set[Deferred[Any]] = set()
        self._routes = [
            _Route.of(hop if isinstance(hop, NextHop) else NextHop(hop), place, usual)
            for place, hop in enumerate(hops, 1)
        ]
        if resolver is None and not self._all_fixed():
            raise ValueError("next hops that are looked up in the DNS need a resolver")
        self.fixed_entries = [route.entry() for route in self._routes] if self._all_fixed() else None

    @property
    def fixed(self) -> list[tuple[Hop, Limits]]:
        """The hops that are there for good."""
        return [(route.target, route.limits) for route in self._routes if isinstance(route.target, Hop)]

    def __str__(self) -> str:
        """For outcomes that no single hop decided."""
        more = len(self._routes) - 1
        return f"{self._routes[0].target}" + (f" and {more} more" if more else "")

    async def entries(self, next_hop: str | None = None) -> Sequence[Entry]:
        """What a message may be given to.

        :param next_hop: where an operator sends it, instead of where all go.
        :raise NoHop: there is nothing.
        """
        if next_hop is not None:
            try:
                wanted = NextHop(next_hop)
            except ValueError as error:
                raise NoHop(failures.no_route(next_hop, str(error)), next_hop) from None
            return await self._found([_Route.of(wanted, 1, self._usual)], next_hop)
        if self.fixed_entries is not None:
            return self.fixed_entries
        return await self._found(self._routes, str(self))

    def stop(self) -> None:
        """Whoever waits for a look-up gets :class:`NoHop`."""
        for waiting in list(self._waiting):
            waiting.cancel()

    def _all_fixed(self) -> bool:
        return all(isinstance(route.target, Hop) for route in self._routes)

    async def _found(self, routes: "Sequence[_Route]", name: str) -> Sequence[Entry]:
        entries = []
        reply: Reply | None = None
        for route in routes:
            try:
                entries.append(route.entry(await self._candidates(route)))
            except HopFailure as failure:
                reply = failure.reply
                if reply is failures.STOPPING:
                    break
        if reply is failures.STOPPING or not entries:
            raise NoHop(reply or failures.STOPPING, name)
        return entries

    async def _candidates(self, route: "_Route") -> Sequence[Candidate]:
        """None where the target is a hop itself."""
        target = route.target
        if isinstance(target, Hop):
            return ()
        if self._resolver is None:
            raise HopFailure(failures.not_looked_up(str(target), "there is no resolver"))
        try:
            if isinstance(target, MX):
                found = _exchangers(target, await self._wait(self._resolver.mx(target.domain)), route.limits)
            else:
                found = _servers(await self._wait(self._resolver.srv(target.service)), route.limits)
        except LookupFailed as error:
            raise HopFailure(failures.not_looked_up(str(target), str(error))) from error
        except CancelledError:
            raise HopFailure(failures.STOPPING) from None
        if not found:
            raise HopFailure(failures.no_route(str(target), "the DNS names no server for it"))
        return found

    async def _wait(self, lookup: "Deferred[Any]") -> Any:
        if lookup.called:
            return await lookup
        self._waiting.add(lookup)
        try:
            return await lookup
        finally:
            self._waiting.discard(lookup)


class _Route:
    """An entry of the list, with what it leaves out filled in."""

    def __init__(self, target: Target, priority: int, weight: int, limits: Limits) -> None:
        self.target = target
        self.priority = priority
        self.weight = weight
        self.limits = limits

    @classmethod
    def of(cls, hop: NextHop, place: int, usual: Limits) -> "_Route":
        priority = place if hop.priority is None else hop.priority
        return cls(hop.hop, priority, hop.weight, hop.limits(usual))

    def entry(self, candidates: Sequence[Candidate] = ()) -> Entry:
        """:param candidates: what the target was found to be, where it is not a hop itself."""
        if isinstance(self.target, Hop):
            candidates = (Candidate(self.target, self.limits),)
        return Entry(candidates, self.priority, self.weight)


def _exchangers(mx: MX, answer: Answer[ExchangerRecord], limits: Limits) -> list[Candidate]:
    if answer.exists and not answer.records:
        # The domain itself is its exchanger (RFC 5321 5.1).  Its name is the one in the settings: whoever
        # forges this answer still has to prove that he is that host.
        return [Candidate(Hop(mx.domain, mx.port), limits)]
    return [
        Candidate(Hop(record.host, mx.port, secure=answer.authenticated), limits, record.preference)
        for record in answer.records
        if record.host != "."  # it takes no mail (RFC 7505)
    ]


def _servers(answer: Answer[ServiceRecord], limits: Limits) -> list[Candidate]:
    return [
        Candidate(
            Hop(record.host, record.port, secure=answer.authenticated), limits, record.priority, record.weight
        )
        for record in answer.records
        if record.host != "."  # it is decidedly not available (RFC 2782)
    ]
