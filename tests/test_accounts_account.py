from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.account import Status
from tests.account_doubles import account
from tests.requirements import proves


class AccountTests(SynchronousTestCase):
    def test_only_an_active_account_may_log_in(self):
        for status in Status:
            self.assertEqual(account(status=status).may_log_in, status is Status.ACTIVE)

    @proves("A7")
    def test_repr_shows_no_verifier(self):
        shown = repr(account(password_hash="$argon2id$x", digest_secrets=(b"0123456789abcdef",)))
        self.assertNotIn("argon2id", shown)
        self.assertNotIn("0123456789", shown)
