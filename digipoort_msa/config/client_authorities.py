"""Rules on the files of two-way TLS: the authorities of client certificates, and what they have revoked."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from digipoort_msa.config.problems import Problem

_PEM = re.compile(rb"-----BEGIN X509 CRL-----\s.*?-----END X509 CRL-----", re.DOTALL)


def revocation_lists(octets: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """The lists of revoked certificates (CRLs) in a PEM file.

    :raise ValueError: there is none, or not each is whole, and complete: OpenSSL passes over one that is not,
        and so over what is revoked there.
    """
    blocks = _PEM.findall(octets)
    if octets.count(b"-----BEGIN") != len(blocks):
        raise ValueError("not each block in it is a whole CRL")
    if not blocks:
        if octets[:1] == b"\x30":  # a SEQUENCE, as authorities publish it
            raise ValueError("it is in DER; openssl crl -inform DER makes PEM of it")
        raise ValueError("there is none" if octets.strip() else "it is empty")
    crls = tuple(map(x509.load_pem_x509_crl, blocks))
    for crl in crls:
        if kind := _incomplete(crl):
            raise ValueError(f"the list of {crl.issuer.rfc4514_string()} is {kind}; a complete one is needed")
    return crls


def _incomplete(crl: x509.CertificateRevocationList) -> str | None:
    """What keeps a list from being complete, if anything does (RFC 5280 5.2.4, 5.2.5).

    :raise ValueError: its extensions cannot be read.
    """
    try:
        extensions = crl.extensions
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from None
    for extension in extensions:
        match extension.value:
            case x509.DeltaCRLIndicator():
                return "a delta, what changed since another"
            case x509.IssuingDistributionPoint(indirect_crl=True):
                return "an indirect one, about certificates of others"
            case x509.IssuingDistributionPoint(only_some_reasons=reasons) if reasons:
                return "about some reasons of revocation only"
    return None


def revocation_problems(
    file: Path,
    crls: Sequence[x509.CertificateRevocationList],
    authorities: Sequence[x509.Certificate],
) -> Iterator[Problem]:
    """What will have certificates refused, today or soon.

    An intermediate authority comes with the client's certificate, so nothing can be said of its list but when
    it ends.

    :param authorities: those in ``tls.client-ca``.
    """
    key = "tls.client-crl"
    now = datetime.now(UTC)
    for authority in authorities:
        lists = [crl for crl in crls if crl.issuer == authority.subject]
        name = authority.subject.rfc4514_string()
        if not lists:
            yield Problem(key, f"has no list of {name}: all its certificates are refused", file, warning=True)
        elif not any(crl.is_signature_valid(authority.public_key()) for crl in lists):  # type: ignore[arg-type]
            yield Problem(key, f"has a list of {name} that it has not signed", file, warning=True)
    for crl in crls:
        end = crl.next_update_utc
        name = crl.issuer.rfc4514_string()
        if end is None:
            yield Problem(
                key, f"has a list of {name} without an end; it is never out of date", file, warning=True
            )
        elif end < now:
            right = f"has a list of {name} that is out of date since {end:%Y-%m-%d %H:%M} UTC: all its "
            yield Problem(key, f"{right}certificates are refused", file, warning=True)
        elif end - now < (end - crl.last_update_utc) / 4:
            right = f"has a list of {name} that is good until {end:%Y-%m-%d %H:%M} UTC; then all its "
            yield Problem(key, f"{right}certificates are refused", file, warning=True)


def authority_problems(file: Path, authorities: Sequence[x509.Certificate]) -> Iterator[Problem]:
    """A file of authorities under which no certificate can verify."""
    now = datetime.now(UTC)
    subjects = {authority.subject for authority in authorities}
    for authority in authorities:
        name = authority.subject.rfc4514_string()
        if authority.not_valid_after_utc < now:
            right = f"has {name}, which expired at {authority.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            yield Problem("tls.client-ca", right, file, warning=True)
        if authority.issuer not in subjects:
            right = f"has {name}, and not {authority.issuer.rfc4514_string()} above it: none of its "
            yield Problem("tls.client-ca", f"{right}certificates verify", file, warning=True)
