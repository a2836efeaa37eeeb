"""A client's certificate, as far as a login goes by it (two-way TLS, seed 1.4.4)."""

from attrs import frozen


@frozen(kw_only=True)
class ClientCertificate:
    """The names in a certificate that TLS has verified against the operator's authorities.

    All text is as in the certificate, in its order.  A name that holds a control character is left out: it
    names nobody.
    """

    subject: str  # the distinguished name, RFC 4514
    common_names: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()  # rfc822Name of the subjectAltName
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    issuer: str = ""  # RFC 4514
    serial: int = 0
    fingerprint: str = ""  # SHA-256 of the certificate, lower-case hex
