import json
from datetime import UTC, date, datetime

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.account import Status
from tests.account_commands import AccountCommands


class AccountFactsTests(AccountCommands, SynchronousTestCase):
    def setUp(self):
        super().setUp()
        self.succeed("add", "piet", "--generate")

    def facts(self):
        return json.loads(self.succeed("show", "piet", "--json"))

    def test_expire(self):
        said = self.succeed("expire", "piet", "2027-03-31")
        self.assertIn("until 2027-03-31, that day included", said)
        self.assertEqual(self.stored("piet").expires, datetime(2027, 4, 1, tzinfo=UTC))
        self.assertEqual(self.facts()["expires"], "2027-04-01T00:00:00+00:00")
        self.succeed("expire", "piet", "2001-01-01")
        self.assertIs(self.stored("piet").status, Status.EXPIRED)
        self.assertIn("expired", self.succeed("list"))
        self.succeed("expire", "piet", "never")
        self.assertIsNone(self.facts()["expires"])
        self.succeed("add", "jan", "--generate", "--expires", "2001-01-01")
        self.assertIs(self.stored("jan").status, Status.EXPIRED)

    def test_digest_until(self):
        self.succeed("digest-until", "piet", "2027-03-31")
        self.assertEqual(self.stored("piet").digest_until, date(2027, 3, 31))
        self.assertEqual(self.facts()["digest_md5_until"], "2027-03-31")
        self.assertIn("as long as its realm does", self.succeed("digest-until", "piet", "never"))
        self.assertIsNone(self.stored("piet").digest_until)

    def test_addresses(self):
        self.succeed("addresses", "piet", "--add", "*@a.nl", "--add", "b@b.nl")
        self.succeed("addresses", "piet", "--add", "c@c.nl", "--remove", "b@b.nl", "--json")
        self.assertEqual(self.stored("piet").addresses, ("*@a.nl", "c@c.nl"))
        self.assertEqual(self.succeed("addresses", "piet"), "*@a.nl\nc@c.nl\n")
        self.assertEqual(self.facts()["addresses"], ["*@a.nl", "c@c.nl"])
        self.succeed("addresses", "piet", "--remove", "*@a.nl", "--remove", "c@c.nl")
        self.assertIn("no addresses", self.succeed("addresses", "piet"))

    def test_groups(self):
        self.succeed("groups", "piet", "--add", "b", "--add", "a")
        self.assertEqual(self.stored("piet").groups, {"a", "b"})
        self.assertEqual(self.succeed("groups", "piet"), "a\nb\n")
        self.succeed("groups", "piet", "--remove", "a")
        self.assertEqual(self.facts()["groups"], ["b"])

    def test_errors(self):
        for arguments, words, status in (
            (("expire", "piet", "soon"), "'soon' is no date such as 2027-03-31, nor never", 2),
            (("expire", "piet", "9999-12-31"), "too far away", 1),
            (("expire", "jan", "never"), "no account 'jan'", 1),
            (("digest-until", "piet", "2027-02-30"), "is no date", 2),
            (("digest-until", "jan", "never"), "no account 'jan'", 1),
            (("add", "jan", "--generate", "--expires", "never"), "is no date", 2),
            (("addresses", "piet", "--add", "a.nl"), "is not an address", 1),
            (("addresses", "piet", "--add", "\x9b31m*@a.nl"), "'\\x9b31m*@a.nl' is not an address", 1),
            (("addresses", "piet", "--remove", "a@a.nl"), "is no address of piet", 1),
            (("addresses", "jan"), "no account 'jan'", 1),
            (("groups", "piet", "--add", " "), "cannot be a group's name", 1),
            (("groups", "piet", "--remove", "g"), "is no group of piet", 1),
        ):
            self.fail_with(words, *arguments, status=status)

    def test_a_password_leaves_the_rest(self):
        self.succeed("expire", "piet", "2027-03-31")
        self.succeed("addresses", "piet", "--add", "*@a.nl")
        before = self.facts()
        self.succeed("password", "piet", "--generate")
        self.assertEqual({**self.facts(), "changed": None}, {**before, "changed": None})
