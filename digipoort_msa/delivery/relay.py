"""The relay towards the core: deliveries over a pool of connections to the next hops (D1, D4)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.delivery import failures
from digipoort_msa.delivery.client import ClientConnection, Timeouts
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.pool import Pool
from digipoort_msa.delivery.session import Credentials, Session, open_session
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.delivery.transaction import transact
from digipoort_msa.interfaces import IContent, IDelivery
from digipoort_msa.smtp.envelope import Envelope, Outcome, Path


@implementer(IDelivery)
class Relay:
    """Hands messages to the first next hop that can be reached.

    Whatever a hop does becomes an :class:`~digipoort_msa.smtp.envelope.Outcome`; nothing of it is raised.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        hops: Sequence[Hop],
        hostname: str,
        tls: ClientTLS,
        *,
        credentials: Credentials | None = None,
        endpoint: Callable[[Hop], IStreamClientEndpoint] | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - a frozen value
        connections: int = 10,
        messages_per_connection: int = 100,
        idle_timeout: float = 30.0,
    ) -> None:
        """
        :param hops: in order of preference; the next is tried where one cannot be made ready for mail.
        :param hostname: our name, for EHLO.
        :param endpoint: where to connect for a hop; the default resolves its name and tries each address.
        :param connections: at once, over all hops.
        :param idle_timeout: seconds.
        :raise ValueError: there is no hop, or credentials would go in clear.
        """
        if not hops:
            raise ValueError("a relay needs at least one next hop")
        if credentials is not None and tls.mode == "none":
            raise ValueError("credentials for the next hop need TLS: set tls to verify or implicit")
        self._reactor = reactor
        self._hops = tuple(hops)
        self._hostname = hostname
        self._tls = tls
        self._credentials = credentials
        self._endpoint = endpoint or self._by_name
        self._timeouts = timeouts
        self._pool = Pool(
            reactor, self._connect, self._open_session, connections, idle_timeout, messages_per_connection
        )

    def deliver(self, envelope: Envelope, content: IContent) -> "Deferred[Mapping[Path, Outcome]]":
        """See :class:`~digipoort_msa.interfaces.IDelivery`."""
        return Deferred.fromCoroutine(self._deliver(envelope, content))

    def stop(self, grace: float = 10.0) -> "Deferred[None]":
        """Let transactions end, take leave of every hop.

        Deliveries that wait are put off (4.3.2), and so are those that last longer than ``grace`` seconds.

        :return: fires when all connections are closed.
        """
        return self._pool.stop(grace)

    async def _deliver(self, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
        await self._pool.slots.take()
        try:
            for hop in self._hops:
                try:
                    return await self._by(hop, envelope, content)
                except HopFailure as failure:
                    last = Outcome(failure.reply, hop.name)
            return dict.fromkeys(envelope.recipients, last)
        finally:
            self._pool.leave()

    async def _by(self, hop: Hop, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
        """Deliver by one hop.

        :raise HopFailure: it was not ready for mail; another hop may be.
        """
        session = await self._session(hop)
        used_before = session.transactions > 0
        try:
            return await transact(session, envelope, content)
        except HopFailure as failure:
            if not used_before:
                return dict.fromkeys(envelope.recipients, Outcome(failure.reply, hop.name))
        finally:
            self._pool.hand_back(session)
        # The hop had closed an idle connection before it saw anything of this message.
        session = await self._session(hop, fresh=True)
        try:
            return await transact(session, envelope, content)
        except HopFailure as failure:
            return dict.fromkeys(envelope.recipients, Outcome(failure.reply, hop.name))
        finally:
            self._pool.hand_back(session)

    async def _session(self, hop: Hop, fresh: bool = False) -> Session:
        if self._pool.stopping:
            raise HopFailure(failures.STOPPING)
        return await self._pool.session(hop, fresh)

    def _connect(self, hop: Hop) -> "Deferred[ClientConnection]":
        return Deferred.fromCoroutine(self._tcp(hop))

    async def _tcp(self, hop: Hop) -> ClientConnection:
        factory = Factory.forProtocol(lambda: ClientConnection(self._reactor, hop.name, self._timeouts))
        factory.noisy = False
        connecting: Deferred[Any] = self._endpoint(hop).connect(factory)
        connecting.addTimeout(self._timeouts.connect, self._reactor)
        try:
            return await connecting
        except CancelledError:
            raise HopFailure(failures.STOPPING) from None
        except Exception as error:
            failure = HopFailure(failures.unreachable(hop.name, str(error) or type(error).__name__))
            log.emit(log.HOP_UNAVAILABLE, hop=hop.name, reply=str(failure.reply))
            raise failure from error

    async def _open_session(self, connection: ClientConnection, hop: Hop) -> Session:
        try:
            session = await open_session(connection, hop, self._hostname, self._tls, self._credentials)
        except HopFailure as failure:
            log.emit(log.HOP_UNAVAILABLE, hop=hop.name, reply=str(failure.reply))
            raise
        log.emit(log.HOP_CONNECTED, hop=hop.name, tls=connection.tls)
        return session

    def _by_name(self, hop: Hop) -> IStreamClientEndpoint:
        return HostnameEndpoint(self._reactor, hop.host, hop.port, timeout=self._timeouts.connect)
