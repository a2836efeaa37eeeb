"""Authorities for client certificates: right ones and wrong ones, intermediates, and what they revoke."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
Names = Sequence[tuple[x509.ObjectIdentifier, str]]


def common_name(name: str) -> Names:
    return [(NameOID.COMMON_NAME, name)]


@frozen
class ClientFiles:
    """What a client shows, in PEM files: its certificate with the intermediates behind it, and its key."""

    certificate: Path
    private_key: Path


@frozen
class Issued:
    """A certificate, its key, and the intermediate authorities between it and the root."""

    certificate: x509.Certificate
    key: Any
    intermediates: tuple[x509.Certificate, ...] = ()

    def files(self, folder: Path, name: str = "client", *, chain: bool = True) -> ClientFiles:
        folder.mkdir(parents=True, exist_ok=True)
        shown = (self.certificate, *(self.intermediates if chain else ()))
        files = ClientFiles(folder / f"{name}.pem", folder / f"{name}.key")
        files.certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in shown))
        files.private_key.write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return files


class ClientAuthority:
    """A root authority, or one below another."""

    def __init__(
        self, name: str | Names = "Client CA", above: "ClientAuthority | None" = None, **options: Any
    ) -> None:
        """:param options: of :meth:`issue`."""
        names = common_name(name) if isinstance(name, str) else name
        key = ec.generate_private_key(ec.SECP256R1())
        self._signs = (above.subject, above.key) if above else (_name(names), key)
        issued = (above or self).issue(names, key=key, ca=True, purposes=(), **options)
        self.certificate, self.key = issued.certificate, key
        self.subject = self.certificate.subject
        self.chain = () if above is None else (self.certificate, *above.chain)
        self._signs = (self.subject, key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        names: Names = (),
        *,
        alternatives: Sequence[x509.GeneralName] = (),
        key: Any = None,
        ca: bool = False,
        purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        start: timedelta = -DAY,
        end: timedelta = 5 * DAY,
        algorithm: Any = None,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Issued:
        """:param start: from now on, as ``end``."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        issuer, issuer_key = self._signs
        now = datetime.now(UTC)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(names))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(authority_key, critical=False)
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(issuer_key, algorithm or hashes.SHA256())
        return Issued(certificate, key, () if ca else self.chain)

    def revoking(
        self,
        *certificates: x509.Certificate,
        start: timedelta = -DAY,
        end: timedelta = 5 * DAY,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> x509.CertificateRevocationList:
        """Its list of what is revoked.

        :param extensions: critical ones of the list.
        """
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.subject)
        builder = builder.last_update(now + start).next_update(now + end)
        for certificate in certificates:
            revoked = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now + start).build())
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self.key, hashes.SHA256())


def partial(**scope: Any) -> x509.IssuingDistributionPoint:
    """The extension of a list that is not about all certificates of its authority.

    :param scope: which of its fields are set.
    """
    nothing: dict[str, Any] = {
        "full_name": None,
        "relative_name": None,
        "only_some_reasons": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**nothing, **scope})


def crl_file(path: Path, *crls: x509.CertificateRevocationList) -> Path:
    """They as one PEM file."""
    path.write_bytes(b"".join(crl.public_bytes(Encoding.PEM) for crl in crls))
    return path


def _name(names: Names) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in names])
