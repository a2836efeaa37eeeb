"""The configurations on the pages of policies do what the pages say."""

from collections.abc import Sequence
from typing import Any

from digipoort_msa.policy.trials import report
from tests.docs_pages import PageTestCase
from tests.msa_client import ACCOUNT, stuffed
from tests.requirements import proves

OWN = "ik@mijnbedrijf.example"
QUEUED = "250 2.0.0 Ok: queued as"


def message(sender: str = OWN) -> bytes:
    return f"From: {sender}\r\n\r\nx\r\n".encode()


class PolicyPageTestCase(PageTestCase):
    async def submit(self, *transactions: tuple[str, Sequence[str], bytes]) -> list[list[str]]:
        """The replies to each transaction, of which each is a sender, recipients and a message."""
        settings = self.page_settings()
        self.state = settings.server.state_directory
        self.add_account(settings)
        self.service = self.start(settings)

        def script() -> list[list[str]]:
            found: list[list[str]] = []
            with self.client(self.ports()["implicit"], implicit=True) as client:
                client.reply()
                client.login()
                for sender, recipients, content in transactions:
                    replies = [client.ask(f"MAIL FROM:<{sender}>")]
                    replies += [client.ask(f"RCPT TO:<{path}>") for path in recipients]
                    replies.append(client.ask("DATA"))
                    if replies[-1].startswith("354"):
                        client.send(stuffed(content))
                        replies.append(client.reply())
                    client.ask("RSET")
                    found.append([said.strip() for said in replies])
            return found

        replies: Any = await self.run_client(script)
        return list(replies)


class SenderPageTests(PolicyPageTestCase):
    page = "policies/sender"

    @proves("M7")
    async def test_the_example(self) -> None:
        to = ["a@douane.example"]
        own, office, other, forged, helpdesk = await self.submit(
            (OWN, to, message()),
            ("douane@kantoor.example", to, message("Kantoor <douane@kantoor.example>")),
            ("ander@kantoor.example", to, message()),
            (OWN, to, message("baas@bank.example")),
            (OWN, to, message("helpdesk@overheidstransactiepoort.example")),
        )
        for taken in (own, office, forged, helpdesk):  # the header's rule is on trial
            self.assertIn(QUEUED, taken[-1])
        self.assertEqual(other[0], "550 5.7.1 This account may not send from this address")
        await self.service.stopService()
        ((trial, (refusals,)),) = report(self.state)
        self.assertEqual((trial.rule, trial.transactions), ("header-sender", 5))
        self.assertEqual((refusals.account, refusals.times), (ACCOUNT, 1))
        self.assertIn("The header's From names an address that is not this account's", refusals.reply)


class RecipientsPageTests(PolicyPageTestCase):
    page = "policies/recipients"

    @proves("M7")
    async def test_the_example(self) -> None:
        to = ["a@douane.overheid.example", "b@acceptatie.overheid.example", "c@elders.example"]
        ((_, *said, _, end),) = await self.submit((OWN, to, message()))
        self.assertEqual([reply[:9] for reply in said], ["250 2.1.5", "250 2.1.5", "550 5.7.1"])
        self.assertIn(QUEUED, end)


class RatePageTests(PolicyPageTestCase):
    page = "policies/rate"

    @proves("L4")
    async def test_the_example(self) -> None:
        *taken, over = await self.submit(*[(OWN, ["a@douane.example"], message())] * 4)
        for replies in taken:
            self.assertIn(QUEUED, replies[-1])
        self.assertRegex(
            over[0], r"^450 4\.7\.1 Too many messages in this time; come back in (19|20) seconds$"
        )
