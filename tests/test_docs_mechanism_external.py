"""The page of EXTERNAL: its configuration in a whole MSA, and its clients, as they are there."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from digipoort_msa.accounts.administration import Administration
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.config import warnings
from digipoort_msa.config.settings import Settings
from tests.client_authority import ClientAuthority, ClientFiles, common_name, crl_file
from tests.docs_pages import DOCS, PageTestCase
from tests.mail_clients import gsasl_external
from tests.requirements import proves

PAGE = (DOCS / "mechanisms/external.rst").read_text(encoding="utf-8")
TLS = Path("/etc/digipoort-msa/tls")
OIN = "00000001234567890000"


def clients() -> dict[str, str]:
    """The page's recipes, by the program that they run."""
    blocks = re.findall(r"\.\. code-block:: (sh|python)\n   :class: client\n\n((?:   .*\n|\n)+)", PAGE)
    recipes = [textwrap.dedent(block) for _, block in blocks]
    return dict(zip(("curl", "openssl", "python"), recipes, strict=True))


class ExternalPageTests(PageTestCase):
    page = "mechanisms/external"

    def setUp(self) -> None:
        super().setUp()
        self.folder.mkdir()
        self.root = ClientAuthority("Example Root CA")
        names = [(NameOID.COUNTRY_NAME, "NL"), (NameOID.ORGANIZATION_NAME, "Example")]
        self.below = ClientAuthority([*names, *common_name("Example Issuing CA")], self.root)
        (self.folder / "client-ca.pem").write_bytes(self.root.pem)
        self.revoke()
        issued = self.below.issue([(NameOID.SERIAL_NUMBER, OIN), *common_name("Mijn Bedrijf B.V.")])
        self.business, self.business_files = issued.certificate, issued.files(self.folder, "business")
        by_email = self.root.issue(alternatives=[x509.RFC822Name("piet@clients.example.nl")])
        self.piet_files = by_email.files(self.folder, "piet")

    def revoke(self, *certificates: x509.Certificate) -> None:
        crl_file(self.folder / "client-crl.pem", self.root.revoking(), self.below.revoking(*certificates))

    def begin(self) -> Any:
        files = {str(TLS / name): self.folder / name for name in ("client-ca.pem", "client-crl.pem")}
        settings = self.page_settings(files=files)
        self.assertEqual(
            [str(problem) for problem in warnings(settings) if ".addresses" not in problem.key], []
        )
        self.add_accounts(settings, f"oin-{OIN}", "piet")
        return self.start(settings)

    def add_accounts(self, settings: Settings, *names: str) -> None:
        realm = settings.realm[0].name
        accounts = open_accounts(realm=realm, url=None, state_directory=settings.server.state_directory)
        administration = Administration(
            accounts, PasswordHashing(memory_kib=8, time_cost=1), digest=False, realms=[realm]
        )
        for name in names:
            administration.add(name, "nobody keeps this")
        accounts.close()

    def filled_in(self, recipe: str, account: str, files: ClientFiles) -> str:
        port = self.ports()["implicit"]
        (self.folder / "message").write_bytes(b"Subject: aangifte\r\n\r\nmet een certificaat\r\n")
        for placeholder, value in {
            "CERTIFICATE": files.certificate,
            "KEY": files.private_key,
            "CA": self.cert.ca,
            "ACCOUNT": account,
            "MESSAGE": self.folder / "message",
        }.items():
            recipe = re.sub(rf"\b{placeholder}\b", str(value), recipe)
        return recipe.replace('"msa.example.nl", 465', f'"localhost", {port}').replace(
            "msa.example.nl:465", f"localhost:{port}"
        )

    async def run_recipe(self, client: str, account: str, files: ClientFiles) -> str:
        recipe = self.filled_in(clients()[client], account, files)
        program = [sys.executable, "-c"] if client == "python" else ["bash", "-c"]

        def script() -> "subprocess.CompletedProcess[bytes]":
            return subprocess.run([*program, recipe], capture_output=True, timeout=60)

        done = await self.run_client(script)
        return f"{done.returncode}: " + (done.stdout + done.stderr).decode(errors="replace")

    @proves("L3", "A2")
    async def test_every_client(self) -> None:
        self.begin()
        for account, files in ((f"oin-{OIN}", self.business_files), ("piet", self.piet_files)):
            for client in clients():
                said = await self.run_recipe(client, account, files)
                self.assertTrue(said.startswith("0: "), (client, said))
                told = self.events("authenticated")[-1]
                self.assertEqual((told["account"], told["mechanism"]), (account, "EXTERNAL"), client)
                if client == "openssl":
                    self.assertIn("235 2.7.0", said)
        self.assertEqual(len(self.events("queued")), 4)

    async def test_gsasl(self) -> None:
        """It knows STARTTLS only: so the other listener asks, for once."""
        files = {str(TLS / name): self.folder / name for name in ("client-ca.pem", "client-crl.pem")}
        listener = [{"endpoint": "tcp:0", "tls": "starttls", "client-certificates": "optional"}]
        settings = self.page_settings(files=files, listener=listener)
        self.add_accounts(settings, f"oin-{OIN}")
        self.start(settings)
        for authzid in ("", f"oin-{OIN}"):
            said = await self.run_client(
                gsasl_external, self.ports()["starttls"], self.cert.ca, self.business_files, authzid
            )
            self.assertIn("235 2.7.0", said)

    async def test_somebody_else(self) -> None:
        self.begin()
        said = await self.run_recipe("curl", "piet", self.business_files)
        self.assertFalse(said.startswith("0: "), said)
        self.assertEqual(self.events("authenticated"), [])

    @proves("L3")
    async def test_revoked(self) -> None:
        service = self.begin()
        self.revoke(self.business)
        service.reload()
        for client in ("curl", "python"):
            said = await self.run_recipe(client, f"oin-{OIN}", self.business_files)
            self.assertFalse(said.startswith("0: "), said)
        self.assertEqual(self.events("authenticated"), [])
        await self.until(lambda: len(self.events("tls-failed")) >= 2)
        self.assertIn("it is revoked", self.events("tls-failed")[0]["reason"])
