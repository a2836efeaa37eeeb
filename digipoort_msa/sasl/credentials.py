"""What a mechanism hands to the accounts for judgement.

A credential verifies itself: a back end that keeps password hashes takes the password out of an
:class:`IPasswordCredential`; one that keeps digest secrets or SCRAM keys passes them to the ``verify`` of
:class:`IDigestCredential` or :class:`IScramCredential`.  All text is prepared with SASLprep (A4), and no
``repr`` shows a password or a proof of one.
"""

import hmac
from hashlib import sha256
from hmac import compare_digest

from attrs import define, field, frozen
from zope.interface import Attribute, Interface, implementer

from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.digest_hash import Digest
from digipoort_msa.sasl.scram_keys import ScramKeys


class ICredential(Interface):
    """A name, and some proof that whoever says it may."""

    username = Attribute("str: the authentication identity; it may be ``user@realm``")


class IPasswordCredential(ICredential):
    """A name and a password, as PLAIN and LOGIN bring them."""

    password = Attribute("str: the password itself")
    authorization_id = Attribute(
        "str: the identity to act as; equal to ``username``, since no other is allowed"
    )


class IDigestCredential(ICredential):
    """A proof of a digest secret, as DIGEST-MD5 brings it.  ``username`` is the name within ``realm``."""

    realm = Attribute("str: one of the realms that the challenge offered")
    rspauth = Attribute("bytes | None: the server's proof in return, 32 LHEX; None until a secret fitted")

    def verify(secret: bytes) -> bool:
        """Does the client know ``secret``?  Takes the same time for yes and no.

        May be called for each form of the secret (``digest_secrets``); the one that fits sets ``rspauth``,
        without which the exchange does not go on.  An account that may not log in must not be asked.

        :param secret: ``bytes``, H(username ":" realm ":" password), 16 octets.
        :return: ``bool``.
        """


class IScramCredential(ICredential):
    """A proof of a password, as SCRAM brings it."""

    server_signature = Attribute("bytes | None: the server's proof in return; None until the keys fitted")

    def verify(keys: ScramKeys) -> bool:
        """Does the client know the password that ``keys`` were made of?  Takes the same time for yes and no.

        The keys that fit set ``server_signature``, without which the exchange does not go on.  An account
        that may not log in must not be asked.

        :param keys: those that the client was given salt and iterations of; any others do not fit.
        """


class ICertificateCredential(ICredential):
    """A client certificate that TLS has verified, as EXTERNAL brings it.

    ``username`` is the identity that the client asks to act as, ``""`` where it leaves that to the
    certificate.
    """

    certificate = Attribute("ClientCertificate: its names")


@implementer(IPasswordCredential)
@frozen
class PasswordCredential:
    """See :class:`IPasswordCredential`."""

    username: str
    password: str = field(repr=False)
    authorization_id: str


@implementer(IDigestCredential)
@define(eq=False)
class DigestCredential:
    """See :class:`IDigestCredential`."""

    username: str
    realm: str
    digest: Digest = field(repr=False)
    response: bytes = field(repr=False)
    rspauth: bytes | None = field(default=None, init=False, repr=False)

    def verify(self, secret: bytes) -> bool:
        rspauth = self.digest.rspauth(secret)
        fits = compare_digest(self.digest.response(secret), self.response)
        if fits:
            self.rspauth = rspauth
        return fits


@implementer(IScramCredential)
@define(eq=False)
class ScramCredential:
    """See :class:`IScramCredential`.

    Salt and iterations are in the AuthMessage, and the keys follow from them; so no keys but those that the
    exchange began with can fit.
    """

    username: str
    auth_message: bytes = field(repr=False)  # RFC 5802 3
    proof: bytes = field(repr=False)  # ClientProof, 32 octets
    server_signature: bytes | None = field(default=None, init=False, repr=False)

    def verify(self, keys: ScramKeys) -> bool:
        client_signature = hmac.digest(keys.stored_key, self.auth_message, "sha256")
        client_key = bytes(a ^ b for a, b in zip(client_signature, self.proof, strict=True))
        server_signature = hmac.digest(keys.server_key, self.auth_message, "sha256")
        fits = compare_digest(sha256(client_key).digest(), keys.stored_key)
        if fits:
            self.server_signature = server_signature
        return fits


@implementer(ICertificateCredential)
@frozen
class CertificateCredential:
    """See :class:`ICertificateCredential`."""

    username: str
    certificate: ClientCertificate
