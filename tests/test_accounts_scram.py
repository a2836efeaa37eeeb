"""SCRAM where accounts are concerned: who gets in, who has keys, and what nobody's look like."""

from datetime import date

from attrs import evolve
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from digipoort_msa import log
from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.checkers import ScramChecker
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.interfaces import IAccountStore, Unavailable
from digipoort_msa.sasl.credentials import IScramCredential
from digipoort_msa.sasl.mechanism import Channel
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.account_doubles import (
    CountingHashing,
    Inline,
    MemoryStore,
    Submitter,
    UnevenStore,
    account,
    password_credential,
)
from tests.requirements import proves

ITERATIONS = 4096
KEYS = ScramKeys.of("geheim", bytes(16), ITERATIONS)
BARRED = (Status.DISABLED, Status.EXPIRED, Status.LOCKED)
SCRAM, PLUS = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
BOUND, UNBOUND = Channel({"tls-exporter": bytes(32)}), Channel()


@implementer(IScramCredential)
class Credential:
    """Fits one set of keys, and remembers all that it was tried with."""

    def __init__(self, username, keys=KEYS):
        self.username = username
        self.keys = keys
        self.tried = []
        self.server_signature = None

    def verify(self, keys):
        self.tried.append(keys)
        return keys == self.keys


class ScramCheckerTests(SynchronousTestCase):
    def setUp(self):
        self.store = MemoryStore(
            evolve(account(), scram=KEYS),
            account("without"),
            *[evolve(account(status.value, status=status), scram=KEYS) for status in BARRED],
        )
        self.checker = ScramChecker("one.nl", GuardedStore(self.store, "one.nl", Clock()))

    def ask(self, username, keys=KEYS):
        self.credential = Credential(username, keys)
        return self.checker.requestAvatarId(self.credential)

    def test_interface(self):
        verifyObject(ICredentialsChecker, self.checker)

    def test_right(self):
        for username in ("piet", "piet@ONE.nl"):
            self.assertEqual(self.successResultOf(self.ask(username)).name, "piet")

    @proves("A5")
    def test_every_refusal_is_the_same_to_the_client(self):
        """One proof is looked at, whoever it is."""
        other = ScramKeys.of("anders", bytes(16), ITERATIONS)
        causes = {
            ("piet", other): "the password is wrong",
            ("nobody", KEYS): "there is no such account",
            ("without", KEYS): "no SCRAM keys are kept for it; a login with PLAIN or LOGIN makes them",
            **{(status.value, KEYS): f"the account is {status.value}" for status in BARRED},
        }
        for (username, keys), cause in causes.items():
            failure = self.failureResultOf(self.ask(username, keys), UnauthorizedLogin)
            self.assertIs(failure.type, UnauthorizedLogin)
            self.assertEqual(failure.getErrorMessage(), cause)
            self.assertEqual(len(self.credential.tried), 1, username)

    def test_a_barred_account_is_never_asked(self):
        for status in BARRED:
            self.failureResultOf(self.ask(status.value), UnauthorizedLogin)
            self.assertNotIn(KEYS, self.credential.tried)

    def test_nobodys_keys_open_nothing(self):
        for username in ("nobody", "without", "disabled"):
            self.failureResultOf(self.ask(username, self.checker._nobodys), UnauthorizedLogin)

    def test_keys_are_read_at_that_moment(self):
        """A password that was changed while the exchange was under way."""
        self.store.accounts["piet"] = evolve(account(), scram=ScramKeys.of("nieuw", bytes(16), ITERATIONS))
        self.failureResultOf(self.ask("piet"), UnauthorizedLogin)

    def test_unavailable(self):
        self.store.failure = Unavailable("down")
        self.failureResultOf(self.ask("piet"), Unavailable)


class RealmTestCase(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.hashing = CountingHashing()
        self.passwords = Passwords(
            self.hashing, Inline(), VerifiedPasswords(self.clock.seconds, seconds=300.0)
        )
        self.events = []
        self.patch(log, "emit", lambda event, **fields: self.events.append((event, fields)))

    def store(self, *accounts, mechanisms=tuple(MECHANISMS)):
        return MemoryStore(*accounts, mechanisms=mechanisms)

    def realm(self, store, name="one.nl", mechanisms=(SCRAM, PLUS, "PLAIN"), **rules):
        rules = RealmRules(
            name=name, mechanisms=frozenset(mechanisms), **{"scram_iterations": ITERATIONS, **rules}
        )
        guarded = GuardedStore(store, name, self.clock)
        return Realm(rules, guarded, self.passwords, Submitter, self.clock, lambda: date(2026, 1, 2))

    def realms(self, *realms, key=b"key"):
        return Realms(realms, Throttle(self.clock.seconds), self.clock, MECHANISMS, key)

    def piet(self, **more):
        return evolve(account(password_hash=self.hashing.hash("geheim")), **more)


class MakingKeysTests(RealmTestCase):
    """Keys are made beside the old hash at a password login."""

    def logged_in(self, realm, password="geheim"):
        """What the store was asked to replace, at a login with PLAIN."""
        store = realm._store._store
        store.upgrades.clear()
        self.successResultOf(
            self.realms(realm).login(password_credential("piet", password), "192.0.2.1", "PLAIN")
        )
        return store.upgrades

    @proves("A7")
    def test_keys_are_made(self):
        piet = self.piet()
        ((who, password_hash, keys),) = self.logged_in(self.realm(self.store(piet)))
        self.assertEqual((who, password_hash), (piet, None))
        self.assertEqual((len(keys.salt), keys.iterations), (16, ITERATIONS))
        self.assertEqual(keys, ScramKeys.of("geheim", keys.salt, ITERATIONS))
        self.assertEqual(self.events, [(log.SCRAM_KEYS_MADE, {"account": "piet", "realm": "one.nl"})])

    def test_every_salt_is_another(self):
        salts = {self.logged_in(self.realm(self.store(self.piet())))[0][2].salt for _ in range(3)}
        self.assertEqual(len(salts), 3)

    def test_together_with_a_hash(self):
        old = self.piet(password_hash=CountingHashing(time_cost=2).hash("geheim"))
        ((_, password_hash, keys),) = self.logged_in(self.realm(self.store(old)))
        self.assertTrue(self.hashing.verify("geheim", password_hash))
        self.assertEqual(keys.iterations, ITERATIONS)
        self.assertEqual([event for event, _ in self.events], [log.HASH_UPGRADED, log.SCRAM_KEYS_MADE])

    def test_prepared_before_they_are_offered(self):
        for prepare, made in ((False, 0), (True, 1)):
            realm = self.realm(self.store(self.piet()), mechanisms=["PLAIN"], prepare_scram=prepare)
            self.assertEqual(len(self.logged_in(realm)), made)
            self.assertEqual(self.realms(realm).offered(BOUND), ("PLAIN",))
            self.clock.advance(301)

    def test_only_what_the_store_can_keep(self):
        old = self.piet(password_hash=CountingHashing(time_cost=2).hash("geheim"))
        for keeps in ("password_hash", "scram"):
            store = self.store(old)
            store.keeps = frozenset({keeps})
            ((_, password_hash, keys),) = self.logged_in(self.realm(store))
            self.assertEqual(
                (password_hash is not None, keys is not None), (keeps != "scram", keeps == "scram")
            )
            self.clock.advance(301)

    def test_not_where_there_are_some(self):
        self.assertEqual(self.logged_in(self.realm(self.store(self.piet(scram=KEYS)))), [])

    def test_other_iterations(self):
        """The settings were changed since: one count for all tells least."""
        for iterations in (ITERATIONS + 1, 2 * ITERATIONS):
            keys = ScramKeys.of("geheim", bytes(16), iterations)
            ((_, _, fresh),) = self.logged_in(self.realm(self.store(self.piet(scram=keys))))
            self.assertEqual(fresh.iterations, ITERATIONS)
            self.clock.advance(301)

    def test_not_for_a_wrong_password(self):
        store = self.store(self.piet())
        login = self.realms(self.realm(store)).login(
            password_credential("piet", "anders"), "192.0.2.1", "PLAIN"
        )
        self.failureResultOf(login, UnauthorizedLogin)
        self.assertEqual(store.upgrades, [])

    def test_not_while_the_cache_knows_the_password(self):
        store = self.store(self.piet())
        self.assertEqual(self.logged_in(self.realm(store, mechanisms=["PLAIN"])), [])
        realm = self.realm(store)
        self.assertEqual(self.logged_in(realm), [])
        self.clock.advance(301)
        self.assertEqual(len(self.logged_in(realm)), 1)

    def test_not_where_they_cannot_be_kept(self):
        """Nor is any work done for them."""
        self.patch(ScramKeys, "of", None)
        self.logged_in(self.realm(self.store(self.piet(), mechanisms=["PLAIN"]), prepare_scram=True))
        self.clock.advance(301)

        @implementer(IAccountStore)
        class ReadOnly:
            mechanisms = frozenset(MECHANISMS)
            account = self.store(self.piet()).account

        realm = self.realm(ReadOnly())
        self.successResultOf(
            self.realms(realm).login(password_credential("piet", "geheim"), "192.0.2.1", "PLAIN")
        )

    def test_a_store_that_is_down_does_not_fail_the_login(self):
        store = self.store(self.piet())
        realm = self.realm(store)

        def upgrade(*_):
            store.failure = Unavailable("down")
            return store.account("piet")

        store.upgrade = upgrade
        login = self.realms(realm).login(password_credential("piet", "geheim"), "192.0.2.1", "PLAIN")
        self.assertEqual(self.successResultOf(login).account, "piet")


class RealmsTests(RealmTestCase):
    def login(self, realms, username, mechanism=SCRAM):
        return realms.login(Credential(username), "192.0.2.1", mechanism)

    @proves("A7")
    def test_what_is_offered(self):
        """-PLUS, where the connection has something to bind to."""
        realms = self.realms(self.realm(self.store()))
        self.assertEqual(realms.offered(BOUND), (PLUS, SCRAM, "PLAIN"))
        self.assertEqual(realms.offered(UNBOUND), (SCRAM, "PLAIN"))
        self.assertEqual(realms.offered(None), ())
        self.assertEqual(self.realms(self.realm(self.store(mechanisms=["PLAIN"]))).offered(BOUND), ("PLAIN",))

    @proves("T2")
    def test_in_clear_there_is_digest_md5_and_nothing_else(self):
        realms = self.realms(self.realm(self.store(), mechanisms=MECHANISMS))
        self.assertEqual(realms.offered(None), ("DIGEST-MD5",))

    def test_both_mechanisms(self):
        realms = self.realms(self.realm(self.store(evolve(account(), scram=KEYS))))
        for mechanism in (SCRAM, PLUS):
            self.assertEqual(self.successResultOf(self.login(realms, "piet", mechanism)).account, "piet")

    def test_each_realm_has_its_own(self):
        """EHLO shows what some realm takes; one that insists on the channel does not take less."""
        realms = self.realms(
            *[
                self.realm(self.store(evolve(account(realm=name), scram=KEYS)), name, mechanisms)
                for name, mechanisms in (("plus.nl", [PLUS]), ("both.nl", [SCRAM]), ("none.nl", ["PLAIN"]))
            ]
        )
        self.assertEqual(realms.offered(BOUND), (PLUS, SCRAM, "PLAIN"))
        for username, mechanism in (("piet@plus.nl", PLUS), ("piet@both.nl", SCRAM), ("piet@both.nl", PLUS)):
            self.successResultOf(self.login(realms, username, mechanism))
        for username, mechanism in (("piet@plus.nl", SCRAM), ("piet@none.nl", SCRAM), ("piet@none.nl", PLUS)):
            failure = self.failureResultOf(self.login(realms, username, mechanism), UnauthorizedLogin)
            self.assertIn("does not offer", failure.getErrorMessage())

    @proves("A5")
    def test_keys_of_names_that_have_none(self):
        """The same each time and after a restart, each name its own, and like those that there are."""
        accounts = [evolve(account(), scram=KEYS), account("without"), account("barred", status=BARRED[0])]
        made = []
        for realms in (self.realms(self.realm(self.store(*accounts))) for _ in range(2)):
            self.assertEqual(self.successResultOf(realms.scram_keys("piet@one.nl")), KEYS)
            names = ["nobody", "Nobody", "without", "barred"]
            made.append([self.successResultOf(realms.scram_keys(name)) for name in names])
            self.assertEqual(self.successResultOf(realms.scram_keys("nobody@ONE.nl")), made[-1][0])
        self.assertEqual(made[0], made[1])
        for keys in made[0]:
            self.assertEqual((len(keys.salt), keys.iterations), (len(KEYS.salt), ITERATIONS))
        self.assertEqual(len({keys.salt for keys in made[0]}), len(made[0]))
        other = self.realms(self.realm(self.store(*accounts)), key=b"another")
        self.assertNotEqual(self.successResultOf(other.scram_keys("nobody")), made[0][0])

    @proves("A5")
    def test_the_salt_does_not_tell_that_an_account_was_barred(self):
        """Nor that it may log in again."""
        for status in Status:
            realms = self.realms(self.realm(self.store(evolve(account(status=status), scram=KEYS))))
            self.assertEqual(self.successResultOf(realms.scram_keys("piet")), KEYS)

    @proves("A5")
    def test_a_realm_without_scram_shows_no_keys(self):
        """It may keep some already (prepare-scram), and its store is not asked."""
        store = self.store(evolve(account(), scram=KEYS))
        realms = self.realms(
            self.realm(store, mechanisms=["PLAIN"]), self.realm(self.store(), "two.nl", mechanisms=[SCRAM])
        )
        self.assertNotEqual(self.successResultOf(realms.scram_keys("piet")).salt, KEYS.salt)
        store.failure = Unavailable("down")
        self.successResultOf(realms.scram_keys("piet"))

    @proves("A5")
    def test_how_long_a_store_takes_to_find_keys_is_not_shown(self):
        """Our own tables take as long for every name; of other stores the challenge is levelled."""
        store = UnevenStore(mechanisms=[SCRAM])
        answers = []
        store.account = lambda name: answers.append(Deferred()) or answers[-1]
        realms = self.realms(self.realm(store))
        for taken, answer in ((0.0, None), (0.1, evolve(account(), scram=KEYS)), (0.4, account())):
            keys = realms.scram_keys("piet")
            self.clock.advance(taken)
            answers.pop().callback(answer)
            self.clock.advance(0.499 - taken)
            self.assertNoResult(keys)
            self.clock.advance(0.002)
            self.successResultOf(keys)
        keys = realms.scram_keys("piet")
        answers.pop().errback(Unavailable("down"))
        self.failureResultOf(keys, Unavailable)

    def test_unavailable(self):
        store = self.store()
        store.failure = Unavailable("down")
        self.failureResultOf(self.realms(self.realm(store)).scram_keys("piet"), Unavailable)
