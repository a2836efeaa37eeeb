import threading

from passlib.hash import apr_md5_crypt, argon2, bcrypt, pbkdf2_sha256, sha256_crypt, sha512_crypt
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.passwords import PasswordHashing, Passwords
from digipoort_msa.threads import Threads
from tests.account_doubles import CountingHashing, Inline, account
from tests.requirements import proves

DAMAGED = ("", "x", "$apr1$a", "$2y$05$a", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$AAAA", "$6$rounds=x$y")


class PasswordHashingTests(SynchronousTestCase):
    @proves("A7")
    def test_defaults(self):
        hashed = PasswordHashing().hash("geheim")
        self.assertTrue(hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$"), hashed)
        self.assertNotEqual(hashed, PasswordHashing().hash("geheim"))

    def test_parameters(self):
        hashed = PasswordHashing(memory_kib=32, time_cost=1, parallelism=2).hash("geheim")
        self.assertIn("$m=32,t=1,p=2$", hashed)

    def test_other_schemes_are_verified_and_outdated(self):
        hashing = PasswordHashing(memory_kib=8, time_cost=1)
        for scheme in (
            sha512_crypt.using(rounds=1000),
            sha256_crypt.using(rounds=1000),
            pbkdf2_sha256.using(rounds=10),
            bcrypt.using(rounds=4),
            apr_md5_crypt,
            argon2.using(type="I", memory_cost=8, rounds=1, parallelism=1),
            argon2.using(memory_cost=16, rounds=1, parallelism=1),
            argon2.using(memory_cost=8, rounds=2, parallelism=1),
        ):
            old = scheme.hash("geheim")
            self.assertTrue(hashing.verify("geheim", old), old)
            self.assertFalse(hashing.verify("Geheim", old), old)
            self.assertTrue(hashing.outdated(old), old)
        self.assertFalse(hashing.outdated(hashing.hash("geheim")))

    def test_sound(self):
        hashing = PasswordHashing(memory_kib=8, time_cost=1)
        self.assertTrue(hashing.sound(hashing.hash("geheim")))
        for damaged in DAMAGED:
            self.assertFalse(hashing.sound(damaged), damaged)

    def test_bcrypt_is_of_72_octets(self):
        """A longer password is refused, not cut off."""
        hashing = PasswordHashing(memory_kib=8, time_cost=1)
        whole = bcrypt.using(rounds=4).hash("€" * 24)
        self.assertTrue(hashing.verify("€" * 24, whole))
        self.assertFalse(hashing.verify("€" * 24 + "x", whole))

    def test_a_damaged_hash_fits_no_password(self):
        hashing = PasswordHashing(memory_kib=8, time_cost=1)
        for damaged in DAMAGED:
            self.assertFalse(hashing.verify("", damaged))
            self.assertFalse(hashing.verify("geheim", damaged))

    def test_not_a_plain_text_scheme(self):
        self.assertFalse(PasswordHashing(memory_kib=8, time_cost=1).verify("geheim", "geheim"))


class PasswordsTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.hashing = CountingHashing()
        self.cache = VerifiedPasswords(self.clock.seconds)
        self.passwords = Passwords(self.hashing, Inline(), self.cache)
        self.piet = account(password_hash=self.hashing.hash("geheim"))

    def verify(self, who, password):
        return self.successResultOf(self.passwords.verify(who, password, "password"))

    def test_right_and_wrong(self):
        self.assertTrue(self.verify(self.piet, "geheim").accepted)
        self.assertFalse(self.verify(self.piet, "Geheim").accepted)
        self.assertFalse(self.verify(None, "geheim").accepted)

    @proves("A5")
    def test_every_refusal_is_one_verification(self):
        self.verify(self.piet, "geheim")  # with the right password in the cache, too
        for who, password in (
            (None, "geheim"),
            (self.piet, "wrong"),
            (account(password_hash=""), "geheim"),
            (account(password_hash="damaged"), "geheim"),
        ):
            self.hashing.verifications = 0
            self.assertFalse(self.verify(who, password).accepted)
            self.assertEqual(self.hashing.verifications, 1, who)

    @proves("A5")
    def test_nobodys_hash_costs_as_much_as_a_new_one(self):
        nobodys = self.passwords._nobodys_hash
        self.assertFalse(self.hashing.outdated(nobodys))
        self.assertEqual(nobodys.rsplit("$", 2)[0], self.piet.password_hash.rsplit("$", 2)[0])

    def test_the_cache_spares_the_second_verification(self):
        self.verify(self.piet, "geheim")
        self.assertTrue(self.verify(self.piet, "geheim").accepted)
        self.assertEqual(self.hashing.verifications, 1)

    def test_many_at_once_are_verified_once(self):
        """Those that waited while the first was verified find it in the cache."""
        waiting = []

        class Later:
            def call(self, work, *arguments):
                waiting.append(lambda: work(*arguments))

        passwords = Passwords(self.hashing, Later(), self.cache)
        for _ in range(5):
            passwords.verify(self.piet, "geheim", "password")
        self.assertTrue(all(work().accepted for work in waiting))
        self.assertEqual(self.hashing.verifications, 1)

    @proves("A7")
    def test_an_outdated_hash_is_made_anew(self):
        old = account(password_hash=CountingHashing(time_cost=2).hash("geheim"))
        self.assertIsNone(self.verify(old, "wrong").upgraded)
        upgraded = self.verify(old, "geheim").upgraded
        self.assertFalse(self.hashing.outdated(upgraded))
        self.assertTrue(self.hashing.verify("geheim", upgraded))
        # What is remembered is the new hash, which the store has from now on.
        self.assertFalse(self.cache.knows(old, "password", "geheim"))
        self.assertTrue(self.cache.knows(account(password_hash=upgraded), "password", "geheim"))
        self.assertIsNone(self.verify(self.piet, "geheim").upgraded)

    def test_what_nobody_keeps_is_not_made(self):
        old = account(password_hash=CountingHashing(time_cost=2).hash("geheim"))
        self.hashing.hash = None
        for _ in range(2):
            verdict = self.successResultOf(self.passwords.verify(old, "geheim", "password", upgrade=False))
            self.assertEqual((verdict.accepted, verdict.upgraded), (True, None))
        self.assertEqual(self.hashing.verifications, 1)  # the cache knows it by the hash that stays


class ReactorTests(TestCase):
    async def test_the_reactor_never_verifies(self):
        idents = set()

        class Hashing(CountingHashing):
            def verify(self, password, password_hash):
                idents.add(threading.get_ident())
                return super().verify(password, password_hash)

        threads = Threads(reactor, "passwords", size=2, waiting=10)
        self.addCleanup(threads.stop)
        hashing = Hashing()
        passwords = Passwords(hashing, threads, VerifiedPasswords(reactor.seconds))
        piet = account(password_hash=hashing.hash("geheim"))
        for who, password in ((piet, "geheim"), (piet, "wrong"), (None, "geheim")):
            await passwords.verify(who, password, "password")
        self.assertEqual(len(idents & {threading.get_ident()}), 0)
        self.assertGreater(len(idents), 0)
