"""The ``sql`` store by the contract of all stores: our own tables and somebody else's, on each database."""

import json
from typing import Any

from sqlalchemy import text
from twisted.trial.unittest import TestCase

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.foreign_columns import as_keys_text
from digipoort_msa.accounts.seal import Seal
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.interfaces import IUpgradableAccountStore
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.statements import upgrade_query
from digipoort_msa.testing import AccountDescription, AccountStoreContract
from digipoort_msa.threads import Threads
from tests import test_accounts_foreign as foreign_tests
from tests.account_doubles import NOW
from tests.databases import OnMariaDB, OnPostgreSQL, OnSQLite

PIET = AccountDescription(name="piet")


class DatabaseContract(AccountStoreContract):
    """What both kinds of tables have in common; ``table`` is where accounts are."""

    upgrades = True
    account_table: str
    #: Mechanisms are the same on each database; two of them read all that there is of an account.
    tried = frozenset({"PLAIN", "SCRAM-SHA-256"})
    #: What another client does, so that the table cannot be read.
    lock: tuple[str, ...] = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE")

    def open(self) -> Any:
        """The blocking side of a store; its table is there and empty."""
        raise NotImplementedError

    def execute(self: Any, statement: str) -> None:
        with self.engine(self.url).begin() as connection:
            connection.execute(text(statement))

    def make_store(self, accounts: Any) -> Any:
        self.blocking = self.open()
        self.change(accounts)
        store = self.blocking.for_reactor(self.facilities().threads)
        store.mechanisms &= self.tried
        return store

    def let_go(self) -> None:
        """Of all connections that a lock would have to wait for."""
        self.blocking.close()

    def make_dead_store(self) -> Any:
        store = self.make_store([PIET])
        self.execute(f"DROP TABLE {self.account_table}")
        return store

    def make_slow_store(self: Any) -> Any:
        """Somebody has the table locked."""
        self.blocking = self.open()
        self.change([PIET])
        self.let_go()
        # With one thread nobody is at work in the database any more when the store is stopped.
        threads = Threads(self.reactor, "accounts", size=1, waiting=100)
        self.addCleanup(threads.stop)
        store = self.blocking.for_reactor(threads)
        locking = self.engine(self.url).connect().execution_options(isolation_level="AUTOCOMMIT")
        for statement in self.lock:
            locking.execute(text(statement.format(self.account_table)))
        stop = store.stop

        def release() -> Any:
            if not locking.closed:
                locking.invalidate()  # which ends the locks with the connection
                locking.close()
            return stop()

        store.stop = release
        self.addCleanup(lambda: locking.closed or (locking.invalidate(), locking.close()))
        return store


class OwnTables(DatabaseContract):
    account_table = "account"

    def open(self: Any) -> SQLAccounts:
        self.url = self.without_accounts()
        accounts = SQLAccounts(self.engine(self.url), self.realm, Seal(bytes(32)))
        self.addCleanup(accounts.close)
        return accounts

    def change(self, accounts: Any) -> None:
        for account in self.blocking.all():
            self.blocking.delete(account.name)
        for one in accounts:
            self.blocking.insert(
                Account(
                    name=one.name,
                    realm=self.realm,
                    status=one.status,
                    password_hash=one.password_hash(),
                    digest_secrets=one.digest_secrets(self.realm),
                    scram=one.scram_keys(),
                    groups=one.groups,
                    addresses=one.addresses,
                    created=NOW,
                    changed=NOW,
                )
            )

    async def test_keys_are_made_anew_as_well(self) -> None:
        store = self.opened(self.make_store([PIET]))
        before = await store.account("piet")
        keys = AccountDescription(name="piet", password="nieuw").scram_keys()
        self.assertTrue(await store.upgrade(before, None, keys))
        self.assertEqual((await store.account("piet")).scram, keys)

    def make_lying_stores(self) -> dict[str, Any]:
        store = self.make_store([PIET])
        self.execute("UPDATE account SET status = 'fine'")
        return {"a status of its own": store}


class OwnOnSQLiteTests(OwnTables, OnSQLite, TestCase):
    tried = frozenset(MECHANISMS)


class OwnOnPostgreSQLTests(OwnTables, OnPostgreSQL, TestCase):
    lock = ("BEGIN", "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")


class OwnOnMariaDBTests(OwnTables, OnMariaDB, TestCase):
    lock = ("LOCK TABLES {} WRITE",)


class ForeignTables(DatabaseContract, foreign_tests.UsersTable):
    account_table = "users"
    can_say = frozenset({Status.ACTIVE, Status.DISABLED, Status.EXPIRED})

    def open(self: Any) -> Any:
        self.make_table()
        return foreign_tests.foreign(self, self.query, upgrade=upgrade_query(foreign_tests.UPGRADE))

    def change(self, accounts: Any) -> None:
        with self.users.begin() as connection:
            connection.execute(text("DELETE FROM users"))
        for one in accounts:
            expired = one.status is Status.EXPIRED
            self.add(
                login=one.name,
                enabled=one.status is not Status.DISABLED,
                hash=one.password_hash(),
                ha1=" ".join(secret.hex() for secret in one.digest_secrets(self.realm)),
                scram=as_keys_text(one.scram_keys()),
                teams=json.dumps(sorted(one.groups)),
                mails=json.dumps(one.addresses),
                ends=NOW.replace(tzinfo=None, year=NOW.year + (-1 if expired else 1)),
            )

    def test_without_a_query_nothing_is_upgraded(self: Any) -> None:
        self.make_table()
        store = foreign_tests.foreign(self, self.query).for_reactor(self.facilities().threads)
        self.assertFalse(IUpgradableAccountStore.providedBy(store))

    def let_go(self) -> None:
        super().let_go()
        self.users.dispose()

    def make_lying_stores(self) -> dict[str, Any]:
        """Of what a query gives; its own tests have more."""
        store = self.make_store([PIET, PIET])
        return {"two accounts of a name": store}


class ForeignOnSQLiteTests(ForeignTables, OnSQLite, TestCase):
    table = foreign_tests.ForeignOnSQLiteTests.table
    users_database = foreign_tests.ForeignOnSQLiteTests.users_database

    def add(self, **row: Any) -> None:
        super().add(**{key: str(value) if key == "ends" else value for key, value in row.items()})


class ForeignOnPostgreSQLTests(ForeignTables, OnPostgreSQL, TestCase):
    lock = ("BEGIN", "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")


class ForeignOnMariaDBTests(ForeignTables, OnMariaDB, TestCase):
    lock = ("LOCK TABLES {} WRITE",)
    quote = "`"
    table = foreign_tests.ForeignOnMariaDBTests.table
