"""The page of Twisted's checkers: its configuration in a whole MSA."""

from typing import Any

from tests.docs_pages import PageTestCase
from tests.msa_client import Client, b64
from tests.requirements import proves


class CredPageTests(PageTestCase):
    page = "stores/cred"

    async def said(self) -> list[str]:
        """With PLAIN, LOGIN and DIGEST-MD5, each with the right password and a wrong one."""

        def script() -> list[str]:
            said = []
            for password in ("geheim", "anders"):
                for mechanism in ("PLAIN", "LOGIN", "DIGEST-MD5"):
                    with self.client(self.ports()["implicit"], implicit=True) as client:
                        client.reply()
                        client.ask("EHLO client.example")
                        said.append(answer(client, mechanism, password)[:9])
            return said

        answered: Any = await self.run_client(script)
        return list(answered)

    @proves("A1", "A2", "A3")
    async def test_the_example(self) -> None:
        self.folder.mkdir()
        passwords = self.folder / "passwords"
        passwords.write_text("mijnbedrijf:geheim\n")
        checker = "file:/etc/digipoort-msa/passwords"
        files: Any = {checker: f"file:{passwords}"}
        self.start(self.page_settings(files=files, limits={"login-first-delay": 0}))
        self.assertEqual(await self.said(), ["235 2.7.0"] * 3 + ["535 5.7.8"] * 3)
        passwords.unlink()
        self.assertEqual(await self.said(), ["454 4.7.0"] * 6)


def answer(client: Client, mechanism: str, password: str) -> str:
    if mechanism == "DIGEST-MD5":
        return client.digest("mijnbedrijf", password)[-1]
    if mechanism == "PLAIN":
        return client.login("mijnbedrijf", password)
    client.ask("AUTH LOGIN")
    client.ask(b64(b"mijnbedrijf"))
    return client.ask(b64(password.encode()))
