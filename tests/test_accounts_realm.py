from datetime import date
from pathlib import Path

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.administration import Administration
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.sql import SQLAccountStore
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.interfaces import IRealms, ISubmitter, MechanismRetired, Throttled, Unavailable
from digipoort_msa.sasl.mechanism import Challenge, Channel, Context, Verify
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.threads import Threads
from tests.account_doubles import (
    CountingHashing,
    Inline,
    MemoryStore,
    Submitter,
    account,
    password_credential,
)
from tests.digest_client import respond
from tests.requirements import proves
from tests.test_accounts_checkers import SECRET, DigestCredential

HERE = "192.0.2.1"
TODAY = date(2026, 1, 5)
CHANNEL = Channel()


class RealmsTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.today = TODAY
        self.hashing = CountingHashing()
        self.passwords = Passwords(self.hashing, Inline(), VerifiedPasswords(self.clock.seconds))
        self.one = MemoryStore(
            self.account("piet", "one.nl", "een"),
            self.account("info@bedrijf.nl", "one.nl", "een"),
            self.account("only-one", "one.nl", "een"),
        )
        self.two = MemoryStore(self.account("piet", "two.nl", "twee"))
        self.digests = MemoryStore(account("piet", "Digests.nl", digest_secrets=(SECRET,)))
        self.realms = self.throttled_by(longest_delay=0)

    def throttled_by(self, **parameters):
        realms = [
            self.realm("one.nl", ["PLAIN", "LOGIN"], self.one),
            self.realm("two.nl", ["LOGIN", "DIGEST-MD5", "PLAIN"], self.two),
            self.realm("Digests.nl", ["DIGEST-MD5"], self.digests),
        ]
        throttle = Throttle(self.clock.seconds, per_account_and_source=3, window=30.0, **parameters)
        return Realms(realms, throttle, self.clock, MECHANISMS, b"nobody")

    def account(self, name, realm, password):
        return account(name, realm, password_hash=self.hashing.hash(password))

    def realm(self, name, mechanisms, store, **rules):
        rules = RealmRules(name=name, mechanisms=frozenset(mechanisms), **rules)
        guarded = GuardedStore(store, name, self.clock)
        return Realm(rules, guarded, self.passwords, Submitter, self.clock, lambda: self.today)

    def login(self, username, password, source=HERE):
        return self.realms.login(password_credential(username, password), source, "PLAIN")

    def assert_is(self, login, name, realm):
        submitter = self.successResultOf(login)
        self.assertEqual((submitter.account, submitter.realm), (name, realm))

    def test_interfaces(self):
        verifyObject(IRealms, self.realms)
        verifyObject(IRealm, self.realm("one.nl", ["PLAIN"], self.one))

    def test_the_first_realm_is_meant(self):
        self.assert_is(self.login("piet", "een"), "piet", "one.nl")
        self.assert_is(self.login("info@bedrijf.nl", "een"), "info@bedrijf.nl", "one.nl")

    def test_a_name_can_say_its_realm(self):
        self.assert_is(self.login("piet@two.nl", "twee"), "piet", "two.nl")
        self.assert_is(self.login("piet@TWO.NL", "twee"), "piet", "two.nl")
        self.assert_is(self.login("piet@one.nl", "een"), "piet", "one.nl")
        self.assert_is(self.login("info@bedrijf.nl@one.nl", "een"), "info@bedrijf.nl", "one.nl")

    def test_digest_says_its_realm(self):
        for username in ("piet", "piet@digests.nl"):
            login = self.realms.login(DigestCredential(username, realm="Digests.nl"), HERE, "DIGEST-MD5")
            self.assert_is(login, "piet", "Digests.nl")
        for realm in ("two.nl", "digests.nl", "none.nl"):
            login = self.realms.login(DigestCredential("piet", realm=realm), HERE, "DIGEST-MD5")
            self.failureResultOf(login, UnauthorizedLogin)

    def test_realms_never_mix(self):
        """The right password of the same name elsewhere, in the cache too, opens nothing."""
        self.assert_is(self.login("piet", "een"), "piet", "one.nl")
        self.assert_is(self.login("piet@two.nl", "twee"), "piet", "two.nl")
        for username, password in (("piet", "twee"), ("piet@two.nl", "een"), ("only-one@two.nl", "een")):
            self.failureResultOf(self.login(username, password), UnauthorizedLogin)

    @proves("A7")
    def test_what_is_offered(self):
        self.assertEqual(self.realms.offered(CHANNEL), ("DIGEST-MD5", "PLAIN", "LOGIN"))
        self.assertEqual(self.realms.offered(None), ("DIGEST-MD5",))
        self.assertEqual(self.realms.offered(CHANNEL, frozenset({"LOGIN"})), ("LOGIN",))
        self.assertEqual(self.realms.realms_offering("DIGEST-MD5"), ("two.nl", "Digests.nl"))
        self.assertEqual(self.realms.realms_offering("PLAIN"), ("one.nl", "two.nl"))
        self.assertEqual(self.realms.realms_offering("SCRAM"), ())

    @proves("A3")
    def test_a_realms_last_day_of_digest_md5(self):
        realm = self.realm("Digests.nl", ["DIGEST-MD5"], self.digests, digest_until=TODAY)
        self.realms = Realms([realm], Throttle(self.clock.seconds), self.clock, MECHANISMS, b"nobody")
        login = self.realms.login(DigestCredential("piet", realm="Digests.nl"), HERE, "DIGEST-MD5")
        self.assert_is(login, "piet", "Digests.nl")
        self.assertEqual(self.realms.offered(None), ("DIGEST-MD5",))
        self.today = date(2026, 1, 6)
        self.assertEqual((self.realms.offered(None), self.realms.offered(CHANNEL)), ((), ()))
        self.assertEqual(self.realms.realms_offering("DIGEST-MD5"), ())
        login = self.realms.login(DigestCredential("piet", realm="Digests.nl"), HERE, "DIGEST-MD5")
        self.failureResultOf(login, MechanismRetired)

    @proves("A8")
    def test_guesses_made_at_once_learn_nothing_of_a_mechanism_that_is_over(self):
        """534 says that the password was right: beyond the limits nobody is told."""
        realm = self.realm("Digests.nl", ["DIGEST-MD5"], self.digests, digest_until=date(2026, 1, 1))
        throttle = Throttle(self.clock.seconds, per_account_and_source=1)
        self.realms = Realms([realm], throttle, self.clock, MECHANISMS, b"nobody")
        found = Deferred()
        self.digests.account = lambda name: found
        login = self.realms.login(DigestCredential("piet", realm="Digests.nl"), HERE, "DIGEST-MD5")
        throttle.attempt("Digests.nl", "piet", HERE).failed()
        found.callback(self.digests.accounts["piet"])
        self.failureResultOf(login, Throttled)

    @proves("A7")
    def test_what_a_store_cannot_verify_is_not_offered(self):
        store = MemoryStore(mechanisms=["PLAIN", "LOGIN"])
        realm = self.realm("one.nl", ["DIGEST-MD5", "PLAIN"], store)
        realms = Realms([realm], Throttle(self.clock.seconds), self.clock, MECHANISMS, b"nobody")
        self.assertEqual(realms.offered(CHANNEL), ("PLAIN",))

    def test_a_mechanism_of_ones_own(self):
        """It brings a password in some other way (docs/extending/sasl-mechanism)."""
        store = MemoryStore(self.account("piet", "one.nl", "een"), mechanisms=["X-TOKEN"])
        realms = Realms(
            [self.realm("one.nl", ["X-TOKEN"], store)],
            Throttle(self.clock.seconds),
            self.clock,
            MECHANISMS,
            b"nobody",
        )
        self.assert_is(realms.login(password_credential("piet", "een"), HERE, "X-TOKEN"), "piet", "one.nl")

    def test_a_mechanism_of_another_realm(self):
        """PLAIN is offered by some realms; that opens nothing in one that does not."""
        login = self.login("piet@digests.nl", "x")
        self.failureResultOf(login, UnauthorizedLogin)
        self.assertEqual(self.hashing.verifications, 0)
        self.failureResultOf(
            self.realms.login(DigestCredential("piet", realm="one.nl"), HERE, "DIGEST-MD5"), UnauthorizedLogin
        )

    def test_realms_must_differ(self):
        realm = self.realm("one.nl", ["PLAIN"], self.one)
        for realms in ([], [realm, realm]):
            self.assertRaises(ValueError, Realms, realms, None, self.clock, MECHANISMS, b"nobody")

    def test_only_submitters(self):
        realm = self.realm("one.nl", ["PLAIN"], self.one)
        piet = account("piet", "one.nl").identity
        self.assertRaises(NotImplementedError, realm.requestAvatar, piet, None, IRealm)
        self.assertRaises(NotImplementedError, realm.requestAvatar, (), None, ISubmitter)

    @proves("A8")
    def test_each_attempt_after_a_failure_waits_longer(self):
        self.realms = self.throttled_by()
        self.failureResultOf(self.login("piet", "x"), UnauthorizedLogin)
        for delay in (0.25, 0.5):
            login = self.login("piet", "x")
            self.clock.advance(delay - 0.01)
            self.assertNoResult(login)
            self.clock.advance(0.02)
            self.failureResultOf(login, UnauthorizedLogin)

    @proves("A8", "A5")
    def test_guessing_stops_for_known_and_unknown_names_alike(self):
        for username in ("piet", "nobody"):
            for _ in range(3):
                self.failureResultOf(self.login(username, "x"), UnauthorizedLogin)
            self.hashing.verifications = 0
            failure = self.failureResultOf(self.login(username, "een"), Throttled)
            self.assertAlmostEqual(failure.value.retry_after, 10)
            self.assertEqual(self.hashing.verifications, 0)

    @proves("A8")
    def test_spellings_of_a_name_are_one_account(self):
        for username in ("piet", "piet@one.nl", "piet@ONE.nl"):
            self.failureResultOf(self.login(username, "x"), UnauthorizedLogin)
        self.failureResultOf(self.login("piet", "een"), Throttled)

    @proves("A8")
    def test_hanging_up_counts(self):
        for _ in range(3):
            answer = Deferred()
            self.one.account = lambda name, answer=answer: answer
            login = self.login("piet", "x")
            login.cancel()
            self.failureResultOf(login, CancelledError)
        self.failureResultOf(self.login("piet", "een"), Throttled)

    def test_our_own_failures_do_not_count(self):
        self.one.failure = Unavailable("down")
        for _ in range(10):
            self.failureResultOf(self.login("piet", "een"), Unavailable)
        self.one.failure = None
        self.assert_is(self.login("piet", "een"), "piet", "one.nl")


class WholeTests(TestCase):
    """Everything real: the embedded database, the threads, and the mechanisms."""

    def setUp(self):
        self.hashing = CountingHashing()
        accounts = open_accounts(realm="one.nl", url=None, state_directory=Path(self.mktemp()))
        self.administration = Administration(accounts, self.hashing, digest=True, realms=["one.nl"])
        lookups = Threads(reactor, "accounts", size=2, waiting=10)
        hashing = Threads(reactor, "passwords", size=2, waiting=10)
        self.addCleanup(accounts.close)
        self.addCleanup(lookups.stop)
        self.addCleanup(hashing.stop)
        passwords = Passwords(self.hashing, hashing, VerifiedPasswords(reactor.seconds))
        store = GuardedStore(SQLAccountStore(accounts, lookups), "one.nl", reactor)
        rules = RealmRules(name="one.nl", mechanisms=frozenset(MECHANISMS))
        realm = Realm(rules, store, passwords, Submitter, reactor, lambda: TODAY)
        throttle = Throttle(reactor.seconds, longest_delay=0)
        self.realms = Realms([realm], throttle, reactor, MECHANISMS, b"nobody")

    async def plain(self, username, password):
        return (await self.realms.login(password_credential(username, password), HERE, "PLAIN")).account

    async def digest(self, username, password, **options):
        context = Context(("one.nl",), frozenset({"msa.example.nl"}), "nonce")
        exchange = MECHANISMS["DIGEST-MD5"].start(context, None)
        challenge = next(exchange)
        response = respond(challenge.octets, username, password, "smtp/msa.example.nl", **options)
        step = exchange.send(response)
        self.assertIsInstance(step, Verify)
        submitter = await self.realms.login(step.credential, HERE, "DIGEST-MD5")
        self.assertIsInstance(exchange.send(b""), Challenge)  # rspauth
        exchange.close()
        return submitter.account

    @proves("A4", "A7")
    async def test_every_way_in(self):
        for name, password in (("piet", "geheim"), ("jos\u00e9", "p\u00e1ss"), ("\u682a", "\u20ac5")):
            self.administration.add(name, password)
            for username in (name, f"{name}@one.nl"):
                self.assertEqual(await self.plain(username, password), name)
                for utf8_hash in (False, True):
                    self.assertEqual(await self.digest(username, password, utf8_hash=utf8_hash), name)

    async def refused(self, login):
        with self.assertRaises(UnauthorizedLogin):
            await login

    async def test_a_change_holds_from_the_next_login_on(self):
        self.administration.add("piet", "geheim")
        self.assertEqual(await self.plain("piet", "geheim"), "piet")
        self.assertEqual(await self.plain("piet", "geheim"), "piet")
        self.assertEqual(self.hashing.verifications, 1)
        self.administration.set_password("piet", "anders")
        for login in (self.plain, self.digest):
            await self.refused(login("piet", "geheim"))
            self.assertEqual(await login("piet", "anders"), "piet")
        self.administration.disable("piet")
        for login in (self.plain, self.digest):
            await self.refused(login("piet", "anders"))
        self.administration.enable("piet")
        self.assertEqual(await self.plain("piet", "anders"), "piet")
        self.administration.remove("piet")
        for login in (self.plain, self.digest):
            await self.refused(login("piet", "anders"))

    @proves("A7")
    async def test_an_old_hash_is_upgraded_at_login(self):
        self.administration.add("piet", "geheim")
        old = CountingHashing(time_cost=3).hash("geheim")
        self.administration._accounts.change("piet", password_hash=old)
        await self.refused(self.plain("piet", "wrong"))
        self.assertEqual(self.administration.get("piet").password_hash, old)
        self.assertEqual(await self.plain("piet", "geheim"), "piet")
        self.assertFalse(self.hashing.outdated(self.administration.get("piet").password_hash))
        self.hashing.verifications = 0
        self.assertEqual(await self.plain("piet", "geheim"), "piet")
        self.assertEqual(self.hashing.verifications, 0)
        self.assertEqual(await self.digest("piet", "geheim"), "piet")
