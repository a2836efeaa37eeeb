import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from time import monotonic

import psycopg
import pymysql
from sqlalchemy import text
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts import engine
from digipoort_msa.accounts.engine import open_engine
from digipoort_msa.accounts.seal import Seal
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.interfaces import Unavailable
from tests.account_doubles import account
from tests.database_server import CONNECTIONS, STANDING
from tests.databases import OnMariaDB, OnPostgreSQL
from tests.forwarder import Forwarder
from tests.requirements import proves

PIET = account(password_hash="hash", digest_secrets=(b"0123456789abcdef",))


class SQLiteTests(SynchronousTestCase):
    def setUp(self):
        self.path = Path(self.mktemp())
        self.accounts = self.open()

    def open(self):
        accounts = SQLAccounts(open_engine(f"sqlite:///{self.path}"), "one.nl", Seal(bytes(32)))
        self.addCleanup(accounts.close)
        return accounts

    def test_durable(self):
        self.accounts.find("piet")
        with self.accounts._database.reading() as connection:
            self.assertEqual(connection.scalar(text("PRAGMA journal_mode")), "wal")
            self.assertEqual(connection.scalar(text("PRAGMA synchronous")), 2)  # FULL
            self.assertEqual(connection.scalar(text("PRAGMA busy_timeout")), 5000)

    @proves("A7")
    def test_the_file_holds_no_digest_secret_and_is_for_nobody_else(self):
        self.accounts.insert(PIET)
        files = [path for path in self.path.parent.iterdir() if path.name.startswith(self.path.name)]
        for path in files:
            octets = path.read_bytes()
            for secret in PIET.digest_secrets:
                self.assertNotIn(secret, octets)
                self.assertNotIn(secret.hex().encode(), octets)
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)

    def test_a_lock_is_unavailable_and_then_over(self):
        self.patch(engine, "SECONDS", 0.2)
        self.accounts.insert(PIET)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode=EXCLUSIVE")
            self.accounts.close()
            other.execute("BEGIN EXCLUSIVE")
            accounts = self.open()
            with self.assertRaisesRegex(Unavailable, "locked"):
                accounts.find("piet")
        self.assertEqual(accounts.find("piet"), PIET)

    def test_not_a_database(self):
        self.path.write_bytes(b"this is not a database, and it is long enough to be seen as none" * 100)
        with self.assertRaisesRegex(Unavailable, "not a database"):
            self.accounts.find("piet")

    def test_a_broken_connection_is_made_anew(self):
        self.accounts.insert(PIET)
        self.accounts.find("piet")
        self.accounts._database._thread.connection.invalidate()
        self.assertRaises(Unavailable, self.accounts.find, "piet")
        self.assertEqual(self.accounts.find("piet"), PIET)
        self.assertEqual(len(self.accounts._database._open), 1)

    def test_closing_waits_for_lookups(self):
        """To close a connection while another thread reads from it is an error in its driver: the service
        stops while logins are under way."""
        database = self.accounts._database
        reading, go_on, closed, answers = threading.Event(), threading.Event(), threading.Event(), []

        def read(result):
            reading.set()
            go_on.wait(5)
            return result.scalar()

        def close():
            database.close()
            closed.set()

        looking_up = threading.Thread(
            target=lambda: answers.append(database.look_up(text("SELECT 5"), {}, read))
        )
        looking_up.start()
        self.assertTrue(reading.wait(5))
        closing_down = threading.Thread(target=close)
        closing_down.start()
        while not database._closing:
            go_on.wait(0.001)
        self.assertRaises(Unavailable, self.accounts.find, "piet")
        self.assertFalse(closed.is_set())
        go_on.set()
        looking_up.join(5)
        closing_down.join(5)
        self.assertEqual((answers, closed.is_set(), database._open), ([5], True, []))

    def test_closing_waits_only_for_so_long(self):
        self.patch(engine, "SECONDS", 0.1)
        database = self.accounts._database
        database._looking_up = 1
        database.close()
        database._looking_up = 0


class ServerContract:
    """A server that goes away, hangs or is full is unavailable in bounded time, and then works again."""

    #: The longest that a step may take in these tests, in place of five seconds.
    seconds = 0.6

    def setUp(self):
        self.patch(engine, "SECONDS", self.seconds)
        self.patch(engine, "_SERVERS_SECONDS", self.seconds / 2)
        self.accounts = self.open(self.without_accounts())
        self.accounts.insert(PIET)
        self.assertEqual(self.accounts.find("piet"), PIET)

    def open(self, url):
        accounts = SQLAccounts(self.engine(url), "one.nl", Seal(bytes(32)))
        self.addCleanup(accounts.close)
        return accounts

    def through(self):
        forwarder = Forwarder(self.server().socket)
        self.addCleanup(forwarder.close)
        return forwarder, self.open(self.by_port(forwarder.port))

    def unavailable(self, accounts, words=""):
        began = monotonic()
        with self.assertRaisesRegex(Unavailable, words):
            accounts.find("piet")
        self.assertLess(monotonic() - began, 3 * self.seconds + 2)
        self.assertLessEqual(accounts._database.engine.pool.checkedout(), 1)
        self.assertLessEqual(len(accounts._database._open), 1)

    def sessions(self):
        """How many the server has, besides the one that asks."""
        return len(self.server().execute(self.processes)) - 1

    def settled(self, most):
        """Sessions end soon after their clients have."""
        end = monotonic() + 5
        while self.sessions() > most:
            self.assertLess(monotonic(), end, self.server().execute(self.processes))

    def test_a_restart_between_lookups_goes_unnoticed(self):
        self.server().restart()
        self.assertEqual(self.accounts.find("piet"), PIET)
        self.assertEqual(self.accounts.all(), [PIET])

    def test_a_connection_that_was_idle_for_long_is_not_waited_for(self):
        accounts = self.accounts
        accounts.find("piet")
        (before,) = accounts._database._open
        accounts.find("piet")
        self.assertEqual(accounts._database._open, [before])
        self.patch(engine, "_IDLE", -1)
        self.assertEqual(accounts.find("piet"), PIET)
        (after,) = accounts._database._open
        self.assertIsNot(after, before)
        self.assertTrue(before.closed)
        self.settled(2)

    def test_a_server_that_is_gone_and_comes_back(self):
        self.server().kill()
        try:
            for _ in range(3):
                self.unavailable(self.accounts)
            self.assertRaises(Unavailable, self.accounts.insert, PIET)
        finally:
            self.server().start()
        self.assertEqual(self.accounts.find("piet"), PIET)
        self.settled(1)

    def test_killed_during_a_lookup(self):
        results = []

        def look_up():
            try:
                results.append(self.accounts.find("piet"))
            except Unavailable as error:
                results.append(error)

        self.patch(engine, "SECONDS", 20)
        self.accounts.close()
        with self.locked():
            asking = threading.Thread(target=look_up)
            asking.start()
            end = monotonic() + 10
            while not self.server().execute(self.waiting):
                self.assertLess(monotonic(), end)
            self.server().kill()
        asking.join(10)
        self.server().start()
        self.assertIsInstance(results[0], Unavailable)
        self.assertEqual(self.accounts.find("piet"), PIET)

    def test_a_line_that_is_dead(self):
        forwarder, accounts = self.through()
        self.assertEqual(accounts.find("piet"), PIET)
        forwarder.dead = True
        self.unavailable(accounts)
        self.unavailable(accounts)  # on a connection that is only begun
        forwarder.dead = False
        self.assertEqual(accounts.find("piet"), PIET)

    def test_a_lock(self):
        for _ in range(3):
            with self.locked():
                self.unavailable(self.accounts)
        self.assertEqual(self.accounts.find("piet"), PIET)
        self.settled(1)

    def test_too_many_connections(self):
        self.accounts.close()
        taken = []
        try:
            with self.assertRaises(self.full):
                for _ in range(2 * CONNECTIONS):
                    taken.append(self.connect())
            self.unavailable(self.accounts, "(?i)too many")
        finally:
            for each in taken:
                each.close()
        self.settled(0)
        self.assertEqual(self.accounts.find("piet"), PIET)

    def test_what_holds_of_all_threads(self):
        """Each thread has a connection at the most, whatever happened to the ones before."""
        found = []
        barrier = threading.Barrier(4)

        def look_up():
            for _ in range(5):
                barrier.wait(10)
                try:
                    found.append(self.accounts.find("piet"))
                except Unavailable:
                    found.append(None)

        threads = [threading.Thread(target=look_up) for _ in range(4)]
        for thread in threads:
            thread.start()
        self.server().restart()
        for thread in threads:
            thread.join(30)
        self.assertEqual(self.accounts.find("piet"), PIET)
        self.assertEqual(len(found), 20)
        self.assertLessEqual({*found}, {PIET, None})
        self.assertLessEqual(self.accounts._database.engine.pool.checkedout(), 5)
        self.settled(15)


class PostgreSQLTests(ServerContract, OnPostgreSQL, SynchronousTestCase):
    processes = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    full = psycopg.OperationalError

    def by_port(self, port):
        return self.server().standing().set(query={"host": "127.0.0.1", "port": str(port)})

    def connect(self):
        return psycopg.connect(host=str(self.server().directory), user="msa", dbname=STANDING)

    def locked(self):
        connection = self.connect()
        connection.execute("LOCK TABLE account")
        return closing(connection)

    def test_options_in_the_url_count(self):
        """Else another schema's table of the same name could say who may log in."""
        url = self.server().standing().update_query_dict({"options": "-c search_path=elsewhere"})
        with self.engine(url).connect() as connection:
            self.assertEqual(connection.scalar(text("SHOW search_path")), "elsewhere")
            self.assertEqual(connection.scalar(text("SHOW lock_timeout")), "300ms")

    def test_a_table_that_has_changed(self):
        """A plan that was prepared for the former one fails, with its connection."""
        for _ in range(10):
            self.accounts.find("piet")
        with self.accounts._database.writing() as connection:
            connection.execute(text("ALTER TABLE account ALTER COLUMN password_hash TYPE VARCHAR(500)"))
        self.assertRaises(Unavailable, self.accounts.find, "piet")
        self.assertEqual(self.accounts.find("piet"), PIET)


class MariaDBTests(ServerContract, OnMariaDB, SynchronousTestCase):
    processes = "SELECT id FROM information_schema.processlist WHERE user <> 'system user'"
    waiting = "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting for table%lock'"
    full = pymysql.OperationalError

    def by_port(self, port):
        return self.server().standing().set(host="127.0.0.1", port=port, query={})

    def connect(self):
        socket = str(self.server().socket)
        return pymysql.connect(unix_socket=socket, user="root", database=STANDING, ssl_disabled=True)

    def locked(self):
        connection = self.connect()
        connection.cursor().execute("LOCK TABLE account WRITE")
        return closing(connection)
