import json
import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.account_commands import AccountCommands
from tests.requirements import proves


class AccountCommandTests(AccountCommands, SynchronousTestCase):
    def test_add_from_standard_input(self):
        for number, stdin in enumerate((b"geheim", b"geheim\n", b"geheim\r\n")):
            self.succeed("add", f"piet{number}", "--password-stdin", stdin=stdin)
            self.assert_password(f"piet{number}", "geheim")
        self.succeed("add", "jan", "--password-stdin", stdin=b"a b ")
        self.assert_password("jan", "a b ")

    def test_add_with_a_prompt(self):
        result = self.run_command("add", "piet", stdin="geheim\ngeheim\n")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertNotIn("geheim", result.output)
        self.assert_password("piet", "geheim")
        self.fail_with("do not match", "add", "jan", stdin="a\nb\n")
        self.assertIsNone(self.stored("jan"))

    def test_add_generated(self):
        shown = self.succeed("add", "piet", "--generate")
        self.assert_password("piet", shown.split("password: ")[1].strip())

    @proves("A7")
    def test_the_realm_decides_on_digest_secrets(self):
        self.succeed("add", "piet", "--generate")
        self.succeed("add", "piet", "--generate", "--realm", "two.nl")
        self.assertEqual(len(self.stored("piet").digest_secrets), 2)
        self.assertEqual(self.stored("piet", "two.nl").digest_secrets, ())

    def test_the_realm_decides_on_scram_keys(self):
        """With each password: whoever is given a new one can log in with SCRAM at once."""
        for realm, iterations in (("two.nl", None), ("prepared.nl", 4096), ("scram.nl", 4097)):
            kept = []
            for command, password in (("add", "geheim"), ("password", "geheimer")):
                self.succeed(command, "piet", "--realm", realm, "--password-stdin", stdin=password)
                kept.append(self.stored("piet", realm).scram)
                if iterations is None:
                    self.assertIsNone(kept[-1])
                else:
                    self.assertEqual(kept[-1], ScramKeys.of(password, kept[-1].salt, iterations))
                    self.assertEqual(len({keys.salt for keys in kept}), len(kept))

    def test_json(self):
        added = json.loads(self.succeed("add", "piet", "--generate", "--json"))
        self.assert_password("piet", added.pop("password"))
        shown = json.loads(self.succeed("show", "piet", "--json"))
        self.assertEqual(shown.pop("logins"), [])
        self.assertEqual(shown, added)
        self.assertEqual(json.loads(self.succeed("list", "--json")), [added])
        self.assertEqual(json.loads(self.succeed("list", "--realm", "two.nl", "--json")), [])
        self.assertEqual(json.loads(self.succeed("disable", "piet", "--json"))["status"], "disabled")
        self.assertEqual(json.loads(self.succeed("enable", "piet", "--json"))["status"], "active")
        self.assertNotIn("password", json.loads(self.succeed("remove", "piet", "--yes", "--json")))
        self.assertEqual(
            {key: added[key] for key in ("name", "realm", "status", "digest_md5")},
            {"name": "piet", "realm": "one.nl", "status": "active", "digest_md5": True},
        )

    def test_tables(self):
        self.succeed("add", "piet", "--generate")
        self.succeed("disable", "piet")
        lines = self.succeed("list").splitlines()
        self.assertEqual(
            lines[0].split(), ["NAME", "STATUS", "DIGEST-MD5", "SCRAM", "EXPIRES", "CREATED", "CHANGED"]
        )
        self.assertEqual(lines[1].split()[:3], ["piet", "disabled", "yes"])
        self.assertIn("disabled", self.succeed("show", "piet"))

    @proves("A7")
    def test_no_verifier_is_ever_shown(self):
        self.succeed("add", "piet", "--password-stdin", stdin="geheim")
        secret = self.stored("piet").digest_secrets[0].hex()
        for arguments in (("show", "piet"), ("list",)):
            for more in ((), ("--json",)):
                shown = self.succeed(*arguments, *more)
                for hidden in ("argon2", "geheim", secret):
                    self.assertNotIn(hidden, shown)

    def test_password(self):
        self.succeed("add", "piet", "--generate")
        self.succeed("password", "piet", "--password-stdin", stdin="anders")
        self.assert_password("piet", "anders")
        shown = json.loads(self.succeed("password", "piet", "--generate", "--json"))
        self.assert_password("piet", shown["password"])

    def test_remove_asks(self):
        self.succeed("add", "piet", "--generate")
        self.assertEqual(self.run_command("remove", "piet", stdin="n\n").exit_code, 1)
        self.assertEqual(self.run_command("remove", "piet", stdin="").exit_code, 1)
        self.assertIsNotNone(self.stored("piet"))
        self.succeed("remove", "piet", stdin="y\n")
        self.assertIsNone(self.stored("piet"))

    def test_errors(self):
        self.succeed("add", "piet", "--generate")
        self.fail_with("already", "add", "piet")
        self.fail_with("no account 'jan'", "show", "jan")
        self.fail_with("no account 'jan'", "password", "jan")
        self.fail_with("no account 'jan'", "remove", "jan")
        self.fail_with("empty", "add", "jan", "--password-stdin", stdin="")
        self.fail_with("not UTF-8", "add", "jan", "--password-stdin", stdin=b"\xff")
        self.fail_with("1024 octets", "add", "jan", "--password-stdin", stdin="x" * 3000)
        self.fail_with("1024 octets", "add", "jan", "--password-stdin", stdin="\xe9" * 3000)
        self.fail_with("control character", "add", "j\nan", "--generate")
        self.fail_with("@two.nl", "add", "jan@two.nl", "--generate")
        self.fail_with("exclude", "add", "jan", "--generate", "--password-stdin", status=2)
        self.fail_with("one.nl, two.nl", "list", "--realm", "three.nl", status=2)

    def test_a_database_that_cannot_be_used(self):
        self.succeed("list")
        (self.state / "accounts.sqlite").write_bytes(b"not a database" * 1000)
        for path in self.state.glob("accounts.sqlite-*"):
            path.unlink()
        self.fail_with("cannot be reached", "list")

    def test_a_state_directory_that_cannot_be_used(self):
        with mock.patch.object(os, "link", side_effect=PermissionError(13, "Permission denied", "x")):
            self.fail_with("Permission denied", "list")
