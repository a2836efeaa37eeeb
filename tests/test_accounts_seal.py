from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.seal import Seal
from tests.requirements import proves

SECRETS = b"0123456789abcdeffedcba9876543210"


@proves("A7")
class SealTests(SynchronousTestCase):
    def setUp(self):
        self.seal = Seal(bytes(32))

    def test_round_trip(self):
        for secrets in (b"", SECRETS[:16], SECRETS):
            self.assertEqual(self.seal.open(self.seal.close(secrets, "r", "n"), "r", "n"), secrets)

    def test_unreadable(self):
        sealed = self.seal.close(SECRETS, "r", "n")
        self.assertNotIn(SECRETS[:16], sealed)
        self.assertNotEqual(sealed, self.seal.close(SECRETS, "r", "n"))

    def test_fits_no_other_account_and_no_other_key(self):
        sealed = self.seal.close(SECRETS, "r", "n")
        for seal, realm, name in (
            (self.seal, "r", "m"),
            (self.seal, "s", "n"),
            (self.seal, "rn", ""),
            (Seal(bytes([1]) * 32), "r", "n"),
        ):
            self.assertRaises(ValueError, seal.open, sealed, realm, name)

    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_damage_is_seen(self, data):
        sealed = bytearray(self.seal.close(SECRETS, "r", "n"))
        at = data.draw(st.integers(0, len(sealed) - 1))
        sealed[at] ^= data.draw(st.integers(1, 255))
        self.assertRaises(ValueError, self.seal.open, bytes(sealed), "r", "n")

    def test_cut_is_seen(self):
        sealed = self.seal.close(SECRETS, "r", "n")
        for end in range(1, len(sealed)):
            self.assertRaises(ValueError, self.seal.open, sealed[:end], "r", "n")

    def test_several_keys(self):
        """The first seals, all open."""
        old, new = bytes([1]) * 32, bytes([2]) * 32
        before = Seal(old).close(SECRETS, "r", "n")
        both = Seal(new, old)
        self.assertEqual(both.open(before, "r", "n"), SECRETS)
        self.assertFalse(both.is_current(before, "r", "n"))
        after = both.close(SECRETS, "r", "n")
        self.assertTrue(both.is_current(after, "r", "n"))
        self.assertEqual(Seal(new).open(after, "r", "n"), SECRETS)
        self.assertRaises(ValueError, Seal(old).open, after, "r", "n")
        self.assertTrue(both.is_current(b"", "r", "n"))

    def test_not_a_key(self):
        self.assertRaises(ValueError, Seal, b"short")
        self.assertRaises(ValueError, Seal, bytes(32), b"short")
