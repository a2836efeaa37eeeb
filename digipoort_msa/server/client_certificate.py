"""The names in a client's certificate, read with the suspicion that text of others deserves.

OpenSSL has verified the certificate by now: without that, the handshake fails.  That an authority signed it
does not make it readable: a NUL, a line end or a change of the text's direction in a name is how one name
passes for another (CVE-2009-2408).  Nobody makes such a certificate in good faith, so it names nobody at all.
"""

from collections.abc import Iterable
from datetime import datetime

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from digipoort_msa.sasl.certificate import ClientCertificate

#: Attributes that RFC 4514 has no name for, as OpenSSL writes them.
_NAMES = {
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
    NameOID.GIVEN_NAME: "GN",
    NameOID.SURNAME: "SN",
    NameOID.TITLE: "title",
    NameOID.STREET_ADDRESS: "street",
}
_MOST = 100  # names of a kind
_LONGEST = 1024  # characters of a name


class Unusable(Exception):
    """A certificate that verifies, but names nobody; the text says why, for the log."""


def client_certificate(connection: SSL.Connection) -> ClientCertificate | None:
    """What the client at the other end showed.

    :param connection: after its handshake.
    :return: ``None`` where it showed none.
    :raise Unusable: it showed one that names nobody.
    """
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
    except (ValueError, x509.InvalidVersion) as error:  # what OpenSSL takes is not always one by the book
        raise Unusable(str(error)) from None
    return None if certificate is None else names_in(certificate)


@frozen
class Chain:
    """What a client's certificate hangs on, itself and the root among it: each may expire or be revoked while
    the connection is open."""

    members: frozenset[tuple[str, int]]  # issuer (RFC 4514) and serial number of each
    end: datetime  # in UTC, of the first that expires


def chain_of(connection: SSL.Connection) -> Chain | None:
    """
    :param connection: after its handshake.
    :return: ``None`` where the client showed no certificate, or one that cannot be read and names nobody.
    """
    try:
        verified = connection.get_verified_chain(as_cryptography=True)
        if verified is None:
            return None
        members = frozenset((distinguished_name(one.issuer), one.serial_number) for one in verified)
        return Chain(members, min(one.not_valid_after_utc for one in verified))
    except (ValueError, x509.InvalidVersion):
        return None


def names_in(certificate: x509.Certificate) -> ClientCertificate:
    """:raise Unusable: see :func:`client_certificate`."""
    try:
        alternatives = _alternatives(certificate)
        return ClientCertificate(
            subject=_text([distinguished_name(certificate.subject)])[0],
            common_names=_attributes(certificate, NameOID.COMMON_NAME),
            serial_numbers=_attributes(certificate, NameOID.SERIAL_NUMBER),
            organization_identifiers=_attributes(certificate, NameOID.ORGANIZATION_IDENTIFIER),
            emails=_text(alternatives.get_values_for_type(x509.RFC822Name)),
            dns_names=_text(alternatives.get_values_for_type(x509.DNSName)),
            uris=_text(alternatives.get_values_for_type(x509.UniformResourceIdentifier)),
            issuer=_text([distinguished_name(certificate.issuer)])[0],
            serial=certificate.serial_number,
            fingerprint=certificate.fingerprint(SHA256()).hex(),
        )
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise Unusable(str(error)) from None


def distinguished_name(name: x509.Name) -> str:
    """As ``openssl x509 -nameopt RFC2253,-esc_msb,utf8`` prints it."""
    return name.rfc4514_string(_NAMES)


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _attributes(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> tuple[str, ...]:
    return _text(attribute.value for attribute in certificate.subject.get_attributes_for_oid(kind))


def _text(names: Iterable[str | bytes]) -> tuple[str, ...]:
    found = []
    for name in names:
        if not isinstance(name, str) or not name.isprintable():
            raise ValueError("a name in it holds what cannot be printed")
        if len(name) > _LONGEST:
            raise ValueError(f"a name in it has {len(name)} characters; {_LONGEST} are allowed")
        found.append(name)
    if len(found) > _MOST:
        raise ValueError(f"it has {len(found)} names of a kind; {_MOST} are allowed")
    return tuple(found)
