from datetime import date

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.checkers import DigestChecker, PasswordChecker
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.interfaces import IAccountStore, MechanismRetired, Unavailable
from digipoort_msa.sasl.credentials import IDigestCredential
from digipoort_msa.sasl.digest_hash import digest_secrets
from tests.account_doubles import CountingHashing, Inline, MemoryStore, account, password_credential
from tests.requirements import proves

SECRET = b"0123456789abcdef"
BARRED = (Status.DISABLED, Status.EXPIRED, Status.LOCKED)


class PasswordCheckerTests(SynchronousTestCase):
    def setUp(self):
        self.hashing = CountingHashing()
        self.right = self.hashing.hash("geheim")
        barred = [account(status.value, status=status, password_hash=self.right) for status in BARRED]
        self.store = MemoryStore(
            account(password_hash=self.right),
            account("zo\u00eb", password_hash=self.right),
            account("empty", password_hash=""),
            *barred,
        )
        self.make()

    def make(self):
        passwords = Passwords(self.hashing, Inline(), VerifiedPasswords(Clock().seconds))
        self.checker = PasswordChecker("one.nl", GuardedStore(self.store, "one.nl", Clock()), passwords)

    def ask(self, username, password="geheim"):
        return self.checker.requestAvatarId(password_credential(username, password))

    def test_interface(self):
        verifyObject(ICredentialsChecker, self.checker)

    def test_right(self):
        self.assertEqual(self.successResultOf(self.ask("piet")), account().identity)
        self.assertEqual(self.successResultOf(self.ask("zo\u00eb@ONE.nl")), account("zo\u00eb").identity)

    @proves("A5")
    def test_every_refusal_is_the_same_to_the_client(self):
        """Same exception, same number of verifications; only its text, for the log, tells them apart."""
        self.successResultOf(self.ask("piet"))  # the cache knows the right one
        causes = {
            ("piet", "wrong"): "the password is wrong",
            ("nobody", "geheim"): "there is no such account",
            ("empty", ""): "the password is wrong",
            **{(status.value, "geheim"): f"the account is {status.value}" for status in BARRED},
        }
        for (username, password), cause in causes.items():
            for _ in range(2):  # nothing is learnt from the first
                self.hashing.verifications = 0
                failure = self.failureResultOf(self.ask(username, password), UnauthorizedLogin)
                self.assertIs(failure.type, UnauthorizedLogin)
                self.assertEqual(failure.getErrorMessage(), cause)
                self.assertEqual(self.hashing.verifications, 1, username)

    def test_any_change_voids_the_cache(self):
        self.successResultOf(self.ask("piet"))
        self.successResultOf(self.ask("piet"))
        self.assertEqual(self.hashing.verifications, 1)
        for changed in (
            account(password_hash=self.hashing.hash("anders")),
            account(password_hash=self.right, status=Status.DISABLED),
            None,
        ):
            self.store.accounts["piet"] = changed
            self.failureResultOf(self.ask("piet"), UnauthorizedLogin)

    def test_unavailable(self):
        self.store.failure = Unavailable("down")
        self.failureResultOf(self.ask("piet"), Unavailable)

    @proves("A7")
    def test_upgrade(self):
        old = CountingHashing(time_cost=2).hash("geheim")
        self.store.accounts["piet"] = account(password_hash=old)
        self.failureResultOf(self.ask("piet", "wrong"), UnauthorizedLogin)
        self.assertEqual(self.store.upgrades, [])
        self.assertEqual(self.successResultOf(self.ask("piet")), account().identity)
        ((before, after, scram),) = self.store.upgrades
        self.assertEqual((before.name, before.password_hash, scram), ("piet", old, None))
        self.assertFalse(self.hashing.outdated(after))

    def test_an_upgrade_that_fails_does_not_fail_the_login(self):
        self.store.accounts["piet"] = account(password_hash=CountingHashing(time_cost=2).hash("geheim"))
        real = self.store.upgrade

        def upgrade(*arguments):
            self.store.failure = Unavailable("down")
            return real(*arguments).addCallback(lambda _: self.store._fail())

        self.store.upgrade = upgrade
        self.assertEqual(self.successResultOf(self.ask("piet")), account().identity)

    def test_a_store_that_cannot_upgrade(self):
        old = account(password_hash=CountingHashing(time_cost=2).hash("geheim"))

        @implementer(IAccountStore)
        class ReadOnly:
            mechanisms = frozenset()
            account = MemoryStore(old).account

            def stop(self):
                pass

        self.store = ReadOnly()
        self.make()
        self.assertEqual(self.successResultOf(self.ask("piet")), account().identity)


@implementer(IDigestCredential)
class DigestCredential:
    """Fits one secret, and remembers all that it was tried with."""

    def __init__(self, username, secret=SECRET, realm="one.nl"):
        self.username = username
        self.realm = realm
        self.secret = secret
        self.tried = []
        self.rspauth = None

    def verify(self, secret):
        self.tried.append(secret)
        return secret == self.secret


class DigestCheckerTests(SynchronousTestCase):
    def setUp(self):
        others = tuple(bytes([number]) * 16 for number in range(3))
        self.store = MemoryStore(
            account(digest_secrets=(SECRET,)),
            account("last", digest_secrets=(*others, SECRET)),
            account("without"),
            *[account(status.value, status=status, digest_secrets=(SECRET,)) for status in BARRED],
        )
        self.today = date(2026, 1, 5)
        guarded = GuardedStore(self.store, "one.nl", Clock())
        self.checker = DigestChecker("one.nl", guarded, lambda: self.today)

    def ask(self, username, secret=SECRET):
        self.credential = DigestCredential(username, secret)
        return self.checker.requestAvatarId(self.credential)

    def test_right(self):
        self.assertEqual(self.successResultOf(self.ask("piet")), account().identity)
        self.assertEqual(self.successResultOf(self.ask("piet@one.nl")), account().identity)
        self.assertEqual(self.successResultOf(self.ask("last")), account("last").identity)

    @proves("A5")
    def test_every_refusal_is_the_same_to_the_client(self):
        for username, secret in (
            ("piet", b"x" * 16),
            ("last", b"x" * 16),
            ("nobody", SECRET),
            ("without", SECRET),
            *[(status.value, SECRET) for status in BARRED],
        ):
            failure = self.failureResultOf(self.ask(username, secret), UnauthorizedLogin)
            self.assertIs(failure.type, UnauthorizedLogin)
            self.assertEqual(len(self.credential.tried), 8, username)

    def test_the_last_day(self):
        """Its end is told to who proves the password, and to nobody else."""
        self.store.accounts["piet"] = account(digest_secrets=(SECRET,), digest_until=self.today)
        self.successResultOf(self.ask("piet"))
        self.today = date(2026, 1, 6)
        failure = self.failureResultOf(self.ask("piet"), MechanismRetired)
        self.assertEqual(
            str(failure.value), "DIGEST-MD5 is switched off for this account; its last day was 2026-01-05"
        )
        self.failureResultOf(self.ask("piet", b"x" * 16), UnauthorizedLogin)

    @proves("A5")
    def test_as_many_secrets_as_an_account_can_have(self):
        """Two spellings of a name outside ASCII, and a password outside it, make the most."""
        spellings = ("ren\xe9e", "ren\xe9e@one.nl")
        kept = [secret for name in spellings for secret in digest_secrets(name, "one.nl", "geh\xe9im")]
        self.store.accounts["piet"] = account(digest_secrets=tuple(kept))
        for username in ("piet", "nobody"):
            self.failureResultOf(self.ask(username, b"x" * 16), UnauthorizedLogin)
            self.assertEqual(len(self.credential.tried), len(kept), username)

    def test_a_barred_account_is_never_asked(self):
        for status in BARRED:
            self.failureResultOf(self.ask(status.value), UnauthorizedLogin)
            self.assertNotIn(SECRET, self.credential.tried)

    def test_the_cause_is_for_the_log(self):
        failure = self.failureResultOf(self.ask("without"), UnauthorizedLogin)
        self.assertIn("set its password anew", failure.getErrorMessage())

    def test_nobodys_secret_opens_nothing(self):
        for username in ("nobody", "without", "piet"):
            self.failureResultOf(self.ask(username, self.checker._nobodys[-1]), UnauthorizedLogin)

    def test_unavailable(self):
        self.store.failure = Unavailable("down")
        self.failureResultOf(self.ask("piet"), Unavailable)
