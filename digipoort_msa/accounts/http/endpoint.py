"""Asking over HTTPS: a JSON object goes out as a POST, and what comes back is bounded in time and in octets.

The peer is somebody else's program, and may send what it likes for as long as it likes.  So the connection
itself counts what it receives for each question, header fields and all; nothing is decompressed; no redirect
is followed and no cookie kept; and a connection that is not wanted any more is dropped, without waiting for
the peer's goodbye.

HTTP/1.1 tells which question an answer is to by nothing but their order.  A peer, or a proxy before it, that
once answers twice is off by one on that connection from then on: what was said of one password would be taken
for what is said of the next.  So a question whose answer is a yes or a no has a connection of its own, and
:meth:`Endpoint.distrust` drops those that were kept as soon as an answer is not to its question.
"""

from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IResponse
from zope.interface import implementer

from digipoort_msa.interfaces import Unavailable

#: Octets of an answer's content, and of all that is received for one question.
MAXIMUM = 65_536
_RECEIVED = 2 * MAXIMUM
_IDLE = 30  # seconds that a connection is kept for the next question


class Unanswered(Unavailable):
    """The endpoint gave no answer at all: it cannot be reached, is not who it should be, or took too long."""


@frozen
class Answer:
    status: int
    media_type: str  # in lower case, without parameters
    content: bytes


class ClientTLS:
    """How the endpoint proves who it is, and we who we are.  Files are read when this is made."""

    def __init__(
        self, ca: Path | None = None, certificate: Path | None = None, private_key: Path | None = None
    ) -> None:
        """
        :param ca: PEM with the authorities of its certificate; ``None`` trusts the system's.
        :param certificate: PEM with the certificate that we show, and after it the intermediate ones.
        :param private_key: PEM with its key.
        :raise OSError: a file cannot be read.
        :raise ValueError: a file does not hold what it should.
        """
        self._trust = platformTrust() if ca is None else trustRootFromCertificates(_authorities(ca))
        self._options: dict[str, Any] = {}
        if certificate is not None and private_key is not None:
            self._options = _own(certificate, private_key)

    def for_host(self, host: str) -> IOpenSSLClientConnectionCreator:
        """For one connection; its certificate has to be for ``host``, a name or an IP address."""
        return optionsForClientTLS(
            host,
            self._trust,
            extraCertificateOptions=dict(self._options),
        )


class Endpoint:
    """Somebody who is asked with POST."""

    def __init__(
        self,
        reactor: Any,
        tls: ClientTLS,
        *,
        token: str | None,
        connect_timeout: float,
        timeout: float,
        connections: int,
    ) -> None:
        """
        :param token: for ``Authorization: Bearer``.
        :param connect_timeout: seconds for each address until it is connected to.
        :param timeout: seconds for everything.
        :param connections: that are kept for the next question.
        """
        self._reactor = reactor
        self._timeout = timeout
        self._headers = Headers({"Accept": ["application/json"], "User-Agent": ["digipoort-msa"]})
        if token is not None:
            self._headers.addRawHeader("Authorization", f"Bearer {token}")
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = connections
        self._pool.cachedConnectionTimeout = _IDLE
        self._pool.retryAutomatically = False  # which is no use to a POST
        self._open: set[_Bounded] = set()
        places = _Places(reactor, tls, connect_timeout, self._open)
        no_cookies: Any = CookieJar(DefaultCookiePolicy(allowed_domains=[]))

        def client(pool: HTTPConnectionPool) -> HTTPClient:
            return HTTPClient(_AsItIs(Agent.usingEndpointFactory(reactor, places, pool)), no_cookies)

        self._client = client(self._pool)
        self._client_of_one = client(HTTPConnectionPool(reactor, persistent=False))

    def post(self, url: str, question: Mapping[str, str], *, alone: bool = False) -> "Deferred[Answer]":
        """Ask.

        :param alone: on a connection of its own, which carries no other question before or after it.
        :raise Unanswered: (as the failure) there is no answer.
        :raise Unavailable: (likewise) there is one that is too big, or in a form that was not asked for.
        """
        asking = Deferred.fromCoroutine(self._ask(url, question, alone))
        return asking.addTimeout(self._timeout, self._reactor, self._too_late)

    async def distrust(self) -> None:
        """Drop the connections that wait for the next question: what they bring may be to another one."""
        # The one that has just brought an answer is kept from the end of the reactor's turn on.
        await deferLater(self._reactor, 0)
        await self._pool.closeCachedConnections()

    def stop(self) -> "Deferred[None]":
        """Drop all connections."""
        # One that has just brought an answer is kept from the end of the reactor's turn on.
        return deferLater(self._reactor, 0).addCallback(self._drop)

    def _drop(self, _: object) -> "Deferred[None]":
        for connection in tuple(self._open):
            connection.abortConnection()
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _ask(self, url: str, question: Mapping[str, str], alone: bool) -> Answer:
        try:
            if alone:
                return await self._ask_once(self._client_of_one, url, question)
            try:
                return await self._ask_once(self._client, url, question)
            except Exception as error:
                if not _was_closed(error):
                    raise
                # A connection that was kept may have been closed as the question was on its way.  To ask is
                # to change nothing, so it is asked again; and on a fresh one.
                await self._pool.closeCachedConnections()
                return await self._ask_once(self._client, url, question)
        except (Unavailable, CancelledError):
            raise
        except Exception as error:
            raise Unanswered(_reason(error)) from error

    async def _ask_once(self, client: HTTPClient, url: str, question: Mapping[str, str]) -> Answer:
        response = await client.post(
            url,
            headers=self._headers,
            json=dict(question),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        content = await _content(response)
        types = response.headers.getRawHeaders("content-type") or [""]
        return Answer(response.code, types[-1].partition(";")[0].strip().lower(), content)

    def _too_late(self, _: object, seconds: float) -> Any:
        raise Unanswered(f"no answer in {seconds:g} s")


@implementer(IAgentEndpointFactory)
class _Places:
    """Where a URL's host is, and how its connection is made."""

    def __init__(self, reactor: Any, tls: ClientTLS, timeout: float, connections: "set[_Bounded]") -> None:
        self._reactor = reactor
        self._tls = tls
        self._timeout = timeout
        self._open = connections

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.strip(b"[]")
        endpoint: Any = HostnameEndpoint(self._reactor, host, uri.port, timeout=self._timeout)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.for_host(host.decode("ascii")), endpoint)
        return _BoundedEndpoint(endpoint, self._open)


@implementer(IStreamClientEndpoint)
@frozen
class _BoundedEndpoint:
    _endpoint: IStreamClientEndpoint
    _open: "set[_Bounded]"

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":
        bounding: Any = WrappingFactory(protocolFactory)
        bounding.noisy = protocolFactory.noisy = False  # type: ignore[attr-defined]  # a line for each
        bounding.protocol = lambda factory, wrapped: _Bounded(factory, wrapped, self._open)
        connecting: Deferred[Any] = self._endpoint.connect(bounding)
        return connecting.addCallback(lambda bounded: bounded.wrappedProtocol)


class _TooMuch(Exception):
    """A peer sends more than anybody asked for."""


class _Bounded(ProtocolWrapper):
    """A connection that takes so much for each question, and ends without ado."""

    def __init__(self, factory: Any, wrapped: Any, connections: "set[_Bounded]") -> None:
        super().__init__(factory, wrapped)
        self._open = connections
        self._received = 0
        self._end: Failure | None = None  # why we end it

    def connectionMade(self) -> None:
        self._open.add(self)
        super().connectionMade()

    def write(self, data: bytes) -> None:
        self._received = 0
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        self._received = 0
        super().writeSequence(data)

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > _RECEIVED:
            self._end = Failure(_TooMuch(f"it sent more than {_RECEIVED} octets"))
            self.abortConnection()
        else:
            super().dataReceived(data)

    def abortConnection(self) -> None:
        # The pool ends what it keeps when its time is over, also what the endpoint has closed by then; a TLS
        # transport raises at that, and its timer would be in the pool's way for good.
        if self in self._open:
            transport: Any = self.transport
            transport.abortConnection()

    def loseConnection(self) -> None:
        self.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._open.discard(self)
        super().connectionLost(self._end or reason)


@implementer(IAgent)
@frozen
class _AsItIs:
    """Asks for content as it is; treq would ask for gzip, and unpack a thousand times what it received."""

    _agent: Agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> "Deferred[IResponse]":
        headers = headers.copy() if headers is not None else Headers()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(self._plain)

    def _plain(self, response: IResponse) -> IResponse:
        if response.headers.getRawHeaders(b"Content-Encoding", [b"identity"]) != [b"identity"]:
            response.deliverBody(_Unwanted())
            raise Unavailable("its answer is compressed, which it was not asked for")
        return response


def _content(response: IResponse) -> "Deferred[bytes]":
    done: Deferred[bytes] = Deferred(lambda _: content.drop())
    content = _Content(done, MAXIMUM)
    response.deliverBody(content)
    return done


class _Content(Protocol):
    """An answer's content, up to its maximum."""

    def __init__(self, done: "Deferred[bytes]", maximum: int) -> None:
        self._done = done
        self._maximum = maximum
        self._octets = b""

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if len(self._octets) > self._maximum:
            self._end(Failure(Unavailable(f"its answer has more than {self._maximum} octets")))
            self.drop()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        # A content whose end is the connection's end may be half of one.
        self._end(self._octets if reason.check(ResponseDone) else reason)

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _end(self, outcome: "bytes | Failure") -> None:
        if not self._done.called:
            self._done.callback(outcome)


class _Unwanted(Protocol):
    """A content that nobody waits for, which ends its connection."""

    def connectionMade(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _was_closed(error: Exception) -> bool:
    """Was the connection closed before anything of an answer came?"""
    if not isinstance(error, ResponseNeverReceived | RequestTransmissionFailed):
        return False
    reasons: Sequence[Failure] = error.reasons
    return all(reason.check(ConnectionDone, ConnectionLost) for reason in reasons)


def _reason(error: Exception) -> str:
    """What an operator can do something with; nothing of what the peer has sent."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        error = reasons[-1].value
    if isinstance(error, _TooMuch):
        return str(error)
    if isinstance(error, VerificationError):
        return "its certificate is not for the host that url names"
    if isinstance(error, SSL.Error):
        details = error.args[0] if error.args and isinstance(error.args[0], list) else []
        words = "; ".join(each[-1] for each in details if each and each[-1]) or "the handshake failed"
        return f"TLS: {words}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _authorities(file: Path) -> list[Certificate]:
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} holds no PEM certificates: {error}") from error
    return [Certificate(crypto.X509.from_cryptography(each)) for each in found]


def _own(certificate: Path, private_key: Path) -> dict[str, Any]:
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except ValueError as error:
        raise ValueError(f"{certificate} holds no PEM certificate: {error}") from error
    try:
        key = load_pem_private_key(private_key.read_bytes(), password=None)
    except (ValueError, TypeError):  # whose texts could hold a part of it
        raise ValueError(f"{private_key} holds no PEM private key without a passphrase") from None
    if chain[0].public_key() != key.public_key():
        raise ValueError(f"{private_key} is not the key of the first certificate in {certificate}")
    first, *others = (crypto.X509.from_cryptography(each) for each in chain)
    return {
        "certificate": first,
        "extraCertChain": others,
        "privateKey": crypto.PKey.from_cryptography_key(key),  # type: ignore[arg-type]
    }
