"""The pages of DIGEST-MD5, PLAIN and LOGIN: their configurations in a whole MSA, and their clients."""

import re
import subprocess
import textwrap
import tomllib
from datetime import date
from typing import Any

from digipoort_msa.config import warnings
from digipoort_msa.config.settings import Settings
from digipoort_msa.service import realms
from tests.docs_pages import DOCS, PageTestCase, blocks
from tests.msa_client import ACCOUNT
from tests.requirements import proves

PASSWORD = "g€heim"
_CLIENT = re.compile(r"^\.\. code-block:: sh\n   :class: client\n\n((?:   .*\n|\n)+)", re.MULTILINE)


class RecipesTestCase(PageTestCase):
    def begin(self, **tables: Any) -> Settings:
        settings = self.page_settings(**tables)
        self.assertEqual(
            [str(problem) for problem in warnings(settings) if ".addresses" not in problem.key], []
        )
        self.add_account(settings, settings.realm[0].name)
        self.start(settings)
        return settings

    def recipes(self) -> list[str]:
        text = (DOCS / f"{self.page}.rst").read_text(encoding="utf-8")
        return [textwrap.dedent(block) for block in _CLIENT.findall(text)]

    async def run_recipe(self, recipe: str) -> str:
        """As it is there, but for what differs from one place to another."""
        message = self.folder / "message"
        message.write_bytes(b"Subject: aangifte\r\n\r\nmet een wachtwoord\r\n")
        for placeholder, value in {
            "CA": self.cert.ca,
            "ACCOUNT": ACCOUNT,
            "PASSWORD": PASSWORD,
            "MESSAGE": message,
        }.items():
            recipe = re.sub(rf"\b{placeholder}\b", str(value), recipe)
        for number, tls in (("465", "implicit"), ("587", "starttls")):
            recipe = recipe.replace(f"msa.example.nl:{number}", f"localhost:{self.ports()[tls]}")

        def script() -> "subprocess.CompletedProcess[bytes]":
            return subprocess.run(
                ["bash", "-c", recipe],
                input=b"QUIT\r\n",
                capture_output=True,
                timeout=60,
                env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            )

        done = await self.run_client(script)
        return f"{done.returncode}: " + (done.stdout + done.stderr).decode(errors="replace")

    async def run_all(self) -> list[str]:
        """Which mechanisms they logged in with."""
        for recipe in self.recipes():
            said = await self.run_recipe(recipe)
            self.assertTrue(said.startswith("0: "), said)
        return [event["mechanism"] for event in self.events("authenticated")]

    async def shown(self, tls: str) -> tuple[list[str], str]:
        """EHLO's AUTH line under TLS, and the answer to ``AUTH LOGIN``."""

        def script() -> tuple[list[str], str]:
            with self.client(self.ports()[tls], implicit=tls == "implicit") as client:
                client.reply() if tls == "implicit" else client.start_tls()
                lines = client.ask("EHLO x").splitlines()
                return [line[4:] for line in lines if "AUTH" in line], client.ask("AUTH LOGIN")[:9]

        answer: tuple[list[str], str] = await self.run_client(script)
        return answer


class DigestTests(RecipesTestCase):
    page = "mechanisms/digest-md5"

    @proves("A2", "A3")
    async def test_every_client(self) -> None:
        self.begin()
        self.assertEqual(await self.run_all(), ["DIGEST-MD5"] * 2)

    def test_the_date(self) -> None:
        """Once whole, and once in the steps."""
        dates = [tomllib.loads(block) for block in blocks(self.page)]
        self.assertEqual(dates[0]["realm"][0]["digest-md5-until"], dates[1]["digest-md5-until"])

    @proves("T2")
    async def test_the_day_after(self) -> None:
        self.patch(realms, "_today", lambda: date(2032, 1, 1))
        self.begin()
        for recipe in self.recipes():
            said = await self.run_recipe(recipe)
            self.assertFalse("235" in said, said)
        self.assertEqual(self.events("authenticated"), [])
        (lines, _) = await self.shown("starttls")
        self.assertEqual(lines, ["AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"])


class PasswordTests(RecipesTestCase):
    page = "mechanisms/plain-login"

    @proves("A2", "T3")
    async def test_every_client(self) -> None:
        self.begin()
        self.assertEqual(await self.run_all(), ["PLAIN", "LOGIN"])
        self.assertEqual(await self.shown("starttls"), (["AUTH PLAIN"], "504 5.5.4"))
        self.assertEqual(await self.shown("implicit"), (["AUTH PLAIN LOGIN"], "334 VXNlc"))
