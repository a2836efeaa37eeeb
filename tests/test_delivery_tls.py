"""TLS towards the next hop, for real, over loopback."""

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import TLSVersion
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa import log
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials
from digipoort_msa.delivery.tls import ClientTLS, Mode
from tests.authority import Authority
from tests.next_hop import EXTENSIONS, MESSAGE, Content, HopProtocol, SimpleHop, envelope
from tests.requirements import proves

AUTHORITY = Authority()


@proves("D4")
class VerificationTests(TestCase):
    """A hop called ``core.example.nl`` that listens on 127.0.0.1."""

    timeout = 20

    def setUp(self) -> None:
        self.ca_file = Path(self.mktemp())
        self.ca_file.write_bytes(AUTHORITY.pem)
        self.servers: list[SimpleHop] = []
        self.events: list[tuple[log.Event, dict[str, Any]]] = []
        self.patch(log, "emit", lambda event, **fields: self.events.append((event, fields)))

    def listen(self, options: object, mode: Mode, extensions: tuple[str, ...] = EXTENSIONS) -> int:
        def connected() -> HopProtocol:
            server = SimpleHop(extensions if mode == "implicit" else (*extensions, "STARTTLS"))
            self.servers.append(server)
            return HopProtocol(server, options)

        factory: Any = Factory.forProtocol(connected)
        factory.noisy = False
        if mode == "implicit":
            factory = TLSMemoryBIOFactory(options, False, factory)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def relay(self, port: int, mode: Mode, host: str, **settings: Any) -> Relay:
        relay = Relay(
            reactor,
            [Hop(host, port)],
            "msa.example.nl",
            ClientTLS(mode, self.ca_file),
            endpoint=lambda hop: TCP4ClientEndpoint(reactor, "127.0.0.1", hop.port),
            **settings,
        )
        self.addCleanup(relay.stop)
        return relay

    @inlineCallbacks
    def reply(
        self,
        options: object,
        mode: Mode = "verify",
        host: str = "core.example.nl",
        content: Content = MESSAGE,
    ) -> Any:
        """What a relay that connects to ``host`` gets for a message, as text."""
        port = self.listen(options, mode)
        outcomes = yield self.relay(port, mode, host).deliver(envelope(), content)
        [outcome] = outcomes.values()
        return str(outcome.reply)

    @inlineCallbacks
    def refused(self, options: object, *words: str, host: str = "core.example.nl") -> Any:
        modes: tuple[Mode, ...] = ("verify", "implicit")
        for mode in modes:
            reply = yield self.reply(options, mode, host)
            self.assertIn("451 4.7.5", reply)
            for word in words:
                self.assertIn(word, reply)
            self.assertNotIn(b"MAIL", b"".join(self.servers[-1].commands))
        [*_, (event, fields)] = self.events
        self.assertEqual((event, fields["reply"]), (log.HOP_RESTS, reply))

    @inlineCallbacks
    def test_right_name(self) -> Any:
        modes: tuple[Mode, ...] = ("verify", "implicit")
        for mode in modes:
            reply = yield self.reply(AUTHORITY.server("core.example.nl"), mode)
            self.assertIn("250 2.0.0", reply)
            self.assertEqual(self.servers[-1].messages[0][1], MESSAGE.octets)
        [fields] = [fields for event, fields in self.events if event is log.HOP_CONNECTED][:1]
        self.assertIn("TLSv1.3", fields["tls"])

    @inlineCallbacks
    def test_address(self) -> Any:
        reply = yield self.reply(AUTHORITY.server("127.0.0.1"), host="127.0.0.1")
        self.assertIn("250 2.0.0", reply)
        reply = yield self.reply(AUTHORITY.server("::1"), host="::1")
        self.assertIn("250 2.0.0", reply)
        yield self.refused(AUTHORITY.server("192.0.2.1"), host="127.0.0.1")

    @inlineCallbacks
    def test_tls_12(self) -> Any:
        options = AUTHORITY.server("core.example.nl", lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
        self.assertIn("250 2.0.0", (yield self.reply(options)))

    def test_wrong_name(self) -> Any:
        return self.refused(
            AUTHORITY.server("evil.example.nl"), "names another host than core.example.nl", "server-name"
        )

    def test_unknown_ca(self) -> Any:
        return self.refused(Authority().server("core.example.nl"), "not trusted here", "setting ca")

    def test_expired(self) -> Any:
        return self.refused(AUTHORITY.server("core.example.nl", expired=True), "has expired")

    @inlineCallbacks
    def test_large_content(self) -> Any:
        segment = (b".dots at every boundary.\r\n" * 10_083)[:262_144]
        content = Content(*[segment] * 8, b"\r\n")
        reply = yield self.reply(AUTHORITY.server("core.example.nl"), content=content)
        self.assertIn("250 2.0.0", reply)
        self.assertEqual(self.servers[-1].messages[0][1], content.octets)

    @inlineCallbacks
    def test_authenticated(self) -> Any:
        port = self.listen(AUTHORITY.server("core.example.nl"), "verify", (*EXTENSIONS, "AUTH PLAIN"))
        relay = self.relay(port, "verify", "core.example.nl", credentials=Credentials("relay", "secret"))
        [outcome] = (yield relay.deliver(envelope(), MESSAGE)).values()
        self.assertIn("451 4.7.8", str(outcome.reply))  # this hop answers AUTH with 250
        self.assertIn(b"AUTH PLAIN AHJlbGF5AHNlY3JldA==", self.servers[0].commands)

    @inlineCallbacks
    def test_text_behind_starttls(self) -> Any:
        """In the same segment or not, it is either seen as such or breaks the handshake."""
        for delay in (None, 0.01):
            port = self.listen(AUTHORITY.server("core.example.nl"), "verify")
            self.patch(HopProtocol, "_start_tls", lambda hop, delay=delay: self.inject(hop, delay))
            [outcome] = (
                yield self.relay(port, "verify", "core.example.nl").deliver(envelope(), MESSAGE)
            ).values()
            self.assertTrue(outcome.reply.transient)
            self.assertEqual([c[:4] for c in self.servers[-1].commands], [b"EHLO", b"STAR"])

    def inject(self, hop: HopProtocol, delay: float | None) -> None:
        if delay is None:
            send, hop._send = hop._send, lambda octets: send(octets + b"250 injected\r\n")
        else:
            reactor.callLater(delay, hop.transport.write, b"250 injected\r\n")


class SettingsTests(SynchronousTestCase):
    def test_mode(self) -> None:
        self.assertRaises(ValueError, ClientTLS, "maybe")

    def test_ca_file(self) -> None:
        path = Path(self.mktemp())
        self.assertRaises(OSError, ClientTLS, "verify", path)
        path.write_bytes(b"nothing of the kind")
        error = self.assertRaises(ValueError, ClientTLS, "verify", path)
        self.assertIn(str(path), str(error))

    @proves("D4")
    async def test_versions(self) -> None:
        """The ClientHello offers 1.3 and 1.2 alone (RFC 8996)."""
        options = await ClientTLS("verify").handshake(Hop("core.example.nl", 25))
        transport = StringTransport()
        factory = TLSMemoryBIOFactory(options, True, Factory.forProtocol(Protocol))
        factory.buildProtocol(None).makeConnection(transport)
        supported_versions = bytes.fromhex("002b 0005 04 0304 0303")
        self.assertIn(supported_versions, transport.value())
        self.assertIn(b"core.example.nl", transport.value())  # SNI
