from datetime import date, timedelta
from types import SimpleNamespace

from attrs import evolve
from sqlalchemy import text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.schema import CreateTable
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts import sql
from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.seal import Seal
from digipoort_msa.accounts.sql import AccountExists, NoSuchAccount, SQLAccounts
from digipoort_msa.accounts.tables import ACCOUNTS, SCHEMA
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.account_doubles import NOW, account
from tests.databases import OnMariaDB, OnPostgreSQL, OnSQLite
from tests.requirements import proves

SECRETS = (b"0123456789abcdef", b"fedcba9876543210")
KEYS = ScramKeys(b"salt of sixteen!", 4096, bytes(range(32)), bytes(range(32, 64)))
#: Names that some collation or driver takes for another's, or for code.
NAMES = [
    "piet",
    "Piet",
    "piet ",
    "pi\u00e9t",  # composed
    "pie\u0301t",  # the same, decomposed
    "\U0001f600",  # four octets in UTF-8
    "\U0001f601",
    "stra\u00dfe",
    "strasse",
    "\u0130",
    "i",
    "o'neill",
    "' OR '1'='1",
    "piet'; DROP TABLE account; --",
    "piet\\",
    "piet\\' OR 1=1 -- ",
    ":of_name",
    "%(of_name)s",
    "%s",
    "$1",
    "?",
    "a\tb",
    "\u540d" * 255,
]


class SQLAccountsContract:
    """What holds on every database."""

    def setUp(self):
        self.url = self.without_accounts()
        self.now = NOW
        self.accounts = self.open()
        self.piet = account(password_hash="hash", digest_secrets=SECRETS)

    def open(self, realm="one.nl", key=bytes(32)):
        accounts = SQLAccounts(self.engine(self.url), realm, Seal(key), lambda: self.now)
        self.addCleanup(accounts.close)
        return accounts

    def events(self):
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    def test_kept_as_it_was(self):
        whole = evolve(
            self.piet,
            scram=KEYS,
            expires=NOW + timedelta(days=1),
            digest_until=date(2027, 3, 31),
            addresses=("*@example.nl", "zo\u00eb@\u540d.example"),
            groups=frozenset({"g", "\U0001f600"}),
        )
        for kept in (self.piet, whole):
            self.accounts.insert(kept)
            self.assertEqual(self.accounts.find("piet"), kept)
            self.assertEqual(self.open().find("piet"), kept)
            self.assertEqual(self.accounts.all(), [kept])
            self.accounts.delete("piet")

    def test_every_status(self):
        self.accounts.insert(self.piet)
        for status in Status:
            self.accounts.change("piet", status=status)
            self.assertIs(self.accounts.find("piet").status, status)

    def test_expiry(self):
        """From its moment on an account is expired; one that was disabled stays that."""
        self.accounts.insert(evolve(self.piet, expires=NOW))
        self.assertIs(self.accounts.find("piet").status, Status.EXPIRED)
        self.now = NOW - timedelta(seconds=1)
        self.assertIs(self.accounts.find("piet").status, Status.ACTIVE)
        self.accounts.change("piet", status=Status.DISABLED)
        self.now = NOW
        self.assertIs(self.accounts.find("piet").status, Status.DISABLED)
        self.accounts.change("piet", status=Status.ACTIVE, expires=None)
        self.assertIs(self.accounts.find("piet").status, Status.ACTIVE)

    def test_taken(self):
        self.accounts.insert(self.piet)
        self.assertRaises(AccountExists, self.accounts.insert, evolve(self.piet, password_hash="x"))
        self.assertEqual(self.accounts.find("piet"), self.piet)

    @proves("A4")
    def test_names_are_exact_and_no_code(self):
        for name in NAMES:
            self.assertIsNone(self.accounts.find(name), name)
            self.accounts.insert(evolve(self.piet, name=name, password_hash=name.encode().hex()))
        for name in NAMES:
            self.assertEqual(self.accounts.find(name).password_hash, name.encode().hex())
        self.assertEqual(sorted(each.name for each in self.accounts.all()), sorted(NAMES))
        for name in NAMES:
            self.accounts.change(name, status=Status.DISABLED)
            self.accounts.delete(name)
            self.assertIsNone(self.accounts.find(name), name)
        self.assertEqual(self.accounts.all(), [])

    def test_names_that_no_database_has(self):
        for name in ("piet\0", "x" * 256, "\ud800"):
            self.assertIsNone(self.accounts.find(name))

    def test_realms_are_apart(self):
        other = self.open("two.nl")
        self.accounts.insert(self.piet)
        self.assertIsNone(other.find("piet"))
        self.assertEqual(other.all(), [])
        self.assertRaises(NoSuchAccount, other.delete, "piet")
        other.insert(evolve(self.piet, realm="two.nl", password_hash="other"))
        self.assertEqual(self.accounts.find("piet").password_hash, "hash")
        self.assertEqual(self.accounts.realms(), ["one.nl", "two.nl"])

    def test_unknown(self):
        self.assertRaises(NoSuchAccount, self.accounts.change, "piet", status=Status.ACTIVE)
        self.assertRaises(NoSuchAccount, self.accounts.delete, "piet")
        self.assertFalse(self.accounts.upgrade(self.piet, "new", KEYS))

    def test_a_new_password_replaces_all_verifiers(self):
        self.accounts.insert(evolve(self.piet, scram=KEYS))
        self.accounts.change("piet", password_hash="new", digest_secrets=(), scram=None)
        found = self.accounts.find("piet")
        self.assertEqual((found.password_hash, found.digest_secrets, found.scram), ("new", (), None))

    @proves("A7")
    def test_an_upgrade_never_undoes_a_change(self):
        self.accounts.insert(self.piet)
        self.accounts.change("piet", password_hash="changed")
        self.assertFalse(self.accounts.upgrade(self.piet, "upgraded", KEYS))
        self.assertEqual(self.accounts.find("piet"), evolve(self.piet, password_hash="changed"))
        self.assertTrue(self.accounts.upgrade(self.accounts.find("piet"), "upgraded", None))
        self.assertTrue(self.accounts.upgrade(self.accounts.find("piet"), None, KEYS))
        self.assertEqual(self.accounts.find("piet"), evolve(self.piet, password_hash="upgraded", scram=KEYS))
        self.assertFalse(self.accounts.upgrade(self.accounts.find("piet"), None, None))

    @proves("A7")
    def test_what_is_sealed_fits_no_other_field(self):
        self.accounts.insert(evolve(self.piet, scram=KEYS))
        self.accounts.insert(evolve(self.piet, name="jan", scram=KEYS))
        events = self.events()
        with self.accounts._database.writing() as connection:
            connection.execute(text("UPDATE account SET digest_secrets = scram"))
        self.assertEqual(self.accounts.find("piet").digest_secrets, ())
        with self.accounts._database.writing() as connection:
            sealed = connection.scalar(ACCOUNTS.select().with_only_columns(ACCOUNTS.c.scram).limit(1))
            connection.execute(ACCOUNTS.update().values(scram=sealed))
        found = [self.accounts.find(name).scram for name in ("piet", "jan")]
        self.assertCountEqual(found, [KEYS, None])
        self.assertIn("scram-unreadable", [event.get("event") for event in events])

    def test_another_key_leaves_the_password(self):
        """The key file is lost: DIGEST-MD5 and SCRAM cannot be verified any more, PLAIN can."""
        self.accounts.insert(evolve(self.piet, scram=KEYS))
        events = self.events()
        found = self.open(key=bytes([1]) * 32).find("piet")
        self.assertEqual((found.password_hash, found.digest_secrets, found.scram), ("hash", (), None))
        self.assertEqual([event.get("event") for event in events], ["secrets-unreadable", "scram-unreadable"])

    def test_a_row_that_makes_no_sense(self):
        for column, value in (
            ("status", "'happy'"),
            ("addresses", "'[1]'"),
            ("addresses", "'{'"),
            ("member_of", "'\"x\"'"),
            ("expires", "9000000000000000"),
            ("created", "-9000000000000000"),
            ("changed", str(2**62)),
        ):
            self.accounts.insert(self.piet)
            with self.accounts._database.writing() as connection:
                connection.execute(text(f"UPDATE account SET {column} = {value}"))
            with self.assertRaisesRegex(Unavailable, "account 'piet' makes no sense"):
                self.accounts.find("piet")
            self.accounts.delete("piet")

    def test_errors_quote_no_values(self):
        self.accounts.find("piet")
        with self.accounts._database.writing() as connection:
            connection.execute(text("DROP TABLE account"))
        error = self.assertRaises(
            Unavailable, self.accounts.insert, evolve(self.piet, password_hash="$argon2id$hash")
        )
        self.assertNotIn("argon2id", f"{error} {error.__cause__}")

    def test_a_change_is_seen_at_once(self):
        """Lookups read afresh, on whatever connection the change was made."""
        self.accounts.insert(self.piet)
        self.accounts.find("piet")
        other = self.open()
        other.change("piet", status=Status.DISABLED)
        self.assertIs(self.accounts.find("piet").status, Status.DISABLED)
        other.delete("piet")
        self.assertIsNone(self.accounts.find("piet"))


class SQLAccountsOnSQLiteTests(SQLAccountsContract, OnSQLite, SynchronousTestCase):
    @proves("A5")
    def test_unknown_names_cost_the_same(self):
        """A row is fetched and secrets are opened for a name that is not there, as for one that is."""
        self.accounts.insert(evolve(self.piet, scram=KEYS))
        opened = []
        real = self.accounts._rows._seal.open
        seal = SimpleNamespace(open=lambda *field: opened.append(field) or real(*field))
        self.patch(self.accounts._rows, "_seal", seal)
        for name in ("piet", "nobody"):
            self.accounts.find(name)
        self.assertEqual([len(octets) > 0 for octets, *_ in opened], [True] * 4)
        lengths = [len(octets) for octets, *_ in opened]
        self.assertEqual(lengths[:2], lengths[2:])


class SQLAccountsOnPostgreSQLTests(SQLAccountsContract, OnPostgreSQL, SynchronousTestCase):
    pass


class SQLAccountsOnMariaDBTests(SQLAccountsContract, OnMariaDB, SynchronousTestCase):
    pass


class DialectTests(SynchronousTestCase):
    """What the databases are told of our tables."""

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
            for statement in (sql._FIND, sql._ALL, sql._AFTER, ACCOUNTS.insert(), ACCOUNTS.delete()):
                statement.compile(dialect=dialect)
            CreateTable(SCHEMA).compile(dialect=dialect)

    def test_names_are_octets_on_mariadb(self):
        on_postgresql, on_mariadb = self.dialects
        name = ACCOUNTS.c.name.type
        self.assertEqual(name.process_bind_param("zo\u00eb", on_mariadb), b"zo\xc3\xab")
        self.assertEqual(name.process_result_value(b"zo\xc3\xab", on_mariadb), "zo\u00eb")
        self.assertEqual(name.process_bind_param("zo\u00eb", on_postgresql), "zo\u00eb")
