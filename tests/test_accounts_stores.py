from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.stores import open_accounts
from tests.account_doubles import account

SECRETS = (b"0123456789abcdef",)


class OpenAccountsTests(SynchronousTestCase):
    def setUp(self):
        self.state = Path(self.mktemp()) / "state"

    def open(self, realm="one.nl", url=None):
        accounts = open_accounts(realm=realm, url=url, state_directory=self.state)
        self.addCleanup(accounts.close)
        return accounts

    def test_one_file_for_all_realms(self):
        self.open().insert(account(digest_secrets=SECRETS))
        self.open("two.nl").insert(account(realm="two.nl", digest_secrets=SECRETS))
        self.assertEqual(self.open().find("piet").digest_secrets, SECRETS)
        self.assertTrue((self.state / "accounts.sqlite").exists())
        self.assertTrue((self.state / "accounts.key").exists())
        self.assertEqual(self.state.stat().st_mode & 0o777, 0o700)

    def test_url(self):
        path = Path(self.mktemp()).absolute()
        self.open(url=f"sqlite:///{path}").insert(account())
        self.assertTrue(path.exists())
        self.assertFalse((self.state / "accounts.sqlite").exists())

    def test_a_lost_key_is_not_replaced_in_silence(self):
        self.open().insert(account(digest_secrets=SECRETS))
        key = self.state / "accounts.key"
        octets = key.read_bytes()
        key.unlink()
        self.assertIn("put it back", str(self.assertRaises(ValueError, self.open)))
        self.assertFalse(key.exists())
        key.write_bytes(octets)
        self.assertEqual(self.open().find("piet").digest_secrets, SECRETS)

    def test_what_is_wrong_is_said(self):
        self.assertIn("URL", str(self.assertRaises(ValueError, self.open, url="what")))
        (self.state / "accounts.key").write_bytes(b"short")
        self.assertIn("accounts.key", str(self.assertRaises(ValueError, self.open)))
        self.state = self.state / "accounts.key"
        self.assertRaises(OSError, self.open)
