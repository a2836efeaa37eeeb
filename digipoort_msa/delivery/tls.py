"""TLS towards the next hop (D4): what is asked of it, and how its certificate is checked.

``verify``    STARTTLS is required, and the certificate has to name the hop's host (RFC 6125, RFC 7817).
``implicit``  TLS comes first, before the greeting (RFC 8314), with the same check.
``none``      no TLS: for a hop on the loopback interface or behind a VPN.

The check is Twisted's with service-identity: a name is compared with the certificate's DNS names, an address
with its IP addresses.  There is no setting that takes TLS and leaves out the check.
"""

from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from digipoort_msa.delivery.hop import Hop

Mode = Literal["verify", "implicit", "none"]


class ClientTLS:
    """The TLS of a relay; one OpenSSL context for each hop, made when it is first needed."""

    def __init__(self, mode: Mode = "verify", ca_file: Path | None = None) -> None:
        """
        :param ca_file: PEM with the operator's CA certificates; ``None`` trusts the system's.
        :raise OSError: the file cannot be read.
        :raise ValueError: it holds no certificate, or ``mode`` is unknown.
        """
        if mode not in ("verify", "implicit", "none"):
            raise ValueError(f"{mode!r} is no TLS mode: use verify, implicit or none")
        self.mode = mode
        self._trust_root = _trust_root(ca_file)
        self._options: dict[str, IOpenSSLClientConnectionCreator] = {}

    @property
    def first(self) -> bool:
        """TLS comes before the greeting."""
        return self.mode == "implicit"

    @property
    def required_after_greeting(self) -> bool:
        """STARTTLS has to succeed before anything of a message is sent."""
        return self.mode == "verify"

    def options(self, hop: Hop) -> IOpenSSLClientConnectionCreator:
        """What ``startTLS`` needs to verify this hop."""
        if hop.host not in self._options:
            self._options[hop.host] = optionsForClientTLS(
                hop.host,
                self._trust_root,
                extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
            )
        return self._options[hop.host]


def _trust_root(ca_file: Path | None) -> Any:
    if ca_file is None:
        return platformTrust()
    try:
        certificates = x509.load_pem_x509_certificates(ca_file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{ca_file} holds no CA certificates in PEM form: {error}") from error
    return trustRootFromCertificates(
        [Certificate.loadPEM(certificate.public_bytes(Encoding.PEM)) for certificate in certificates]
    )
