"""When a refusal is given: at the same time, whatever the back end took."""

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules
from digipoort_msa.accounts.refusals import LevelledChecker, refusal
from digipoort_msa.interfaces import IAccountStore, ISubmitter, Unavailable
from digipoort_msa.sasl.credentials import IPasswordCredential
from tests.account_doubles import (
    CountingHashing,
    Inline,
    MemoryStore,
    Submitter,
    account,
    password_credential,
)
from tests.requirements import proves


@implementer(ICredentialsChecker)
class Checker:
    """Its answer comes when the test gives it."""

    credentialInterfaces = (IPasswordCredential,)

    def __init__(self) -> None:
        self.answers: list[Deferred[Any]] = []

    def requestAvatarId(self, credentials: Any) -> "Deferred[Any]":
        self.answers.append(Deferred())
        return self.answers[-1]


class LevelledCheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.3)
        self.inner = Checker()
        self.checker = LevelledChecker(self.inner, self.clock, 0.5)

    def test_interface(self) -> None:
        verifyObject(ICredentialsChecker, self.checker)
        self.assertEqual(self.checker.credentialInterfaces, (IPasswordCredential,))

    @proves("A5")
    def test_refusals_come_at_the_same_time(self) -> None:
        for taken in (0.0, 0.001, 0.25, 0.499):
            asked = self.checker.requestAvatarId(None)
            self.clock.advance(taken)
            self.inner.answers[-1].errback(UnauthorizedLogin("why"))
            self.clock.advance(0.4999 - taken)
            self.assertNoResult(asked)
            self.clock.advance(0.0002)
            self.assertEqual(self.failureResultOf(asked, UnauthorizedLogin).getErrorMessage(), "why")

    @proves("A5")
    def test_late_ones_come_at_the_next_multiple(self) -> None:
        asked = self.checker.requestAvatarId(None)
        self.clock.advance(0.7)
        self.inner.answers[-1].errback(UnauthorizedLogin())
        self.clock.advance(0.29)
        self.assertNoResult(asked)
        self.clock.advance(0.02)
        self.failureResultOf(asked, UnauthorizedLogin)

    def test_all_else_comes_at_once(self) -> None:
        asked = self.checker.requestAvatarId(None)
        self.inner.answers[-1].callback("piet")
        self.assertEqual(self.successResultOf(asked), "piet")
        asked = self.checker.requestAvatarId(None)
        self.inner.answers[-1].errback(Unavailable("down"))
        self.failureResultOf(asked, Unavailable)

    def test_without_a_time_nothing_waits(self) -> None:
        asked = LevelledChecker(self.inner, self.clock, 0).requestAvatarId(None)
        self.inner.answers[-1].errback(UnauthorizedLogin())
        self.failureResultOf(asked, UnauthorizedLogin)

    def test_a_client_that_hangs_up(self) -> None:
        for answered in (False, True):
            asked = self.checker.requestAvatarId(None)
            if answered:
                self.inner.answers[-1].errback(UnauthorizedLogin())
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


@implementer(IAccountStore)
class ForeignStore:
    """One that is not our own."""

    def __init__(self, *accounts: Any) -> None:
        inner = MemoryStore(*accounts)
        self.mechanisms = inner.mechanisms
        self.account = inner.account

    def stop(self) -> None:
        pass


class WhichStoresTests(SynchronousTestCase):
    @proves("A5")
    def test_of_all_stores_but_our_own(self) -> None:
        clock = Clock()
        for store, waits in ((MemoryStore(account()), False), (ForeignStore(account()), True)):
            passwords = Passwords(CountingHashing(), Inline(), VerifiedPasswords(clock.seconds))  # type: ignore[arg-type]
            rules = RealmRules(name="one.nl", mechanisms=frozenset({"PLAIN"}), refusal_time=0.5)
            guarded = GuardedStore(store, "one.nl", clock)
            realm = Realm(rules, guarded, passwords, Submitter, clock, lambda: None)  # type: ignore[arg-type, return-value]
            for name in ("piet", "nobody"):
                login = realm.portal.login(password_credential(name, "wrong"), None, ISubmitter)
                if waits:
                    clock.advance(0.49)
                    self.assertNoResult(login)
                    clock.advance(0.02)
                self.failureResultOf(login, UnauthorizedLogin)


class RefusalTests(SynchronousTestCase):
    def test_the_cause_is_for_the_log(self) -> None:
        self.assertEqual(str(refusal(None, "x")), "there is no such account")
        self.assertEqual(str(refusal(account(status=Status.LOCKED), "x")), "the account is locked")
        self.assertEqual(str(refusal(account(), "x")), "x")
