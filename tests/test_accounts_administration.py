from datetime import timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.administration import AccountError, Administration, generated_password
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.sasl.digest_md5 import digest_secrets
from tests.account_doubles import NOW, CountingHashing
from tests.requirements import proves


class AdministrationTests(SynchronousTestCase):
    def setUp(self):
        self.now = NOW
        self.hashing = CountingHashing()
        self.state = Path(self.mktemp())
        self.one = self.administration()

    def administration(self, digest=True):
        accounts = open_accounts(realm="one.nl", url=None, state_directory=self.state)
        self.addCleanup(accounts.close)
        return Administration(
            accounts, self.hashing, digest=digest, realms=["one.nl", "two.nl"], now=lambda: self.now
        )

    def assert_error(self, words, call, *arguments):
        error = self.assertRaises(AccountError, call, *arguments)
        self.assertIn(words, str(error))

    @proves("A7")
    def test_add(self):
        added = self.one.add("piet", "geheim")
        self.assertEqual((added.name, added.realm, added.status), ("piet", "one.nl", Status.ACTIVE))
        self.assertEqual((added.created, added.changed), (NOW, NOW))
        self.assertTrue(self.hashing.verify("geheim", added.password_hash))
        self.assertEqual(self.one.list(), [added])

    @proves("A4", "A7")
    def test_digest_secrets_for_both_spellings_of_the_name(self):
        kept = self.one.add("jos\u00e9", "p\u00e1ss").digest_secrets
        for spelling in ("jos\u00e9", "jos\u00e9@one.nl"):
            for secret in digest_secrets(spelling, "one.nl", "p\u00e1ss"):
                self.assertIn(secret, kept)
        self.assertEqual(len(kept), 8)
        self.assertEqual(len(self.one.add("piet", "geheim").digest_secrets), 2)

    @proves("A7")
    def test_no_digest_secrets_where_the_realm_does_not_offer_it(self):
        without = self.administration(digest=False)
        self.assertEqual(without.add("jan", "geheim").digest_secrets, ())
        self.one.add("piet", "geheim")
        without.set_password("piet", "anders")
        self.assertEqual(without.get("piet").digest_secrets, ())

    @proves("A4")
    def test_saslprep(self):
        """A no-break space is a space, a soft hyphen nothing, a ligature its letters (RFC 4013)."""
        added = self.one.add("I\u00adX\ufb01", "a\u00a0b")
        self.assertEqual(added.name, "IXfi")
        self.assertTrue(self.hashing.verify("a b", added.password_hash))
        self.assertEqual(self.one.get("IX\ufb01"), added)

    def test_names_that_cannot_be(self):
        for name, words in {
            "": "empty",
            "\u00ad": "nothing is left",
            "pi\net": "control character",
            "pi\0et": "control character",
            "piet ": "space",
            "x" * 256: "256 characters",
            "piet@one.nl": "@one.nl",
            "piet@TWO.nl": "@two.nl",
            "\u06271": "RFC 3454",
            "\ue000": "private use",
        }.items():
            self.assert_error(words, self.one.add, name, "geheim")
        self.assertEqual(self.one.list(), [])

    def test_other_addresses_are_names(self):
        self.assertEqual(self.one.add("info@bedrijf.nl", "geheim").name, "info@bedrijf.nl")

    def test_passwords_that_cannot_be(self):
        self.one.add("piet", "geheim")
        for password, words in {
            "": "empty",
            "a\tb": "control character",
            "x" * 1025: "1024 octets",
        }.items():
            self.assert_error(words, self.one.add, "jan", password)
            self.assert_error(words, self.one.set_password, "piet", password)
            if password:
                error = self.assertRaises(AccountError, self.one.add, "jan", password)
                self.assertNotIn(password, str(error))

    def test_taken(self):
        self.one.check_free("piet")
        self.one.add("piet", "geheim")
        self.assert_error("already", self.one.add, "piet", "anders")
        self.assert_error("already", self.one.check_free, "piet")

    def test_unknown(self):
        for call in (self.one.get, self.one.enable, self.one.disable, self.one.remove):
            self.assert_error("no account 'piet'", call, "piet")
        self.assert_error("no account 'piet'", self.one.set_password, "piet", "geheim")

    def test_changes(self):
        added = self.one.add("piet", "geheim")
        self.now += timedelta(hours=1)
        self.one.disable("piet")
        disabled = self.one.get("piet")
        self.assertIs(disabled.status, Status.DISABLED)
        self.assertEqual((disabled.created, disabled.changed), (added.created, self.now))
        self.one.set_password("piet", "anders")
        self.assertIs(self.one.get("piet").status, Status.DISABLED)
        self.one.enable("piet")
        self.assertTrue(self.one.get("piet").may_log_in)
        self.assertTrue(self.hashing.verify("anders", self.one.get("piet").password_hash))
        self.one.remove("piet")
        self.assertEqual(self.one.list(), [])


class GeneratedPasswordTests(SynchronousTestCase):
    def test_unambiguous_and_long(self):
        passwords = {generated_password() for _ in range(200)}
        self.assertEqual(len(passwords), 200)
        self.assertEqual({len(password) for password in passwords}, {24})
        self.assertEqual(set("".join(passwords)) & set("0Oo1Iil"), set())
