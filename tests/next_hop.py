"""Next hops for tests: an SMTP server as simple as can be, in memory or over loopback."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.interfaces import IContent, IContentReader
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path

DIE = None  # as an answer: the hop closes the connection instead
HANG = b""  # as an answer: the hop says nothing any more

EXTENSIONS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8")


def envelope(
    *recipients: str,
    sender: str = "business@example.nl",
    queue_id: str = "Q1",
    smtputf8: bool = False,
) -> Envelope:
    return Envelope(
        queue_id,
        "realm",
        "account",
        "session",
        Path.from_text(sender),
        tuple(map(Path.from_text, recipients or ("core@example.nl",))),
        0.0,
        MailParameters(smtputf8=smtputf8),
    )


@implementer(IContent)
class Content:
    """A content in memory, read in the segments it was given in."""

    def __init__(self, *segments: bytes, size: int | None = None) -> None:
        self.segments = segments
        self.octets = b"".join(segments)
        self.size = len(self.octets) if size is None else size
        self.eight_bit = not self.octets.isascii()
        self.closed = 0

    def open(self) -> "Reader":
        return Reader(self)


@implementer(IContentReader)
class Reader:
    def __init__(self, content: Content) -> None:
        self._content = content
        self._segments = iter(content.segments)

    def read(self) -> "Deferred[bytes]":
        return succeed(next(self._segments, b""))

    def close(self) -> None:
        self._content.closed += 1


MESSAGE = Content(b"Subject: test\r\n\r\nHello\r\n")


class SimpleHop:
    """One connection's server: whole lines in, replies out; keeps what it accepted.

    :param answers: replies in place of the usual ones, by verb (``"."`` for the end of data,
        ``"greeting"``); each list is used up from its front.
    """

    def __init__(
        self, extensions: Iterable[str] = EXTENSIONS, answers: dict[str, list[bytes | None]] | None = None
    ) -> None:
        self.extensions = tuple(extensions)
        self.secure_extensions = tuple(e for e in self.extensions if e != "STARTTLS")
        self.answers = {verb: list(replies) for verb, replies in (answers or {}).items()}
        self.commands: list[bytes] = []
        self.receptions: list[bytes] = []
        self.messages: list[tuple[list[bytes], bytes]] = []
        self.closed = False
        self.start_tls: Callable[[], None] = lambda: None
        self._octets = b""
        self._content: list[bytes] | None = None
        self._recipients: list[bytes] | None = None  # None outside a transaction
        self._mute = False

    def greet(self) -> bytes:
        return self._answer("greeting", b"220 hop.example ESMTP\r\n")

    def receive(self, octets: bytes) -> bytes:
        self.receptions.append(octets)
        *lines, self._octets = (self._octets + octets).split(b"\r\n")
        replies = []
        for line in lines:
            if self.closed or self._mute:
                break
            replies.append(self._line(line) if self._content is None else self._content_line(line))
        return b"".join(replies)

    def _content_line(self, line: bytes) -> bytes:
        assert self._content is not None
        if line != b".":
            self._content.append(line[1:] if line.startswith(b".") else line)
            return b""
        content = b"".join(line + b"\r\n" for line in self._content)
        self._content = None
        reply = self._answer(".", b"250 2.0.0 Ok: queued as HOP1\r\n")
        if reply.startswith(b"2"):
            self.messages.append((self._recipients or [], content))
        self._recipients = None
        return reply

    def _line(self, line: bytes) -> bytes:
        self.commands.append(line)
        verb = line.split(b" ", 1)[0].decode().upper()
        default = b"250 2.0.0 Ok\r\n"
        match verb:
            case "EHLO":
                lines = ["hop.example at your service", *self.extensions]
                default = b"".join(b"250-%b\r\n" % line.encode() for line in lines[:-1])
                default += b"250 %b\r\n" % lines[-1].encode()
            case "RCPT" if self._recipients is None:
                default = b"503 5.5.1 MAIL first\r\n"
            case "DATA":
                default = b"354 go on\r\n" if self._recipients else b"554 5.5.1 no valid recipients\r\n"
            case "QUIT":
                default = b"221 2.0.0 Bye\r\n"
            case "STARTTLS":
                default = b"220 2.0.0 Go\r\n"
        reply = self._answer(verb, default)
        if verb == "MAIL" and reply.startswith(b"2"):
            self._recipients = []
        elif verb == "RCPT" and reply.startswith(b"2") and self._recipients is not None:
            self._recipients.append(line)
        elif verb == "RSET":
            self._recipients = None
        elif reply.startswith(b"354"):
            self._content = []
        elif verb == "STARTTLS" and reply.startswith(b"220"):
            self.extensions = self.secure_extensions
            self.start_tls()
        self.closed = self.closed or verb == "QUIT"
        return reply

    def _answer(self, verb: str, default: bytes) -> bytes:
        replies = self.answers.get(verb)
        reply = replies.pop(0) if replies else default
        if reply is DIE:
            self.closed = True
            return b""
        self._mute = reply == HANG
        return reply


class HopProtocol(Protocol):
    """A :class:`SimpleHop` on a socket.  With a context factory STARTTLS is real."""

    def __init__(self, hop: SimpleHop, tls: object = None) -> None:
        self._hop = hop
        self._tls = tls
        hop.start_tls = self._start_tls

    _starting = False

    def connectionMade(self) -> None:
        self._send(self._hop.greet())

    def dataReceived(self, data: bytes) -> None:
        self._starting = False
        octets = self._hop.receive(data)
        self._send(octets)
        if self._starting:
            self.transport.startTLS(self._tls)

    def _start_tls(self) -> None:
        self._starting = True

    def _send(self, octets: bytes) -> None:
        self.transport.write(octets)
        if self._hop.closed:
            self.transport.loseConnection()


class MemoryTransport(StringTransport):
    """A transport whose other end is a :class:`Network`; it pauses its producer at every write."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.lost = False
        self.written = 0  # in all
        self.started_tls: list[object] = []
        self.handshakes = 0

    def write(self, data: bytes) -> None:
        if not self.lost:
            super().write(data)
            self.written += len(data)
            if self.producer is not None:
                self.producer.pauseProducing()

    def startTLS(self, handshake: Any, normal: bool = True) -> None:
        self.started_tls.append(handshake)
        handshake.verify = lambda: None  # in memory there is no TLS, and nobody to verify

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.lose(ConnectionAborted())

    aborted = False

    def lose(self, error: Exception) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(error))


class Network:
    """Connects clients to :class:`SimpleHop` servers in memory; nothing moves but in :meth:`pump`.

    :param serve: called for each connection with the hop's name; ``None`` refuses it.
    """

    def __init__(self, serve: Callable[[str], SimpleHop | None]) -> None:
        self._serve = serve
        self.connections: list[tuple[str, MemoryTransport, SimpleHop]] = []
        self._greeted: set[int] = set()

    def endpoint(self, hop: object) -> IStreamClientEndpoint:
        return _Endpoint(self, str(hop))

    def connect(self, name: str, factory: object) -> "Deferred[Protocol]":
        server = self._serve(name)
        if server is None:
            return fail(ConnectionRefusedError("refused"))
        protocol = factory.buildProtocol(None)
        transport = MemoryTransport(protocol)
        self.connections.append((name, transport, server))
        protocol.makeConnection(transport)
        return succeed(protocol)

    @property
    def servers(self) -> list[SimpleHop]:
        return [server for _, _, server in self.connections]

    @property
    def messages(self) -> list[tuple[list[bytes], bytes]]:
        return [message for server in self.servers for message in server.messages]

    def pump(self, cut: int = 1 << 20) -> None:
        """Move octets to and fro until all is quiet, ``cut`` at a time towards the client."""
        moved = True
        while moved:
            moved = False
            for number, (_, transport, server) in enumerate(self.connections):
                if not transport.lost:
                    moved = self._move(number, transport, server, cut) or moved

    def _move(self, number: int, transport: MemoryTransport, server: SimpleHop, cut: int) -> bool:
        if len(transport.started_tls) > transport.handshakes:
            transport.handshakes += 1
            transport.protocol.handshakeCompleted()
        octets, replies = transport.value(), b""
        transport.clear()
        if number not in self._greeted:
            self._greeted.add(number)
            replies = server.greet()
        if octets:
            replies += server.receive(octets)
        for start in range(0, len(replies), cut):
            transport.protocol.dataReceived(replies[start : start + cut])
        if transport.producer is not None:
            transport.producer.resumeProducing()
        closed = server.closed or (transport.disconnecting and not transport.value())
        if closed:
            transport.lose(ConnectionDone())
        shaking_hands = len(transport.started_tls) > transport.handshakes
        return bool(octets or replies or closed or shaking_hands)


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    def connect(self, factory: object) -> "Deferred[Protocol]":
        return self._network.connect(self._name, factory)
