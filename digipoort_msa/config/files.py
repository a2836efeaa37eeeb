"""Rules on the files that settings name: certificates, keys, passwords.  They are opened for reading only.

Whoever runs this has to be able to read them: the service's user, or root for ``check``.
"""

import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from digipoort_msa.config.checks import deliveries, notifications
from digipoort_msa.config.client_authorities import (
    authority_problems,
    revocation_lists,
    revocation_problems,
)
from digipoort_msa.config.delivery import Hops
from digipoort_msa.config.mechanisms import asks
from digipoort_msa.config.problems import Problem
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.stores.http import Http
from digipoort_msa.config.stores.ldap import Ldap
from digipoort_msa.config.stores.sql import Sql
from digipoort_msa.secret_files import encryption_keys, first_line

T = TypeVar("T")


def in_files(settings: Settings) -> Iterator[Problem]:
    """Every problem of the files that ``settings`` make use of."""
    tls = settings.tls
    yield from _folder("server.state-directory", settings.server.state_directory)
    yield from _certificate_and_key(settings)
    if any(asks(settings, listener) for listener in settings.listener):
        yield from _client_authorities(tls.client_ca, tls.client_crl)
    for index, realm in enumerate(settings.realm):
        if realm.store == "ldap":
            yield from _ldap(f"realm[{index}].ldap", realm.ldap)
        elif realm.store == "http":
            yield from _http(f"realm[{index}].http", realm.http)
    for key, delivery in deliveries(settings):
        if delivery.to == "maildir" and delivery.maildir.directory is not None:
            yield from _folder(f"{key}.maildir.directory", delivery.maildir.directory)
        elif delivery.to == "lmtp":
            yield from _hops(f"{key}.lmtp", delivery.lmtp)
        elif delivery.to != "maildir":
            yield from _hops(f"{key}.relay", delivery.relay)
    for key, notification in notifications(settings):
        if notification.templates is not None:
            yield from _readable_folder(f"{key}.templates", notification.templates)
    for index, realm in enumerate(settings.realm):
        if realm.store == "sql":
            yield from _sql(f"realm[{index}].sql", realm.sql)
    key_file = settings.spool.encryption_key_file
    if key_file is not None:
        key = "spool.encryption-key-file"
        yield from _read(key, key_file, encryption_keys, "32 octets in hex or base64")[1]
        yield from _secret(key, key_file)


def _client_authorities(ca: Path | None, crl: Path | None) -> Iterator[Problem]:
    authorities: list[x509.Certificate] | None = None
    if ca is not None:
        authorities, problems = _read(
            "tls.client-ca", ca, x509.load_pem_x509_certificates, "PEM certificates"
        )
        yield from problems
        yield from authority_problems(ca, authorities or ())
    if crl is not None:
        crls, problems = _read("tls.client-crl", crl, revocation_lists, "PEM lists of what is revoked")
        yield from problems
        yield from revocation_problems(crl, crls or (), (authorities if crls else None) or ())


def _ldap(key: str, ldap: Ldap) -> Iterator[Problem]:
    if ldap.ca is not None:
        yield from _read(f"{key}.ca", ldap.ca, x509.load_pem_x509_certificates, "PEM certificates")[1]
    if ldap.password_file is not None:
        where = f"{key}.password-file"
        yield from _read(where, ldap.password_file, first_line, "a password as its first line")[1]
        yield from _secret(where, ldap.password_file)


def _http(key: str, http: Http) -> Iterator[Problem]:
    if http.ca is not None:
        yield from _read(f"{key}.ca", http.ca, x509.load_pem_x509_certificates, "PEM certificates")[1]
    if http.token_file is not None:
        where = f"{key}.token-file"
        yield from _read(where, http.token_file, first_line, "a token as its first line")[1]
        yield from _secret(where, http.token_file)
    if http.certificate is not None and http.private_key is not None:
        yield from _pair(f"{key}.certificate", http.certificate, f"{key}.private-key", http.private_key)[1]


def _sql(key: str, sql: Sql) -> Iterator[Problem]:
    if sql.password_file is not None:
        where = f"{key}.password-file"
        yield from _read(where, sql.password_file, first_line, "a password as its first line")[1]
        yield from _secret(where, sql.password_file)
    if sql.key_file is not None:
        where = f"{key}.key-file"
        yield from _read(where, sql.key_file, encryption_keys, "32 octets in hex or base64")[1]
        yield from _secret(where, sql.key_file)


def _hops(key: str, hops: Hops) -> Iterator[Problem]:
    if hops.ca is not None and hops.tls != "none":
        yield from _read(f"{key}.ca", hops.ca, x509.load_pem_x509_certificates, "PEM certificates")[1]
    if hops.password_file is not None:
        where = f"{key}.password-file"
        yield from _read(where, hops.password_file, first_line, "a password as its first line")[1]
        yield from _secret(where, hops.password_file)
    if hops.certificate is not None and hops.private_key is not None:
        yield from _pair(f"{key}.certificate", hops.certificate, f"{key}.private-key", hops.private_key)[1]


def _read(
    key: str, path: Path, parse: Callable[[bytes], T], right: str
) -> tuple[T | None, tuple[Problem, ...]]:
    """What ``parse`` makes of a file, or ``None`` and the problem."""
    try:
        return parse(path.read_bytes()), ()
    except OSError as error:
        return None, (Problem(key, f"cannot be read: {error.strerror}", path),)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # What is wrong with a key is not told further: the text could hold a part of it.
        detail = f" ({error})" if parse is not _private_key else ""
        return None, (Problem(key, f"should hold {right}{detail}", path),)


def _private_key(octets: bytes) -> PrivateKeyTypes:
    return load_pem_private_key(octets, password=None)


def _folder(key: str, path: Path) -> Iterator[Problem]:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            yield Problem(key, "should be a folder", path)
    except FileNotFoundError:
        return  # it is made at the start
    except OSError as error:
        yield Problem(key, f"cannot be used: {error.strerror}", path)


def _readable_folder(key: str, path: Path) -> Iterator[Problem]:
    """What is in it is judged by whoever uses it."""
    try:
        for file in path.iterdir():
            if file.suffix == ".txt":
                file.open("rb").close()
    except OSError as error:
        yield Problem(key, f"cannot be read: {error.filename}: {error.strerror}", path)


def _secret(key: str, path: Path) -> Iterator[Problem]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it has told
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        right = f"is open to everyone on this machine (mode {stat.S_IMODE(mode):04o}); chmod o= {path}"
        yield Problem(key, right, path, warning=True)


def _pair(
    certificate_key: str, certificate: Path, private_key_key: str, private_key: Path
) -> tuple[x509.Certificate | None, list[Problem]]:
    """The first certificate of a file, and what is wrong with it, its key, or the two together."""
    chain, certificate_problems = _read(
        certificate_key, certificate, x509.load_pem_x509_certificates, "a PEM certificate"
    )
    private, key_problems = _read(
        private_key_key, private_key, _private_key, "a PEM private key without a passphrase"
    )
    problems = [*certificate_problems, *key_problems, *_secret(private_key_key, private_key)]
    if chain and private is not None and chain[0].public_key() != private.public_key():
        right = f"should be the key of the first certificate in {certificate}"
        problems.append(Problem(private_key_key, right, private_key))
    return chain[0] if chain else None, problems


def _certificate_and_key(settings: Settings) -> Iterator[Problem]:
    tls = settings.tls
    certificate, problems = _pair("tls.certificate", tls.certificate, "tls.private-key", tls.private_key)
    yield from problems
    if certificate is None:
        return
    if certificate.not_valid_after_utc < datetime.now(UTC):
        right = f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; clients will refuse it"
        yield Problem("tls.certificate", right, tls.certificate, warning=True)
    if not _names(certificate, settings.server.hostname):
        right = (
            f"is not for server.hostname ({settings.server.hostname}); clients that dial it will refuse it"
        )
        yield Problem("tls.certificate", right, tls.certificate, warning=True)


def _names(certificate: x509.Certificate, hostname: str) -> bool:
    """Does the certificate name the host (RFC 9525 6.3)?"""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    names = {name.lower() for name in alternatives.get_values_for_type(x509.DNSName)}
    return hostname.lower() in names or "*." + hostname.lower().partition(".")[2] in names
