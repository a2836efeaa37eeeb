"""What commands share."""

import json
import os
from pathlib import Path

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.admin.console import Console, json_option, pass_console, print_json, print_table
from digipoort_msa.config import as_toml, settings_from
from tests.configurations import document


@click.command()
@json_option
@pass_console
def hostname(console: Console, as_json: bool) -> None:
    name = console.settings.server.hostname
    if as_json:
        print_json({"hostname": name, "file": console.config})
    else:
        print_table(["name", "note"], [[name, "a\x1b[31mb"], ["é", None]])


class Consoles(SynchronousTestCase):
    """A command with settings."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(hostname, arguments, obj=Console(self.path))
        return result.exit_code, result.stdout, result.stderr

    def test_settings_without_certificates(self) -> None:
        """The certificate files need not be there."""
        self.path.write_text(as_toml(settings_from(document(), files=False)))
        code, printed, _ = self.run_command("--json")
        self.assertEqual(code, 0)
        self.assertEqual(json.loads(printed), {"hostname": "localhost", "file": str(self.path)})

    def test_table(self) -> None:
        """Columns line up, and no text commands the terminal."""
        self.path.write_text(as_toml(settings_from(document(), files=False)))
        _, printed, _ = self.run_command()
        self.assertEqual(printed, "name       note\nlocalhost  a\\x1b[31mb\né\n")

    def test_not_configured(self) -> None:
        """A line for each problem, on standard error, and EX_CONFIG."""
        self.path.write_text("[limits]\nerrors = 0\n")
        code, printed, errors = self.run_command()
        self.assertEqual((code, printed), (os.EX_CONFIG, ""))
        lines = errors.splitlines()
        self.assertIn(f"{self.path}: server: missing; should be a table", lines)
        self.assertTrue(all(line.startswith(f"{self.path}: ") for line in lines))

    def test_lazy(self) -> None:
        """A command that needs no settings runs without a file."""
        self.assertEqual(CliRunner().invoke(hostname, ["--help"], obj=Console(self.path)).exit_code, 0)
