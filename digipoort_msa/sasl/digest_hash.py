"""The arithmetic of DIGEST-MD5 (RFC 2831 2.1.2.1 and 2.1.3), on octets.

::

    secret   = H(username ":" realm ":" password)                       16 octets, what a store keeps
    A1       = secret ":" nonce ":" cnonce [":" authzid]
    A2       = ("AUTHENTICATE:" for response, ":" for rspauth) digest-uri
    response = HEX(H(HEX(H(A1)) ":" nonce ":" nc ":" cnonce ":" qop ":" HEX(H(A2))))

A secret is as good as the password within its realm (RFC 6331), so it is stored and shown as one.
The values are those between the quotation marks with the backslash escapes undone.
"""

from hashlib import md5
from itertools import product

from attrs import field, frozen


@frozen
class Digest:
    """All that goes into a response but the secret, in the octets that the client sent."""

    nonce: bytes
    cnonce: bytes = field(repr=False)
    nc: bytes
    qop: bytes
    digest_uri: bytes
    authzid: bytes | None = None  # None where the directive is absent, which is not the same as empty

    def response(self, secret: bytes) -> bytes:
        """What a client proves its ``secret`` with: 32 LHEX."""
        return self._value(secret, b"AUTHENTICATE:")

    def rspauth(self, secret: bytes) -> bytes:
        """What the server proves its ``secret`` with: 32 LHEX."""
        return self._value(secret, b":")

    def _value(self, secret: bytes, method: bytes) -> bytes:
        a1 = b":".join((secret, self.nonce, self.cnonce))
        if self.authzid is not None:
            a1 += b":" + self.authzid
        a2 = method + self.digest_uri
        return _hex(b":".join((_hex(a1), self.nonce, self.nc, self.cnonce, self.qop, _hex(a2))))


def digest_secrets(username: str, realm: str, password: str) -> tuple[bytes, ...]:
    """The secrets of 16 octets by which a store recognises a client, from one to four of them.

    The first is by the rule of RFC 2831 2.1.2.1 (A4): a name or a password that fits ISO-8859-1 is
    hashed in it, each on its own, else in UTF-8.  The others are those of the many clients that know half
    of the rule or none of it (curl hashes both in UTF-8, gsasl the name alone).  Names and passwords in
    ASCII have one secret.

    :param username: prepared with SASLprep, as ``password`` is.
    :param realm: as the challenge names it; always hashed in UTF-8.
    """
    forms = product(_encodings(username), (realm.encode(),), _encodings(password))
    return tuple(dict.fromkeys(_h(b":".join(parts)) for parts in forms))


def _encodings(text: str) -> tuple[bytes, ...]:
    """ISO-8859-1 where that is possible, then UTF-8."""
    try:
        return text.encode("iso-8859-1"), text.encode()
    except UnicodeEncodeError:
        return (text.encode(),)


def _h(octets: bytes) -> bytes:
    return md5(octets, usedforsecurity=False).digest()  # the protocol's own; TLS is what protects it


def _hex(octets: bytes) -> bytes:
    return _h(octets).hex().encode("ascii")
