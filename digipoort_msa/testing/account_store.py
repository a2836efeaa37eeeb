"""What every :class:`~digipoort_msa.interfaces.IAccountStore` promises, as tests.

The rule behind them: whatever the back end does, nobody gets in who does not belong, and a login has its
answer in bounded time.  Each login here goes the way that the service's own goes, through the guard, the
checkers and the cache of verified passwords.
"""

from collections.abc import Callable
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import LoopingCall
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.interfaces import (
    IAccountStore,
    INamelessStore,
    IPasswordVerifier,
    IUpgradableAccountStore,
    Unavailable,
)
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.testing.accounts import ODD_NAMES, AccountDescription
from digipoort_msa.testing.logins import Logins
from digipoort_msa.testing.store_case import BOUND, AccountStoreCase

_PATIENCE = 0.3  # seconds that the service has for a store which is too slow

PIET = AccountDescription(name="piet", password="geheim")
JAN = AccountDescription(name="jan", password="anders")


class AccountStoreContract(AccountStoreCase):
    """Tests of one store.  Inherit it beside ``twisted.trial.unittest.TestCase``, and tell it how to make the
    store.
    """

    # -- what it is ------------------------------------------------------------------------------------------

    def test_interfaces(self) -> None:
        """It provides what it is declared to provide, in full, and no other interface of a store."""
        store = self.opened(self.make_store([PIET]))
        declared = {
            IAccountStore: True,
            IPasswordVerifier: self.verifies,
            IUpgradableAccountStore: self.upgrades,
            INamelessStore: not self.knows_names,  # or a certificate would open what need not exist
        }
        for interface, expected in declared.items():
            says = f"the attributes of this test declare {expected} of {interface.__name__}"
            self.assertIs(interface.providedBy(store), expected, says)
            if expected:
                verifyObject(interface, store)

    def test_mechanisms(self) -> None:
        store = self.opened(self.make_store([PIET]))
        self.assertIsInstance(store.mechanisms, frozenset)
        self.assertTrue(store.mechanisms)
        self.assertLessEqual(store.mechanisms, set(MECHANISMS))
        self.assertNotIn("EXTERNAL", store.mechanisms)  # which is the realm's: any store that finds accounts

    # -- accounts --------------------------------------------------------------------------------------------

    async def test_known(self) -> None:
        store = self.opened(self.make_store([PIET, JAN]))
        for one in (PIET, JAN):
            found = await store.account(one.name)
            self.assertIsInstance(found, Account)
            self.assertEqual((found.name, found.realm, found.status), (one.name, self.realm, Status.ACTIVE))
            self.assertIsInstance(found.groups, frozenset)
            self.assertIsInstance(found.addresses, tuple)
            self.assertTrue(all(len(secret) == 16 for secret in found.digest_secrets))

    async def test_unknown(self) -> None:
        store = self.opened(self.make_store([PIET]))
        await self.assert_unknown(store, "jan")
        logins = Logins(store, self.realm, self.reactor)
        await self.assert_refused(logins, "jan", PIET.password)

    async def assert_unknown(self, store: Any, name: str) -> None:
        found = await store.account(name)
        if self.knows_names:
            self.assertIsNone(found, f"there is no {name!r}, and the store finds an account")
        else:
            self.assertEqual((found.name, found.realm), (name, self.realm))

    async def test_names_are_exact(self) -> None:
        logins = self.logins(PIET, AccountDescription(name="zoë"))
        near = (
            "Piet",
            "PIET",
            "piet ",
            " piet",
            "pie",
            "piett",
            "pi et",
            "p_et",
            "p%",
            "p*",
            "pi\u0435t",
            "zoe",
        )
        for name in (*near, "piet\0", "", "%", "*", "p" * 5000):
            if self.knows_names:
                found = await logins.store.account(name)
                self.assertIsNone(found, f"{name!r} is nobody's name, and the store finds an account")
            if name:
                await self.assert_refused(logins, name, "geheim")

    async def test_no_name_is_code(self) -> None:
        logins = self.logins(PIET)
        for name in (
            *("' OR '1'='1", "piet'--", "piet';", "*)(uid=*", "piet)(&", "piet\\", ":of_name", "%(name)s"),
            *(
                "{name}",
                "${name}",
                "../piet",
                "piet?x=y",
                "piet#",
                "piet/",
                "%70iet",
                "piet\r\nX: y",
                "piet:",
            ),
        ):
            if self.knows_names:
                found = await logins.store.account(name)
                self.assertIsNone(found, f"{name!r} is nobody's name, and the store finds an account")
            await self.assert_refused(logins, name, "geheim")
        await self.assert_opens(logins, "piet", "geheim")

    async def test_odd_names(self) -> None:
        self.assertLessEqual(self.cannot_hold, set(ODD_NAMES))
        names = [name for name in ODD_NAMES if name not in self.cannot_hold]
        logins = self.logins(*(AccountDescription(name=name) for name in names))
        for name in names:
            found = await logins.store.account(name)
            self.assertIsNotNone(found, f"{name!r} is an account, and the store does not find it")
            self.assertEqual(found and found.name, name)
            await self.assert_opens(logins, name, "geheim")
        for name in self.cannot_hold:
            await self.assert_unknown(logins.store, name)
            await self.assert_refused(logins, name, "geheim")

    async def test_every_status(self) -> None:
        """It is told, never hidden, and only an active account gets in (CVE-2022-24732)."""
        self.assertIn(Status.ACTIVE, self.can_say)
        said = [status for status in Status if status in self.can_say]
        logins = self.logins(*(AccountDescription(name=status.value, status=status) for status in said))
        for status in said:
            found = await logins.store.account(status.value)
            self.assertIsNotNone(found, f"an account that is {status.value} is found, with its status")
            self.assertIs(found and found.status, status, f"of an account that is {status.value}")
            if status is Status.ACTIVE:
                await self.assert_opens(logins, status.value, "geheim")
            else:
                await self.assert_refused(logins, status.value, "geheim")

    async def test_groups(self) -> None:
        groups = frozenset({"businesses", "Überall"}) if self.has_groups else frozenset()
        logins = self.logins(AccountDescription(name="piet", groups=groups), JAN)
        for name, expected in (("piet", groups), ("jan", frozenset())):
            found = await logins.store.account(name)
            self.assertEqual(found and found.groups, expected)

    async def test_addresses(self) -> None:
        addresses = ("piet@bedrijf.nl", "*@example.nl") if self.has_addresses else ()
        logins = self.logins(AccountDescription(name="piet", addresses=addresses), JAN)
        for name, expected in (("piet", set(addresses)), ("jan", set())):
            found = await logins.store.account(name)
            self.assertEqual(set(found.addresses) if found else None, expected)

    async def test_many_at_once(self) -> None:
        """Each has its own answer, however they cross."""
        names = [f"account-{number}" for number in range(20)]
        store = self.opened(self.make_store([AccountDescription(name=name) for name in names]))
        found = await gatherResults([maybeDeferred(store.account, name) for name in (*names, *names[::-1])])
        self.assertEqual([account.name for account in found], names + names[::-1])

    async def test_no_secret_is_shown(self) -> None:
        store = self.opened(self.make_store([AccountDescription(name="piet", password="Zeer-Geheim-77")]))
        found = await store.account("piet")
        shown = f"{found!r} {found} {store!r}"
        for secret in ("Zeer-Geheim-77", found.password_hash, *(one.hex() for one in found.digest_secrets)):
            if secret:
                self.assertNotIn(secret, shown)

    # -- passwords -------------------------------------------------------------------------------------------

    async def test_the_right_password_opens_and_a_wrong_one_does_not(self) -> None:
        logins = self.logins(PIET)
        for wrong in (
            "Geheim",
            "geheim ",
            " geheim",
            "gehei",
            "geheimm",
            "x",
            "*",
            "' OR '1'='1",
            "x" * 5000,
        ):
            await self.assert_refused(logins, "piet", wrong)
        await self.assert_opens(logins, "piet", "geheim")
        await self.assert_refused(logins, "piet", "Geheim")
        await self.assert_opens(logins, "piet", "geheim")  # from the cache, perhaps

    async def test_odd_passwords(self) -> None:
        passwords = [
            "g€heim",
            "ÿþ",
            "密码",
            "two words",
            "a:b",
            'q"q',
            "back\\slash",
            "%s",
            "#",
            "&<>",
            "Ω" * 30,
        ]
        accounts = [
            AccountDescription(name=f"account-{number}", password=password)
            for number, password in enumerate(passwords)
        ]
        logins = self.logins(*accounts)
        for account in accounts:
            await self.assert_opens(logins, account.name, account.password)
            await self.assert_refused(logins, account.name, account.password + "x")

    async def test_passwords_are_compared_whole(self) -> None:
        password = "x" * (self.password_octets - 1)
        logins = self.logins(AccountDescription(name="piet", password=password + "y"))
        await self.assert_refused(logins, "piet", password + "z")
        await self.assert_opens(logins, "piet", password + "y")

    async def test_no_password_opens_another_account(self) -> None:
        """Not even one that has just been right, and is in the cache (CVE-2025-30189)."""
        logins = self.logins(PIET, JAN)
        for _ in range(2):
            await self.assert_refused(logins, "piet", JAN.password)
            await self.assert_refused(logins, "jan", PIET.password)
            await self.assert_opens(logins, "piet", PIET.password)
            await self.assert_opens(logins, "jan", JAN.password)

    async def test_a_changed_password(self) -> None:
        """The old one is over at once, whoever has seen that it was right."""
        logins = self.logins(PIET, JAN)
        await self.assert_opens(logins, "piet", "geheim")
        await self.hold_instead(AccountDescription(name="piet", password="nieuw"), JAN)
        await self.assert_refused(logins, "piet", "geheim")
        await self.assert_opens(logins, "piet", "nieuw")
        await self.assert_opens(logins, "jan", JAN.password)

    async def test_an_account_that_was_switched_off(self) -> None:
        logins = self.logins(PIET, JAN)
        for status in sorted(self.can_say - {Status.ACTIVE}, key=str):
            await self.assert_opens(logins, "piet", "geheim")
            await self.hold_instead(AccountDescription(name="piet", status=status), JAN)
            await self.assert_refused(logins, "piet", "geheim")
            await self.hold_instead(PIET, JAN)

    async def test_an_account_that_is_gone(self) -> None:
        logins = self.logins(PIET, JAN)
        await self.assert_opens(logins, "piet", "geheim")
        await self.hold_instead(JAN)
        await self.assert_unknown(logins.store, "piet")
        await self.assert_refused(logins, "piet", "geheim")

    async def test_verify(self) -> None:
        """Only of a store that verifies itself: a plain yes, a plain no."""
        store = self.opened(self.make_store([PIET, JAN]))
        if not self.verifies:
            return  # test_interfaces has seen that it does not
        account = await store.account("piet")
        for password, right in (("geheim", True), ("anders", False), ("x", False)):
            self.assertIs(await store.verify(account, password), right, f"of {password!r}")
        # The service never asks this; many a back end says yes to it (RFC 4513 5.1.2).
        try:
            verdict = await store.verify(account, "")
        except Exception:  # noqa: BLE001 -- any is right: it is no yes
            return
        self.assertFalse(verdict, "an empty password is nobody's")

    async def test_many_logins_at_once(self) -> None:
        """Each has its own verdict, however they cross."""
        accounts = [AccountDescription(name=f"name-{each}", password=f"word-{each}") for each in range(8)]
        logins = self.logins(*accounts)

        async def tried(mechanism: str, name: str, password: str) -> str | None:
            try:
                return (await logins.log_in(mechanism, name, password)).name
            except UnauthorizedLogin:
                return None

        for mechanism in logins.mechanisms:
            attempts = [(one.name, other.password) for one in accounts for other in (one, accounts[0])]
            said = await gatherResults(
                [Deferred.fromCoroutine(tried(mechanism, name, password)) for name, password in attempts]
            )
            for (name, password), who in zip(attempts, said, strict=True):
                right = name if name[-1] == password[-1] else None
                self.assertEqual(who, right, f"{mechanism} of {name!r} with {password!r}, among others")

    async def test_upgrade(self) -> None:
        """Only where hash and account still are what was verified."""
        store = self.opened(self.make_store([PIET, JAN]))
        if not self.upgrades:
            return
        before = await store.account("piet")
        fresh = AccountDescription(name="piet", password="nieuw").password_hash()
        self.assertTrue(await store.upgrade(before, fresh, None))
        after = await store.account("piet")
        self.assertEqual((after.password_hash, after.status), (fresh, before.status))
        self.assertFalse(await store.upgrade(before, PIET.password_hash(), None))  # it is another by now
        self.assertEqual((await store.account("piet")).password_hash, fresh)
        logins = Logins(store, self.realm, self.reactor)
        await self.assert_opens(logins, "jan", "anders")

    # -- trouble ---------------------------------------------------------------------------------------------

    async def test_a_dead_back_end(self) -> None:
        """No answer is no yes, and no no; also where it is dead only by the time it is to verify."""
        found = await self.opened(self.make_store([PIET])).account("piet")
        try:
            store = self.opened(self.make_dead_store())
        except (ValueError, OSError) as error:
            self.assertTrue(str(error), "the error has to say what is wrong")
            return
        for _ in range(2):
            if self.knows_names:
                await self.assert_unavailable("account('piet')", store.account, "piet")
            if self.verifies:
                await self.assert_unavailable("verify(piet, 'geheim')", store.verify, found, "geheim")
        await self.assert_refused(Logins(store, self.realm, self.reactor), "piet", "geheim", Unavailable)

    async def assert_unavailable(self, call: str, ask: Callable[..., Any], *arguments: Any) -> None:
        try:
            said = await self.soon(maybeDeferred(ask, *arguments))
        except Unavailable as error:
            self.assertTrue(str(error), "Unavailable has to say why, for the log")
        except Exception as error:
            raise self.failureException(f"{call} has to fail with Unavailable, not {error!r}") from error
        else:
            self.fail(f"{call} has to fail with Unavailable; it gave {said}")

    async def test_a_slow_back_end(self) -> None:
        """The client is answered in time, and the reactor goes on meanwhile."""
        if self.answers_at_once:
            store = self.opened(self.make_store([PIET]))
            self.assertTrue(maybeDeferred(store.account, "piet").called, "the answer is not in memory")
            return
        store = self.opened(self.make_slow_store())
        ticks: list[None] = []
        ticking = LoopingCall(ticks.append, None)
        ticking.clock = self.reactor
        done = ticking.start(_PATIENCE / 30)
        began = self.reactor.seconds()
        logins = Logins(store, self.realm, self.reactor, patience=_PATIENCE)
        try:
            await self.assert_refused(logins, "piet", "geheim", Unavailable)
        finally:
            ticking.stop()
            await done
        taken = self.reactor.seconds() - began
        self.assertLess(taken, BOUND)
        # As many as would be there if the reactor were busy for nine tenths of the time.
        self.assertGreater(len(ticks), taken / _PATIENCE * 3, "the reactor's thread was kept waiting")

    async def test_a_lying_back_end(self) -> None:
        """It is found out, and never believed."""
        lies = self.make_lying_stores()
        self.assertTrue(lies, "there is no back end that cannot lie")
        for lie, store in lies.items():
            logins = Logins(self.opened(store), self.realm, self.reactor)
            try:
                await self.assert_refused(logins, "piet", "geheim", Unavailable)
            except UnauthorizedLogin as error:
                self.fail(f"{lie}: a lie is no answer, yet the client is told no ({error})")
            except self.failureException as error:
                self.fail(f"{lie}: {error}")

    async def test_stop(self) -> None:
        """All is let go of, in bounded time; trial itself looks whether something is left."""
        store = self.make_store([PIET])
        await store.account("piet")
        await self._stop(store)
        await self._stop(self.make_store([PIET]))  # which was not asked for anything
