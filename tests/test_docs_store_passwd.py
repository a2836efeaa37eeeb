"""The page of Apache's files: its configuration in a whole MSA, with files that Apache's tools write."""

import os
import subprocess
from typing import Any

from digipoort_msa.service.checking import unusable
from tests.docs_pages import PageTestCase
from tests.requirements import proves

REALM = "overheidstransactiepoort.nl"


class PasswdPageTests(PageTestCase):
    page = "stores/passwd"

    def setUp(self) -> None:
        super().setUp()
        self.folder.mkdir()
        self.files = {name: self.folder / name for name in ("htpasswd", "htdigest")}
        for file in self.files.values():
            file.touch()
        self.set_password("mijnbedrijf", "geheim")

    def set_password(self, name: str, password: str) -> None:
        """In the past, so that nobody has to wait until the files have settled."""
        run = {"check": True, "capture_output": True, "timeout": 30}
        passwords, digests = self.files.values()
        subprocess.run(["htpasswd", "-bB", passwords, name, password], **run)  # type: ignore[call-overload]
        asked = f"{password}\n{password}\n".encode()
        subprocess.run(["htdigest", digests, REALM, name], input=asked, **run)  # type: ignore[call-overload]
        for file in self.files.values():
            moment = file.stat().st_mtime - 60
            os.utime(file, (moment, moment))

    async def logins(self, *passwords: str) -> list[str]:
        """PLAIN, then DIGEST-MD5."""

        def script() -> list[str]:
            said = []
            for password in passwords:
                for digest in (False, True):
                    with self.client(self.ports()["implicit"], implicit=True) as client:
                        client.reply()
                        client.ask("EHLO client.example")
                        name = "mijnbedrijf"
                        said.append(
                            client.digest(name, password)[-1] if digest else client.login(name, password)
                        )
            return [reply[:3] for reply in said]

        answered: Any = await self.run_client(script)
        return list(answered)

    @proves("A2", "A7")
    async def test_the_example(self) -> None:
        files = {f"/etc/digipoort-msa/{name}": file for name, file in self.files.items()}
        self.start(self.page_settings(files=files, limits={"login-first-delay": 0}))
        self.assertEqual(await self.logins("geheim", "anders"), ["235", "235", "535", "535"])
        self.set_password("mijnbedrijf", "anders")
        # Where it is not time for another look yet, two refusals take that long.
        await self.logins("anders")
        self.assertEqual(await self.logins("anders"), ["235", "235"])
        self.assertEqual(len(self.events("accounts-loaded")), 2)

    def test_check(self) -> None:
        """It tells what is wrong in the files, and what could be better."""
        passwords, digests = self.files.values()
        files = {f"/etc/digipoort-msa/{name}": file for name, file in self.files.items()}
        settings = self.page_settings(files=files)
        self.assertEqual(list(unusable(settings)), [])
        with passwords.open("a") as file:
            file.write("jan:{SHA}kGByAB793z4R5tK1eC9Hd/4Dhzk=\n")
        (problem,) = unusable(settings)
        self.assertEqual((problem.key, problem.warning), ("realm[0].passwd", True))
        self.assertIn("no password of jan is taken, for {SHA} has no salt", str(problem))
        digests.write_text("mijnbedrijf\n")
        (problem,) = unusable(settings)
        self.assertEqual((problem.key, problem.warning), ("realm[0].passwd", False))
        self.assertIn(f"{digests}, line 1: should be name:realm:hash", str(problem))
