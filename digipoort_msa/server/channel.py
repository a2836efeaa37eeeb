"""What a TLS connection itself can prove to a SASL mechanism: channel bindings, a client certificate.

A channel binding is a name for one connection that both of its ends can compute, and that nobody who ends
TLS in between can arrange to be the same on both sides.

- ``tls-exporter`` (RFC 9266): keying material of the connection.  Under TLS 1.3 alone: before, it is unique
  only with the extended master secret (RFC 7627), and pyOpenSSL does not tell whether that was agreed on.
- ``tls-server-end-point`` (RFC 5929 4): the hash of our certificate, the one that this connection was set up
  with; later ones may have another by now (:meth:`~digipoort_msa.server.tls.ServerTLS.reload`).
- ``tls-unique`` is not there: TLS 1.3 has none, and that of TLS 1.2 is broken (RFC 7627 1).

They are computed when a login asks for them, and not for the many connections where none does; under TLS 1.2
EHLO has to know whether there is a hash, once for a connection (35 microseconds).
"""

from collections.abc import Iterator, Mapping
from functools import cached_property

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.mechanism import Channel

_EXPORTER, _END_POINT = "tls-exporter", "tls-server-end-point"


def channel_of(connection: SSL.Connection, certificate: ClientCertificate | None = None) -> Channel:
    """
    :param connection: after its handshake.
    :param certificate: the client's.
    """
    return Channel(Bindings(connection), certificate)


class Bindings(Mapping[str, bytes]):
    """The channel bindings of one connection, computed when they are asked for."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def __getitem__(self, kind: str) -> bytes:
        data = None
        if kind == _EXPORTER and self._exports:
            data = self._connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        elif kind == _END_POINT:
            data = self._end_point
        if data is None:
            raise KeyError(kind)
        return data

    def __iter__(self) -> Iterator[str]:
        if self._exports:
            yield _EXPORTER
        if self._end_point is not None:
            yield _END_POINT

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        """Are there any?  EHLO depends on it, so under TLS 1.3 it costs nothing."""
        return any(True for _ in self)

    @property
    def _exports(self) -> bool:
        return self._connection.get_protocol_version_name() == "TLSv1.3"

    @cached_property
    def _end_point(self) -> bytes | None:
        """``None`` for a signature without a hash, such as Ed25519's, which the RFC leaves open."""
        certificate = self._connection.get_certificate(as_cryptography=True)
        if certificate is None:
            return None
        try:
            algorithm = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            return None
        if algorithm is None:
            return None
        if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
            algorithm = hashes.SHA256()
        return certificate.fingerprint(algorithm)
