"""What belongs to a connection from its first octet to its last, in clear and under TLS alike."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.interfaces import IAddress, ITransport

from digipoort_msa import log

if TYPE_CHECKING:
    from digipoort_msa.server.factory import SubmissionFactory
    from digipoort_msa.server.protocol import SubmissionProtocol


@define(eq=False)
class Admission:
    """How many connections there may be: over all listeners, and from one address (L4, M9).

    Of IPv6 the /64 counts as one address, since a single host has one whole.
    """

    _connections: int
    _per_address: int
    _open: int = field(default=0, init=False)
    _by_address: dict[int | str, int] = field(factory=dict, init=False)

    def enter(self, address: str) -> bool:
        """Count a connection from ``address``; False, and not counted, where it is one too many."""
        network = _network(address)
        here = self._by_address.get(network, 0)
        if self._open >= self._connections or here >= self._per_address:
            return False
        self._open += 1
        self._by_address[network] = here + 1
        return True

    def leave(self, address: str) -> None:
        """A connection that had entered is gone."""
        network = _network(address)
        self._open -= 1
        self._by_address[network] -= 1
        if not self._by_address[network]:
            del self._by_address[network]


@define(eq=False)
class Connection:
    """One client's connection; the protocols that serve it, one after the other, share it."""

    server: SubmissionFactory
    id: str  # the session id of the log
    protocol: SubmissionProtocol | None = field(default=None, init=False)  # the one that serves it now
    peer: str = field(default="unknown", init=False)  # the client's IP address, "local" for a unix socket
    greeted: bool = field(default=False, init=False)  # TLS after STARTTLS does not greet again
    messages: int = field(default=0, init=False)  # queued so far
    closing_reason: str | None = field(default=None, init=False)
    _admitted: bool | None = field(default=None, init=False)  # None: not decided yet

    def opened(self, protocol: SubmissionProtocol) -> None:
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


@lru_cache(maxsize=4096)
def _network(address: str) -> int | str:
    return int(IPv6Address(address)) >> 64 if ":" in address else address
