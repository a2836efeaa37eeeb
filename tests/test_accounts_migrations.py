import threading

from sqlalchemy import event, inspect, text
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts import migrations
from digipoort_msa.accounts.migrations import NoRight, bring_up_to_date
from digipoort_msa.accounts.seal import Seal
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.accounts.tables import ACCOUNTS, VERSION
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.account_doubles import NOW, account
from tests.databases import OnMariaDB, OnPostgreSQL, OnSQLite

SECRETS = (b"0123456789abcdef", b"fedcba9876543210")
_SCHEMA_1 = "CREATE TABLE account_schema (id INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (id))"


class Killed(BaseException):
    """The process ends here."""


class MigrationContract:
    """``version_1`` is the table as the first release made it."""

    def setUp(self):
        self.url = self.without_tables()

    def accounts(self, realm="one.nl"):
        accounts = SQLAccounts(self.engine(self.url), realm, Seal(bytes(32)))
        self.addCleanup(accounts.close)
        return accounts

    def make_version_1(self, rows=1):
        engine = self.engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(_SCHEMA_1))
            connection.execute(text(self.version_1))
            connection.execute(text("INSERT INTO account_schema VALUES (1, 1)"))
            if rows:
                connection.execute(
                    text("INSERT INTO account VALUES (:realm, :name, 'active', 'hash', :sealed, :now, :now)"),
                    {
                        "realm": self.as_name("one.nl"),
                        "name": self.as_name("zo\u00eb"),
                        "sealed": Seal(bytes(32)).close(b"".join(SECRETS), "one.nl", "zo\u00eb"),
                        "now": int(NOW.timestamp()),
                    },
                )
        engine.dispose()

    def as_name(self, name):
        return name

    def shape(self):
        """The version, and the columns."""
        engine = self.engine(self.url)
        with engine.connect() as connection:
            version = migrations.version(connection)
            columns = {column["name"] for column in inspect(connection).get_columns("account")}
        engine.dispose()
        return version, columns

    def assert_current(self):
        self.assertEqual(self.shape(), (VERSION, {column.name for column in ACCOUNTS.columns}))

    def test_new(self):
        self.assertIsNone(bring_up_to_date(self.engine(self.url)))
        self.assert_current()
        self.assertEqual(bring_up_to_date(self.engine(self.url)), VERSION)

    def test_from_version_1(self):
        self.make_version_1()
        accounts = self.accounts()
        self.assertEqual(
            accounts.find("zo\u00eb"), account("zo\u00eb", password_hash="hash", digest_secrets=SECRETS)
        )
        self.assert_current()
        keys = ScramKeys(bytes(16), 4096, bytes(32), bytes(32))
        accounts.change("zo\u00eb", scram=keys, groups={"g"})
        self.assertEqual(self.accounts().find("zo\u00eb").scram, keys)

    def test_the_former_release_goes_on_beside_this_one(self):
        """What it has prepared of old, it can still say."""
        self.make_version_1(rows=0)
        self.accounts().find("piet")
        columns = "realm, name, status, password_hash, digest_secrets, created, changed"
        with self.engine(self.url).begin() as connection:
            connection.execute(
                text(
                    f"INSERT INTO account ({columns}) VALUES (:realm, :name, 'active', 'hash', :none, 1, 1)"
                ),
                {"realm": self.as_name("one.nl"), "name": self.as_name("piet"), "none": b""},
            )
        found = self.accounts().find("piet")
        self.assertEqual((found.password_hash, found.scram, found.expires), ("hash", None, None))

    def test_many_at_once(self):
        for make in (lambda: None, self.make_version_1):
            self.url = self.without_tables()
            make()
            barrier, failures = threading.Barrier(6), []

            def migrate(accounts, barrier=barrier, failures=failures):
                try:
                    barrier.wait(10)
                    accounts.insert(account("piet", accounts.realm))
                    accounts.find("piet")
                except Exception as error:  # noqa: BLE001 (for the main thread)
                    failures.append(error)

            everyone = [self.accounts(f"{number}.nl") for number in range(6)]
            threads = [threading.Thread(target=migrate, args=[accounts]) for accounts in everyone]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            self.assertEqual(failures, [])
            self.assert_current()
            self.assertEqual(
                {accounts.find("piet").realm for accounts in everyone},
                {accounts.realm for accounts in everyone},
            )
            for accounts in everyone:
                accounts.close()

    def test_killed_after_any_step(self):
        """The next one finishes it, and no row is lost."""
        for make, steps in ((lambda: None, 3), (self.make_version_1, 6)):
            for survived in range(steps):
                self.url = self.without_tables()
                make()
                engine = self.engine(self.url)
                done = []

                def kill(connection, cursor, statement, *rest, done=done, survived=survived):
                    if statement.split()[0] in ("CREATE", "ALTER", "INSERT", "UPDATE"):
                        if len(done) == survived:
                            raise Killed
                        done.append(statement)

                event.listen(engine, "before_cursor_execute", kill)
                self.assertRaises(Killed, bring_up_to_date, engine)
                engine.dispose()
                bring_up_to_date(self.engine(self.url))
                self.assert_current()
                if make is self.make_version_1:
                    self.assertEqual(self.accounts().find("zo\u00eb").digest_secrets, SECRETS)

    def test_a_later_version_is_left_alone(self):
        accounts = self.accounts()
        accounts.insert(account())
        with self.engine(self.url).begin() as connection:
            connection.execute(text("UPDATE account_schema SET version = 3"))
        later = self.accounts()
        for attempt in (lambda: later.find("piet"), later.prepare, later.migration, later.all):
            error = self.assertRaises(Unavailable, attempt)
            self.assertIn("of version 3, and this release knows version 2", str(error))
        with self.engine(self.url).connect() as connection:
            self.assertEqual(connection.scalar(text("SELECT version FROM account_schema")), 3)

    def test_as_sql(self):
        """What is printed for somebody else to run does the same."""
        for make in (lambda: None, self.make_version_1):
            self.url = self.without_tables()
            make()
            statements = self.accounts().migration()
            with self.engine(self.url).begin() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement.removesuffix(";"))
            self.assert_current()
            self.assertEqual(self.accounts().migration(), [])
            self.assertEqual(self.accounts().prepare(), VERSION)


class SQLiteTests(MigrationContract, OnSQLite, SynchronousTestCase):
    version_1 = """
        CREATE TABLE account (
            realm VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL, status VARCHAR(16) NOT NULL,
            password_hash TEXT NOT NULL, digest_secrets BLOB NOT NULL, created BIGINT NOT NULL,
            changed BIGINT NOT NULL, PRIMARY KEY (realm, name)
        )"""


class PostgreSQLTests(MigrationContract, OnPostgreSQL, SynchronousTestCase):
    version_1 = """
        CREATE TABLE account (
            realm VARCHAR(255) COLLATE "C" NOT NULL, name VARCHAR(255) COLLATE "C" NOT NULL,
            status VARCHAR(16) NOT NULL, password_hash TEXT NOT NULL, digest_secrets BYTEA NOT NULL,
            created BIGINT NOT NULL, changed BIGINT NOT NULL, PRIMARY KEY (realm, name)
        )"""

    def test_a_role_without_the_right(self):
        """It is told what to do; once somebody has done that, it works."""
        self.make_version_1()
        with self.engine(self.url).begin() as connection:
            connection.execute(text("CREATE ROLE clerk LOGIN"))
            connection.execute(
                text("GRANT SELECT, INSERT, UPDATE, DELETE ON account, account_schema TO clerk")
            )
        owner, self.url = self.url, self.url.set(username="clerk")
        clerk = self.accounts()
        error = self.assertRaises(NoRight, clerk.find, "zo\u00eb")
        self.assertIn("of version 1, not 2", str(error))
        self.assertIn("digipoort-msa account migrate --sql", str(error))
        statements = clerk.migration()
        with self.engine(owner).begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        self.assertEqual(clerk.find("zo\u00eb").digest_secrets, SECRETS)
        clerk.change("zo\u00eb", groups={"g"})

    def test_a_role_that_may_make_no_tables(self):
        with self.engine(self.url).begin() as connection:
            connection.execute(text("CREATE ROLE stranger LOGIN"))
            connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        self.url = self.url.set(username="stranger")
        error = self.assertRaises(NoRight, self.accounts().find, "piet")
        self.assertIn("are missing", str(error))


class MariaDBTests(MigrationContract, OnMariaDB, SynchronousTestCase):
    version_1 = """
        CREATE TABLE account (
            realm VARBINARY(1020) NOT NULL, name VARBINARY(1020) NOT NULL, status VARCHAR(16) NOT NULL,
            password_hash TEXT NOT NULL, digest_secrets BLOB NOT NULL, created BIGINT NOT NULL,
            changed BIGINT NOT NULL, PRIMARY KEY (realm, name)
        )"""

    def as_name(self, name):
        return name.encode()

    def test_another_that_keeps_the_lock(self):
        self.patch(migrations, "SECONDS", 2)
        name = "CONCAT('digipoort-msa ', MD5(DATABASE()))"
        with self.engine(self.url).connect() as other:
            self.assertEqual(other.scalar(text(f"SELECT GET_LOCK({name}, 0)")), 1)
            error = self.assertRaises(Unavailable, self.accounts().find, "piet")
            self.assertIn("another process", str(error))
            other.invalidate()
        self.assertIsNone(self.accounts().find("piet"))
