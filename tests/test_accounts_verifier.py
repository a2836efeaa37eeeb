"""Stores that verify passwords themselves."""

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.verifier import VerifierChecker
from digipoort_msa.interfaces import IPasswordVerifier, Unavailable
from tests.account_doubles import account, password_credential
from tests.requirements import proves


@implementer(IPasswordVerifier)
class Directory:
    """Everybody's password is "geheim"; each verification takes a second, each lookup a tenth."""

    mechanisms = frozenset({"PLAIN", "LOGIN"})

    def __init__(self, clock: Clock, *accounts: Account) -> None:
        self.clock = clock
        self.accounts = {each.name: each for each in accounts}
        self.verified: list[str] = []
        self.verification: Any = None

    def account(self, username: str) -> Any:
        answer: Deferred[Any] = Deferred()
        self.clock.callLater(0.1, lambda: answer.called or answer.callback(self.accounts.get(username)))
        return answer

    def verify(self, account: Account, password: str) -> Any:
        self.verified.append(account.name)
        return self.verification or succeed(password == "geheim")

    def stop(self) -> None:
        pass


class VerifierCheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        barred = [account(s.value, status=s) for s in (Status.DISABLED, Status.EXPIRED, Status.LOCKED)]
        self.store = Directory(self.clock, account("piet"), account("jan", revision="1"), *barred)
        guarded = GuardedStore(self.store, "one.nl", self.clock)
        cache = VerifiedPasswords(self.clock.seconds)
        self.checker = VerifierChecker("one.nl", guarded, cache)

    def ask(self, username: str, password: str = "geheim") -> "Deferred[Any]":
        return self.checker.requestAvatarId(password_credential(username, password))

    def accepted(self, username: str) -> None:
        login = self.ask(username)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(login).name, username)

    def test_right(self) -> None:
        verifyObject(ICredentialsChecker, self.checker)
        self.accepted("piet")

    def test_who_may_not_log_in_is_not_verified(self) -> None:
        for status in (Status.DISABLED, Status.EXPIRED, Status.LOCKED):
            login = self.ask(status.value)
            self.clock.advance(0.1)
            failure = self.failureResultOf(login, UnauthorizedLogin)
            self.assertEqual(failure.getErrorMessage(), f"the account is {status.value}")
        self.assertEqual(self.store.verified, [])

    @proves("A7")
    def test_remembered_by_revision_alone(self) -> None:
        for _ in range(2):
            self.accepted("jan")
            self.accepted("piet")
        self.assertEqual(self.store.verified, ["jan", "piet", "piet"])
        self.store.accounts["jan"] = account("jan", revision="2")
        self.accepted("jan")
        self.assertEqual(self.store.verified[3:], ["jan"])
        self.store.accounts["jan"] = account("jan", revision="2", status=Status.DISABLED)
        login = self.ask("jan")
        self.clock.advance(0.1)
        self.failureResultOf(login, UnauthorizedLogin)

    def test_a_back_end_that_falls_silent(self) -> None:
        self.store.verification = Deferred()
        login = self.ask("piet")
        self.clock.pump([0.1, 10.1])
        self.failureResultOf(login, Unavailable)
