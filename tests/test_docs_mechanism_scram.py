"""The configurations on the page of SCRAM, as they are there: from password logins to SCRAM, with gsasl."""

import re
import tomllib
from pathlib import Path
from typing import Any

from attrs import field, frozen

from digipoort_msa.config.settings import Settings
from tests import mail_clients
from tests.mail_clients import Login
from tests.msa_client import ACCOUNT, PASSWORD
from tests.requirements import proves
from tests.test_service import ServiceTestCase

PAGE = (Path(__file__).resolve().parent.parent / "docs/mechanisms/scram.rst").read_text(encoding="utf-8")
CONTENT = b"Subject: aangifte\r\n\r\nmet SCRAM\r\n"


@frozen
class Target:
    """What :mod:`tests.mail_clients` know of a server."""

    ca: Path
    ports: dict[str, int] = field(factory=dict)


def examples() -> list[dict[str, Any]]:
    """The page's TOML: the whole, and the realm on its way there."""
    blocks = re.findall(r"( *)\.\. code-block:: toml\n\n((?:\1   .*\n|\n)+)", PAGE)
    return [tomllib.loads(re.sub(rf"(?m)^{indent}   ", "", block)) for indent, block in blocks]


class ExampleTests(ServiceTestCase):
    def example_settings(self, **tables: Any) -> Settings:
        """The page's, but for where it listens and what is this machine's."""
        document = {**examples()[0], **tables}
        self.settings()  # makes the certificate
        document["server"] |= {"hostname": "localhost", "state-directory": str(self.folder / "state")}
        for listener in document["listener"]:
            listener["endpoint"] = "tcp:0:interface=127.0.0.1"
        document["tls"] = {
            "certificate": str(self.cert.certificate),
            "private-key": str(self.cert.private_key),
        }
        document["passwords"] = {"memory-kib": 8, "time-cost": 1}
        document["delivery"] = {"to": "maildir", "maildir": {"directory": str(self.folder / "maildir")}}
        return Settings.model_validate(document)

    async def say(self, mechanism: str) -> None:
        target = Target(self.cert.ca, self.ports())
        login = Login(mechanism, account=ACCOUNT, password=PASSWORD)
        await self.run_client(mail_clients.gsasl, target, login, CONTENT)
        self.assertEqual(self.events("authenticated")[-1]["mechanism"], mechanism)

    @proves("A2", "A7")
    async def test_the_way(self) -> None:
        whole, prepared = examples()
        first = self.example_settings(**prepared)
        self.add_account(first, whole["realm"][0]["name"])
        service = self.start(first)
        await self.say("PLAIN")
        await service.stopService()
        self.logged.clear()
        self.start(self.example_settings())
        await self.say("SCRAM-SHA-256-PLUS")
        await self.say("LOGIN")
