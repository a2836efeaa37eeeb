"""One listener's factory: what its connections share, and how it stops."""

import secrets

from attrs import define, field
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from digipoort_msa.interfaces import IRealms
from digipoort_msa.server.connection import Admission, Connection
from digipoort_msa.server.protocol import SubmissionProtocol
from digipoort_msa.server.tls import ServerTLS
from digipoort_msa.smtp.settings import SessionSettings


@define(eq=False, slots=False)
class SubmissionFactory(Factory):
    """Builds the protocol of each connection to one listener."""

    reactor: IReactorTime
    session_settings: SessionSettings
    realms: IRealms
    digest_hosts: frozenset[str]  # what a digest-uri may name (A3), lower case
    tls: ServerTLS
    admission: Admission
    implicit: bool = False  # TLS first (L2), else STARTTLS (L1)
    proxied: bool = False  # the peer's address comes in a PROXY header
    listener: str = "the listener"  # for the log
    idle_timeout: float = 300.0  # seconds
    handshake_timeout: float = 60.0  # seconds
    connections: set[Connection] = field(factory=set, init=False)
    _layers: TLSMemoryBIOFactory = field(init=False)

    noisy = False

    def __attrs_post_init__(self) -> None:
        self._layers = TLSMemoryBIOFactory(self.tls, False, self, self.reactor)

    def buildProtocol(self, addr: IAddress | None) -> SubmissionProtocol | TLSMemoryBIOProtocol:
        connection = Connection(self, secrets.token_hex(5))
        protocol = SubmissionProtocol(connection, under_tls=self.implicit)
        return self.wrap(protocol) if self.implicit else protocol

    def wrap(self, protocol: SubmissionProtocol) -> TLSMemoryBIOProtocol:
        """The server's end of TLS around ``protocol``.  Replies are joined before they are written, so the
        layer that gathers small writes would only cost time."""
        return TLSMemoryBIOProtocol(self._layers, protocol)

    def close_connections(self) -> None:
        """Tell every client that the server stops; an open verdict is still given first."""
        for connection in list(self.connections):
            if connection.protocol:
                connection.protocol.shut_down()
