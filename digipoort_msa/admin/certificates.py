"""The sandbox's certificates: an authority that exists for a moment, and the one certificate it signs.

The authority's private key is never written anywhere.  Whoever trusts its certificate, to try a client, has
trusted one certificate for localhost and nothing that anyone could sign later (it is also confined to
localhost by its name constraints).  So the two are made together, and when either is worn out, both are
made anew.

The extensions are those that strict verifiers want (RFC 5280 4.2.1): OpenSSL with ``X509_STRICT``, which is
Python's default since 3.13, GnuTLS, and curl with either.
"""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=397)  # the longest that common clients take
_MARGIN = timedelta(days=1)  # a certificate is made anew this long before its end
_ADDRESSES = ("127.0.0.1", "::1")


@frozen
class CertificateFiles:
    """Where the PEM files are: the authority's certificate, the server's certificate and its key."""

    ca: Path
    certificate: Path
    private_key: Path


def certificate_files(directory: Path, now: datetime) -> CertificateFiles:
    """Certificates for ``localhost``, ``127.0.0.1`` and ``::1``: those in ``directory``, or new ones.

    New ones are made if a file is missing, unreadable or damaged, if they do not belong together, or if
    they are not valid at ``now`` and a day after.

    :param directory: made, for its owner alone, if missing.
    :param now: with its time zone.
    :raise OSError: a file cannot be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = CertificateFiles(directory / "ca.pem", directory / "certificate.pem", directory / "key.pem")
    if not _usable(files, now):
        _make(files, now)
    return files


def _usable(files: CertificateFiles, now: datetime) -> bool:
    try:
        authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        private_key = load_pem_private_key(files.private_key.read_bytes(), password=None)
        certificate.verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return private_key.public_key() == certificate.public_key() and all(
        one.not_valid_before_utc <= now and now + _MARGIN < one.not_valid_after_utc
        for one in (authority, certificate)
    )


def _make(files: CertificateFiles, now: datetime) -> None:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key, now)
    certificate = _certificate(server_key.public_key(), authority, authority_key, now)
    key = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(files.private_key, key)
    write_private(files.certificate, certificate.public_bytes(Encoding.PEM))
    write_private(files.ca, authority.public_bytes(Encoding.PEM))


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _name(f"digipoort-msa sandbox, made {now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    localhost = [x509.DNSName("localhost"), *(x509.IPAddress(ip_network(text)) for text in _ADDRESSES)]
    return (
        _builder(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .add_extension(x509.NameConstraints(localhost, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _certificate(
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    names = [x509.DNSName("localhost"), *(x509.IPAddress(ip_address(text)) for text in _ADDRESSES)]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(_name("localhost"), authority.subject, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a clock that is a little slow, in a container say
        .not_valid_after(now + _LIFETIME - timedelta(hours=1))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    """Signing certificates for the authority, signing handshakes for the server."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def write_private(path: Path, octets: bytes) -> None:
    """Write a file that is complete as soon as it has its name, for its owner alone (mode 0600)."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
    draft.replace(path)
