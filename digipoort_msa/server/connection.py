"""What belongs to a listener, and to a connection from its first octet to its last."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from time import time
from typing import Any, Protocol

from attrs import define, evolve, field
from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime, ITransport
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from digipoort_msa import log
from digipoort_msa.interfaces import IRealms
from digipoort_msa.sasl.mechanism import Channel
from digipoort_msa.server.admission import Admission
from digipoort_msa.server.client_certificate import Chain
from digipoort_msa.server.tls import ServerTLS
from digipoort_msa.smtp.settings import SessionSettings


class Serving(Protocol):
    """What serves a connection: a protocol with its transport."""

    transport: Any

    def shut_down(self) -> None:
        """Tell the client that the server stops."""


@define(eq=False, slots=False)
class Listener:
    """What all connections to one listener share."""

    reactor: IReactorTime
    session_settings: SessionSettings  # without mechanisms, which are each connection's own
    realms: IRealms
    digest_hosts: frozenset[str]  # what a digest-uri may name (A3), lower case
    tls: ServerTLS
    admission: Admission
    implicit: bool = False  # TLS first (L2), else STARTTLS (L1)
    proxied: bool = False  # the peer's address comes in a PROXY header
    listener: str = "the listener"  # for the log
    mechanisms: frozenset[str] | None = None  # those that may be offered here; None: all
    idle_timeout: float = 300.0  # seconds
    handshake_timeout: float = 60.0  # seconds
    now: Callable[[], float] = time  # seconds since 1970
    connections: set[Connection] = field(factory=set, init=False)
    _settings: dict[object, SessionSettings] = field(factory=dict, init=False)
    _layers: TLSMemoryBIOFactory = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Its factory is never asked for a protocol: each layer is put around one that is there already.
        self._layers = TLSMemoryBIOFactory(self.tls, False, Factory(), self.reactor)

    def settings_for(self, channel: Channel | None) -> SessionSettings:
        """A connection's settings at this moment, with the mechanisms that can succeed on it; in clear
        (``None``), with those that are shown.  Made once for each combination, of which there are a few."""
        mechanisms = self.realms.offered(channel, self.mechanisms)
        retired = self.realms.retired(self.mechanisms)
        found = self._settings.get((mechanisms, retired))
        if found is None:
            found = evolve(self.session_settings, mechanisms=mechanisms, retired=retired)
            self._settings[mechanisms, retired] = found
        return found

    def wrap(self, protocol: IProtocol) -> TLSMemoryBIOProtocol:
        """The server's end of TLS around ``protocol``.  Replies are joined before they are written, so the
        layer that gathers small writes would only cost time."""
        return TLSMemoryBIOProtocol(self._layers, protocol)

    def close_connections(self) -> None:
        """Tell every client that the server stops; an open verdict is still given first."""
        for connection in list(self.connections):
            if connection.protocol:
                connection.protocol.shut_down()


@define(eq=False)
class Connection:
    """One client's connection; the protocols that serve it, one after the other, share it."""

    server: Listener
    id: str  # the session id of the log
    protocol: Serving | None = field(default=None, init=False)  # the one that serves it now
    peer: str = field(default="unknown", init=False)  # the client's IP address, "local" for a unix socket
    greeted: bool = field(default=False, init=False)  # TLS after STARTTLS does not greet again
    messages: int = field(default=0, init=False)  # queued so far
    chain: Chain | None = field(default=None, init=False)  # of the client's certificate
    closing_reason: str | None = field(default=None, init=False)
    _admitted: bool | None = field(default=None, init=False)  # None: not decided yet

    def opened(self, protocol: Serving) -> None:
        self.protocol = protocol
        self.server.connections.add(self)

    def admit(self, transport: ITransport, *, heard: bool) -> bool:
        """May this connection go on?

        :param heard: something came from the client, so that a PROXY header is read by now: behind one,
            nobody knows the client's address before that.
        """
        if self._admitted is None and (heard or not self.server.proxied):
            self.identify(transport)
            log.emit(log.CONNECTED, session=self.id, peer=self.peer, listener=self.server.listener)
            self._admitted = self.server.admission.enter(self.peer)
        return self._admitted is not False

    def identify(self, transport: ITransport) -> None:
        """Learn who the client is."""
        self.peer = _address_text(transport.getPeer())

    def abort(self) -> None:
        """Close now, whatever is under way."""
        if self.protocol:
            self.protocol.transport.abortConnection()

    def lost(self) -> None:
        """The connection is gone."""
        self.server.connections.discard(self)
        if self._admitted:
            self.server.admission.leave(self.peer)
        self._admitted = None
        self.protocol = None


def _address_text(address: IAddress) -> str:
    """In its one canonical form: without an IPv6 zone, which is our own affair and no part of an address
    literal, and as IPv4 where that came mapped into IPv6."""
    host = getattr(address, "host", None)
    if not host:
        return "local"
    try:
        parsed = ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"  # a proxy told us something else
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
