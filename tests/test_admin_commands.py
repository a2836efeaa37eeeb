"""``digipoort-msa``: its options, and ``check``."""

import json
import os
import tomllib
from pathlib import Path

import click
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import __version__
from digipoort_msa.admin.commands import main
from digipoort_msa.config import as_document, settings_from, toml_document
from tests.configurations import with_files
from tests.requirements import proves


class Check(SynchronousTestCase):
    """``check`` says what is wrong, or what is in force."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "msa.toml"
        self.tables, self.files = with_files(self.folder)

    def check(self, *arguments: str) -> Result:
        self.path.write_text(toml_document(self.tables))
        return CliRunner().invoke(main, ["--config", str(self.path), "check", *arguments])

    @proves("L5")
    def test_effective_settings(self) -> None:
        """As TOML, defaults and all; as JSON, the same."""
        expected = as_document(settings_from(self.tables))
        result = self.check()
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        self.assertEqual(settings_from(tomllib.loads(result.stdout)), settings_from(self.tables))
        self.assertEqual(json.loads(self.check("--json").stdout), expected)

    def test_problems(self) -> None:
        """Each on a line, all at once, EX_CONFIG."""
        self.tables["limits"] = {"error": 3}
        self.files.certificate.unlink()
        result = self.check()
        self.assertEqual((result.exit_code, result.stdout), (os.EX_CONFIG, ""))
        self.assertEqual(
            result.stderr.splitlines(),
            [
                f"{self.path}: limits.error = 3: unknown key; did you mean errors?",
                f'{self.path}: tls.certificate = "{self.files.certificate}": cannot be read: '
                "No such file or directory",
            ],
        )

    def test_problems_for_a_script(self) -> None:
        self.tables["limits"] = {"error": 3}
        result = self.check("--json")
        self.assertEqual((result.exit_code, result.stderr), (os.EX_CONFIG, ""))
        text = "limits.error = 3: unknown key; did you mean errors?"
        self.assertEqual(json.loads(result.stdout), {"problems": [{"key": "limits.error", "text": text}]})

    def test_what_would_keep_the_service_from_starting(self) -> None:
        """Texts that cannot be used, told once though two realms use them."""
        texts = self.folder / "texts"
        texts.mkdir()
        (texts / "failed.nl.txt").write_text("Subject: x\n\n$nonsense\n")
        self.tables["notification"] = {"templates": str(texts)}
        self.tables["realm"].append({**self.tables["realm"][0], "name": "another.nl"})
        result = self.check()
        self.assertEqual((result.exit_code, result.stdout), (os.EX_CONFIG, ""))
        (line,) = result.stderr.splitlines()
        self.assertIn("notification.templates", line)
        self.assertIn("line 3: $nonsense is not known", line)
        self.assertEqual(len(json.loads(self.check("--json").stdout)["problems"]), 1)

    def test_warnings(self) -> None:
        """On standard error; the settings are printed all the same."""
        self.tables["delivery"]["relay"]["tls"] = "none"
        result = self.check("--json")
        self.assertEqual(result.exit_code, 0)
        self.assertTrue(
            result.stderr.startswith('warning: delivery.relay.next-hops[0] = "core.example.nl:25"')
        )
        json.loads(result.stdout)


class Main(SynchronousTestCase):
    """The group."""

    def test_version(self) -> None:
        self.assertIn(__version__, CliRunner().invoke(main, ["--version"]).output)

    def test_commands(self) -> None:
        """Each has its help, which needs no configuration."""
        names = main.list_commands(click.Context(main))
        self.assertEqual(names, ["account", "certificate", "check", "policy", "queue", "sandbox", "throttle"])
        for name in names:
            self.assertEqual(CliRunner().invoke(main, [name, "--help"]).exit_code, 0, name)

    def test_default_file(self) -> None:
        self.assertIn("/etc/digipoort-", CliRunner().invoke(main, ["--help"]).output)
