import sqlite3
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

from attrs import evolve
from sqlalchemy import text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable
from twisted.internet import reactor
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from digipoort_msa.accounts import sql
from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.seal import Seal
from digipoort_msa.accounts.sql import AccountExists, NoSuchAccount, SQLAccounts, SQLAccountStore, open_engine
from digipoort_msa.accounts.tables import ACCOUNTS, SCHEMA
from digipoort_msa.accounts.threads import Threads
from digipoort_msa.interfaces import IUpgradableAccountStore, Unavailable
from tests.account_doubles import NOW, account
from tests.account_store_contract import AccountStoreContract
from tests.requirements import proves

SECRETS = (b"0123456789abcdef", b"fedcba9876543210")


def sql_accounts(test, path=None, realm="one.nl", key=bytes(32)):
    accounts = SQLAccounts(open_engine(f"sqlite:///{path or test.mktemp()}"), realm, Seal(key))
    test.addCleanup(accounts.close)
    return accounts


class SQLAccountsTests(SynchronousTestCase):
    def setUp(self):
        self.path = Path(self.mktemp())
        self.accounts = sql_accounts(self, self.path)
        self.piet = account(password_hash="hash", digest_secrets=SECRETS)

    def test_kept_as_it_was(self):
        self.accounts.insert(self.piet)
        self.assertEqual(self.accounts.find("piet"), self.piet)
        self.assertEqual(sql_accounts(self, self.path).find("piet"), self.piet)

    def test_every_status(self):
        self.accounts.insert(self.piet)
        for status in Status:
            self.accounts.set_status("piet", status, NOW)
            self.assertIs(self.accounts.find("piet").status, status)

    def test_taken(self):
        self.accounts.insert(self.piet)
        self.assertRaises(AccountExists, self.accounts.insert, evolve(self.piet, password_hash="x"))
        self.assertEqual(self.accounts.find("piet"), self.piet)

    def test_names_that_differ_little(self):
        names = ["piet", "Piet", "piet ", "pi\u00e9t"]
        for name in names:
            self.accounts.insert(evolve(self.piet, name=name))
        self.assertEqual(sorted(each.name for each in self.accounts.all()), sorted(names))
        self.accounts.delete("Piet")
        self.assertEqual(self.accounts.find("piet").name, "piet")

    def test_realms_are_apart(self):
        other = sql_accounts(self, self.path, "two.nl")
        self.accounts.insert(self.piet)
        self.assertIsNone(other.find("piet"))
        self.assertEqual(other.all(), [])
        self.assertRaises(NoSuchAccount, other.delete, "piet")
        other.insert(evolve(self.piet, realm="two.nl", password_hash="other"))
        self.assertEqual(self.accounts.find("piet").password_hash, "hash")

    def test_unknown(self):
        self.assertRaises(NoSuchAccount, self.accounts.set_status, "piet", Status.ACTIVE, NOW)
        self.assertRaises(NoSuchAccount, self.accounts.set_password, "piet", "x", (), NOW)
        self.assertRaises(NoSuchAccount, self.accounts.delete, "piet")

    @proves("A5")
    def test_unknown_names_cost_the_same(self):
        """A row is fetched and secrets are opened for a name that is not there, as for one that is."""
        self.accounts.insert(self.piet)
        opened = []
        real = self.accounts._seal.open
        self.patch(
            self.accounts, "_seal", SimpleNamespace(open=lambda *row: opened.append(row) or real(*row))
        )
        for name in ("piet", "nobody"):
            self.accounts.find(name)
        self.assertEqual([bool(octets) for octets, _, _ in opened], [True, True])
        self.assertEqual(len({len(octets) for octets, _, _ in opened}), 1)

    def test_a_new_password_replaces_all_verifiers(self):
        self.accounts.insert(self.piet)
        self.accounts.set_password("piet", "new", (), NOW)
        found = self.accounts.find("piet")
        self.assertEqual((found.password_hash, found.digest_secrets), ("new", ()))

    @proves("A7")
    def test_an_upgrade_never_undoes_a_change(self):
        self.accounts.insert(self.piet)
        self.accounts.set_password("piet", "changed", (), NOW)
        self.assertFalse(self.accounts.replace_hash("piet", "hash", "upgraded"))
        self.assertEqual(self.accounts.find("piet").password_hash, "changed")
        self.assertTrue(self.accounts.replace_hash("piet", "changed", "upgraded"))
        self.assertEqual(self.accounts.find("piet").password_hash, "upgraded")
        self.assertFalse(self.accounts.replace_hash("jan", "hash", "upgraded"))

    @proves("A7")
    def test_the_file_holds_no_digest_secret(self):
        self.accounts.insert(self.piet)
        files = [path for path in self.path.parent.iterdir() if path.name.startswith(self.path.name)]
        for path in files:
            octets = path.read_bytes()
            for secret in SECRETS:
                self.assertNotIn(secret, octets)
                self.assertNotIn(secret.hex().encode(), octets)
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)

    def test_another_key_leaves_the_password(self):
        """The key file is lost: DIGEST-MD5 cannot be verified any more, PLAIN can."""
        self.accounts.insert(self.piet)
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        found = sql_accounts(self, self.path, key=bytes([1]) * 32).find("piet")
        self.assertEqual((found.password_hash, found.digest_secrets), ("hash", ()))
        self.assertEqual([event.get("event") for event in events], ["secrets-unreadable"])

    def test_durable(self):
        self.accounts.find("piet")
        with self.accounts._engine.connect() as connection:
            self.assertEqual(connection.scalar(text("PRAGMA journal_mode")), "wal")
            self.assertEqual(connection.scalar(text("PRAGMA synchronous")), 2)  # FULL
            self.assertEqual(connection.scalar(text("PRAGMA busy_timeout")), 5000)

    def test_a_later_version_is_not_touched(self):
        self.accounts.find("piet")
        with self.accounts._engine.begin() as connection:
            connection.execute(SCHEMA.update().values(version=2))
        error = self.assertRaises(Unavailable, sql_accounts(self, self.path).find, "piet")
        self.assertIn("version 2", str(error))

    def test_many_threads_at_the_start(self):
        accounts = [sql_accounts(self, self.path, realm=f"{number}.nl") for number in range(8)]
        failures = []

        def add(mine):
            try:
                mine.insert(evolve(self.piet, realm=mine.realm))
                mine.find("piet")
            except Exception as error:  # noqa: BLE001 (for the main thread)
                failures.append(error)

        threads = [threading.Thread(target=add, args=[mine]) for mine in accounts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual([mine.find("piet").realm for mine in accounts], [mine.realm for mine in accounts])

    def test_a_locked_database_is_not_waited_for_again_and_again(self):
        self.patch(sql, "_SECONDS", 0.2)
        self.accounts.insert(self.piet)
        self.accounts.close()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        tries = []
        accounts = sql_accounts(self, self.path)
        real = accounts._schema_version
        self.patch(accounts, "_schema_version", lambda: tries.append(1) or real())
        with self.assertRaisesRegex(Unavailable, "locked"):
            accounts.find("piet")
        self.assertEqual(len(tries), 1)

    def test_errors_quote_no_values(self):
        self.accounts.find("piet")
        with self.accounts._engine.begin() as connection:
            connection.execute(text("DROP TABLE account"))
        error = self.assertRaises(
            Unavailable, self.accounts.insert, evolve(self.piet, password_hash="$argon2id$hash")
        )
        self.assertNotIn("argon2id", f"{error} {error.__cause__}")

    def test_a_broken_connection_is_made_anew(self):
        self.accounts.insert(self.piet)
        self.accounts.find("piet")
        self.accounts._thread.connection.invalidate()
        self.assertRaises(Unavailable, self.accounts.find, "piet")
        self.assertEqual(self.accounts.find("piet"), self.piet)
        self.assertEqual(len(self.accounts._open), 1)

    def test_a_restarted_database_is_asked_again(self):
        self.accounts.insert(self.piet)
        first = self.accounts._look_up
        outcomes = [DBAPIError("SELECT", {}, Exception("gone away"), connection_invalidated=True)]

        def look_up(values):
            if outcomes:
                raise outcomes.pop()
            return first(values)

        self.accounts._look_up = look_up
        self.assertEqual(self.accounts.find("piet"), self.piet)

    def test_a_change_is_seen_at_once(self):
        """Lookups read afresh, on whatever connection the change was made."""
        self.accounts.insert(self.piet)
        self.accounts.find("piet")
        other = sql_accounts(self, self.path)
        other.set_status("piet", Status.DISABLED, NOW)
        self.assertIs(self.accounts.find("piet").status, Status.DISABLED)
        other.delete("piet")
        self.assertIsNone(self.accounts.find("piet"))


class OpenEngineTests(SynchronousTestCase):
    def test_what_is_no_database(self):
        for url in ("", "nothing", "oracle://x", "sqlite://", "sqlite:///:memory:", "postgresql+none://x/y"):
            self.assertRaises(ValueError, open_engine, url)

    def test_drivers(self):
        for url, driver in (
            ("postgresql://u@h/d", "psycopg"),
            ("mariadb://u@h/d", "pymysql"),
            ("mysql+pymysql://u@h/d", "pymysql"),
        ):
            try:
                engine = open_engine(url)
            except ValueError as error:
                self.assertIn("not installed", str(error))
            else:
                self.assertEqual(engine.driver, driver)


class DialectTests(SynchronousTestCase):
    """What the other databases are told; they are not run here."""

    dialects = (postgresql.dialect(), mysql.dialect())

    def test_tables(self):
        on_postgresql, on_mariadb = (
            " ".join(str(CreateTable(ACCOUNTS).compile(dialect=dialect)).split()) for dialect in self.dialects
        )
        self.assertIn('name VARCHAR(255) COLLATE "C" NOT NULL', on_postgresql)
        self.assertIn("digest_secrets BYTEA NOT NULL", on_postgresql)
        self.assertIn("name VARBINARY(1020) NOT NULL", on_mariadb)
        self.assertIn("digest_secrets BLOB NOT NULL", on_mariadb)
        for ddl in (on_postgresql, on_mariadb):
            self.assertIn("PRIMARY KEY (realm, name)", ddl)

    def test_statements(self):
        for dialect in self.dialects:
            for statement in (sql._FIND, sql._ALL, sql._REPLACE_HASH, ACCOUNTS.insert(), ACCOUNTS.delete()):
                statement.compile(dialect=dialect)
            CreateTable(SCHEMA).compile(dialect=dialect)

    def test_names_are_octets_on_mariadb(self):
        on_postgresql, on_mariadb = self.dialects
        name = ACCOUNTS.c.name.type
        self.assertEqual(name.process_bind_param("zo\u00eb", on_mariadb), b"zo\xc3\xab")
        self.assertEqual(name.process_result_value(b"zo\xc3\xab", on_mariadb), "zo\u00eb")
        self.assertEqual(name.process_bind_param("zo\u00eb", on_postgresql), "zo\u00eb")


class SQLAccountStoreTests(AccountStoreContract, TestCase):
    def make(self, accounts):
        threads = Threads(reactor, "accounts", size=2, waiting=10)
        self.addCleanup(accounts.close)
        self.addCleanup(threads.stop)
        return SQLAccountStore(accounts, threads)

    def make_store(self, passwords, disabled=()):
        accounts = SQLAccounts(open_engine(f"sqlite:///{self.mktemp()}"), self.realm, Seal(bytes(32)))
        for name in passwords:
            status = Status.DISABLED if name in disabled else Status.ACTIVE
            accounts.insert(account(name, self.realm, status, f"hash of {name}"))
        return self.make(accounts)

    def make_unavailable_store(self):
        path = Path(self.mktemp())
        path.write_bytes(b"this is not a database, and it is long enough to be seen as none" * 100)
        return self.make(SQLAccounts(open_engine(f"sqlite:///{path}"), self.realm, Seal(bytes(32))))

    async def test_the_cause_is_logged(self):
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        with self.assertRaises(Unavailable):
            await self.make_unavailable_store().account("piet")
        (event,) = [event for event in events if event.get("event") == "store-unavailable"]
        self.assertIn("not a database", event["reason"])

    async def test_upgrade(self):
        store = self.make_store({"piet": "geheim"})
        verifyObject(IUpgradableAccountStore, store)
        self.assertTrue(await store.upgrade("piet", "hash of piet", "new"))
        self.assertFalse(await store.upgrade("piet", "hash of piet", "newer"))
        self.assertEqual((await store.account("piet")).password_hash, "new")

    async def test_off_the_reactors_thread(self):
        store = self.make_store({"piet": "geheim"})
        idents = []
        find = store._accounts.find
        store._accounts.find = lambda name: (idents.append(threading.get_ident()), find(name))[1]
        await store.account("piet")
        self.assertNotIn(threading.get_ident(), idents)
        self.assertEqual(len(idents), 1)
