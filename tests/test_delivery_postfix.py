"""A real Postfix as the next hop, over proven TLS: relayed to with DSN, and gone through as clients speak."""

import os
from email import message_from_bytes
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.through import Through, prompt
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.smtp.envelope import Arrival, MailParameters, Notify, RcptParameters
from digipoort_msa.smtp.envelope import Path as Address
from digipoort_msa.spool.queue_ids import QueueIds
from tests.authority import Authority
from tests.msa import MSATestCase
from tests.msa_client import MESSAGE, Client, stuffed
from tests.next_hop import Content, envelope
from tests.postfix import Postfix, without_first_field
from tests.requirements import proves

KNOWN, OTHER, UNKNOWN = "core@core.example", "other@core.example", "nobody@core.example"
SMALL = b"Subject: aangifte\r\n\r\n.regel\r\n\xe9\r\n"


class PostfixTestCase(MSATestCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid():
            raise SkipTest("Postfix runs only as root")
        authority = Authority()
        self.postfix = Postfix(authority)
        self.addCleanup(self.postfix.remove)
        self.postfix.start()
        self.core = self.postfix.core
        ca = Path(self.mktemp())
        ca.write_bytes(authority.pem)
        self.relay = Relay(
            reactor,
            [Hop("localhost", self.postfix.port)],
            "msa.example.nl",
            ClientTLS("verify", ca),
            connections=2,
            timeouts=prompt(Timeouts()),
        )
        self.addCleanup(self.relay.stop)

    async def arrived(self, number: int) -> list[Any]:
        """What Postfix has handed on, once there are so many."""
        messages = await deferToThread(self.core.wait, lambda messages: len(messages) >= number)
        self.assertEqual(len(messages), number, self.postfix.log())
        return messages


class NotificationTests(PostfixTestCase):
    """Postfix offers DSN: what the submitter asked for is its to answer."""

    @proves("D1", "D2")
    async def test_success_is_reported_by_the_hop(self) -> None:
        sent = evolve(
            envelope(KNOWN, OTHER, UNKNOWN, sender="sender@mijnbedrijf.example"),
            parameters=MailParameters(ret="HDRS", envid="QQ314159"),
            recipient_parameters={
                Address.from_text(KNOWN): RcptParameters(
                    frozenset({Notify.SUCCESS, Notify.FAILURE}), "rfc822;first+2Bplace@core.example"
                ),
                Address.from_text(OTHER): RcptParameters(frozenset({Notify.NEVER})),
            },
        )
        outcomes = await self.relay.deliver(sent, Content(SMALL))
        replies = {str(path): outcome.reply for path, outcome in outcomes.items()}
        self.assertEqual(
            {path: reply.code for path, reply in replies.items()}, {KNOWN: 250, OTHER: 250, UNKNOWN: 550}
        )
        self.assertEqual(replies[UNKNOWN].enhanced, "5.1.1")
        self.assertEqual({outcome.arrival for outcome in outcomes.values()}, {Arrival.PASSED_ON})
        messages = await self.arrived(2)  # the message, and Postfix's report of it
        [report] = [message for message in messages if message.sender.startswith("FROM:<>")]
        self.assertIn("<sender@mijnbedrijf.example>", report.recipients[0])
        parsed = message_from_bytes(report.content)
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        about, recipient, *others = parsed.get_payload()[1].get_payload()
        self.assertEqual(others, [])  # NEVER is kept, and the refused one is ours to tell of
        self.assertEqual(about["Original-Envelope-Id"], "QQ314159")
        self.assertEqual(recipient["Original-Recipient"], "rfc822;first+place@core.example")
        self.assertEqual(recipient["Final-Recipient"], f"rfc822; {KNOWN}")
        self.assertIn(recipient["Action"], ("delivered", "relayed"))
        self.assertEqual(parsed.get_payload()[2].get_content_type(), "text/rfc822-headers")


class ThroughTests(PostfixTestCase):
    """Our real server in front, a real TLS client, and Postfix's verdicts."""

    def setUp(self) -> None:
        super().setUp()
        self.spool: Any = Through(self.relay, QueueIds(), reactor)
        self.port = self.serve()

    def client(self) -> Client:
        client = Client(self.port)
        client.start_tls()
        assert client.login().startswith("235")
        return client

    @proves("D1", "M6", "M4")
    async def test_its_verdicts_reach_the_client(self) -> None:
        """Its own no to a recipient, its 250 before ours, and the same octets behind our one field."""

        def script() -> str:
            with self.client() as client:
                self.assertEqual(client.ask("MAIL FROM:<ik@mijnbedrijf.example>"), "250 2.1.0 Ok\r\n")
                self.assertEqual(client.ask(f"RCPT TO:<{KNOWN}>"), "250 2.1.5 Ok\r\n")
                refusal = client.ask(f"RCPT TO:<{UNKNOWN}>")
                self.assertRegex(refusal, rf"^550 5\.1\.1 <{UNKNOWN}>: .*No such user\r\n")
                self.assertEqual(client.ask(f"RCPT TO:<{OTHER}>"), "250 2.1.5 Ok\r\n")
                self.assertEqual(client.ask("DATA")[:3], "354")
                client.send(stuffed(SMALL))
                return client.reply()

        answer = await self.run_client(script)
        [queued] = self.events("queued")
        self.assertEqual(answer, f"250 2.0.0 Ok: queued as {queued['queue_id']}\r\n")
        self.assertRegex(queued["location"], r"^localhost:\d+ \(250 2\.0\.0 Ok: queued as [0-9A-F]+\)$")
        theirs = queued["location"].rpartition(" ")[2].rstrip(")")
        self.assertIn(f"{theirs}: client=", self.postfix.log())
        [message] = await self.arrived(1)
        self.assertEqual(message.recipients, (f"TO:<{KNOWN}>", f"TO:<{OTHER}>"))
        ours = without_first_field(message.content)
        self.assertTrue(ours.startswith(b"Received: from [127.0.0.1]"), ours)
        self.assertEqual(without_first_field(ours), SMALL)

    @proves("D1")
    async def test_a_content_that_it_refuses(self) -> None:
        def script() -> str:
            with self.client() as client:
                return client.submit(b"X-Refuse: yes\r\n" + SMALL) + client.submit(SMALL)

        refusal, queued = (await self.run_client(script)).splitlines()
        self.assertEqual(refusal, "550 5.7.1 Not with this field")
        self.assertTrue(queued.startswith("250 2.0.0 "), queued)
        await self.arrived(1)

    @proves("D1", "M3", "M5")
    async def test_contents(self) -> None:
        """Of all kinds and sizes, by DATA and BDAT."""
        contents = [
            MESSAGE,
            b"Subject: dots\r\n\r\n" + b".\r\n" * 50_000,
            b"Subject: 5 MiB\r\n\r\n" + (bytes(range(128, 256)) * 7 + b"\r\n") * 5_850,
        ]

        def script() -> None:
            with self.client() as client:
                for content in contents:
                    self.assertEqual(client.submit(content)[:3], "250")
                for content in contents:
                    client.ask("MAIL FROM:<ik@mijnbedrijf.example> BODY=8BITMIME")
                    client.ask(f"RCPT TO:<{KNOWN}>")
                    client.send(b"BDAT %d\r\n%b" % (20, content[:20]))
                    self.assertEqual(client.reply()[:3], "250")
                    client.send(b"BDAT %d LAST\r\n%b" % (len(content) - 20, content[20:]))
                    self.assertEqual(client.reply()[:3], "250")

        await self.run_client(script)
        messages = await self.arrived(2 * len(contents))
        kept = sorted(without_first_field(without_first_field(message.content)) for message in messages)
        self.assertEqual(kept, sorted(contents * 2))
        self.assertEqual(len(self.events("hop-connected")), 1)

    @proves("M5", "D2")
    async def test_nothing_is_delivered_before_the_final_dot(self) -> None:
        """Whatever ends it: the client leaves at any point, RSET, or lines that end in LF alone."""
        begun = (
            "",
            "MAIL FROM:<ik@mijnbedrijf.example>\r\n",
            f"MAIL FROM:<ik@mijnbedrijf.example>\r\nRCPT TO:<{KNOWN}>\r\n",
            f"MAIL FROM:<ik@mijnbedrijf.example>\r\nRCPT TO:<{KNOWN}>\r\nDATA\r\n",
        )

        def script() -> None:
            for commands in begun:
                with self.client() as client:
                    for line in commands.split("\r\n")[:-1]:
                        client.ask(line)
                    if "DATA" in commands:
                        client.send(stuffed(SMALL)[:-3] + b"and no end")
                    # it leaves
                with self.client() as client:
                    client.send(commands.encode())  # and does not wait for any reply
            with self.client() as client:
                for line in begun[2].split("\r\n")[:-1]:
                    client.ask(line)
                self.assertEqual(client.ask("RSET")[:3], "250")
                self.assertEqual(client.submit(SMALL.replace(b"\r\n\r\n", b"\r\n\n"))[:9], "554 5.6.0")
                self.assertEqual(client.submit(SMALL)[:3], "250")

        await self.run_client(script)
        messages = await self.arrived(1)
        self.assertTrue(messages[0].content.endswith(SMALL))
        self.assertEqual(len(self.events("queued")), 1)
        await self.until(lambda: not any(m.pool.slots.used for m in self.relay._hops._members.values()))

    @proves("D1")
    async def test_many_clients_on_two_connections(self) -> None:
        def script(_: int) -> str:
            with self.client() as client:
                return "".join(client.submit(SMALL)[:3] for _ in range(5))

        waiting = [self.run_client(script, number) for number in range(8)]
        self.assertEqual([await each for each in waiting], ["250" * 5] * 8)
        await self.arrived(40)
        self.assertLessEqual(len(self.events("hop-connected")), 2)

    @proves("D1", "D4")
    async def test_postfix_is_away(self) -> None:
        """The client is told at MAIL, and nothing of our hops; the next hears that it is back."""

        def script() -> str:
            with self.client() as client:
                return client.ask("MAIL FROM:<ik@mijnbedrijf.example>")

        await deferToThread(self.postfix.stop)
        for _ in range(2):
            self.assertEqual(
                await self.run_client(script),
                "451 4.4.1 No next hop is ready for a message now; try again later\r\n",
            )
        self.assertIn("localhost", self.events("refused")[0]["reason"])
