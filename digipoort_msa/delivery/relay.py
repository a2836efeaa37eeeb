"""The relay towards the core: deliveries over the connections to the next hops (D1, D4).

A delivery takes the best hop that does not rest: by priority, by a weighted draw among equals, and another
equal where the one drawn has no slot free.  A hop that is busy never sends anyone to a lesser one; a hop that
cannot be made ready for the message does, at once.
"""

import random as _random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.delivery import failures
from digipoort_msa.delivery.abandonable import abandonable
from digipoort_msa.delivery.choice import Entry, tiers
from digipoort_msa.delivery.client import ClientConnection, Timeouts
from digipoort_msa.delivery.dialogue import SMTP, Dialogue
from digipoort_msa.delivery.failures import HopFailure, NoHop
from digipoort_msa.delivery.health import Health, Rests
from digipoort_msa.delivery.hop import Hop, Limits, NextHop
from digipoort_msa.delivery.hops import Hops, Member, probe
from digipoort_msa.delivery.lease import Lease, note
from digipoort_msa.delivery.line import Line
from digipoort_msa.delivery.pool import Crowded, Pool
from digipoort_msa.delivery.routes import Resolving, Routes
from digipoort_msa.delivery.session import Credentials, Session
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import IContent, IDelivery
from digipoort_msa.smtp.envelope import Envelope, Outcome, Path
from digipoort_msa.smtp.reply import Reply


@implementer(IDelivery)
class Relay:
    """Hands messages to the best next hop that can be reached.

    Whatever a hop does becomes an :class:`~digipoort_msa.smtp.envelope.Outcome`; nothing of it is raised.
    """

    def __init__(
        self,
        reactor: Any,
        hops: Sequence[NextHop | Hop],
        hostname: str,
        tls: ClientTLS,
        *,
        credentials: Credentials | None = None,
        dialogue: Dialogue = SMTP,
        resolver: Resolving | None = None,
        recovered: Callable[[], object] = lambda: None,
        endpoint: Callable[[Hop], IStreamClientEndpoint] | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - a frozen value
        connections: int = 10,
        messages_per_connection: int = 100,
        idle_timeout: float = 30.0,
        first_rest: float = 5.0,
        longest_rest: float = 300.0,
        random: Callable[[], float] = _random.random,
        now: Callable[[], float] | None = None,
    ) -> None:
        """
        :param reactor: provides ``IReactorTime`` and what the endpoints need.
        :param hostname: our name, for EHLO.
        :param resolver: for the hops that are to be looked up in the DNS.
        :param recovered: called when a hop is back after deliveries found none: time for a flush.
        :param endpoint: where to connect for a hop; the default resolves its name and tries each address.
        :param connections: to one hop at once, where its entry says nothing else; so with the next two.
        :param idle_timeout: seconds.
        :param first_rest: seconds that a failing hop is left alone, then twice that, to ``longest_rest``.
        :param random: from 0 to 1, for the draw by weight and for the rests.
        :param now: seconds since the epoch, for what is told of a hop; unset means that the reactor's are.
        :raise ValueError: there is no hop, none can be looked up, or credentials would go in clear.
        """
        if credentials is not None and tls.mode == "none":
            raise ValueError("credentials for the next hop need TLS: set tls to verify or implicit")
        self._reactor = reactor
        self._hostname = hostname
        self._tls = tls
        self._credentials = credentials
        self._dialogue = dialogue
        self._recovered = recovered
        self._endpoint = endpoint or self._by_name
        self._timeouts = timeouts
        self._rests = Rests(first_rest, longest_rest)
        self._random = random
        self._now = now or reactor.seconds
        self._line = Line()
        self._missed = False  # some delivery found no hop since the last flush
        self._lost = False  # the last look-up found no hop for all
        self._stopping = False
        self._hops = Hops(reactor, self._member)
        self._routes = Routes(hops, Limits(connections, messages_per_connection, idle_timeout), resolver)
        for hop, limits in self._routes.fixed:
            self._hops.add(hop, limits)
        self._settled = self._order_for_all()

    def deliver(self, envelope: Envelope, content: IContent) -> "Deferred[Mapping[Path, Outcome]]":
        """See :class:`~digipoort_msa.interfaces.IDelivery`.

        Who cancels it ends it where it is: its connection is dropped, and nothing of it begins anew.
        """
        return Deferred.fromCoroutine(self._deliver(envelope, content))

    def session(self, envelope: Envelope) -> "Deferred[Lease]":
        """A session for one message, by the same choice of hops as for a delivery.

        :return: the caller ends the lease, whatever happens.  Cancelling gives up the wait.
        :raise NoHop: (as the failure) there is none to be had now.
        """
        return abandonable(Deferred.fromCoroutine(self._lease(envelope, {})), Lease.hand_back)

    def stop(self, grace: float = 10.0) -> "Deferred[None]":
        """Let transactions end, take leave of every hop.

        Deliveries that wait are put off (4.3.2), and so are those that last longer than ``grace`` seconds.

        :return: fires when all connections are closed.
        """
        self._stopping = True
        self._routes.stop()
        stopped = self._hops.stop(grace)
        self._line.look_around()
        return stopped

    # -- a delivery ---------------------------------------------------------------------------------

    async def _deliver(self, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
        tried: dict[Hop, Reply] = {}
        while True:
            try:
                lease = await self._lease(envelope, tried)
            except NoHop as failure:
                return dict.fromkeys(envelope.recipients, Outcome(failure.reply, failure.hop))
            try:
                return await self._transact(lease, envelope, content)
            except HopFailure as failure:
                lease.failed(failure)
                if failure.reply is failures.STOPPING:  # also where this delivery alone was cancelled
                    return dict.fromkeys(envelope.recipients, Outcome(failure.reply, lease.hop.name))
                if not isinstance(failure, Crowded):
                    tried[lease.hop] = failure.reply
            finally:
                lease.hand_back()

    async def _transact(self, lease: Lease, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
        """:raise HopFailure: the hop never answered; another may be tried."""
        if lease.used_before:
            try:
                return await self._dialogue.transact(lease.session, envelope, content)
            except HopFailure as failure:
                if failure.reply is failures.STOPPING:
                    raise
                # The hop had closed an idle connection before it saw anything of this message.
                await lease.renew()
        return await self._dialogue.transact(lease.session, envelope, content)

    async def _lease(self, envelope: Envelope, tried: dict[Hop, Reply]) -> Lease:
        """:param tried: the hops that have failed this message already, with their words; more are added."""
        while True:
            member = await self._slot(envelope, tried)
            try:
                return Lease(member, await member.pool.session())
            except Crowded:
                member.pool.leave()
            except HopFailure as failure:
                tried[member.hop] = failure.reply
                note(member, failure)
                member.pool.leave()
                if failure.reply is failures.STOPPING:
                    raise NoHop(failure.reply, member.hop.name) from failure
            except BaseException:
                member.pool.leave()
                raise

    async def _slot(self, envelope: Envelope, tried: Mapping[Hop, Reply]) -> Member:
        """A slot of the best hop that may be used."""
        while not self._stopping:
            order = self._settled
            if order is None or envelope.next_hop is not None:
                order = await self._order(envelope)
            for tier in order:
                choices = [m for m in tier if m.health.failing is None and m.hop not in tried]
                if choices:
                    break
            else:
                raise self._none_left([member for tier in order for member in tier], tried)
            for member in choices:
                if self._line.take_free(member.pool.slots):
                    return member
            slots = await self._line.take([member.pool.slots for member in choices])
            for member in choices:
                if member.pool.slots is slots:
                    if member.health.failing is None and not self._stopping:
                        return member
                    member.pool.leave()
        raise NoHop(failures.STOPPING, envelope.next_hop or str(self._routes))

    async def _order(self, envelope: Envelope) -> list[list[Member]]:
        """The hops for one message by priority, those of one priority in the order drawn."""
        entries = await self._entries(envelope.next_hop)
        order: list[list[Member]] = []
        refusal = failures.STOPPING
        for tier in tiers(entries, self._random) if not self._stopping else ():
            order.append([])
            for candidate in tier:
                try:
                    order[-1].append(self._hops.get(candidate.hop, candidate.limits))
                except HopFailure as failure:  # there are too many; those that fit are tried
                    refusal = failure.reply
        if not any(order):
            raise NoHop(refusal, envelope.next_hop or str(self._routes))
        return order

    async def _entries(self, next_hop: str | None) -> Sequence[Entry]:
        """:raise NoHop: nothing is known to be tried; when there is again, that is time for a flush too."""
        try:
            entries = await self._routes.entries(next_hop)
        except NoHop:
            self._lost = self._lost or next_hop is None
            raise
        if self._lost and next_hop is None:
            self._lost = False
            self._recovered()
        return entries

    def _order_for_all(self) -> list[list[Member]] | None:
        """What :meth:`_order` gives, where there is nothing to look up and nothing to draw."""
        order = tiers(self._routes.fixed_entries or (), self._random)
        if not order or any(len(tier) > 1 for tier in order):
            return None
        return [[self._hops.get(candidate.hop, candidate.limits)] for [candidate] in order]

    def _none_left(self, members: list[Member], tried: Mapping[Hop, Reply]) -> NoHop:
        self._missed = True
        if tried:
            hop, reply = list(tried.items())[-1]
            return NoHop(reply, hop.name)
        began = self._now() - self._reactor.seconds()
        resting = [
            (member.hop.name, began + member.health.failing.since, member.health.failing.reply)
            for member in members
            if member.health.failing is not None
        ]
        return NoHop(failures.resting(resting), ", ".join(hop for hop, _, _ in resting[:4]))

    # -- what a hop is made of ----------------------------------------------------------------------

    def _member(self, hop: Hop, limits: Limits) -> Member:
        pool = Pool(self._reactor, hop, limits, self._line, self._connect, self._open_session)
        health = Health(
            self._reactor,
            hop.name,
            self._rests,
            self._random,
            lambda: Deferred.fromCoroutine(probe(pool, self._line)),
            self._line.look_around,
            self._hop_recovered,
        )
        return Member(hop, pool, health)

    def _hop_recovered(self) -> None:
        if self._missed:
            self._missed = False
            self._recovered()

    def _connect(self, hop: Hop) -> "Deferred[ClientConnection]":
        return Deferred.fromCoroutine(self._connected(hop))

    async def _connected(self, hop: Hop) -> ClientConnection:
        factory = Factory.forProtocol(lambda: ClientConnection(self._reactor, hop.name, self._timeouts))
        factory.noisy = False
        connecting: Deferred[Any] = abandonable(self._endpoint(hop).connect(factory), _drop)
        connecting.addTimeout(self._timeouts.connect, self._reactor)
        try:
            return await connecting
        except CancelledError:
            raise HopFailure(failures.STOPPING) from None
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise HopFailure(failures.unreachable(hop.name, reason)) from error

    async def _open_session(self, connection: ClientConnection, hop: Hop) -> Session:
        opening = self._dialogue.open_session(connection, hop, self._hostname, self._tls, self._credentials)
        # Where this is given up, that is no failure of the hop, whatever a look-up or a login makes of it.
        session = await abandonable(Deferred.fromCoroutine(opening))
        log.emit(log.HOP_CONNECTED, hop=hop.name, tls=connection.tls)
        return session

    def _by_name(self, hop: Hop) -> IStreamClientEndpoint:
        if hop.socket is not None:
            return UNIXClientEndpoint(self._reactor, hop.socket, timeout=self._timeouts.connect)
        return HostnameEndpoint(self._reactor, hop.host, hop.port, timeout=self._timeouts.connect)


def _drop(connection: ClientConnection) -> None:
    """It stands when nobody waits for it any more."""
    connection.transport.abortConnection()
