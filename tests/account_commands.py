"""``digipoort-msa account``, run in this process with a configuration of two realms."""

from pathlib import Path

from click.testing import CliRunner

from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.admin.account import account
from digipoort_msa.admin.console import Console

CONFIGURATION = """
[server]
hostname = "msa.example.nl"
state-directory = "{state}"
[[listener]]
endpoint = "tcp:587"
tls = "starttls"
[[realm]]
name = "one.nl"
[[realm]]
name = "two.nl"
mechanisms = ["PLAIN"]
[[realm]]
name = "prepared.nl"
mechanisms = ["PLAIN"]
prepare-scram = true
scram-iterations = 4096
[[realm]]
name = "scram.nl"
mechanisms = ["SCRAM-SHA-256-PLUS"]
scram-iterations = 4097
[passwords]
memory-kib = 8
time-cost = 1
[delivery.relay]
next-hops = ["core.example.nl:25"]
"""


class AccountCommands:
    """Beside ``TestCase``."""

    def setUp(self):
        self.state = Path(self.mktemp()).absolute()
        self.config = Path(self.mktemp())
        self.config.write_text(CONFIGURATION.format(state=self.state))

    def run_command(self, *arguments, stdin=None):
        return CliRunner().invoke(account, arguments, input=stdin, obj=Console(self.config))

    def succeed(self, *arguments, stdin=None):
        result = self.run_command(*arguments, stdin=stdin)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.stdout

    def fail_with(self, words, *arguments, stdin=None, status=1):
        result = self.run_command(*arguments, stdin=stdin)
        self.assertEqual(result.exit_code, status, result.output)
        self.assertIn(words, result.stderr)
        return result

    def stored(self, name, realm="one.nl"):
        accounts = open_accounts(realm=realm, url=None, state_directory=self.state)
        self.addCleanup(accounts.close)
        return accounts.find(name)

    def assert_password(self, name, password, realm="one.nl"):
        self.assertTrue(PasswordHashing().verify(password, self.stored(name, realm).password_hash))
