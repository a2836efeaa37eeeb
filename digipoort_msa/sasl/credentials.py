"""What a mechanism hands to the accounts for judgement.

A credential verifies itself: a back end that keeps password hashes takes the password out of an
:class:`IPasswordCredential`; one that keeps digest secrets passes each to
:meth:`IDigestCredential.verify`.  All text is prepared with SASLprep (A4), and no ``repr`` shows a
password or a proof of one.
"""

from hmac import compare_digest

from attrs import define, field, frozen
from zope.interface import Attribute, Interface, implementer

from digipoort_msa.sasl.digest_hash import Digest


class IPasswordCredential(Interface):
    """A name and a password, as PLAIN and LOGIN bring them."""

    username = Attribute("str: the authentication identity; it may be ``user@realm``")
    password = Attribute("str: the password itself")
    authorization_id = Attribute(
        "str: the identity to act as; equal to ``username``, since no other is allowed"
    )


class IDigestCredential(Interface):
    """A proof of a digest secret, as DIGEST-MD5 brings it."""

    username = Attribute("str: the user's name within ``realm``")
    realm = Attribute("str: one of the realms that the challenge offered")
    rspauth = Attribute("bytes | None: the server's proof in return, 32 LHEX; None until a secret fitted")

    def verify(secret: bytes) -> bool:
        """Does the client know ``secret``?  Takes the same time for yes and no.

        May be called for each form of the secret (``digest_secrets``); the one that fits sets ``rspauth``,
        without which the exchange does not go on.  An account that may not log in must not be asked.

        :param secret: ``bytes``, H(username ":" realm ":" password), 16 octets.
        :return: ``bool``.
        """


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
