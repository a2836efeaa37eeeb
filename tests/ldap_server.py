"""A server that speaks LDAP, but says what a script says: lies, nonsense, half a message, nothing.

It is made of octets, and knows of BER what it needs: definite lengths, and tags of one octet.
"""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.protocol import Factory, Protocol

reactor: Any = IReactorTCP(_reactor)

BIND, SEARCH, EXTENDED, UNBIND = 0x60, 0x63, 0x77, 0x42
_RESPONSES = {BIND: 0x61, SEARCH: 0x65, EXTENDED: 0x78}

#: What a script returns for a request's tag: nothing to remain silent, or parts of the answer: the content of
#: a message, which gets the request's id, the same with an id of its own, or octets as they are.
Script = Callable[[int], "Iterable[Any] | None"]


def tagged(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x84" + size.to_bytes(4, "big")
    return bytes([tag]) + length + content


class Content(bytes):
    """Of a message, without its id."""


def _text(value: str | bytes) -> bytes:
    return tagged(4, value.encode() if isinstance(value, str) else value)


def result(asked: int, code: int = 0, text: str = "", controls: bytes = b"") -> Content:
    """:param asked: the request's tag, or the tag of the response itself."""
    tag = _RESPONSES.get(asked, asked)
    return Content(tagged(tag, tagged(10, bytes([code])), _text(""), _text(text)) + controls)


def control(number: str, value: bytes) -> bytes:
    return tagged(0xA0, tagged(0x30, _text(number), _text(value)))


def entry(dn: str, **attributes: str | bytes) -> Content:
    listed = [tagged(0x30, _text(name), tagged(0x31, _text(value))) for name, value in attributes.items()]
    return Content(tagged(0x64, _text(dn), tagged(0x30, *listed)))


def reference(url: str) -> Content:
    return Content(tagged(0x73, _text(url)))


def referral(asked: int, url: str = "ldap://127.0.0.1:9/dc=elsewhere") -> Content:
    tag = _RESPONSES[asked]
    return Content(tagged(tag, tagged(10, b"\x0a"), _text(""), _text(""), tagged(0xA3, _text(url))))


class _Session(Protocol):
    def __init__(self, server: "LDAPServer") -> None:
        self._server = server
        self._buffer = b""

    def connectionMade(self) -> None:
        self._server.sessions.append(self)
        self._server.connections += 1

    def connectionLost(self, reason: Any = None) -> None:
        self._server.sessions.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) > 1 and self._buffer[0] == 0x30:  # a TLS handshake is left unanswered
            size = self._buffer[1]
            start = 2
            if size & 0x80:
                start += size & 0x7F
                size = int.from_bytes(self._buffer[2:start], "big")
            if len(self._buffer) < start + size:
                return
            message, self._buffer = self._buffer[start : start + size], self._buffer[start + size :]
            self._answer(message)

    def _answer(self, message: bytes) -> None:
        number = int.from_bytes(message[2 : 2 + message[1]], "big")
        asked = message[2 + message[1]]
        if asked == UNBIND:
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        self._server.requests.append((asked, message))
        script = self._server.script[0]
        if len(self._server.script) > 1:
            self._server.script.pop(0)
        for part in script(asked) or ():
            number, part = part if isinstance(part, tuple) else (number, part)
            octets = tagged(0x30, tagged(2, bytes([number])), part) if isinstance(part, Content) else part
            self.transport.write(octets)  # type: ignore[union-attr]


class LDAPServer:
    """Listens on loopback until :meth:`stop`.  Each request is for the next script; the last one stays."""

    def __init__(self, *script: Script, tls: object = None) -> None:
        """:param tls: ``CertificateOptions``, for TLS from the start."""
        self.script = list(script)
        self.requests: list[tuple[int, bytes]] = []  # the tag of each, and the message
        self.sessions: list[_Session] = []
        self.connections = 0  # so far
        factory = Factory.forProtocol(lambda: _Session(self))
        if tls is None:
            self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")

    @property
    def port(self) -> int:
        return int(self._port.getHost().port)

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[int]:
        """The tags of the requests."""
        return [tag for tag, _ in self.requests]

    def stop(self) -> "Deferred[Any]":
        for session in self.sessions:
            session.transport.abortConnection()  # type: ignore[union-attr]
        return maybeDeferred(self._port.stopListening)
