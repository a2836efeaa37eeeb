"""The page on guessing: its configuration, and its commands."""

import re
import shlex
from typing import Any

from click.testing import CliRunner
from twisted.internet.threads import deferToThread

from digipoort_msa.accounts import logins
from digipoort_msa.admin.commands import main
from digipoort_msa.config import as_toml
from tests.docs_pages import DOCS, PageTestCase
from tests.msa_client import ACCOUNT, PASSWORD, plain
from tests.requirements import proves

PAGE = (DOCS / "guessing.rst").read_text(encoding="utf-8")


class GuessingPageTests(PageTestCase):
    page = "guessing"

    @proves("A8")
    async def test_the_example(self) -> None:
        """Guessing ends at its limit; one of the page's commands opens it, and all are understood."""
        settings = self.page_settings()
        limits = settings.limits.model_copy(update={"login_first_delay": 0.0})
        settings = settings.model_copy(update={"limits": limits})
        self.add_account(settings)
        self.patch(logins, "INTERVAL", 0.05)
        self.start(settings)
        config = self.folder / "page.toml"
        config.write_text(as_toml(settings))

        def replies(*passwords: str) -> list[str]:
            found: list[str] = []
            for password in passwords:
                with self.client(self.ports()["implicit"], implicit=True) as client:
                    client.reply()
                    client.ask("EHLO x.nl")
                    found.append(client.ask(f"AUTH PLAIN {plain(password=password)}")[:3])
            return found

        def run(words: str) -> Any:
            return CliRunner().invoke(main, ["--config", str(config), *shlex.split(words)])

        self.assertEqual(await self.run_client(replies, *["wrong"] * 5, PASSWORD), ["535"] * 5 + ["421"])
        unlocked = await deferToThread(run, f"account unlock {ACCOUNT}")
        self.assertIn("2 counts cleared", unlocked.output)
        self.assertEqual(await self.run_client(replies, PASSWORD), ["235"])
        commands = re.findall(r"^   \$ digipoort-msa (.+)$", PAGE, re.MULTILINE)
        self.assertGreater(len(commands), 10)
        for command in commands:
            done = await deferToThread(run, command.replace("business", ACCOUNT))
            self.assertEqual(done.exit_code, 0, f"{command}: {done.output}")

    def test_every_limit_is_there(self) -> None:
        named = set(re.findall(r"login-[a-z-]+", PAGE))
        keys = {
            field.alias
            for field in type(self.page_settings().limits).model_fields.values()
            if (field.alias or "").startswith("login-")
        }
        self.assertEqual(named, keys)
