from itertools import islice
from pathlib import Path

from attrs import evolve
from sqlalchemy import event, text
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.keyring import Keyring, read_keys, write_keys
from digipoort_msa.accounts.rekeying import rekey
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.account_doubles import NOW, account
from tests.databases import OnMariaDB, OnPostgreSQL, OnSQLite
from tests.requirements import proves

KEYS = ScramKeys(b"salt of sixteen!", 4096, bytes(range(32)), bytes(range(32, 64)))
PIET = account(password_hash="hash", digest_secrets=(b"0123456789abcdef",))
FORMER = bytes([1]) * 32
ROWS = 7


@proves("A7")
class RekeyContract:
    def setUp(self):
        self.url = self.without_accounts()
        self.key = Path(self.mktemp()).absolute()
        self.key.write_bytes(FORMER)
        self.running = self.open()  # the MSA
        for number in range(ROWS):
            self.running.insert(evolve(PIET, name=f"piet{number}", scram=KEYS))
        self.running.insert(evolve(PIET, name="without", digest_secrets=()))

    def open(self):
        accounts = SQLAccounts(self.engine(self.url), "one.nl", Keyring(self.key), lambda: NOW)
        self.addCleanup(accounts.close)
        return accounts

    def rekey(self, **how):
        return rekey(self.key, [self.open()], **{"own": True, **how})

    def assert_whole(self, accounts):
        for number in range(ROWS):
            found = accounts.find(f"piet{number}")
            self.assertEqual((found.digest_secrets, found.scram), (PIET.digest_secrets, KEYS))

    def test_a_new_key(self):
        outcome = self.rekey()
        self.assertEqual((outcome.sealed, outcome.unreadable, outcome.resumed), (ROWS, (), False))
        (key,) = read_keys(self.key)
        self.assertNotEqual(key, FORMER)
        self.assert_whole(self.running)
        self.assert_whole(self.open())
        self.assertEqual(self.rekey().sealed, ROWS)

    def test_killed_anywhere(self):
        """It goes on where it was, makes no further key, and everything is readable at each moment."""
        for turns in range(4):
            write_keys(self.key, (bytes([2]) * 32, *read_keys(self.key)))  # the first step
            list(islice(self.open().reseal(count=3), turns))
            self.assert_whole(self.running)
            self.assert_whole(self.open())
            outcome = self.rekey()
            self.assertTrue(outcome.resumed)
            self.assertEqual(outcome.sealed, max(0, ROWS - 3 * turns))
            self.assertEqual(read_keys(self.key), (bytes([2]) * 32,))
            self.assert_whole(self.running)
            write_keys(self.key, (FORMER, bytes([2]) * 32))
            self.rekey()

    def test_what_is_written_meanwhile(self):
        """The running MSA stores what it sealed with the former key after the row had been looked at."""
        writing = self.open()

        def begun_and_passed(connection, cursor, statement, *rest):
            if statement.startswith("UPDATE") and len(read_keys(self.key)) == 1:
                write_keys(self.key, (bytes([2]) * 32, FORMER))

        event.listen(writing._database.engine, "before_cursor_execute", begun_and_passed)
        self.assertTrue(writing.upgrade(writing.find("without"), None, KEYS))
        write_keys(self.key, (bytes([2]) * 32,))  # as if the rows had been sealed anew just before the write
        self.assertEqual(self.open().find("without").scram, KEYS)

    def test_what_is_written_meanwhile_and_another_thread_has_seen_the_new_key(self):
        """Whoever sealed with the former key looks whether that is the key still, whoever noticed first."""
        writing = self.open()

        def begun_and_passed(connection, cursor, statement, *rest):
            if statement.startswith("UPDATE") and len(read_keys(self.key)) == 1:
                write_keys(self.key, (bytes([2]) * 32, FORMER))
                self.assertTrue(writing._seal.refresh())

        event.listen(writing._database.engine, "before_cursor_execute", begun_and_passed)
        self.assertTrue(writing.upgrade(writing.find("without"), None, KEYS))
        write_keys(self.key, (bytes([2]) * 32,))
        self.assertEqual(self.open().find("without").scram, KEYS)

    def test_two_at_once(self):
        """The second makes no key of its own, with which the first would seal nothing."""
        inner = []

        def second(rows):
            if not inner:
                inner.append(None)
                with self.assertRaisesRegex(ValueError, "account rekey runs already"):
                    self.rekey()

        self.assertEqual(self.rekey(progress=second).sealed, ROWS)
        self.assertEqual(inner, [None])
        self.assert_whole(self.open())
        self.assertEqual(self.rekey().sealed, ROWS)

    def test_the_operators_file_is_not_written(self):
        keys = (bytes([2]) * 32, FORMER)
        write_keys(self.key, keys)
        outcome = self.rekey(own=False)
        self.assertEqual((outcome.sealed, outcome.former), (ROWS, 1))
        self.assertEqual(read_keys(self.key), keys)
        self.assertEqual(self.rekey(own=False).sealed, 0)
        write_keys(self.key, keys[:1])
        self.assert_whole(self.open())

    def test_the_former_key_stays_for_others(self):
        outcome = self.rekey(whole=False)
        self.assertEqual((outcome.former, read_keys(self.key)[1:]), (1, (FORMER,)))

    def test_what_no_key_opens(self):
        with self.running._database.writing() as connection:
            connection.execute(
                text("UPDATE account SET scram = digest_secrets WHERE name = :name"),
                {"name": self.name("piet3")},
            )
        outcome = self.rekey()
        self.assertEqual((outcome.sealed, outcome.unreadable), (ROWS - 1, (("one.nl", "piet3"),)))
        self.assertEqual(self.open().find("piet4").scram, KEYS)

    def name(self, text):
        return text

    def test_a_database_that_fails_leaves_the_keys(self):
        with self.running._database.writing() as connection:
            connection.execute(text("DROP TABLE account"))
        self.assertRaises(Unavailable, self.rekey)
        self.assertEqual(read_keys(self.key)[1:], (FORMER,))


class OnSQLiteTests(RekeyContract, OnSQLite, SynchronousTestCase):
    pass


class OnPostgreSQLTests(RekeyContract, OnPostgreSQL, SynchronousTestCase):
    pass


class OnMariaDBTests(RekeyContract, OnMariaDB, SynchronousTestCase):
    def name(self, text):
        return text.encode()
