from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from tests.account_doubles import NOW, account
from tests.requirements import proves

TEXT = st.text(alphabet="ab@:1", max_size=3)
WHO = st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT)  # realm, name, mechanism, hash, password


class VerifiedPasswordsTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.cache = VerifiedPasswords(self.clock.seconds, seconds=300, entries=3)
        self.piet = account(password_hash="hash")

    def remember(self, who, password="geheim"):
        self.cache.remember(who, "password", password, who.password_hash)

    def knows(self, who, password="geheim"):
        return self.cache.knows(who, "password", password)

    def named(self, name):
        return account(name, password_hash="hash")

    def test_a_revision_stands_for_a_hash(self):
        """Of a store that yields none; where there is neither, nothing is remembered."""
        piet = account(revision="1")
        self.cache.remember(piet, "password", "geheim", "1")
        self.assertTrue(self.knows(piet))
        self.assertFalse(self.knows(account(revision="2")))
        self.cache.remember(account("jan"), "password", "geheim", "")
        self.assertFalse(self.knows(account("jan")))
        self.assertEqual(len(self.cache), 1)

    def test_the_same_again(self):
        self.remember(self.piet)
        self.assertTrue(self.knows(self.piet))
        self.assertFalse(self.knows(self.piet, "Geheim"))
        self.assertTrue(self.knows(self.piet))  # a wrong one does no harm

    def test_void_with_another_hash(self):
        self.remember(self.piet)
        self.assertFalse(self.knows(evolve(self.piet, password_hash="other")))

    def test_expires(self):
        self.remember(self.piet)
        self.clock.advance(299.9)
        self.assertTrue(self.knows(self.piet))
        self.clock.advance(0.1)
        self.assertFalse(self.knows(self.piet))
        self.assertEqual(len(self.cache), 0)

    def test_off(self):
        self.cache = VerifiedPasswords(self.clock.seconds, seconds=0)
        self.remember(self.piet)
        self.assertFalse(self.knows(self.piet))

    def test_bounded(self):
        for name in "abcd":
            self.remember(self.named(name))
            self.knows(self.named("a"))  # the least recently used goes
        self.assertEqual([self.knows(self.named(name)) for name in "abcd"], [True, False, True, True])

    def test_no_password_in_memory(self):
        self.remember(self.piet)
        self.assertNotIn("geheim", repr(vars(self.cache)))

    @proves("A7")
    @settings(deadline=None, max_examples=300)
    @given(WHO, WHO)
    def test_users_and_realms_never_mix(self, one, other):
        """CVE-2025-30189: what one proved is nothing to another, wherever the names are cut."""
        cache = VerifiedPasswords(self.clock.seconds)
        realm, name, mechanism, password_hash, password = one
        cache.remember(account(name, realm, Status.ACTIVE, password_hash), mechanism, password, password_hash)
        realm, name, mechanism, password_hash, password = other
        asked = account(name, realm, Status.ACTIVE, password_hash)
        self.assertEqual(cache.knows(asked, mechanism, password), one == other and password_hash != "")
        self.assertEqual(asked.created, NOW)
