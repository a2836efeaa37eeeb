"""One listener's factory: a protocol for each connection."""

import secrets

from attrs import define
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOProtocol

from digipoort_msa.server.connection import Connection, Listener
from digipoort_msa.server.protocol import SubmissionProtocol


@define(eq=False, slots=False)
class SubmissionFactory(Listener, Factory):
    """Builds what serves the connections to one listener."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> SubmissionProtocol | TLSMemoryBIOProtocol:
        connection = Connection(self, secrets.token_hex(5))
        protocol = SubmissionProtocol(connection, under_tls=self.implicit)
        return self.wrap(protocol) if self.implicit else protocol
