"""An MSA in this process, on loopback, with a test authority.

The server runs on trial's reactor; the client of :mod:`tests.msa_client` is run in a thread by
:meth:`MSATestCase.run_client`.
"""

import os
from collections.abc import Callable
from datetime import date
from typing import Any

from attrs import define, field
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IIncoming, IIntake
from digipoort_msa.sasl.digest_md5 import digest_secrets
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.server.admission import Admission
from digipoort_msa.server.connection import Connection
from digipoort_msa.server.factory import SubmissionFactory
from digipoort_msa.server.protocol import SubmissionProtocol
from digipoort_msa.server.tls import ServerTLS
from digipoort_msa.smtp.envelope import Envelope, Path, RcptParameters
from digipoort_msa.smtp.settings import SessionSettings
from digipoort_msa.submission import Submitter
from tests.account_doubles import CountingHashing, Inline, MemoryStore, account
from tests.msa_certificates import certificates
from tests.msa_client import ACCOUNT, HOSTNAME, MESSAGE, PASSWORD, PATIENCE, REALM, plain, transaction


@implementer(IIncoming)
@define(eq=False)
class MemoryIncoming:
    """A message on its way into a :class:`MemorySpool`."""

    spool: "MemorySpool"
    queue_id: str
    octets: bytearray = field(factory=bytearray)
    aborted: bool = False
    committed: "Deferred[str] | None" = None
    envelope: Envelope | None = None

    def sender(self, envelope: Envelope) -> None:
        """Memory takes them all."""

    def recipient(self, path: Path, parameters: RcptParameters) -> None:
        """Memory takes them all."""

    def write(self, octets: bytes) -> "Deferred[None] | None":
        self.octets += octets
        return self.spool.room

    def commit(self, envelope: Envelope) -> "Deferred[str]":
        assert not self.aborted
        self.envelope = envelope
        self.committed = Deferred()
        self.committed.addCallback(self._kept)
        if not self.spool.held:
            self.committed.callback("memory")
        return self.committed

    def _kept(self, location: str) -> str:
        assert self.envelope is not None
        self.spool.kept.append((self.envelope, bytes(self.octets)))
        return location

    def abort(self) -> None:
        assert self.committed is None
        self.aborted = True


@implementer(IIntake)
@define(eq=False)
class MemorySpool:
    """Keeps messages in lists; with ``held``, a commit fires when the test says so."""

    held: bool = False
    room: "Deferred[None] | None" = None  # what write() answers
    incoming: list[MemoryIncoming] = field(factory=list)
    kept: list[tuple[Envelope, bytes]] = field(factory=list)

    def receive(self, realm: str) -> MemoryIncoming:
        self.incoming.append(MemoryIncoming(self, f"Q{len(self.incoming) + 1:05}"))
        return self.incoming[-1]

    @property
    def contents(self) -> list[bytes]:
        """What clients sent, without our ``Received:`` field."""
        return [octets[octets.index(b"+0000\r\n") + 7 :] for _, octets in self.kept]


def make_realms(
    reactor: Any,
    spool: IIntake,
    *,
    store: MemoryStore | None = None,
    policies: tuple[Any, ...] = (),
    add_missing_headers: bool = False,
    mechanisms: tuple[str, ...] = ("DIGEST-MD5", "PLAIN", "LOGIN"),
    **throttle: Any,
) -> Realms:
    """One realm with one account."""

    def submitter(identity: Identity) -> Submitter:
        return Submitter(identity, spool, reactor.seconds, policies, add_missing_headers)

    inline: Any = Inline()
    passwords = Passwords(_hashing, inline, VerifiedPasswords(reactor.seconds))
    rules = RealmRules(name=REALM, mechanisms=frozenset(mechanisms))
    store = GuardedStore(store or make_store(), REALM, reactor)
    realm = Realm(rules, store, passwords, submitter, reactor, lambda: TODAY)
    throttle = {"first_delay": 0.0, "per_account_and_source": 50, **throttle}
    return Realms([realm], Throttle(reactor.seconds, **throttle), reactor, MECHANISMS, b"nobody")


def make_store() -> MemoryStore:
    return MemoryStore(
        account(
            ACCOUNT,
            REALM,
            password_hash=_hashing.hash(PASSWORD),
            digest_secrets=tuple(digest_secrets(ACCOUNT, REALM, PASSWORD)),
        )
    )


TODAY = date(2026, 1, 5)

_hashing = CountingHashing()
_OF_REALMS = {
    *("store", "policies", "add_missing_headers", "mechanisms"),
    *("per_account_and_source", "per_source", "first_delay"),
}


def make_factory(
    reactor: Any,
    realms: Realms,
    *,
    tls: ServerTLS | None = None,
    connections: int = 5000,
    connections_per_address: int = 5000,
    session: dict[str, Any] | None = None,
    **options: Any,
) -> SubmissionFactory:
    """:param session: of :class:`SessionSettings`; ``options`` are the factory's own."""
    settings = {"hostname": HOSTNAME, **(session or {})}
    return SubmissionFactory(
        reactor=reactor,
        session_settings=SessionSettings(**settings),
        realms=realms,
        digest_hosts=frozenset({"localhost", HOSTNAME}),
        tls=tls or ServerTLS(certificates().ec),
        admission=Admission(connections, connections_per_address),
        **options,
    )


# -- test cases ------------------------------------------------------------------------------------------


class _Events:
    """Collects what is logged."""

    def collect_events(self) -> None:
        self.logged: list[Any] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)  # type: ignore[attr-defined]

    def events(self, name: str) -> list[Any]:
        """The events of that name so far."""
        return [event for event in self.logged if event.get("event") == name]


class MSATestCase(_Events, TestCase):
    """A server on loopback."""

    timeout = 120

    def setUp(self) -> None:
        self.collect_events()
        self.spool = MemorySpool()
        self.files = certificates()
        self.factories: list[SubmissionFactory] = []  # of every listener; ``self.factory`` is the last one's

    def serve(self, *, endpoint: str = "tcp:0:interface=127.0.0.1", **options: Any) -> int:
        """Start a server; returns its port.  Options are those of ``make_factory`` and ``make_realms``."""
        theirs = {name: options.pop(name) for name in _OF_REALMS & set(options)}
        realms = options.pop("realms", None) or make_realms(global_reactor, self.spool, **theirs)
        self.factory = make_factory(global_reactor, realms, **options)
        port = self.successResultOf(serverFromString(global_reactor, endpoint).listen(self.factory))
        self.factories.append(self.factory)
        self.addCleanup(self.stop, port, self.factory)
        return getattr(port.getHost(), "port", 0)

    async def _stop(self, port: Any, factory: SubmissionFactory) -> None:
        await maybeDeferred(port.stopListening)
        for connection in list(factory.connections):
            connection.abort()
        await self.until(lambda: not factory.connections)

    def stop(self, port: Any, factory: SubmissionFactory) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._stop(port, factory))

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor turn until ``condition`` holds."""
        deadline = global_reactor.seconds() + PATIENCE
        while not condition():
            if global_reactor.seconds() > deadline:
                raise AssertionError("it never came true")
            await deferLater(global_reactor, 0.005)

    def run_client(self, script: Callable[..., Any], *arguments: Any, **keywords: Any) -> "Deferred[Any]":
        """Run blocking code in a thread."""
        return deferToThread(script, *arguments, **keywords)


class SecureTransport(StringTransport):
    """Stands in for the TLS layer after its handshake."""

    @define
    class _Handle:
        _certificate: Any
        _context: object

        def get_context(self) -> object:
            return self._context

        def get_protocol_version_name(self) -> str:
            return "TLSv1.3"

        def get_cipher_name(self) -> str:
            return "TLS_AES_256_GCM_SHA384"

        def get_peer_certificate(self, *, as_cryptography: bool) -> object:
            return self._certificate

        def get_verified_chain(self, *, as_cryptography: bool) -> Any:
            return self._certificate and [self._certificate]

    certificate: object = None  # the client's
    context: object = None
    aborted = False

    def resumeProducing(self) -> None:
        self.producerState = "producing"  # the TLS layer reads for its own end after loseConnection too

    def getHandle(self) -> object:
        return self._Handle(self.certificate, self.context)

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class ClockTestCase(_Events, SynchronousTestCase):
    """The protocol without sockets: a ``Clock``, a ``StringTransport``, and a spool in memory."""

    def setUp(self) -> None:
        self.collect_events()
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.spool = MemorySpool()

    def server(self, **options: Any) -> SubmissionFactory:
        theirs = {name: options.pop(name) for name in _OF_REALMS & set(options)}
        realms = options.pop("realms", None) or make_realms(self.clock, self.spool, **theirs)
        self.factory = make_factory(self.clock, realms, **options)
        return self.factory

    def connect(
        self,
        address: str = "192.0.2.1",
        *,
        secure: bool = True,
        handshake: bool = True,
        certificate: object = None,
    ) -> "Wire":
        """A connection to ``self.factory``, or to a fresh server; its greeting is read.

        :param certificate: ``x509.Certificate``, what the client shows.
        """
        factory = getattr(self, "factory", None) or self.server()
        protocol = SubmissionProtocol(Connection(factory, "S1"), under_tls=secure)
        transport = SecureTransport(peerAddress=IPv4Address("TCP", address, 50000))
        transport.certificate = certificate
        transport.context = factory.tls.serverConnectionForTLS(None).get_context()
        protocol.makeConnection(transport)
        if secure and handshake and not transport.disconnecting:
            protocol.handshakeCompleted()
        return Wire(self, protocol, transport)

    def logged_in(self, **options: Any) -> "Wire":
        """A connection on which EHLO and AUTH are done."""
        if options:
            self.server(**options)
        wire = self.connect()
        wire.read()
        wire.say("EHLO mijnbedrijf.nl", f"AUTH PLAIN {plain()}")
        assert wire.read().endswith("235 2.7.0 Authentication successful\r\n")
        return wire


@define(eq=False)
class Wire:
    """The client's end of a connection without sockets."""

    test: ClockTestCase
    protocol: SubmissionProtocol
    transport: SecureTransport

    def send(self, octets: bytes) -> None:
        """As the reactor would: in segments, and none while the server does not read."""
        for start in range(0, len(octets), 65536):
            for _ in range(100_000):
                if self.transport.producerState != "paused":
                    break
                self.turn()
            self.protocol.dataReceived(octets[start : start + 65536])

    def turn(self) -> None:
        self.test.clock.advance(0)

    def say(self, *lines: str) -> None:
        self.send("".join(f"{line}\r\n" for line in lines).encode())

    def read(self) -> str:
        """All that the server has said since."""
        text = self.transport.value().decode()
        self.transport.clear()
        return text

    def ask(self, *lines: str) -> str:
        self.say(*lines)
        return self.read()

    def lose(self) -> None:
        self.transport.disconnecting = True
        self.protocol.connectionLost()

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting

    def submit(self, message: bytes = MESSAGE) -> str:
        """One transaction, pipelined; returns its replies."""
        self.send(transaction(message))
        return self.read()


def memory() -> int:
    """Octets that this process has in memory."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
