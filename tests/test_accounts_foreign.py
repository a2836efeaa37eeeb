from datetime import UTC, date, datetime

from attrs import evolve
from sqlalchemy import text
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.foreign import ForeignAccounts
from digipoort_msa.accounts.foreign_columns import as_keys_text
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.statements import account_query, scram_query, upgrade_query
from tests.account_doubles import NOW, CountingHashing
from tests.databases import OnMariaDB, OnPostgreSQL, OnSQLite
from tests.requirements import proves
from tests.test_accounts_sql import NAMES

KEYS = ScramKeys(b"salt of sixteen!", 4096, bytes(range(32)), bytes(range(32, 64)))
QUERY = """
    SELECT login AS name, enabled AS active, hash AS password_hash, ha1 AS digest_ha1, scram,
           teams AS "groups", mails AS addresses, ends AS expires, md5_end AS digest_until
    FROM users WHERE login = :name AND tenant = :realm
"""
UPGRADE = "UPDATE users SET hash = :new WHERE login = :name AND tenant = :realm AND hash = :old"
SCRAM = "UPDATE users SET scram = :scram WHERE login = :name AND tenant = :realm AND hash = :old"
HASH = CountingHashing().hash("geheim")
#: Kinds of hashes, and whether a password can be verified with them.
HASHES = {
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": True,
    "$6$rounds=5000$saltsalt$" + "a" * 86: True,
    "$5$saltsalt$" + "a" * 43: True,
    "$pbkdf2-sha256$29000$c2FsdHNhbHQ$" + "a" * 43: True,
    "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHQ$" + "a" * 43: True,
    "5f4dcc3b5aa765d61d8327deb882cf99": False,
    "geheim": False,
    "!": False,
}


def foreign(test, query=QUERY, **queries):
    accounts = ForeignAccounts(
        test.engine(test.url),
        "one.nl",
        account_query(query),
        readable=PasswordHashing().readable,
        now=lambda: NOW,
        **queries,
    )
    test.addCleanup(accounts.close)
    return accounts


class UsersTable:
    """Somebody else's table."""

    quote = '"'
    table = (
        "CREATE TABLE users (login VARCHAR(300), tenant VARCHAR(50), enabled BOOLEAN, hash VARCHAR(300), "
        "ha1 VARCHAR(300), scram VARCHAR(300), teams TEXT, mails TEXT, ends TIMESTAMP NULL, md5_end DATE)"
    )

    def make_table(self):
        self.url = self.users_database()
        self.users = self.engine(self.url)
        with self.users.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS users"))
            connection.execute(text(self.table))
        self.query = QUERY.replace('"', self.quote)

    def users_database(self):
        return self.server().standing()

    def add(self, **row):
        row = {"tenant": "one.nl", "enabled": True, "hash": HASH} | row
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        with self.users.begin() as connection:
            connection.execute(text(f"INSERT INTO users ({names}) VALUES ({values})"), row)


class ForeignContract(UsersTable):
    def setUp(self):
        self.make_table()
        self.accounts = foreign(self, self.query)

    def events(self):
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    def unavailable(self, words, query, name="piet"):
        error = self.assertRaises(Unavailable, foreign(self, query).find, name)
        self.assertIn(words, str(error))
        self.assertNotIn(HASH, str(error))

    def test_whole(self):
        self.add(
            login="piet",
            ha1="00" * 16,
            scram=as_keys_text(KEYS),
            teams="a, b",
            mails='["*@example.nl"]',
            ends=NOW.replace(tzinfo=None, year=2027),
            md5_end=date(2027, 3, 31),
        )
        found = self.accounts.find("piet")
        self.assertEqual((found.name, found.realm, found.status), ("piet", "one.nl", Status.ACTIVE))
        self.assertEqual((found.password_hash, found.digest_secrets, found.scram), (HASH, (bytes(16),), KEYS))
        self.assertEqual((found.groups, found.addresses), ({"a", "b"}, ("*@example.nl",)))
        self.assertEqual((found.expires, found.digest_until), (NOW.replace(year=2027), date(2027, 3, 31)))
        self.assertIsNone(self.accounts.find("jan"))

    def test_little(self):
        self.add(login="piet", hash=None)
        found = self.accounts.find("piet")
        self.assertEqual((found.password_hash, found.digest_secrets, found.scram), ("", (), None))
        self.assertEqual((found.groups, found.addresses, found.expires), (frozenset(), (), None))

    def test_may_not_log_in(self):
        self.add(login="off", enabled=False)
        self.add(login="over", ends=NOW.replace(tzinfo=None))
        self.assertIs(self.accounts.find("off").status, Status.DISABLED)
        self.assertIs(self.accounts.find("over").status, Status.EXPIRED)
        self.add(login="unclear", enabled=None)
        self.unavailable("active should be true or false", self.query, "unclear")

    def test_another_tenant(self):
        self.add(login="piet", tenant="two.nl")
        self.assertIsNone(self.accounts.find("piet"))

    @proves("A4")
    def test_names_are_exact_and_no_code(self):
        """Of names that this database takes for the same, no more than one is there at a time."""
        for name in NAMES:
            self.add(login=name)
            found = self.accounts.find(name)
            self.assertEqual(found.name, name)
            for other in NAMES:
                if other != name:
                    self.assertIsNone(self.accounts.find(other), (name, other))
            with self.users.begin() as connection:
                connection.execute(text("DELETE FROM users"))

    def test_two_rows(self):
        self.add(login="piet")
        self.add(login="piet", enabled=False)
        self.unavailable("several rows for 'piet'", self.query)

    def test_columns_that_cannot_be(self):
        self.add(login="piet")
        for columns, words in (
            ("login AS name, enabled AS active, hash AS password_hash, 1 AS disbled", "not known: disbled"),
            ("users.*, login AS name", "not known"),
            ("login AS name, hash AS password_hash", "has none of the columns active, disabled, status"),
            ("login AS name, enabled AS active", "nothing to verify with"),
            ("enabled AS active, hash AS password_hash", "no column name"),
            ("login AS name, login AS name, enabled AS active, hash AS password_hash", "two columns name"),
            ("login AS name, 7 AS active, hash AS password_hash", "active should be true or false"),
            ("login AS name, 1 AS active, 5 AS password_hash", "password_hash should be text"),
            ("5 AS name, 1 AS active, hash AS password_hash", "name should be text"),
            ("NULL AS name, 1 AS active, hash AS password_hash", "name should be text"),
            ("login AS name, 1 AS active, hash AS digest_ha1", "digest_ha1 should be 32 hex digits"),
            ("login AS name, 1 AS active, scram, 'x' AS addresses", "addresses should be patterns"),
            ("nothing AS name, 1 AS active, scram", "nothing"),
        ):
            self.unavailable(words, f"SELECT {columns} FROM users WHERE login = :name")

    def test_columns_are_judged_without_a_row_too(self):
        self.unavailable(
            "not known: x", "SELECT login AS name, 1 AS active, hash AS x FROM users WHERE login=:name"
        )

    def test_a_star_is_not_enough(self):
        with self.users.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS people"))
            connection.execute(
                text("CREATE TABLE people (name VARCHAR(9), active INT, digest_ha1 VARCHAR(32))")
            )
        self.unavailable("has to name its columns itself", "SELECT * FROM people WHERE name = :name")

    def test_what_it_serves(self):
        query = "SELECT login AS name, 1 AS active, {} FROM users WHERE login = :name"
        for column, mechanisms in (
            ("hash AS password_hash", {"PLAIN", "LOGIN"}),
            ("ha1 AS digest_ha1", {"DIGEST-MD5"}),
            ("scram", {"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}),
        ):
            self.assertEqual(foreign(self, query.format(column)).mechanisms, mechanisms)
        self.assertEqual(len(self.accounts.mechanisms), 5)

    @proves("A7")
    def test_a_hash_that_cannot_be_read_is_told_once(self):
        events = self.events()
        for number, (password_hash, readable) in enumerate(HASHES.items()):
            self.add(login=f"piet{number}", hash=password_hash, scram="SCRAM-SHA-1$x")
            for _ in range(2):
                found = self.accounts.find(f"piet{number}")
                self.assertEqual(found.password_hash, password_hash if readable else "")
                self.assertIsNone(found.scram)
        told = [(event["event"], event["account"]) for event in events]
        unreadable = [number for number, readable in enumerate(HASHES.values()) if not readable]
        self.assertCountEqual(
            told,
            [("hash-unreadable", f"piet{number}") for number in unreadable]
            + [("scram-unreadable", f"piet{number}") for number in range(len(HASHES))],
        )
        self.assertNotIn("5f4dcc3b", repr(events))

    def test_upgrades(self):
        self.add(login="piet")
        accounts = foreign(self, self.query, upgrade=upgrade_query(UPGRADE), scram=scram_query(SCRAM))
        before = accounts.find("piet")
        self.assertTrue(accounts.upgrade(before, "$6$new", KEYS))
        after = accounts.find("piet")
        self.assertEqual(after.scram, KEYS)
        self.assertFalse(accounts.upgrade(before, "$6$newer", KEYS))
        self.assertTrue(accounts.upgrade(evolve(after, password_hash="$6$new"), None, KEYS))
        self.assertFalse(accounts.upgrade(evolve(after, name="jan"), "x", KEYS))
        self.assertFalse(self.accounts.upgrade(after, "x", KEYS))  # without queries

    def test_what_it_keeps(self):
        """What no query keeps is not made at each login."""
        upgrade, scram = upgrade_query(UPGRADE), scram_query(SCRAM)
        for queries, keeps in (
            ({}, set()),
            ({"upgrade": upgrade}, {"password_hash"}),
            ({"scram": scram}, {"scram"}),
            ({"upgrade": upgrade, "scram": scram}, {"password_hash", "scram"}),
        ):
            store = GuardedStore(foreign(self, **queries).for_reactor(None), "one.nl", None)
            self.assertEqual(store.keeps, keeps)

    def test_an_upgrade_of_several_rows_is_undone(self):
        self.add(login="piet")
        self.add(login="jan")
        query = "UPDATE users SET hash = :new WHERE hash = :old AND :name = :name"
        accounts = foreign(self, self.query, upgrade=upgrade_query(query))
        before = accounts.find("piet")
        with self.assertRaisesRegex(Unavailable, "would change 2"):
            accounts.upgrade(before, "$6$new", None)
        self.assertEqual(accounts.find("jan").password_hash, HASH)


class ForeignOnSQLiteTests(ForeignContract, OnSQLite, SynchronousTestCase):
    table = UsersTable.table.replace("TIMESTAMP NULL", "TEXT")

    def users_database(self):
        return self.fresh()

    def add(self, **row):
        super().add(
            **{key: str(value) if key in ("ends", "md5_end") else value for key, value in row.items()}
        )


class ForeignOnPostgreSQLTests(ForeignContract, OnPostgreSQL, SynchronousTestCase):
    def test_databases_of_old(self):
        """A stranger's name that a database cannot hold is no defect of ours."""
        query = "SELECT login AS name, true AS active, '' AS password_hash FROM users WHERE login = :name"
        server = self.server()
        for encoding, says in (("LATIN1", "has no equivalent in encoding"), ("SQL_ASCII", None)):
            server.execute(f"CREATE DATABASE {encoding} ENCODING {encoding} TEMPLATE template0")
            self.addCleanup(server.execute, f"DROP DATABASE {encoding} WITH (FORCE)")
            self.url = server.url(encoding.lower())
            with self.engine(self.url).begin() as connection:
                connection.execute(text("CREATE TABLE users (login TEXT)"))
                connection.execute(text("INSERT INTO users VALUES ('zo\u00eb')"))
            accounts = foreign(self, query)
            self.assertEqual(accounts.find("zo\u00eb").name, "zo\u00eb")
            if says is None:
                self.assertIsNone(accounts.find("\u540d"))
            else:
                with self.assertRaisesRegex(Unavailable, says):
                    accounts.find("\u540d")

    def test_arrays_and_json(self):
        self.add(login="piet")
        query = (
            "SELECT login AS name, true AS active, scram, ARRAY['a', 'b'] AS \"groups\", "
            "CAST('[\"*@a.nl\"]' AS jsonb) AS addresses FROM users WHERE login = :name"
        )
        found = foreign(self, query).find("piet")
        self.assertEqual((found.groups, found.addresses), ({"a", "b"}, ("*@a.nl",)))


class ForeignOnMariaDBTests(ForeignContract, OnMariaDB, SynchronousTestCase):
    quote = "`"
    table = UsersTable.table + " CHARACTER SET utf8mb4"

    def test_a_charset_in_the_url(self):
        self.url = self.url.update_query_dict({"charset": "latin1"})
        with self.assertRaisesRegex(Unavailable, "cannot be written in"):
            foreign(self, self.query).find("\u540d")

    def test_a_timestamp_is_of_no_other_zone(self):
        """It comes in the session's, without saying so; two hours further, who has expired could log in."""
        server, query = (
            self.server(),
            "SELECT 'piet' AS name, 1 AS active, '' AS password_hash, {} AS expires",
        )
        (before,) = server.execute("SELECT @@GLOBAL.time_zone")
        server.execute("SET GLOBAL time_zone = '+02:00'")
        self.addCleanup(server.execute, f"SET GLOBAL time_zone = '{before[0]}'")
        query = f"{query.format('FROM_UNIXTIME(1700000000)')} FROM users WHERE :name = :name"
        self.add(login="piet")
        self.assertEqual(foreign(self, query).find("piet").expires, datetime.fromtimestamp(1700000000, UTC))

    def test_a_bit_and_a_table_in_latin1(self):
        with self.users.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS old"))
            connection.execute(
                text("CREATE TABLE old (n VARCHAR(50), a BIT(1), h TEXT) CHARACTER SET latin1")
            )
            connection.execute(text("INSERT INTO old VALUES ('zo\u00eb', 1, 'x'), ('jan', 0, 'x')"))
        accounts = foreign(self, "SELECT n AS name, a AS active, h AS password_hash FROM old WHERE n = :name")
        self.assertIs(accounts.find("zo\u00eb").status, Status.ACTIVE)
        self.assertIs(accounts.find("jan").status, Status.DISABLED)
        for name in ("zoe", "ZO\u00cb", "jan "):
            self.assertIsNone(accounts.find(name))
        for name in ("\U0001f600", "\u540d", "jan\u0300"):  # not in latin1, says the server
            with self.assertRaisesRegex(Unavailable, "mix of collations"):
                accounts.find(name)
        query = "SELECT n AS name, a AS active, h AS password_hash FROM old WHERE {} = :name"
        accounts = foreign(self, query.format("CONVERT(n USING utf8mb4)"))
        self.assertIsNone(accounts.find("\U0001f600"))
        self.assertIs(accounts.find("zo\u00eb").status, Status.ACTIVE)
