"""The ``passwd`` store: the contract over both files, and files that change."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from passlib.hash import bcrypt
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.passwd import PasswdAccountStore, open_passwd
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.sasl.digest_hash import digest_secrets
from digipoort_msa.testing import AccountDescription, AccountStoreContract
from tests.requirements import proves

REALM = "one.nl"
PIET = AccountDescription(name="piet", password="geheim")
JAN = AccountDescription(name="jan", password="anders")
_slow_enough = bcrypt.using(rounds=4)
_hashes: dict[str, str] = {}


def bcrypt_hash(password: str) -> str:
    return _hashes.setdefault(password, _slow_enough.hash(password) if len(password.encode()) <= 72 else "x")


class Files:
    """An htpasswd and an htdigest; each version is older than the one before, and complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.htpasswd = folder / "htpasswd"
        self.htdigest = folder / "htdigest"
        self._moment = 1_500_000_000

    def hold(self, accounts: Sequence[AccountDescription]) -> None:
        off = {each.name: "" if each.status is Status.ACTIVE else "!" for each in accounts}
        self.write(self.htpasswd, [f"{a.name}:{off[a.name]}{bcrypt_hash(a.password)}" for a in accounts])
        secrets = {a.name: digest_secrets(a.name, REALM, a.password)[0].hex() for a in accounts}
        self.write(self.htdigest, [f"{a.name}:{REALM}:{off[a.name]}{secrets[a.name]}" for a in accounts])

    def write(self, file: Path, lines: Sequence[str]) -> None:
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self._moment -= 10
        os.utime(file, (self._moment, self._moment))


class PasswdCase(TestCase):
    realm = REALM

    def facilities(self) -> Any:
        raise NotImplementedError

    def files(self) -> Files:
        return Files(Path(self.mktemp()).absolute())

    def open(self, files: Files, threads: Any, **options: Any) -> PasswdAccountStore:
        paths = {"htpasswd": files.htpasswd, "htdigest": files.htdigest}
        hashing = PasswordHashing(memory_kib=8, time_cost=1)
        made: dict[str, Any] = {"realm": REALM, "hashing": hashing, "threads": threads, "look_every": 0.0}
        return open_passwd(**{**made, **paths, **options})


class ContractTests(AccountStoreContract, PasswdCase):
    can_say = frozenset({Status.ACTIVE, Status.DISABLED})
    cannot_hold = frozenset({"a:b", "#a", "名" * 255})
    has_groups = False
    has_addresses = False
    password_octets = 72

    def facilities(self) -> Any:
        return AccountStoreContract.facilities(self)

    def make_store(self, accounts: Sequence[AccountDescription]) -> PasswdAccountStore:
        self.held = self.files()
        self.held.hold(accounts)
        return self.open(self.held, self.facilities().threads)

    def change(self, accounts: Sequence[AccountDescription]) -> None:
        self.held.hold(accounts)

    def make_dead_store(self) -> PasswdAccountStore:
        return self.open(self.files(), None)

    def make_slow_store(self) -> PasswdAccountStore:
        """The threads hang in a file system that does not answer."""
        self.held = self.files()
        self.held.hold([PIET])
        threads = self.facilities().threads
        release = Event()
        self.addCleanup(release.set)
        for _ in range(2):
            threads.call(release.wait, 30).addErrback(lambda _: None)
        return self.open(self.held, threads)

    async def test_a_lying_back_end(self) -> None:
        """What makes no sense is told when it is opened, and later leaves the old version in force: no store
        has nothing but a lie."""
        hashed, secret = bcrypt_hash("geheim"), digest_secrets("piet", REALM, "geheim")[0].hex()
        for lie, (passwords, digests) in {
            "half a hash": ([f"piet:{hashed[:-9]}"], []),
            "another file": ([f"piet:{REALM}:{secret}"], []),
            "the same name twice": ([f"piet:{hashed}", f"piet:{hashed}"], []),
            "half a secret": ([], [f"piet:{REALM}:{secret[1:]}"]),
            "no name": ([f":{hashed}"], []),
        }.items():
            files = self.files()
            files.hold([JAN])
            logins = self.logins(JAN)
            for held in (files, self.held):
                if passwords:
                    held.write(held.htpasswd, passwords)
                if digests:
                    held.write(held.htdigest, digests)
            with self.assertRaises(ValueError, msg=lie):
                self.open(files, None)
            await self.assert_refused(logins, "piet", "geheim")
            await self.assert_opens(logins, "jan", "anders")

    def make_lying_stores(self) -> Mapping[str, PasswdAccountStore]:
        raise NotImplementedError("see test_a_lying_back_end")


class StoreTests(PasswdCase):
    def setUp(self) -> None:
        self.held = self.files()
        self.held.hold([PIET, JAN])
        self.threads = AccountStoreContract.facilities(self).threads  # type: ignore[arg-type]
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    timeout = 30

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    def observe(self, event: Any) -> None:
        if event.get("event") in {"accounts-kept", "accounts-loaded", "hashes-refused"}:
            self.events.append(event)

    def told(self) -> list[str]:
        told = [event["event"] for event in self.events]
        self.events.clear()
        return told

    async def names(self, store: PasswdAccountStore) -> set[str]:
        found = await gatherResults([store.account(name) for name in ("piet", "jan")])
        return {account.name for account in found if account is not None}

    async def test_a_broken_version_leaves_the_old_one_in_force(self) -> None:
        store = self.open(self.held, self.threads)
        self.held.write(self.held.htpasswd, ["jan:" + bcrypt_hash("anders"), "piet"])
        for _ in range(3):
            self.assertEqual(await self.names(store), {"piet", "jan"})
        (event,) = self.events
        self.assertEqual((event["event"], event["realm"]), ("accounts-kept", REALM))
        self.assertIn(f"{self.held.htpasswd}, line 2: should be name:hash", event["reason"])
        self.told()
        self.held.hold([JAN])
        self.assertEqual(await self.names(store), {"jan"})
        self.assertEqual(self.told(), ["accounts-loaded"] * 2)

    async def test_one_file_is_broken_and_the_other_new(self) -> None:
        store = self.open(self.held, self.threads)
        self.held.hold([JAN])
        self.held.write(self.held.htdigest, ["x"])
        found = await store.account("piet")
        assert found is not None
        self.assertEqual((found.password_hash, len(found.digest_secrets)), ("", 1))

    async def test_one_file_only(self) -> None:
        store = self.open(self.held, self.threads, htdigest=None)
        self.assertEqual(store.mechanisms, {"PLAIN", "LOGIN"})
        found = await store.account("piet")
        assert found is not None
        self.assertEqual(found.digest_secrets, ())
        store = self.open(self.held, self.threads, htpasswd=None)
        self.assertEqual(store.mechanisms, {"DIGEST-MD5"})
        found = await store.account("piet")
        assert found is not None
        self.assertEqual((found.password_hash, found.created, found.changed), ("", None, None))

    async def test_disabled_in_one_is_disabled(self) -> None:
        self.held.write(self.held.htdigest, [f"piet:{REALM}:!{'0' * 32}"])
        found = await self.open(self.held, self.threads).account("piet")
        assert found is not None
        self.assertIs(found.status, Status.DISABLED)

    async def test_looks_are_rare(self) -> None:
        """Between them the answer is in memory."""
        store = self.open(self.held, self.threads, look_every=0.05)
        self.held.hold([JAN])
        self.successResultOf(store.account("piet"))
        await deferLater(self.reactor, 0.06)
        self.assertEqual(await self.names(store), {"jan"})
        self.successResultOf(store.account("piet"))

    @proves("A7")
    async def test_hashes_that_are_refused_are_told_once_for_each_version(self) -> None:
        self.held.write(self.held.htpasswd, [f"nr{number}:geheim{number}" for number in range(12)])
        store = self.open(self.held, self.threads)
        for _ in range(2):
            found = await store.account("nr3")
            assert found is not None
            self.assertEqual(found.password_hash, "")
        (event,) = self.events
        self.assertEqual(event["accounts"].count("nr"), 10)
        self.assertIn("and 2 more", event["accounts"])
        self.assertNotIn("geheim", str(event))

    def test_warnings(self) -> None:
        apr1 = "$apr1$1IXPbiXT$G2cfxMhTf3oASfo3g.4oE."
        self.assertEqual(list(self.open(self.held, self.threads).warnings), [])
        self.held.write(self.held.htpasswd, [f"piet:{apr1}", "jan:{SHA}kGByAB793z4R5tK1eC9Hd/4Dhzk="])
        self.held.write(self.held.htdigest, [f"piet:Other Realm:{'0' * 32}"])
        refused, weak, realms = self.open(self.held, self.threads).warnings
        self.assertIn("no password of jan is taken, for {SHA} has no salt", refused)
        self.assertIn("piet should have a slow hash, not MD5", weak)
        self.assertIn("should have accounts of realm one.nl, not of Other Realm alone", realms)
