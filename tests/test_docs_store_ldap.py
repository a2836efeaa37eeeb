"""The page of the ldap store: its configuration in a whole MSA, beside a real slapd."""

import tomllib
from time import monotonic
from typing import Any

from digipoort_msa.config import warnings
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.stores import ldap
from digipoort_msa.config.stores.ldap import Ldap
from tests.docs_pages import PageTestCase, blocks
from tests.ldap_realm import LDAPRealm
from tests.msa_client import stuffed
from tests.requirements import proves

REFUSED = "535 5.7.8"
SUFFIX = "dc=example,dc=nl"


class LdapPageTests(PageTestCase):
    page = "stores/ldap"

    def setUp(self) -> None:
        super().setUp()
        self.ldap = LDAPRealm()
        self.slapd = self.ldap.slapd
        self.folder.mkdir()
        password = self.folder / "password"
        password.touch(0o600)
        password.write_text("secret of the service\n")
        self.services = f"ou=services,{self.ldap.branch}"
        self.slapd.add(self.services, {"objectClass": "organizationalUnit"})
        service = {"objectClass": "inetOrgPerson", "sn": "msa", "userPassword": "secret of the service"}
        self.slapd.add(f"cn=msa,{self.services}", service)
        self.business = self.ldap.add(
            uid="mijnbedrijf", userPassword="geheim", mail="aangifte@mijnbedrijf.example"
        )
        self.slapd.add(
            f"cn=businesses,{self.ldap.groups}", {"objectClass": "groupOfNames", "member": self.business}
        )
        self.ldap.add(uid="weg", userPassword="geheim", employeeType="left")

    def begin(self) -> None:
        files: Any = {
            "ldaps://ldap1.example.nl": self.slapd.ldaps,
            "ldaps://ldap2.example.nl": self.slapd.ldap,  # by StartTLS
            "/etc/digipoort-msa/ldap-ca.pem": self.slapd.ca,
            "/etc/digipoort-msa/ldap-password": self.folder / "password",
            f"cn=msa,ou=services,{SUFFIX}": f"cn=msa,{self.services}",
            f"ou=people,{SUFFIX}": self.ldap.people,
            f"ou=groups,{SUFFIX}": self.ldap.groups,
        }
        settings = self.page_settings(files=files)
        self.assertEqual([str(problem) for problem in warnings(settings)], [])
        self.start(settings)

    async def replies(self, *lines: str) -> list[str]:
        return [said for said, _ in await self.timed(*lines)]

    async def timed(self, *logins: str) -> list[tuple[str, float]]:
        """What the server says to logins "name password" over a connection each, and how long it takes."""

        def script() -> list[tuple[str, float]]:
            found = []
            for name, _, password in (login.partition(" ") for login in logins):
                with self.client(self.ports()["implicit"], implicit=True) as client:
                    client.reply()
                    client.ask("EHLO client.example")
                    began = monotonic()
                    said = client.login(name, password)
                    found.append((said, monotonic() - began))
            return found

        answered: Any = await self.run_client(script)
        return list(answered)

    @proves("A2", "A7", "M7")
    async def test_the_example(self) -> None:
        self.begin()

        def script() -> list[str]:
            with self.client(self.ports()["implicit"], implicit=True) as client:
                client.reply()
                said = [client.ask("EHLO client.example"), client.login("mijnbedrijf", "geheim")]
                said.append(client.ask("MAIL FROM:<baas@bank.example>"))
                said += map(
                    client.ask,
                    (
                        "MAIL FROM:<aangifte@mijnbedrijf.example>",
                        "RCPT TO:<a@bank.example>",
                        "RCPT TO:<a@douane.example>",
                        "DATA",
                    ),
                )
                client.send(stuffed(b"Subject: aangifte\r\n\r\nx\r\n"))
                return [*said, client.reply()]

        said: Any = await self.run_client(script)
        hello, login, stranger, sender, elsewhere, recipient, data, queued = said
        self.assertIn("AUTH PLAIN LOGIN\r\n", hello)
        self.assertTrue(login.startswith("235 "), login)
        self.assertTrue(stranger.startswith("550 5.7.1 "), stranger)
        self.assertTrue(elsewhere.startswith("550 5.7.1 "), elsewhere)
        for reply in (sender, recipient):
            self.assertTrue(reply.startswith("250 "), reply)
        self.assertTrue(data.startswith("354 "), data)
        self.assertTrue(queued.startswith("250 2.0.0 Ok: queued as "), queued)

    @proves("A5")
    async def test_refused(self) -> None:
        """With the same words, and after the same time."""
        self.begin()
        answered = await self.timed("mijnbedrijf wrong", "nobody geheim", "weg geheim")
        self.assertEqual(len({said for said, _ in answered}), 1)
        self.assertTrue(answered[0][0].startswith(REFUSED), answered[0][0])
        for _, seconds in answered:
            self.assertGreaterEqual(seconds, 0.5)

    async def test_without_its_directory(self) -> None:
        """Not now, and then at once."""
        self.begin()
        (before,) = await self.replies("mijnbedrijf geheim")
        self.slapd.kill()
        try:
            ((meanwhile, seconds),) = await self.timed("mijnbedrijf geheim")
        finally:
            self.slapd.start()
        (after,) = await self.replies("mijnbedrijf geheim")
        self.assertTrue(before.startswith("235 "), before)
        self.assertTrue(meanwhile.startswith("454 4.7.0 "), meanwhile)
        self.assertLess(seconds, 5)
        self.assertTrue(after.startswith("235 "), after)

    def test_the_parts(self) -> None:
        """Each goes into the complete configuration."""
        whole, *parts = blocks(self.page)
        self.assertEqual(len(parts), 2)
        for part in parts:
            table = {**tomllib.loads(whole)["realm"][0]["ldap"], **tomllib.loads(part)["realm"]["ldap"]}
            self.assertEqual(list(ldap.problems("ldap", Ldap.model_validate(table), ("PLAIN",))), [])

    def test_as_it_stands(self) -> None:
        Settings.model_validate(tomllib.loads(blocks(self.page)[0]))
