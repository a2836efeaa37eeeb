"""Credentials verify themselves and keep their secrets."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.sasl import DigestCredential, IDigestCredential, IPasswordCredential, PasswordCredential
from digipoort_msa.sasl.credentials import IScramCredential, ScramCredential
from digipoort_msa.sasl.digest_hash import Digest
from digipoort_msa.sasl.scram_keys import ScramKeys

SECRET = bytes(range(16))
DIGEST = Digest(b"nonce", b"cnonce", b"00000001", b"auth", b"smtp/msa.example.nl")


class PasswordCredentialTests(SynchronousTestCase):
    def test_interface(self) -> None:
        verifyObject(IPasswordCredential, PasswordCredential("chris", "secret", "chris"))

    def test_repr_hides_the_password(self) -> None:
        self.assertNotIn("secret", repr(PasswordCredential("chris", "secret", "chris")))


class DigestCredentialTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.credential = DigestCredential("chris", "example.nl", DIGEST, DIGEST.response(SECRET))

    def test_interface(self) -> None:
        verifyObject(IDigestCredential, self.credential)

    def test_the_right_secret(self) -> None:
        self.assertTrue(self.credential.verify(SECRET))
        self.assertEqual(self.credential.rspauth, DIGEST.rspauth(SECRET))

    def test_the_wrong_secret(self) -> None:
        self.assertFalse(self.credential.verify(bytes(16)))
        self.assertIsNone(self.credential.rspauth)

    def test_rspauth_is_of_the_form_that_fits(self) -> None:
        """A store tries all forms of a secret, and the right one need not be the last."""
        verdicts = [self.credential.verify(secret) for secret in (bytes(16), SECRET, bytes(16))]
        self.assertEqual(verdicts, [False, True, False])
        self.assertEqual(self.credential.rspauth, DIGEST.rspauth(SECRET))

    def test_repr_hides_every_proof(self) -> None:
        self.credential.verify(SECRET)
        shown = repr(self.credential)
        for proof in (DIGEST.response(SECRET), DIGEST.rspauth(SECRET), b"cnonce"):
            self.assertNotIn(proof.decode(), shown)


class ScramCredentialTests(SynchronousTestCase):
    """Its arithmetic is in the vectors of ``test_sasl_scram``."""

    KEYS = ScramKeys.of("pencil", bytes(16), 4096)

    def test_interface(self) -> None:
        verifyObject(IScramCredential, ScramCredential("chris", b"n=chris,...", bytes(32)))

    def test_the_wrong_keys(self) -> None:
        credential = ScramCredential("chris", b"n=chris,...", bytes(32))
        self.assertFalse(credential.verify(self.KEYS))
        self.assertIsNone(credential.server_signature)

    def test_repr_hides_every_proof(self) -> None:
        shown = repr(ScramCredential("chris", b"n=chris,...", b"proof" * 6 + b"!!")) + repr(self.KEYS)
        for hidden in (b"proof", b"n=chris", self.KEYS.stored_key, self.KEYS.server_key):
            self.assertNotIn(repr(hidden)[2:-1], shown)
