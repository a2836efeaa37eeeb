"""TLS towards the next hop, for real, over loopback."""

import contextlib
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, TLSVersion, trustRootFromCertificates
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials
from digipoort_msa.delivery.tls import ClientTLS, Mode, Unverified
from tests.authority import Authority
from tests.hop_session import SessionOverTLSTestCase
from tests.next_hop import EXTENSIONS, MESSAGE, Content, HopProtocol, envelope
from tests.requirements import proves

AUTHORITY = Authority()
HOST = "core.example.nl"
MODES: tuple[Mode, ...] = ("verify", "implicit")


def pin(certificate: bytes) -> str:
    """The pin of a certificate in PEM form."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(sha256(octets).digest()).decode()


@proves("D4")
class VerificationTests(SessionOverTLSTestCase):
    """A hop called ``core.example.nl`` that listens on 127.0.0.1."""

    def setUp(self) -> None:
        super().setUp()
        self.ca_file = Path(self.mktemp())
        self.ca_file.write_bytes(AUTHORITY.pem)
        self.events: list[tuple[log.Event, dict[str, Any]]] = []
        self.patch(log, "emit", lambda event, **fields: self.events.append((event, fields)))

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
        self, options: object, mode: Mode = "verify", host: str = HOST, content: Content = MESSAGE
    ) -> Any:
        """What a relay that connects to ``host`` gets for a message, as text."""
        port = self.listen(options, first=mode == "implicit")
        outcomes = yield self.relay(port, mode, host).deliver(envelope(), content)
        [outcome] = outcomes.values()
        return str(outcome.reply)

    @inlineCallbacks
    def refused(self, options: object, *words: str, host: str = HOST) -> Any:
        for mode in MODES:
            reply = yield self.reply(options, mode, host)
            self.assertIn("451 4.7.5", reply)
            for word in words:
                self.assertIn(word, reply)
            self.assertNotIn(b"MAIL", b"".join(self.servers[-1].commands))
        [*_, (_, fields)] = self.events
        self.assertEqual(fields["reply"], reply)

    @inlineCallbacks
    def test_right_name(self) -> Any:
        for mode in MODES:
            reply = yield self.reply(AUTHORITY.server(HOST), mode)
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
        options = AUTHORITY.server(HOST, lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
        self.assertIn("250 2.0.0", (yield self.reply(options)))

    def test_wrong_name(self) -> Any:
        options = AUTHORITY.server("evil.example.nl")
        return self.refused(options, f"another host than {HOST}", "server-name")

    def test_unknown_ca(self) -> Any:
        return self.refused(Authority().server(HOST), "not trusted here", "setting ca")

    def test_expired(self) -> Any:
        return self.refused(AUTHORITY.server(HOST, expired=True), "has expired")

    @inlineCallbacks
    def test_large_content(self) -> Any:
        segment = (b".dots at every boundary.\r\n" * 10_083)[:262_144]
        content = Content(*[segment] * 8, b"\r\n")
        reply = yield self.reply(AUTHORITY.server(HOST), content=content)
        self.assertIn("250 2.0.0", reply)
        self.assertEqual(self.servers[-1].messages[0][1], content.octets)

    @inlineCallbacks
    def test_authenticated(self) -> Any:
        port = self.listen(AUTHORITY.server(HOST), extensions=(*EXTENSIONS, "AUTH PLAIN"))
        relay = self.relay(port, "verify", HOST, credentials=Credentials("relay", "secret"))
        [outcome] = (yield relay.deliver(envelope(), MESSAGE)).values()
        self.assertIn("451 4.7.8", str(outcome.reply))  # this hop answers AUTH with 250
        self.assertIn(b"AUTH PLAIN AHJlbGF5AHNlY3JldA==", self.servers[0].commands)

    async def injected(self) -> None:
        port = self.listen(AUTHORITY.server(HOST))
        outcomes = await self.relay(port, "verify", HOST).deliver(envelope(), MESSAGE)
        [outcome] = outcomes.values()
        self.assertTrue(outcome.reply.transient)
        self.assertEqual([c[:4] for c in self.servers[-1].commands], [b"EHLO", b"STAR"])

    async def test_text_behind_starttls(self) -> None:
        """In the same segment it is seen as such."""

        def inject(hop: HopProtocol) -> None:
            send, hop._send = hop._send, lambda octets: send(octets + b"250 injected\r\n")

        self.patch(HopProtocol, "_start_tls", inject)
        await self.injected()

    async def test_text_instead_of_tls(self) -> None:
        """Later it breaks the handshake."""

        def inject(hop: HopProtocol) -> None:
            hop.dataReceived = lambda data: hop.transport.write(b"250 injected\r\n")

        self.patch(HopProtocol, "_start_tls", inject)
        await self.injected()


@proves("D4")
class ExpectationTests(SessionOverTLSTestCase):
    """What the operator expects of a hop besides, and shows it."""

    def setUp(self) -> None:
        super().setUp()
        self.ca_file = self.file(AUTHORITY.pem)

    def file(self, octets: bytes) -> Path:
        path = Path(self.mktemp())
        path.write_bytes(octets)
        return path

    async def test_server_name(self) -> None:
        """It takes the place of the hop's own name, in SNI too."""
        names: list[bytes | None] = []
        options = AUTHORITY.server("other.example.nl")
        options.getContext().set_tlsext_servername_callback(lambda c: names.append(c.get_servername()))
        for mode in MODES:
            port = self.listen(options, first=mode == "implicit")
            tls = ClientTLS(mode, self.ca_file, server_name="other.example.nl")
            await self.open(port, tls)
            await self.open(port, tls, "127.0.0.1")
        self.assertEqual(names, [b"other.example.nl"] * 4)
        port = self.listen(AUTHORITY.server(HOST))
        refusal = await self.refusal(port, ClientTLS("verify", self.ca_file, server_name="other.example.nl"))
        self.assertIn("451 4.7.5", refusal)
        self.assertIn("another host than other.example.nl", refusal)

    async def test_a_name_that_anyone_could_forge(self) -> None:
        """The DNS named the host without authentication: its certificate for that name proves nothing."""
        chain, key = AUTHORITY.files(HOST)
        port = self.listen(AUTHORITY.options(chain, key))
        refusal = await self.refusal(port, ClientTLS("verify", self.ca_file), secure=False)
        for words in ("451 4.7.5", "DNSSEC", "server-name", "public-key-pins", "resolver"):
            self.assertIn(words, refusal)
        self.assertEqual(self.servers[-1].commands, [])
        await self.open(port, ClientTLS("verify", self.ca_file, server_name=HOST), secure=False)
        await self.open(port, ClientTLS("verify", self.ca_file, public_key_pins=(pin(chain),)), secure=False)

    async def test_pin(self) -> None:
        chain, key = AUTHORITY.files(HOST)
        options = AUTHORITY.options(chain, key)
        right, wrong = pin(chain), pin(AUTHORITY.pem)
        for mode in MODES:
            port = self.listen(options, first=mode == "implicit")
            session = await self.open(port, ClientTLS(mode, self.ca_file, public_key_pins=(wrong, right)))
            self.assertIn("pinned", session.connection.tls)
            refusal = await self.refusal(port, ClientTLS(mode, self.ca_file, public_key_pins=(wrong,)))
            self.assertIn("451 4.7.5", refusal)
            self.assertIn("public-key-pins", refusal)
            clear = [] if mode == "implicit" else [b"EHLO msa.example.nl", b"STARTTLS"]
            self.assertEqual(self.servers[-1].commands, clear)  # it never heard a word under TLS

    async def test_pin_does_not_replace_the_certificate_check(self) -> None:
        stranger = Authority()
        chain, key = stranger.files(HOST)
        port = self.listen(stranger.options(chain, key))
        refusal = await self.refusal(port, ClientTLS("verify", self.ca_file, public_key_pins=(pin(chain),)))
        self.assertIn("not trusted here", refusal)
        chain, key = AUTHORITY.files("evil.example.nl")
        port = self.listen(AUTHORITY.options(chain, key))
        refusal = await self.refusal(port, ClientTLS("verify", self.ca_file, public_key_pins=(pin(chain),)))
        self.assertIn("another host", refusal)

    def two_way(self, version: TLSVersion) -> Any:
        """A hop that wants a certificate of ours."""
        ours = trustRootFromCertificates([Certificate.loadPEM(AUTHORITY.pem)])
        return AUTHORITY.server(HOST, trustRoot=ours, lowerMaximumSecurityTo=version)

    async def test_client_certificate(self) -> None:
        chain, key = (self.file(octets) for octets in AUTHORITY.files("msa.example.nl"))
        for version in (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3):
            for mode in MODES:
                port = self.listen(self.two_way(version), first=mode == "implicit")
                await self.open(port, ClientTLS(mode, self.ca_file, certificate=chain, private_key=key))

    async def test_no_client_certificate(self) -> None:
        """By TLS 1.3 the hop says so only after the handshake."""
        for version in (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3):
            for mode in MODES:
                port = self.listen(self.two_way(version), first=mode == "implicit")
                refusal = await self.refusal(port, ClientTLS(mode, self.ca_file))
                self.assertIn("451 4.7.5", refusal)
                self.assertIn("settings certificate and private-key", refusal)

    async def test_client_certificate_of_a_stranger(self) -> None:
        chain, key = (self.file(octets) for octets in Authority().files("msa.example.nl"))
        for version in (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3):
            port = self.listen(self.two_way(version))
            tls = ClientTLS("verify", self.ca_file, certificate=chain, private_key=key)
            self.assertIn("settings certificate and private-key", await self.refusal(port, tls))

    async def test_reload(self) -> None:
        """New authorities and a new certificate count from the next connection on; faulty ones never do."""
        other = Authority()
        shown, key = (self.file(octets) for octets in Authority().files("msa.example.nl"))
        tls = ClientTLS("verify", self.ca_file, certificate=shown, private_key=key)
        port = self.listen(
            other.server(HOST, trustRoot=trustRootFromCertificates([Certificate.loadPEM(other.pem)]))
        )
        self.assertIn("not trusted here", await self.refusal(port, tls))
        self.ca_file.write_bytes(b"nothing")
        self.assertRaises(ValueError, tls.reload)
        self.assertIn("not trusted here", await self.refusal(port, tls))
        self.ca_file.write_bytes(other.pem)
        for file, octets in zip((shown, key), other.files("msa.example.nl"), strict=True):
            file.write_bytes(octets)
        tls.reload()
        await self.open(port, tls)

    async def test_a_certificate_with_nonsense_for_names(self) -> None:
        """What cannot be read proves nothing (and must not be skipped)."""
        chain, key = AUTHORITY.files(HOST, nonsense=True)
        port = self.listen(AUTHORITY.options(chain, key))
        self.assertIn("451 4.7.5", await self.refusal(port, ClientTLS("verify", self.ca_file)))

    async def test_renegotiation_is_not_done(self) -> None:
        """A hop that was proven cannot become another one on the same connection."""
        options = AUTHORITY.server(HOST, lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
        connected: list[Any] = []
        self.patch(HopProtocol, "makeConnection", _remembered(connected, HopProtocol.makeConnection))
        session = await self.open(self.listen(options), ClientTLS("verify", self.ca_file))
        [server] = connected
        theirs, ours = server.transport.getHandle(), session.connection.transport.getHandle()
        theirs.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            theirs.do_handshake()
        server.transport.protocol._flushSendBIO()
        with contextlib.suppress(HopFailure):  # servers differ in how they take the refusal
            await session.connection.command(b"NOOP", 5)
        self.assertEqual(ours.total_renegotiations(), 0)


def _remembered(connected: list[Any], make_connection: Any) -> Any:
    def remembering(protocol: Any, transport: Any) -> None:
        connected.append(protocol)
        make_connection(protocol, transport)

    return remembering


class SettingsTests(SynchronousTestCase):
    def handshake(self, tls: ClientTLS) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(tls.handshake(Hop(HOST, 25))))

    def test_mode(self) -> None:
        self.assertRaises(ValueError, ClientTLS, "maybe")

    def test_ca_file(self) -> None:
        path = Path(self.mktemp())
        self.assertRaises(OSError, ClientTLS, "verify", path)
        path.write_bytes(b"nothing of the kind")
        error = self.assertRaises(ValueError, ClientTLS, "verify", path)
        self.assertIn(str(path), str(error))

    def test_certificate_and_key(self) -> None:
        """Whatever is wrong with them is known at the start, and no part of a key is shown."""
        chain, key = AUTHORITY.files("msa.example.nl")
        other_key = AUTHORITY.files("msa.example.nl")[1]
        for wrong_chain, wrong_key in ((chain, other_key), (b"", key), (chain, b""), (chain, chain)):
            files = Path(self.mktemp()), Path(self.mktemp())
            for file, octets in zip(files, (wrong_chain, wrong_key), strict=True):
                file.write_bytes(octets)
            error = self.assertRaises(
                ValueError, ClientTLS, "verify", certificate=files[0], private_key=files[1]
            )
            self.assertTrue(any(str(file) in str(error) for file in files))
            self.assertNotIn(other_key.decode().split("\n")[1], str(error))
        self.assertRaises(ValueError, ClientTLS, "verify", certificate=files[0])
        self.assertRaises(ValueError, ClientTLS, "verify", private_key=files[0])

    def test_pins(self) -> None:
        for text in ("", "AAAA", "no base64", pin(AUTHORITY.pem)[:-1]):
            self.assertRaises(ValueError, ClientTLS, "verify", public_key_pins=(text,))

    @proves("D4")
    def test_versions(self) -> None:
        """The ClientHello offers 1.3 and 1.2 alone (RFC 8996)."""
        transport = StringTransport()
        factory = TLSMemoryBIOFactory(
            self.handshake(ClientTLS("verify")), True, Factory.forProtocol(Protocol)
        )
        factory.buildProtocol(None).makeConnection(transport)
        supported_versions = bytes.fromhex("002b 0005 04 0304 0303")
        self.assertIn(supported_versions, transport.value())
        self.assertIn(b"core.example.nl", transport.value())  # SNI

    def test_no_proof_without_a_handshake(self) -> None:
        self.assertRaises(Unverified, self.handshake(ClientTLS("verify")).verify)
