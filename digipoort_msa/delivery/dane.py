"""DANE: a hop's certificates against the TLSA records of its name (RFC 6698, with RFC 7671 and 7672).

What stands here is pure: records and certificates in, a verdict out.  Whether the records may be trusted at
all is the resolver's word, and what a verdict leads to is ``tls``'s.

- Usage 3 (DANE-EE): the hop's own certificate matches; its name, dates and issuer do not matter (RFC 7671
  5.1).
- Usage 2 (DANE-TA): a certificate above it matches, sent by the hop or whole in the record, and the chain up
  to it is sound; the name has to be right too (RFC 7671 5.2).  A bare key as trust anchor ("2 1 0") counts
  where the hop sends the certificate it belongs to, as RFC 7671 5.2.3 advises it to.
- Usages 0 and 1 need a public authority besides and are not usable for SMTP (RFC 7672 3.1.3).
"""

import hashlib
from collections.abc import Sequence

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

TRUST_ANCHOR, END_ENTITY = 2, 3  # usages
CERTIFICATE, PUBLIC_KEY = 0, 1  # selectors
FULL, SHA_256, SHA_512 = 0, 1, 2  # matching types
_DIGESTS = {SHA_256: hashlib.sha256, SHA_512: hashlib.sha512}  # by rising strength


class Mismatch(Exception):
    """The certificates are not the ones that the records tell of; the text says in what way."""


@frozen
class TLSA:
    """One TLSA record (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def usable(self) -> bool:
        """Can a certificate be held against it (RFC 6698 4.1)?"""
        if self.usage not in (TRUST_ANCHOR, END_ENTITY) or self.selector not in (CERTIFICATE, PUBLIC_KEY):
            return False
        if self.matching in _DIGESTS:
            return len(self.data) == _DIGESTS[self.matching]().digest_size
        return self.matching == FULL and self._is_whole()

    def _is_whole(self) -> bool:
        try:
            if self.selector == CERTIFICATE:
                x509.load_der_x509_certificate(self.data).public_key()
            else:
                load_der_public_key(self.data)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return False
        return True

    def matches(self, certificate: x509.Certificate) -> bool:
        octets = selected(certificate, self.selector)
        digest = _DIGESTS.get(self.matching)
        return self.data == (octets if digest is None else digest(octets).digest())


def selected(certificate: x509.Certificate, selector: int) -> bytes:
    """The part of a certificate that a selector names, in DER."""
    if selector == CERTIFICATE:
        return certificate.public_bytes(Encoding.DER)
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def applicable(records: Sequence[TLSA]) -> tuple[TLSA, ...]:
    """The records that count: usable ones, and of each usage and selector the strongest digest alone, so that
    a weak one cannot stand in for it (RFC 7671 9); whole data counts in any case."""
    usable = [record for record in records if record.usable]
    strongest: dict[tuple[int, int], int] = {}
    for record in usable:
        kind = (record.usage, record.selector)
        strongest[kind] = max(record.matching, strongest.get(kind, FULL))
    return tuple(
        record for record in usable if record.matching in (FULL, strongest[record.usage, record.selector])
    )


def verify(records: Sequence[TLSA], chain: Sequence[x509.Certificate]) -> bool:
    """Hold the certificates that a hop has shown against its records.

    :param records: :func:`applicable` ones, at least one.
    :param chain: its own certificate first.
    :return: whether that certificate's name has to be checked besides.
    :raise Mismatch: none of the records allows them.
    """
    if not chain:
        raise Mismatch("the hop showed no certificate")
    if any(record.usage == END_ENTITY and record.matches(chain[0]) for record in records):
        return False
    anchors = _anchors([record for record in records if record.usage == TRUST_ANCHOR], chain[1:])
    if not anchors:
        raise Mismatch(f"none of its {len(records)} TLSA records matches a certificate that it showed")
    _verify_chain(chain, anchors)
    return True


def _anchors(records: Sequence[TLSA], above: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Every trust anchor that the records name: one that the hop has shown, or that a record holds whole."""
    shown = [certificate for certificate in above if any(record.matches(certificate) for record in records)]
    whole = [
        x509.load_der_x509_certificate(record.data)
        for record in records
        if record.matching == FULL and record.selector == CERTIFICATE
    ]
    return shown + whole


def _verify_chain(chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]) -> None:
    store = X509Store()
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)  # an anchor need not be self-signed
    for anchor in anchors:
        store.add_cert(X509.from_cryptography(anchor))
    leaf, *above = map(X509.from_cryptography, chain)
    try:
        X509StoreContext(store, leaf, above).verify_certificate()
    except X509StoreContextError as error:
        raise Mismatch(f"its chain to the trust anchor of its TLSA records does not hold: {error}") from error
    if not _is_for_servers(chain[0]):
        raise Mismatch("its certificate is not for TLS servers (extended key usage)")


def _is_for_servers(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
