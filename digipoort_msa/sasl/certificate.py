"""A client's certificate, as far as a login goes by it (two-way TLS, seed 1.4.4)."""

from attrs import frozen


@frozen(kw_only=True)
class ClientCertificate:
    """The names in a certificate that TLS has verified against the operator's authorities.

    All text is as in the certificate, in its order, printable and of bounded length: a certificate with any
    other in it has no such object, and names nobody.
    """

    subject: str  # the distinguished name, RFC 4514
    common_names: tuple[str, ...] = ()
    serial_numbers: tuple[str, ...] = ()  # the subject's serialNumber: in PKIoverheid the OIN
    organization_identifiers: tuple[str, ...] = ()  # the subject's, ETSI EN 319 412-1: such as NTRNL-12345678
    emails: tuple[str, ...] = ()  # rfc822Name of the subjectAltName
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    issuer: str = ""  # RFC 4514
    serial: int = 0  # the certificate's own, by its issuer
    fingerprint: str = ""  # SHA-256 of the certificate, lower-case hex
