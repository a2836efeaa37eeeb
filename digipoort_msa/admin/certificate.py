"""``digipoort-msa certificate``: whose login a client certificate would be, and why it is nobody's."""

from collections.abc import Sequence
from pathlib import Path

import click
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from OpenSSL.SSL import X509VerificationCodes
from twisted.cred.error import UnauthorizedLogin

from digipoort_msa.accounts.certificates import NAMES, CertificateRules
from digipoort_msa.admin.console import Console, json_option, pass_console, print_json, print_table
from digipoort_msa.config.client_authorities import revocation_lists
from digipoort_msa.config.settings import Settings, Tls
from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.server.client_certificate import Unusable, distinguished_name, names_in
from digipoort_msa.server.verification import DIGEST_TOO_WEAK, KEY_TOO_SMALL, Fault
from digipoort_msa.service.realms import certificate_rules

_LEAST_RSA, _LEAST_EC = 2048, 224  # bits: OpenSSL's security level 2


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@pass_console
def certificate(console: Console, file: Path, as_json: bool) -> None:
    """Tell whose login a client certificate would be (EXTERNAL).

    FILE has what the client shows, in PEM: its own certificate, and the intermediate ones behind it.  No key
    is needed.  Exits with 1 where the certificate is nobody's.
    """
    settings = console.settings
    try:
        shown = x509.load_pem_x509_certificates(file.read_bytes())
        names = names_in(shown[0])
    except (OSError, ValueError, Unusable) as error:
        raise click.ClickException(f"{file}: {error}") from None
    try:
        fault = verification_fault(settings.tls, shown)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise click.ClickException(str(error)) from None
    accounts = accounts_of(settings, names)
    if as_json:
        print_json(
            {
                **facts(names),
                "fault": fault,
                "accounts": [
                    {"realm": realm, "account": account, "reason": reason}
                    for realm, account, reason in accounts
                ],
            }
        )
    else:
        rows = [(key, value) for key, values in facts(names).items() for value in _each(values)]
        rows.append(("verifies", fault or "yes"))
        rows += [(f"in {realm}", account or f"nobody: {reason}") for realm, account, reason in accounts]
        print_table(rows[0], rows[1:])  # type: ignore[arg-type]
    if fault or not any(account for _, account, _ in accounts):
        raise SystemExit(1)


def facts(names: ClientCertificate) -> dict[str, object]:
    """The names in it, as rules call them; those that count for nothing are left out."""
    found = {name: list(read(names)) for name, read in NAMES.items()}
    return {
        "subject": names.subject,
        "issuer": names.issuer,
        "serial": f"{names.serial:x}",
        **{name: values for name, values in found.items() if values and name != "subject"},
    }


def _each(values: object) -> Sequence[object]:
    return values if isinstance(values, list) else [values]


def accounts_of(settings: Settings, names: ClientCertificate) -> list[tuple[str, str | None, str]]:
    """For each realm that lists EXTERNAL: the account, if any, and why it is none."""
    found: list[tuple[str, str | None, str]] = []
    for realm in settings.realm:
        if "EXTERNAL" not in realm.mechanisms:
            continue
        try:
            account = CertificateRules(realm.name, certificate_rules(realm)).account_of(names)
            found.append((realm.name, account, ""))
        except UnauthorizedLogin as error:
            found.append((realm.name, None, str(error)))
    return found


def verification_fault(tls: Tls, shown: Sequence[x509.Certificate]) -> str | None:
    """Why the listeners would not take it, as far as that can be seen without its key.

    :raise OSError, ValueError: a file of the settings cannot be used.
    """
    if tls.client_ca is None:
        return "tls.client-ca is not set"
    store = crypto.X509Store()
    try:
        store.load_locations(str(tls.client_ca))
    except crypto.Error:
        raise ValueError(f"tls.client-ca: there are no PEM certificates in {tls.client_ca}") from None
    if tls.client_crl is not None:
        try:
            crls = revocation_lists(tls.client_crl.read_bytes())
        except ValueError as error:
            raise ValueError(f"tls.client-crl: {tls.client_crl}: {error}") from None
        for crl in crls:
            store.add_crl(crl)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    own, *others = map(crypto.X509.from_cryptography, shown)
    try:
        crypto.X509StoreContext(store, own, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        code, depth, _ = error.errors
        subject = distinguished_name(error.certificate.to_cryptography().subject)
        return str(Fault(code, depth, subject))
    faults = (_unfit(one, depth) for depth, one in enumerate(shown))
    return next((str(fault) for fault in faults if fault is not None), None)


def _unfit(one: x509.Certificate, depth: int) -> Fault | None:
    """What OpenSSL looks at in a handshake only: the purpose of the client's own, and how strong each is."""
    subject = distinguished_name(one.subject)
    if depth == 0 and not _for_clients(one):
        return Fault(X509VerificationCodes.ERR_INVALID_PURPOSE, depth, subject)
    match one.public_key():
        case rsa.RSAPublicKey(key_size=bits):
            is_weak = bits < _LEAST_RSA
        case ec.EllipticCurvePublicKey(key_size=bits):
            is_weak = bits < _LEAST_EC
        case _:
            is_weak = False
    if is_weak:
        return Fault(KEY_TOO_SMALL, depth, subject)
    if one.issuer != one.subject and isinstance(one.signature_hash_algorithm, hashes.MD5 | hashes.SHA1):
        return Fault(DIGEST_TOO_WEAK, depth, subject)
    return None


def _for_clients(own: x509.Certificate) -> bool:
    for extension in own.extensions:
        match extension.value:
            case x509.ExtendedKeyUsage() as purposes if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
                return False
            case x509.KeyUsage(digital_signature=False, key_agreement=False):
                return False
    return True
