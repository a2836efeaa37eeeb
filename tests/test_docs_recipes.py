"""The client recipes of the documentation, taken from its page and run against a sandbox."""

import json
import subprocess
import sys
from pathlib import Path
from threading import Timer

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.admin.recipes import RECIPIENT, SENDER, Sandbox, recipes
from tests.requirements import proves
from tests.shell import environment

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import client_recipes  # noqa: E402

PAGE = (DOCS / "integrating.rst").read_text(encoding="utf-8")
BLOCKS = client_recipes.blocks(PAGE.replace(".. include:: generated/clients.inc\n", client_recipes.text()))


class PageTests(SynchronousTestCase):
    """The page has the sandbox's own recipes, and the placeholders come back out of it."""

    def test_every_client(self) -> None:
        facts = Sandbox("127.0.0.1", 2587, 2465, "me", "secret", "r.nl", Path("/ca.pem"), Path("/maildir"))
        filled_in = {client_recipes.filled_in(block, facts).replace(" \\\n    ", " ") for block in BLOCKS}
        for client, command in recipes(facts).items():
            self.assertIn(command.strip(), filled_in, client)

    def test_no_placeholder_is_left(self) -> None:
        facts = Sandbox("127.0.0.1", 2587, 2465, "me", "secret", "r.nl", Path("/ca.pem"), Path("/maildir"))
        for block in BLOCKS:
            filled_in = client_recipes.filled_in(block, facts)
            for placeholder in ("msa.example.nl", "ACCOUNT", "PASSWORD", "/path/to", "587 ", "465 "):
                self.assertNotIn(placeholder, filled_in.replace("2587", "").replace("2465", ""))


@proves("A2", "L1", "L2")
class RunningTests(SynchronousTestCase):
    """Each of them, as it would be typed into a shell."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        program = "from digipoort_msa.admin.commands import main; main()"
        ports = ["--starttls-port", "0", "--implicit-port", "0"]
        server = subprocess.Popen(
            [sys.executable, "-u", "-c", program, "sandbox", "--directory", str(self.folder / "msa"), *ports],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        limit = Timer(300, server.kill)
        limit.start()
        self.addCleanup(limit.cancel)
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.printed = iter(server.stdout)
        if "ready\n" not in self.printed:
            raise AssertionError("the sandbox ended before it was ready")
        facts = json.loads((self.folder / "msa" / "sandbox.json").read_text())
        self.sandbox = Sandbox(
            host=facts["host"],
            starttls_port=facts["ports"]["starttls"],
            implicit_port=facts["ports"]["implicit"],
            account=facts["account"],
            password=facts["password"],
            realm=facts["realm"],
            ca=Path(facts["ca"]),
            maildir=Path(facts["maildir"]),
        )

    def run_block(self, block: str, typed: str = "") -> str:
        command = client_recipes.filled_in(block, self.sandbox)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command],
            cwd=self.folder,
            env=environment(),
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def test_every_recipe(self) -> None:
        """All that say that they send a message send one; openssl gets its dialogue typed in."""
        (token_block,) = [block for block in BLOCKS if block.endswith("| base64")]
        dialogue = (
            f"AUTH PLAIN {self.run_block(token_block).strip()}",
            f"MAIL FROM:<{SENDER}>",
            f"RCPT TO:<{RECIPIENT}>",
            "DATA",
            "Subject: typed\n\nHello.\n.",
            "QUIT",
        )
        sent = 0
        for block in BLOCKS:
            said = self.run_block(block, "\n".join(dialogue) + "\n" if block.startswith("openssl") else "")
            if block.startswith("openssl"):
                self.assertIn("235 2.7.0", said)
                self.assertIn("250 2.0.0 Ok: queued as ", said)
            if block.endswith("--quit-after EHLO"):
                self.assertIn("AUTH DIGEST-MD5\n", said.replace("\r", ""))
                self.assertIn("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 DIGEST-MD5 PLAIN LOGIN", said)
            else:
                sent += not block.startswith("gsasl") and block != token_block
        new = self.sandbox.maildir / "new"
        for line in self.printed:  # delivery follows the 250
            if " delivered to " in line and len(list(new.iterdir())) >= sent:
                break
        self.assertEqual(len(list(new.iterdir())), sent)
        self.assertGreaterEqual(sent, 9)
