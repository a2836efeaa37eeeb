"""The page of the http store: its configuration in a whole MSA, beside a real endpoint."""

import json
import re
import tomllib
from time import monotonic
from typing import Any

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.http import answer
from digipoort_msa.config import warnings
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.stores import http
from digipoort_msa.config.stores.http import Http
from digipoort_msa.testing import AccountDescription
from tests import json_endpoint
from tests.docs_pages import DOCS, PageTestCase, blocks
from tests.json_endpoint import AUTHORITY, Accounts
from tests.msa_client import REALM
from tests.requirements import proves

PAGE = "stores/http"


class HttpPageTests(PageTestCase):
    page = PAGE

    def begin(self, **changes: Any) -> None:
        """The page's MSA, with an endpoint that knows a business and one that is disabled.

        :param changes: of ``[realm.http]``.
        """
        self.accounts = Accounts(
            REALM,
            [
                AccountDescription(name="mijnbedrijf", addresses=("*@mijnbedrijf.example",)),
                AccountDescription(name="weg", status=Status.DISABLED),
            ],
        )
        self.endpoint = json_endpoint.endpoint(self.accounts, AUTHORITY)
        self.addCleanup(self.endpoint.stop)
        self.folder.mkdir()
        token = self.folder / "token"
        token.touch(0o600)
        token.write_text("a-token\n")
        ca = json_endpoint.ca_file(AUTHORITY, self.folder)
        files: Any = {
            "https://accounts.example.nl/msa/account": f"{self.endpoint.url}/account",
            "https://accounts.example.nl/msa/verify": f"{self.endpoint.url}/verify",
            "/etc/digipoort-msa/accounts-ca.pem": ca,
            "/etc/digipoort-msa/accounts-token": token,
        }
        realm = tomllib.loads(blocks(PAGE)[0])["realm"][0]
        realm["http"].update(changes)
        settings = self.page_settings(files=files, realm=[realm])
        self.assertEqual([str(problem) for problem in warnings(settings)], [])
        self.start(settings)

    async def replies(self, *logins: str) -> list[tuple[str, float]]:
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

    @proves("A2", "A7")
    async def test_the_example(self) -> None:
        self.begin()

        def script() -> list[str]:
            with self.client(self.ports()["implicit"], implicit=True) as client:
                client.reply()
                said = [client.ask("EHLO client.example"), *client.digest("mijnbedrijf", "geheim")]
                return [
                    *said,
                    client.ask("MAIL FROM:<baas@bank.example>"),
                    client.ask("MAIL FROM:<aangifte@mijnbedrijf.example>"),
                ]

        said: Any = await self.run_client(script)
        self.assertIn("AUTH DIGEST-MD5 PLAIN LOGIN\r\n", said[0])
        self.assertEqual([reply[:3] for reply in said[1:]], ["334", "334", "235", "550", "250"])
        headers, question = self.accounts.requests[0]
        self.assertEqual(question, {"realm": REALM, "name": "mijnbedrijf"})
        self.assertEqual(headers.getRawHeaders("authorization"), ["Bearer a-token"])

    @proves("A5")
    async def test_refused(self) -> None:
        """With the same words, and after the same time."""
        self.begin()
        answered = await self.replies(
            "mijnbedrijf wrong", "nobody geheim", "weg geheim", "mijnbedrijf geheim"
        )
        *refused, right = answered
        self.assertEqual(len({said for said, _ in refused}), 1)
        self.assertTrue(refused[0][0].startswith("535 5.7.8 "), refused[0][0])
        for _, seconds in refused:
            self.assertGreaterEqual(seconds, 0.5)
        self.assertTrue(right[0].startswith("235 "), right[0])

    async def test_verifying(self) -> None:
        """With the page's other part, for PLAIN; DIGEST-MD5 has its secrets still."""
        self.begin(**tomllib.loads(blocks(PAGE)[1])["realm"]["http"])
        self.accounts.verifies = True
        refused, *right = await self.replies("mijnbedrijf wrong", "mijnbedrijf geheim", "mijnbedrijf geheim")
        self.assertTrue(refused[0].startswith("535 5.7.8 "), refused[0])
        for said, _ in right:
            self.assertTrue(said.startswith("235 "), said)
        verdicts = [question for _, question in self.accounts.requests if "password" in question]
        self.assertEqual(len(verdicts), 2, "the third was remembered")

    @proves("A7")
    async def test_slow_lying_or_down(self) -> None:
        """454, and soon."""
        self.begin(**{"timeout": 0.5, "connect-timeout": 0.5})
        lie = {"realm": REALM, "name": "weg", "status": "active"}
        for manner in (json_endpoint.silence, lambda request: json_endpoint.answer(request, lie)):
            self.accounts.manners["/account"] = manner
            await self.assert_not_now()
        del self.accounts.manners["/account"]
        ((said, _),) = await self.replies("mijnbedrijf geheim")
        self.assertTrue(said.startswith("235 "), said)
        await self.endpoint.stop()
        await self.assert_not_now()

    async def assert_not_now(self) -> None:
        ((said, seconds),) = await self.replies("mijnbedrijf geheim")
        self.assertTrue(said.startswith("454 4.7.0 "), said)
        self.assertLess(seconds, 5)

    def test_the_parts(self) -> None:
        whole, *parts = blocks(PAGE)
        self.assertEqual(len(parts), 1)
        for part in parts:
            table = {**tomllib.loads(whole)["realm"][0]["http"], **tomllib.loads(part)["realm"]["http"]}
            self.assertEqual(list(http.problems("http", Http.model_validate(table), ("PLAIN",))), [])

    def test_as_it_stands(self) -> None:
        Settings.model_validate(tomllib.loads(blocks(PAGE)[0]))

    def test_the_answers(self) -> None:
        """The page's JSON is what the MSA takes."""
        text = (DOCS / f"{PAGE}.rst").read_text(encoding="utf-8")
        account, unknown = re.findall(r"code-block:: json\n\n((?:   .*\n)+)", text)
        found = answer.account(
            account.encode(), REALM, "mijnbedrijf", frozenset({answer.HASH, answer.DIGEST})
        )
        self.assertEqual(found.addresses, ("*@mijnbedrijf.example",))
        answer.unknown(unknown.encode(), REALM, "mijnbedrijf")
        for key in json.loads(account):
            self.assertRegex(text, rf"\* - .*``{key}``")
