"""The arithmetic of DIGEST-MD5: RFC 2831's examples, and the hash forms of 2.1.2.1."""

from hashlib import md5

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl.digest_hash import Digest, digest_secrets
from tests.requirements import proves


def h(octets: bytes) -> bytes:
    return md5(octets).digest()


@proves("A3")
class ExampleTests(SynchronousTestCase):
    """RFC 2831 4: user chris, password secret."""

    def test_imap(self) -> None:
        digest = Digest(
            b"OA6MG9tEQGm2hh", b"OA6MHXh6VqTrRk", b"00000001", b"auth", b"imap/elwood.innosoft.com"
        )
        (secret,) = digest_secrets("chris", "elwood.innosoft.com", "secret")
        self.assertEqual(digest.response(secret), b"d388dad90d4bbd760a152321f2143af7")
        self.assertEqual(digest.rspauth(secret), b"ea40f60335c427b5527b84dbabcdfffd")

    def test_acap(self) -> None:
        digest = Digest(
            b"OA9BSXrbuRhWay", b"OA9BSuZWMSpW8m", b"00000001", b"auth", b"acap/elwood.innosoft.com"
        )
        (secret,) = digest_secrets("chris", "elwood.innosoft.com", "secret")
        self.assertEqual(digest.response(secret), b"6084c6db3fede7352c551284490fd0fc")
        self.assertEqual(digest.rspauth(secret), b"2f0b3d7c3c2e486600ef710726aa2eae")


@proves("A4")
class SecretTests(SynchronousTestCase):
    """A name and a password are encoded each on its own."""

    def test_ascii_has_one_form(self) -> None:
        self.assertEqual(digest_secrets("chris", "r", "secret"), (h(b"chris:r:secret"),))

    def test_both_fit_iso_8859_1(self) -> None:
        rule, name_alone_by_rule, password_alone_by_rule, neither = digest_secrets("\u00e9", "r", "\u00fc")
        self.assertEqual(rule, h(b"\xe9:r:\xfc"))
        self.assertEqual(name_alone_by_rule, h(b"\xe9:r:\xc3\xbc"))
        self.assertEqual(password_alone_by_rule, h(b"\xc3\xa9:r:\xfc"))  # gsasl's
        self.assertEqual(neither, h(b"\xc3\xa9:r:\xc3\xbc"))  # curl's

    def test_only_the_name_fits(self) -> None:
        expected = (h(b"\xe9:r:\xe2\x82\xac"), h(b"\xc3\xa9:r:\xe2\x82\xac"))
        self.assertEqual(digest_secrets("\u00e9", "r", "\u20ac"), expected)

    def test_only_the_password_fits(self) -> None:
        expected = (h(b"\xe2\x82\xac:r:\xe9"), h(b"\xe2\x82\xac:r:\xc3\xa9"))
        self.assertEqual(digest_secrets("\u20ac", "r", "\u00e9"), expected)

    def test_neither_fits(self) -> None:
        self.assertEqual(digest_secrets("\u20ac", "r", "\u20ac"), (h(b"\xe2\x82\xac:r:\xe2\x82\xac"),))

    def test_the_realm_is_in_utf_8(self) -> None:
        self.assertEqual(digest_secrets("a", "\u00e9", "b"), (h(b"a:\xc3\xa9:b"),))

    @settings(deadline=None, max_examples=100)
    @given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
    def test_one_to_four_of_sixteen_octets(self, username: str, password: str) -> None:
        secrets = digest_secrets(username, "r", password)
        self.assertIn(len(secrets), (1, 2, 4))
        self.assertEqual(len(set(secrets)), len(secrets))
        self.assertEqual({len(secret) for secret in secrets}, {16})


class AuthzidTests(SynchronousTestCase):
    def test_present_is_part_of_a1_even_when_empty(self) -> None:
        values = {
            Digest(b"n", b"c", b"00000001", b"auth", b"smtp/h", authzid).response(bytes(16))
            for authzid in (None, b"", b"chris")
        }
        self.assertEqual(len(values), 3)
