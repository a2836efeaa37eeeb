"""The contract suite for account stores: right stores pass it, and each way to be wrong fails the test that
is about it."""

import time
import unittest
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.interfaces import IAccountStore, IPasswordVerifier, IUpgradableAccountStore, Unavailable
from digipoort_msa.sasl.saslprep import saslprep
from digipoort_msa.testing import ODD_NAMES, AccountDescription, AccountStoreContract
from tests.requirements import proves


class InMemory:
    """What the stores below have in common."""

    def __init__(self, realm: str, accounts: Any) -> None:
        self.realm = realm
        self.generation = 0
        self.hold(accounts)

    def hold(self, accounts: Any) -> None:
        self.generation += 1
        self.accounts = {one.name: self.keep(one) for one in accounts}
        self.passwords = {one.name: one.password for one in accounts}

    def keep(self, one: AccountDescription) -> Account:
        return Account(
            name=one.name,
            realm=self.realm,
            status=one.status,
            groups=one.groups,
            addresses=one.addresses,
            revision=str(self.generation),
        )

    def account(self, username: str) -> Any:
        return succeed(self.accounts.get(username))

    def stop(self) -> Any:
        pass


@implementer(IUpgradableAccountStore)
class Yielding(InMemory):
    """Yields whatever a password is verified with."""

    keeps = frozenset({"password_hash", "scram"})

    mechanisms = frozenset({"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "DIGEST-MD5", "PLAIN", "LOGIN"})

    def keep(self, one: AccountDescription) -> Account:
        return evolve(
            super().keep(one),
            password_hash=one.password_hash(),
            digest_secrets=one.digest_secrets(self.realm),
            scram=one.scram_keys(),
            revision="",
        )

    def upgrade(self, account: Account, password_hash: str | None, scram: Any) -> Any:
        if self.accounts[account.name].password_hash != account.password_hash:
            return succeed(False)
        self.accounts[account.name] = evolve(account, password_hash=password_hash, scram=scram)
        return succeed(True)


@implementer(IPasswordVerifier)
class Verifying(InMemory):
    """Keeps what it knows of passwords to itself."""

    mechanisms = frozenset({"PLAIN", "LOGIN"})

    def verify(self, account: Account, password: str) -> Any:
        return succeed(self.passwords.get(account.name) == password)


class YieldingContract(AccountStoreContract):
    """How the suite gets its stores; ``kind`` is the class of those that are not in trouble."""

    kind: type[InMemory] = Yielding
    answers_at_once = True
    upgrades = True

    def make_store(self, accounts: Any) -> InMemory:
        self.store = self.kind(self.realm, accounts)
        return self.store

    def change(self, accounts: Any) -> None:
        self.store.hold(accounts)

    def make_dead_store(self) -> InMemory:
        store = self.kind(self.realm, ())
        store.account = lambda _: fail(Unavailable("it is not there"))  # type: ignore[method-assign]
        return store

    def make_lying_stores(self) -> dict[str, InMemory]:
        stores = {}
        piet, jan = AccountDescription(name="piet"), AccountDescription(name="jan")
        for lie, realm in (("another account", self.realm), ("another realm", "two.nl")):
            stores[lie] = self.kind(realm, [piet, jan])
            account = stores[lie].accounts["jan" if lie == "another account" else "piet"]
            stores[lie].account = lambda _, it=account: succeed(it)  # type: ignore[misc]
        stores["no status"] = self.kind(self.realm, [piet])
        broken: Any = evolve(stores["no status"].accounts["piet"], status="active")
        stores["no status"].accounts["piet"] = broken
        return stores


class VerifyingContract(YieldingContract):
    kind = Verifying
    upgrades = False
    verifies = True
    answers_at_once = False

    def make_dead_store(self) -> InMemory:
        store = super().make_dead_store()
        store.verify = lambda *_: fail(Unavailable("it is not there"))  # type: ignore[attr-defined]
        return store

    def make_slow_store(self) -> InMemory:
        store = Verifying(self.realm, [AccountDescription(name="piet")])
        store.verify = lambda *_: Deferred()  # type: ignore[method-assign]
        return store


class YieldingTests(YieldingContract, TestCase):
    pass


class VerifyingTests(VerifyingContract, TestCase):
    pass


class NamesTests(SynchronousTestCase):
    def test_odd_names_are_as_clients_names_arrive(self) -> None:
        for name in ODD_NAMES:
            self.assertEqual(saslprep(name), name)


# -- wrong stores ----------------------------------------------------------------------------------------


class Hiding(Yielding):
    def account(self, username: str) -> Any:
        found = self.accounts.get(username)
        return succeed(found if found and found.may_log_in else None)


class Forgiving(Yielding):
    def keep(self, one: AccountDescription) -> Account:
        return evolve(super().keep(one), status=Status.ACTIVE)


class Folding(Yielding):
    def account(self, username: str) -> Any:
        found = self.accounts.get(username.lower().strip())
        return succeed(evolve(found, name=username) if found else None)


class Globbing(Yielding):
    def account(self, username: str) -> Any:
        return succeed(next(iter(self.accounts.values())) if username == "*" else self.accounts.get(username))


class Stale(Yielding):
    """A cache of its own, which nobody empties."""

    def account(self, username: str) -> Any:
        self.seen = {**self.accounts, **getattr(self, "seen", {})}
        return succeed(self.seen.get(username))


class StaleVerdicts(Verifying):
    """Its revisions stay the same when a password changes, so that verdicts are remembered."""

    def keep(self, one: AccountDescription) -> Account:
        return evolve(super().keep(one), revision="1")


class Shared(Verifying):
    """A password is right that some account has."""

    def verify(self, account: Account, password: str) -> Any:
        return succeed(password in self.passwords.values())


class Obliging(Verifying):
    def verify(self, account: Account, password: str) -> Any:
        return succeed(True)


class Blank(Verifying):
    """An empty password is anybody's, as a directory has it."""

    def verify(self, account: Account, password: str) -> Any:
        return succeed(self.passwords.get(account.name) == password or not password)


class Mixing(Verifying):
    """What is asked is kept in one place for all who ask."""

    def verify(self, account: Account, password: str) -> Any:
        self.asked = password
        from twisted.internet import reactor

        return deferLater(reactor, 0, lambda: self.passwords.get(account.name) == self.asked)  # type: ignore[arg-type]


class Truthy(Verifying):
    def verify(self, account: Account, password: str) -> Any:
        return succeed("yes" if self.passwords.get(account.name) == password else "")


class Truncating(Verifying):
    def verify(self, account: Account, password: str) -> Any:
        return succeed(self.passwords.get(account.name, "")[:72] == password[:72])


class Ungrouped(Yielding):
    def keep(self, one: AccountDescription) -> Account:
        return evolve(super().keep(one), groups=frozenset())


class Generous(Yielding):
    def keep(self, one: AccountDescription) -> Account:
        return evolve(super().keep(one), addresses=("*@*",))


class Undoing(Yielding):
    def upgrade(self, account: Account, password_hash: str | None, scram: Any) -> Any:
        self.accounts[account.name] = evolve(account, password_hash=password_hash, scram=scram)
        return succeed(True)


class Pretending(Yielding):
    """Says that it verifies DIGEST-MD5, and keeps nothing for it."""

    def keep(self, one: AccountDescription) -> Account:
        return evolve(super().keep(one), digest_secrets=())


class Lagging(Yielding):
    def account(self, username: str) -> Any:
        answer: Deferred[Any] = Deferred()
        from twisted.internet import reactor

        reactor.callLater(0, answer.callback, self.accounts.get(username))  # type: ignore[attr-defined]
        return answer


class Unstoppable(Yielding):
    def stop(self) -> Any:
        raise RuntimeError("not now")


class Talking(Yielding):
    def __repr__(self) -> str:
        return f"<{self.passwords}>"


class Forgetful(Yielding):
    """Gives ``None`` where it has something against a name."""

    def account(self, username: str) -> Any:
        return succeed(None if "'" in username else self.accounts.get(username))


@implementer(IAccountStore)
class NoStop:
    mechanisms = frozenset({"PLAIN"})

    def __init__(self, realm: str, accounts: Any) -> None:
        pass


WRONG: dict[type[Any], set[str]] = {
    Hiding: {"every_status"},
    Forgiving: {"every_status", "an_account_that_was_switched_off"},
    Folding: {"names_are_exact"},
    Globbing: {"names_are_exact"},
    Stale: {"a_changed_password", "an_account_that_is_gone", "an_account_that_was_switched_off"},
    StaleVerdicts: {"a_changed_password"},
    Shared: {"no_password_opens_another_account"},
    Obliging: {"the_right_password_opens_and_a_wrong_one_does_not", "verify"},
    Blank: {"verify"},
    Mixing: {"many_logins_at_once"},
    Truthy: {"verify"},
    Truncating: {"passwords_are_compared_whole"},
    Ungrouped: {"groups"},
    Generous: {"addresses"},
    Undoing: {"upgrade"},
    Pretending: {"the_right_password_opens_and_a_wrong_one_does_not"},
    Lagging: {"a_slow_back_end"},
    Unstoppable: {"stop"},
    Talking: {"no_secret_is_shown"},
    Forgetful: {"odd_names"},
    NoStop: {"interfaces"},
}


def outcome(kind: type[Any], test: str, **attributes: Any) -> unittest.TestResult:
    """What one test of the suite finds of one kind of store."""
    base = VerifyingContract if issubclass(kind, Verifying) else YieldingContract
    case = type(kind.__name__, (base, TestCase), {"kind": kind, **attributes})
    result = unittest.TestResult()
    case(f"test_{test}").run(result)
    return result


class WrongStoreTests(SynchronousTestCase):
    """A suite that finds nothing is worth nothing."""

    def assertFound(self, result: unittest.TestResult, what: object) -> None:
        self.flushLoggedErrors()
        self.assertEqual(result.testsRun, 1)
        self.assertFalse(result.wasSuccessful(), f"{what} passed")
        self.assertEqual(result.skipped, [])

    @proves("A7")
    def test_each_is_found(self) -> None:
        for kind, tests in WRONG.items():
            for test in tests:
                self.assertFound(outcome(kind, test), f"{kind.__name__}: {test}")

    def test_what_is_declared_absent_has_to_be_absent(self) -> None:
        for absent, test in {
            "upgrades": "interfaces",
            "has_groups": "groups",
            "has_addresses": "addresses",
            "knows_names": "unknown",
        }.items():
            attributes: dict[str, Any] = {absent: False}
            if absent.startswith("has_"):  # the store says some although it was given none
                extra = {"groups": frozenset({"all"}), "addresses": ("*@one.nl",)}[absent[4:]]
                kept = lambda self, one, field=absent[4:], value=extra: evolve(  # noqa: E731
                    Yielding.keep(self, one), **{field: value}
                )
                kind = type("Saying", (Yielding,), {"keep": kept})
            else:
                kind = Yielding
            self.assertFound(outcome(kind, test, **attributes), absent)

    def test_a_name_that_cannot_be_held_has_to_be_unknown(self) -> None:
        """A suite that is told that a back end cannot hold a name looks for it all the same."""

        class Always(Yielding):
            def account(self, username: str) -> Any:
                return succeed(evolve(self.accounts["%s"], name=username))

        self.assertFound(outcome(Always, "odd_names", cannot_hold=frozenset({"a:b"})), "a:b")

    def test_troubles(self) -> None:
        """Back ends in trouble that are believed, and one that stops the reactor."""

        def believing(self: Any) -> Any:
            return Yielding(self.realm, [AccountDescription(name="piet")])

        def empty(self: Any) -> Any:
            return Yielding(self.realm, [])

        def blocking(self: Any) -> Any:
            store = believing(self)
            store.account = lambda _: time.sleep(0.5) or fail(Unavailable("at last"))
            return store

        for test, attributes in (
            ("a_dead_back_end", {"make_dead_store": believing}),
            ("a_dead_back_end", {"make_dead_store": empty}),
            ("a_lying_back_end", {"make_lying_stores": lambda self: {"none": believing(self)}}),
            ("a_lying_back_end", {"make_lying_stores": lambda self: {"a no": empty(self)}}),
            ("a_lying_back_end", {"make_lying_stores": lambda self: {}}),
            ("a_slow_back_end", {"make_slow_store": believing, "answers_at_once": False}),
            ("a_slow_back_end", {"make_slow_store": blocking, "answers_at_once": False}),
        ):
            self.assertFound(outcome(Yielding, test, **attributes), f"{test} {attributes}")

    def test_verdicts_of_a_back_end_that_died_meanwhile(self) -> None:
        """The account was found, and the verdict is made up."""
        for verdict in (True, False):

            def deciding(self: Any, verdict: bool = verdict) -> Any:
                store = VerifyingContract.make_dead_store(self)
                store.verify = lambda *_: succeed(verdict)  # type: ignore[attr-defined]
                return store

            self.assertFound(outcome(Verifying, "a_dead_back_end", make_dead_store=deciding), verdict)

    def test_words(self) -> None:
        """What fails is told in words of the contract."""
        for kind, test, words in (
            (Hiding, "every_status", "an account that is disabled is found, with its status"),
            (Folding, "names_are_exact", "'Piet' is nobody's name, and the store finds an account"),
            (Blank, "verify", "an empty password is nobody's"),
            (Obliging, "no_password_opens_another_account", "has to refuse 'piet' with 'anders'"),
        ):
            result = outcome(kind, test)
            self.flushLoggedErrors()
            self.assertIn(words, "".join(text for _, text in (*result.failures, *result.errors)))
