"""The printed commands; ``test_admin_sandbox`` runs them."""

import shlex
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.admin.recipes import Sandbox, recipes

ODD = Sandbox(
    host="127.0.0.1",
    starttls_port=5587,
    implicit_port=5465,
    account="business",
    password="secret",
    realm="overheidstransactiepoort.nl",
    ca=Path("/home/my user's $HOME/ca.pem"),
    maildir=Path("/tmp/maildir"),
)


class Recipes(SynchronousTestCase):
    """One for each client that the issue names."""

    def test_clients(self) -> None:
        first = {command.split()[0] for command in recipes(ODD).values()}
        self.assertEqual(first, {"swaks", "printf", "gsasl", "python3", "openssl"})
        self.assertEqual(sum("| curl " in command for command in recipes(ODD).values()), 2)

    def test_quoted(self) -> None:
        """A folder's odd name is one word to the shell, and one string to Python."""
        for client, command in recipes(ODD).items():
            words = shlex.split(command)
            if client == "Python's smtplib":
                compile(words[2], "recipe", "exec")
                self.assertIn(str(ODD.ca), words[2])
            else:
                self.assertTrue(any(word.endswith(str(ODD.ca)) for word in words), command)

    def test_document(self) -> None:
        """What a script reads."""
        self.assertEqual(
            ODD.document(pid=7),
            {
                "host": "127.0.0.1",
                "ports": {"starttls": 5587, "implicit": 5465},
                "account": "business",
                "password": "secret",
                "realm": "overheidstransactiepoort.nl",
                "ca": "/home/my user's $HOME/ca.pem",
                "maildir": "/tmp/maildir",
                "pid": 7,
            },
        )
