"""The guard before a store: an honest answer in bounded time, whatever the store does."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.interfaces import IAccountStore, IPasswordVerifier, Unavailable
from tests.account_doubles import MemoryStore, account
from tests.msa import ClockTestCase
from tests.requirements import proves


@implementer(IPasswordVerifier)
class Odd:
    """Gives whatever it is told to."""

    mechanisms = ("PLAIN",)

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def account(self, username: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def verify(self, account: object, password: str) -> Any:
        return self.account(password)

    def stop(self) -> Any:
        return self.answer


class GuardedStoreTests(ClockTestCase):
    def guarded(self, answer: Any) -> GuardedStore:
        return GuardedStore(Odd(answer), "one.nl", self.clock, patience=10)

    def test_interface(self) -> None:
        verifyObject(IPasswordVerifier, self.guarded(None))
        self.assertEqual(self.guarded(None).mechanisms, frozenset({"PLAIN"}))
        self.assertTrue(self.guarded(None).verifies)
        self.assertFalse(GuardedStore(MemoryStore(), "one.nl", Clock()).verifies)

    def test_what_is_right_passes(self) -> None:
        for given in (account("piet"), None):
            for answer in (given, succeed(given)):
                self.assertEqual(self.successResultOf(self.guarded(answer).account("piet")), given)

    @proves("A5")
    def test_a_store_that_lies(self) -> None:
        """Another's account, another realm's, or something that is no account: it is never a yes."""
        for lie in (
            account("jan"),
            account("Piet"),
            account("piet", "two.nl"),
            account("piet", status="active"),  # type: ignore[arg-type]
            "piet",
            True,
            {"name": "piet"},
        ):
            self.failureResultOf(self.guarded(succeed(lie)).account("piet"), Unavailable)
        self.assertEqual(len(self.events("store-unavailable")), 7)

    def test_a_verdict_is_true_or_false(self) -> None:
        for verdict in (True, False):
            self.assertIs(self.successResultOf(self.guarded(verdict).verify(account(), "x")), verdict)
        for verdict in (1, "yes", None, [True], 0):
            self.failureResultOf(self.guarded(verdict).verify(account(), "x"), Unavailable)

    def test_an_empty_password_is_nobodys(self) -> None:
        """The store is not asked: a directory would say yes to it (RFC 4513 5.1.2)."""
        self.assertIs(self.successResultOf(self.guarded(True).verify(account(), "")), False)

    def test_a_store_that_is_slow(self) -> None:
        for ask in ("account", "verify"):
            guarded = self.guarded(Deferred())
            waiting = guarded.account("piet") if ask == "account" else guarded.verify(account(), "x")
            self.clock.advance(9.9)
            self.assertNoResult(waiting)
            self.clock.advance(0.2)
            self.assertIn("10 s", self.failureResultOf(waiting, Unavailable).getErrorMessage())

    @proves("A5")
    def test_a_store_that_does_not_give_up(self) -> None:
        """It takes the end of our patience for an error, and tries another server; that answers too late."""
        second: Deferred[Any] = Deferred()

        async def two_servers() -> object:
            try:
                return await Deferred()
            except Exception:  # noqa: BLE001 -- as such stores have it
                return await second

        for late in (account("piet"), Failure(ZeroDivisionError())):
            second = Deferred()
            waiting = self.guarded(Deferred.fromCoroutine(two_servers())).account("piet")
            self.clock.advance(10.1)
            self.failureResultOf(waiting, Unavailable)
            second.callback(late)
        second = Deferred()
        leaving = self.guarded(Deferred.fromCoroutine(two_servers())).account("piet")
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)

    def test_nobodys_name(self) -> None:
        """What is left of ``@one.nl``: no store is asked for it."""
        self.assertIsNone(self.successResultOf(self.guarded(ZeroDivisionError()).account("")))

    def test_a_store_that_fails(self) -> None:
        for failure in (ZeroDivisionError("x"), fail(ZeroDivisionError("x"))):
            self.failureResultOf(self.guarded(failure).account("piet"), Unavailable)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        down = self.failureResultOf(self.guarded(Unavailable("down")).account("piet"), Unavailable)
        self.assertEqual(down.getErrorMessage(), "down")
        self.assertEqual(self.events("store-unavailable")[-1]["reason"], "down")

    def test_a_client_that_leaves(self) -> None:
        """It is no news of the store."""
        waiting = self.guarded(Deferred()).account("piet")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.events("store-unavailable"), [])

    def test_upgrades_only_where_the_store_can(self) -> None:
        store = MemoryStore(account())
        guarded = GuardedStore(store, "one.nl", self.clock)
        self.assertTrue(self.successResultOf(guarded.upgrade(account(), "hash", None)))
        self.assertFalse(self.successResultOf(self.guarded(None).upgrade(account(), "hash", None)))
        self.assertRaises(TypeError, guarded.verify, account(), "x")

    def test_stop(self) -> None:
        self.successResultOf(self.guarded(None).stop())
        self.assertTrue(IAccountStore.providedBy(self.guarded(None)))
