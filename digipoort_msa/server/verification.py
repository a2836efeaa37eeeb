"""Why a client's certificate did not verify, in words: OpenSSL's error says no more than that it did not.

OpenSSL decides.  The callback here changes nothing of that; it notes what was wrong on the connection, where
the log finds it when the handshake has failed.
"""

from attrs import frozen
from OpenSSL import SSL, crypto
from OpenSSL.SSL import X509VerificationCodes as Codes

from digipoort_msa.server.client_certificate import distinguished_name

# What pyOpenSSL has no name for.
_DIFFERENT_CRL_SCOPE = 44
KEY_TOO_SMALL = 66
_AUTHORITY_KEY_TOO_SMALL = 67
DIGEST_TOO_WEAK = 68

_MEANINGS = {
    Codes.ERR_CERT_HAS_EXPIRED: "it has expired",
    Codes.ERR_CERT_NOT_YET_VALID: "it is not valid yet",
    Codes.ERR_CERT_REVOKED: "it is revoked",
    Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "it is signed by itself, not by an authority",
    Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "its authority is none of those in client-ca",
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: "its authority is not in client-ca",
    Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its authority is not in client-ca; an intermediate one has "
    "to be sent along",
    Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its authority is not in client-ca",
    Codes.ERR_CERT_SIGNATURE_FAILURE: "its signature is wrong",
    Codes.ERR_INVALID_CA: "it signs others, and is no authority",
    Codes.ERR_PATH_LENGTH_EXCEEDED: "it is further from its authority than that allows",
    Codes.ERR_INVALID_PURPOSE: "it is not meant for TLS clients (extended key usage clientAuth)",
    Codes.ERR_PERMITTED_VIOLATION: "its authority may not issue for this name",
    Codes.ERR_EXCLUDED_VIOLATION: "its authority may not issue for this name",
    Codes.ERR_UNHANDLED_CRITICAL_EXTENSION: "it has a critical extension that is unknown here",
    Codes.ERR_UNABLE_TO_GET_CRL: "client-crl has no list of its authority, so it may be revoked",
    Codes.ERR_CRL_HAS_EXPIRED: "its authority's list in client-crl is out of date, so it may be revoked",
    Codes.ERR_CRL_NOT_YET_VALID: "its authority's list in client-crl is of a time to come",
    Codes.ERR_CRL_SIGNATURE_FAILURE: "the list in client-crl is not signed by its authority",
    _DIFFERENT_CRL_SCOPE: "client-crl has a list of its authority, but one for other certificates, so it may "
    "be revoked",
    KEY_TOO_SMALL: "its key is too weak",
    _AUTHORITY_KEY_TOO_SMALL: "its key is too weak",
    DIGEST_TOO_WEAK: "it is signed with a hash that is too weak",
}


@frozen
class Fault:
    """What was wrong with a chain, and with which certificate of it."""

    code: int  # X509_V_ERR_...
    depth: int  # 0: the client's own; above: the authorities
    subject: str  # of the certificate, as it says itself

    def __str__(self) -> str:
        whose = "the client's certificate" if self.depth == 0 else "an authority of the client's certificate"
        meaning = _MEANINGS.get(self.code, f"X509_V_ERR {self.code}")
        return f"{whose}, {self.subject or 'without a subject'}: {meaning}"


def note_fault(
    connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, verifies: int
) -> bool:
    """For ``SSL.Context.set_verify``.

    :return: what OpenSSL found.
    """
    if verifies != 1:
        connection.set_app_data(Fault(code, depth, _subject(certificate)))
        return False
    return True


def fault_of(connection: SSL.Connection) -> Fault | None:
    """What was noted of a connection's client."""
    fault = connection.get_app_data()
    return fault if isinstance(fault, Fault) else None


def _subject(certificate: crypto.X509) -> str:
    try:
        return distinguished_name(certificate.to_cryptography().subject)[:200]
    except Exception:  # noqa: BLE001 -- it is anybody's: one more kind of error would end as a traceback
        return "one that cannot be read"
