import json
import sqlite3
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.keyring import read_keys, write_keys
from tests.account_commands import AccountCommands
from tests.requirements import proves

NEW, FORMER = bytes([2]) * 32, bytes([1]) * 32
THIRD = """
[[realm]]
name = "three.nl"
store = "sql"
mechanisms = ["SCRAM-SHA-256", "DIGEST-MD5"]
[realm.sql]
"""


class MigrateTests(AccountCommands, SynchronousTestCase):
    def test_made_and_up_to_date(self):
        self.assertIn("CREATE TABLE account ", self.succeed("migrate", "--sql"))
        self.assertIn("are made", self.succeed("migrate"))
        self.assertIn("were up to date", self.succeed("migrate"))
        self.assertEqual(self.succeed("migrate", "--sql"), "")

    def test_a_later_version(self):
        self.succeed("migrate")
        with closing(sqlite3.connect(self.state / "accounts.sqlite")) as connection, connection:
            connection.execute("UPDATE account_schema SET version = 3")
        for command in ("migrate", "list"):
            self.fail_with("of version 3, and this release knows version 2", command)


@proves("A7")
class RekeyTests(AccountCommands, SynchronousTestCase):
    def setUp(self):
        super().setUp()
        self.succeed("add", "piet", "--generate")
        self.key = self.state / "accounts.key"

    def configure(self, more):
        self.config.write_text(self.config.read_text() + more)

    def test_a_new_key(self):
        before, secrets = read_keys(self.key), self.stored("piet").digest_secrets
        said = self.succeed("rekey")
        self.assertIn("1 accounts were sealed anew", said)
        self.assertEqual(len(read_keys(self.key)), 1)
        self.assertNotEqual(read_keys(self.key), before)
        self.assertEqual(self.stored("piet").digest_secrets, secrets)

    def test_broken_off(self):
        write_keys(self.key, (NEW, *read_keys(self.key)))
        self.assertIn("finishes what was broken off", self.succeed("rekey"))
        self.assertEqual(read_keys(self.key), (NEW,))
        self.assertEqual(len(self.stored("piet").digest_secrets), 2)

    def test_one_realm_keeps_the_former_key(self):
        self.assertIn("stays until", self.succeed("rekey", "--realm", "two.nl"))
        self.assertEqual(len(read_keys(self.key)), 2)
        self.assertEqual(len(self.stored("piet").digest_secrets), 2)
        self.assertIn("finishes", self.succeed("rekey"))
        self.assertEqual(len(self.stored("piet").digest_secrets), 2)

    def test_a_realm_that_is_in_no_setting_any_more(self):
        secrets = self.stored("piet").digest_secrets
        whole = self.config.read_text()
        self.config.write_text(whole.replace('"one.nl"', '"renamed.nl"'))
        self.succeed("rekey")
        self.config.write_text(whole)
        self.assertEqual(self.stored("piet").digest_secrets, secrets)

    def test_a_realm_whose_accounts_are_elsewhere_now(self):
        """Its rows are there still, for when it comes back."""
        secrets = self.stored("piet").digest_secrets
        whole = self.config.read_text()
        self.config.write_text(
            whole.replace('"one.nl"', f'"one.nl"\nsql = {{ url = "sqlite:///{self.state}/new.sqlite" }}')
        )
        self.succeed("rekey")
        self.config.write_text(whole)
        self.assertEqual(self.stored("piet").digest_secrets, secrets)

    def test_a_file_of_the_operators(self):
        mine = self.state / "mine"
        mine.touch(0o600)
        write_keys(mine, (FORMER,))
        self.configure(THIRD + f'key-file = "{mine}"\n')
        self.succeed("add", "jan", "--generate", "--realm", "three.nl")
        write_keys(mine, (NEW, FORMER))
        said = json.loads(self.succeed("rekey", "--json"))
        self.assertEqual(
            [(each["file"], each["sealed"], each["former_keys"]) for each in said],
            [(str(self.key), 1, 0), (str(mine), 1, 1)],
        )
        self.assertEqual([each["unreadable"] for each in said], [[], []])  # of one database, but of two keys
        self.assertEqual(read_keys(mine), (NEW, FORMER))
        write_keys(mine, (NEW,))
        self.assertTrue(json.loads(self.succeed("show", "jan", "--realm", "three.nl", "--json"))["scram"])
        self.assertIn("were sealed anew", self.succeed("rekey", "--realm", "three.nl"))
        write_keys(mine, (FORMER, NEW))
        self.assertIn("sealed anew; the former keys (1) may be taken out", self.succeed("rekey"))

    def test_a_database_that_is_down(self):
        """It says which, and makes no key yet."""
        before = self.key.read_bytes()
        self.configure(THIRD + 'url = "postgresql://msa@127.0.0.1:1/x"\n')
        self.fail_with("the accounts of realm three.nl cannot be reached", "rekey")
        self.assertEqual(self.key.read_bytes(), before)

    def test_a_database_that_goes_down(self):
        with closing(sqlite3.connect(self.state / "accounts.sqlite")) as connection, connection:
            connection.execute("ALTER TABLE account RENAME COLUMN scram TO lost")
        self.fail_with("run it again to finish: those of realm one.nl: ", "rekey")

    def test_what_no_key_opens(self):
        write_keys(self.key, (NEW,))
        result = self.run_command("rekey")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("no key opens what piet in realm one.nl has", result.stderr)


class ElsewhereTests(AccountCommands, SynchronousTestCase):
    def test_accounts_that_are_kept_elsewhere(self):
        query = "SELECT n AS name, 1 AS active, h AS password_hash FROM t WHERE n = :name"
        self.config.write_text(
            self.config.read_text() + THIRD + f'url = "sqlite:///{self.state}/x"\naccount-query = "{query}"\n'
        )
        for command in (
            ("add", "piet", "--generate"),
            ("list",),
            ("password", "piet", "--generate"),
            ("disable", "piet"),
            ("remove", "piet", "--yes"),
            ("expire", "piet", "never"),
            ("addresses", "piet"),
            ("migrate",),
            ("rekey",),
        ):
            self.fail_with("realm three.nl are kept elsewhere", *command, "--realm", "three.nl")
