"""TLS towards the next hop (D4): what is asked of it, and how it proves who it is.

``verify``    STARTTLS is required, and the certificate has to name the hop's host (RFC 6125, RFC 7817).
``implicit``  TLS comes first, before the greeting (RFC 8314), with the same check.
``none``      no TLS: for a hop on the loopback interface or behind a VPN.

There are two proofs.  By authority: OpenSSL verifies the chain up to the operator's authorities or the
system's, and the certificate bears the hop's name.  By DANE, where the DNS has authenticated and usable TLSA
records of the hop: they take the place of the authorities (RFC 7672).  Pinned public keys are checked besides
either.  Each proof is complete before the first octet of ours goes under TLS, and no setting takes TLS and
leaves out the proof.
"""

from base64 import b64decode
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from digipoort_msa.delivery import dane, failures
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.records import Answer

Mode = Literal["verify", "implicit", "none"]

#: Asks for the TLSA records of a host and port; it ends in its own time.  Any failure means that there is no
#: saying whether there are such records.
LookUp = Callable[[str, int], Deferred[Answer[dane.TLSA]]]

_NOT_TRUSTED = "its certificate is of an authority that is not trusted here; the setting ca names who is"

#: OpenSSL's most frequent objections to a chain (X509_V_ERR_...), and what mends each.
_OBJECTIONS = {
    9: "its certificate is not valid yet; is this machine's clock right?",
    10: "its certificate has expired; whoever runs the hop has to renew it",
    18: "its certificate is signed by itself alone; if it is the right one, the setting ca may name its file",
    **dict.fromkeys((2, 7, 19, 20, 21), _NOT_TRUSTED),
}

_FORGEABLE = (
    "the DNS named this host, without DNSSEC, so that its certificate proves nothing; set server-name or "
    "public-key-pins, or a resolver that validates"
)


class Unverified(Exception):
    """The hop is not proven to be who it should be; the text says in what way, and what mends it."""


@implementer(IOpenSSLClientConnectionCreator)
class Handshake:
    """One handshake to come, and the proof that its peer owes."""

    def __init__(
        self, context: SSL.Context, name: str, pins: frozenset[bytes], records: tuple[dane.TLSA, ...]
    ) -> None:
        """
        :param name: what the certificate has to bear, a host name or an IP address; SNI where it is a name.
        :param pins: SHA-256 digests of public keys; empty allows any.
        :param records: TLSA records, which take the place of the chain's verification.
        """
        self.objection: str | None = None  # OpenSSL's, to the chain
        self._context = context
        self._name = name
        self._pins = pins
        self._records = records
        self._connection: SSL.Connection | None = None

    @property
    def proof(self) -> str:
        """What kind, for the log."""
        return " and ".join(filter(None, ("DANE" if self._records else "", "pinned" if self._pins else "")))

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if not _is_address(self._name):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._chain_certificate)
        self._connection = connection
        return connection

    def _chain_certificate(
        self, connection: object, certificate: object, error: int, depth: int, ok: int
    ) -> bool:
        """OpenSSL has looked at one certificate of the chain.  By DANE, :meth:`verify` does all."""
        if not ok and self.objection is None:
            self.objection = _OBJECTIONS.get(
                error, f"its certificate does not verify (OpenSSL error {error})"
            )
        return bool(ok) or bool(self._records)

    def verify(self) -> None:
        """The handshake is done: is the peer who it should be?

        :raise Unverified: it is not, or it cannot be told.
        """
        if self._connection is None:
            raise Unverified("there was no handshake")
        try:
            chain = self._connection.get_peer_cert_chain(as_cryptography=True) or []
            if not chain:
                raise Unverified("it showed no certificate")
            if not self._records or dane.verify(self._records, chain):
                _verify_name(chain[0], self._name)
            if self._pins:
                _verify_pin(chain[0], self._pins)
        except dane.Mismatch as error:
            raise Unverified(f"{error}; the TLSA records in the DNS have to fit the hop") from error
        except Unverified:
            raise
        except Exception as error:  # what a certificate can be like has no end
            raise Unverified(f"its certificate cannot be read: {error}") from error


class ClientTLS:
    """The TLS of all hops of a relay.  Everything that is in files is read and checked when it is made."""

    def __init__(
        self,
        mode: Mode = "verify",
        ca_file: Path | None = None,
        *,
        server_name: str | None = None,
        certificate: Path | None = None,
        private_key: Path | None = None,
        public_key_pins: Iterable[str] = (),
        tlsa: LookUp | None = None,
    ) -> None:
        """
        :param ca_file: PEM with the operator's CA certificates; ``None`` trusts the system's.
        :param server_name: what a hop's certificate has to bear, and SNI; ``None`` means its own host.
        :param certificate: PEM with the certificate that we show, and after it the intermediate ones.
        :param private_key: PEM with its key.
        :param public_key_pins: base64 of SHA-256 over SubjectPublicKeyInfo in DER (RFC 7469 2.4).
        :param tlsa: what looks TLSA records up; ``None`` leaves DANE out.
        :raise OSError: a file cannot be read.
        :raise ValueError: a file does not hold what it should, or ``mode`` or a pin is not one.
        """
        if mode not in ("verify", "implicit", "none"):
            raise ValueError(f"{mode!r} is no TLS mode: use verify, implicit or none")
        if (certificate is None) != (private_key is None):
            raise ValueError("a certificate and its private key go together: set certificate and private-key")
        self.mode = mode
        self._ca_file = ca_file
        self._server_name = server_name
        self._certificate = certificate
        self._private_key = private_key
        self._pins = frozenset(map(_pin, public_key_pins))
        self._tlsa = tlsa
        self.reload()

    @property
    def first(self) -> bool:
        """TLS comes before the greeting."""
        return self.mode == "implicit"

    @property
    def required_after_greeting(self) -> bool:
        """STARTTLS has to succeed before anything of a message is sent."""
        return self.mode == "verify"

    def reload(self) -> None:
        """Read the files anew, for the connections to come.

        :raise OSError, ValueError: as when it was made; what was read before stays in force.
        """
        options: dict[str, Any] = {}
        if self._certificate is not None and self._private_key is not None:
            options = _shown(self._certificate, self._private_key)
        context = CertificateOptions(
            trustRoot=_trust_root(self._ca_file), raiseMinimumTo=TLSVersion.TLSv1_2, **options
        ).getContext()
        # A hop that was proven stays the one that it was.
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        self._context = context

    async def handshake(self, hop: Hop) -> Handshake:
        """What ``start_tls`` needs to make sure of this hop.

        :raise HopFailure: whether it has TLSA records cannot be told now, or nothing could prove it: its name
            came from the DNS without authentication, and no setting says what else to go by.  A forger would
            name a host of his own, and its certificate would be in order (RFC 6125 6.2.1, RFC 7672 1.3.2).
        """
        if not hop.secure and self._server_name is None and not self._pins:
            raise HopFailure(failures.tls_failed(hop.name, _FORGEABLE))
        try:
            name = _ascii(self._server_name or hop.host)
        except UnicodeError as error:
            raise HopFailure(failures.tls_failed(hop.name, f"it has no valid host name: {error}")) from error
        records = await self._records(hop, self._tlsa) if self._tlsa is not None else ()
        return Handshake(self._context, name, self._pins, records)

    async def _records(self, hop: Hop, look_up: LookUp) -> tuple[dane.TLSA, ...]:
        """The TLSA records that count; empty where the ordinary proof is due (RFC 7672 2.2).

        A hop whose own name came from the DNS without authentication has none: whoever could forge the one
        could name a host with records of his own (RFC 7672 2.2.1).
        """
        if hop.socket is not None or not hop.secure or _is_address(hop.host):
            return ()
        try:
            answer = await look_up(hop.host, hop.port)
        except CancelledError:
            raise HopFailure(failures.STOPPING) from None
        except Exception as error:
            raise HopFailure(failures.no_tlsa(hop.name, str(error) or type(error).__name__)) from error
        return dane.applicable(answer.records) if answer.authenticated else ()


def _verify_name(certificate: x509.Certificate, name: str) -> None:
    verify = verify_certificate_ip_address if _is_address(name) else verify_certificate_hostname
    try:
        verify(certificate, name)
    except (VerificationError, CertificateError) as error:
        raise Unverified(
            f"its certificate names another host than {name}; the setting server-name says which is right"
        ) from error


def _verify_pin(certificate: x509.Certificate, pins: frozenset[bytes]) -> None:
    octets = dane.selected(certificate, dane.PUBLIC_KEY)
    if sha256(octets).digest() not in pins:
        raise Unverified("its public key is none of those in the setting public-key-pins")


def _pin(text: str) -> bytes:
    try:
        digest = b64decode(text, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ValueError(f"{text!r} is no public key pin: write the base64 of a SHA-256 digest")
    return digest


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _ascii(name: str) -> str:
    """A host name as certificates and SNI have it."""
    return name.rstrip(".") if name.isascii() else name.rstrip(".").encode("idna").decode("ascii")


def _trust_root(ca_file: Path | None) -> Any:
    if ca_file is None:
        return platformTrust()
    return trustRootFromCertificates(
        [
            Certificate.loadPEM(certificate.public_bytes(Encoding.PEM))
            for certificate in _certificates(ca_file, "CA certificates")
        ]
    )


def _shown(certificate: Path, private_key: Path) -> dict[str, Any]:
    """The certificate and the key that we show, as ``CertificateOptions`` takes them."""
    leaf, *above = _certificates(certificate, "certificate")
    try:
        key = load_pem_private_key(private_key.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # whose text could hold a part of the key
        raise ValueError(f"{private_key} holds no private key in PEM form without a passphrase") from None
    if key.public_key() != leaf.public_key():
        raise ValueError(f"{private_key} is not the key of the first certificate in {certificate}")
    return {"certificate": leaf, "privateKey": key, "extraCertChain": above}


def _certificates(file: Path, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} holds no {what} in PEM form: {error}") from error
