"""The certificates of :mod:`tests.msa`: an authority, what the server shows, what clients show."""

import functools
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from digipoort_msa.server.tls import TLSFiles

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@frozen
class Certificates:
    """What the server and its clients show and trust, as PEM files in one folder."""

    directory: Path
    ca: Path
    ec: TLSFiles
    rsa: TLSFiles
    client: Path  # a client's certificate and key
    stranger: Path  # the same, of an authority that nobody trusts


@functools.cache
def certificates() -> Certificates:
    """Made once in a run."""
    keep = tempfile.TemporaryDirectory(prefix="msa-test-")
    _kept.append(keep)
    directory = Path(keep.name)
    authority_key, stranger_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _sign("Test CA", authority_key, "Test CA", authority_key, ca=True)
    (directory / "ca.pem").write_bytes(authority)

    def issue(name: str, key: Key, issuer: str = "Test CA", issuer_key: Key = authority_key) -> Path:
        (directory / f"{name}.pem").write_bytes(_sign(name, key, issuer, issuer_key) + authority)
        (directory / f"{name}.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return directory / f"{name}.pem"

    keys: dict[str, Key] = {
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(65537, 2048),
        "client": ec.generate_private_key(ec.SECP256R1()),
    }
    for name, key in keys.items():
        issue(name, key)
    issue("stranger", ec.generate_private_key(ec.SECP256R1()), "Nobody's CA", stranger_key)
    return Certificates(
        directory=directory,
        ca=directory / "ca.pem",
        ec=TLSFiles(directory / "ec.pem", directory / "ec.key"),
        rsa=TLSFiles(directory / "rsa.pem", directory / "rsa.key"),
        client=directory / "client.pem",
        stranger=directory / "stranger.pem",
    )


_kept: list[Any] = []  # the folders go with the process


def _sign(name: str, key: Key, issuer: str, issuer_key: Key, *, ca: bool = False) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=5))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if ca:
        others = (
            "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
            "encipher_only decipher_only"
        )
        usage = dict.fromkeys(others.split(), False)
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), True)
    else:
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
