"""A session with a next hop that listens on loopback, for tests of what goes before the first message."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from digipoort_msa.delivery.client import ClientConnection, Timeouts
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.session import Credentials, Session, open_session
from digipoort_msa.delivery.tls import ClientTLS
from tests.next_hop import EXTENSIONS, HopProtocol, SimpleHop


class SessionOverTLSTestCase(TestCase):
    """Hops with real TLS, one for each connection, in ``servers``."""

    timeout = 60

    def setUp(self) -> None:
        self.servers: list[SimpleHop] = []

    def listen(
        self, options: object, *, first: bool = False, extensions: tuple[str, ...] = EXTENSIONS
    ) -> int:
        """A hop on a loopback port.

        :param options: its TLS, a ``CertificateOptions``.
        :param first: TLS comes before the greeting; otherwise STARTTLS.
        """

        def connected() -> HopProtocol:
            server = SimpleHop(extensions if first else (*extensions, "STARTTLS"))
            self.servers.append(server)
            return HopProtocol(server, options)

        factory: Any = quiet(Factory.forProtocol(connected))
        if first:
            factory = TLSMemoryBIOFactory(options, False, factory)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port

    async def open(
        self,
        port: int,
        tls: ClientTLS,
        host: str = "core.example.nl",
        credentials: Credentials | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008
        secure: bool = True,
    ) -> Session:
        """:raise HopFailure: as ``open_session``."""
        hop = Hop(host, port, secure=secure)
        self.connection = await connect(port, hop.name, timeouts)
        self.addCleanup(self.close, self.connection)
        return await open_session(self.connection, hop, "msa.example.nl", tls, credentials)

    async def refusal(self, port: int, tls: ClientTLS, host: str = "core.example.nl", **how: Any) -> str:
        """The reply that stands for the hop which cannot be used."""
        try:
            await self.open(port, tls, host, **how)
        except HopFailure as failure:
            return str(failure.reply)
        raise AssertionError("the hop was taken")

    def close(self, connection: ClientConnection) -> "Deferred[None]":
        connection.transport.abortConnection()
        closed: Deferred[None] = Deferred()
        connection.closed.addCallback(lambda _: closed.callback(None))
        return closed


def connect(port: int, hop: str, timeouts: Timeouts) -> "Deferred[ClientConnection]":
    factory = quiet(Factory.forProtocol(lambda: ClientConnection(reactor, hop, timeouts)))
    return TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)


def quiet(factory: Factory) -> Factory:
    factory.noisy = False
    return factory
