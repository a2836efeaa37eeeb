"""A real Dovecot as the next hop, by LMTP: what it keeps is what it was given, for each recipient apart."""

import random

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.lmtp import LMTP
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.smtp.envelope import Arrival, Path
from tests.dovecot import Dovecot
from tests.next_hop import MESSAGE, Content, envelope
from tests.requirements import proves

HEAD = b"Subject: test\r\n\r\n"
MANY = tuple(f"core{number}@example.nl" for number in range(100))


class DovecotTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.dovecot = Dovecot(("core@example.nl", *MANY))
        self.addCleanup(self.dovecot.remove)
        self.dovecot.start()

    def relay(self, hop: str) -> Relay:
        relay = Relay(
            reactor, [Hop.from_text(hop)], "msa.example.nl", ClientTLS("none"), dialogue=LMTP, connections=2
        )
        self.addCleanup(relay.stop)
        return relay

    def assertKept(self, address: str, content: bytes) -> None:
        """The last message of a mailbox is that, below the fields of the final delivery."""
        kept = self.dovecot.messages(address)[-1]
        self.assertTrue(kept.endswith(content), kept[:1000])
        fields = kept.removesuffix(content)
        self.assertTrue(fields.startswith(b"Return-Path: <business@example.nl>\r\n"), fields)
        names = [line.split(b":")[0] for line in fields.splitlines() if not line.startswith((b" ", b"\t"))]
        self.assertEqual([name for name in names if name != b"Delivered-To"], [b"Return-Path", b"Received"])

    @proves("D1", "M4", "M5")
    async def test_contents(self) -> None:
        """Byte for byte, over TCP and over a unix socket; one connection each."""
        lines = [b"x" * 998, b".", b"..", b"", "é€".encode(), bytes(range(128, 256))]
        draw = random.Random(1)
        big = b"\r\n".join(draw.choices(lines, k=25_000)) + b"\r\n"
        self.assertGreater(len(big), 4 << 20)
        contents = [
            MESSAGE,
            Content(HEAD + b".\r\n..\r\n.\r\n\r\n.x\r\n"),
            Content(HEAD + b"x\r", b"\n", b".", b"\r\n"),
            Content(HEAD + "café\r\n".encode() + bytes(range(128, 256)) + b"\r\n"),
            Content(HEAD, *(big[start : start + 65_536] for start in range(0, len(big), 65_536))),
        ]
        for hop in (f"127.0.0.1:{self.dovecot.port}", f"unix:{self.dovecot.socket}"):
            relay = self.relay(hop)
            for content in contents:
                outcomes = await relay.deliver(envelope("core@example.nl"), content)
                [outcome] = outcomes.values()
                self.assertEqual(outcome.reply.code, 250, f"{outcome}\n{self.dovecot.log()}")
                self.assertEqual((outcome.hop, outcome.arrival), (hop, Arrival.DELIVERED))
                self.assertKept("core@example.nl", content.octets)
        self.assertEqual(len(self.dovecot.messages("core@example.nl")), 2 * len(contents))

    @proves("D1", "D2")
    async def test_each_recipient_has_its_own_reply(self) -> None:
        relay = self.relay(f"unix:{self.dovecot.socket}")
        outcomes = await relay.deliver(
            envelope("nobody@example.nl", "core@example.nl", "nowhere@example.nl"), MESSAGE
        )
        replies = {str(path): outcome.reply for path, outcome in outcomes.items()}
        self.assertEqual(replies["core@example.nl"].code, 250, self.dovecot.log())
        for unknown in ("nobody@example.nl", "nowhere@example.nl"):
            self.assertEqual((replies[unknown].code, replies[unknown].enhanced), (550, "5.1.1"))
        self.assertKept("core@example.nl", MESSAGE.octets)

    @proves("D1")
    async def test_many_recipients(self) -> None:
        """Every second one is unknown; the replies fall to whom they are for."""
        recipients = [name for pair in zip(MANY, (f"x{m}" for m in MANY), strict=True) for name in pair]
        outcomes = await self.relay(f"127.0.0.1:{self.dovecot.port}").deliver(envelope(*recipients), MESSAGE)
        for name in recipients:
            known = not name.startswith("x")
            self.assertEqual(outcomes[Path.from_text(name)].reply.code, 250 if known else 550)
        for name in MANY:
            self.assertEqual(len(self.dovecot.messages(name)), 1)
            self.assertKept(name, MESSAGE.octets)

    @proves("D1")
    async def test_a_mailbox_that_cannot_be_written(self) -> None:
        """RCPT accepts it, the final dot does not; the other has its message, and has it once."""
        (self.dovecot.directory / "homes" / MANY[0]).write_text("no directory")
        outcomes = await self.relay(f"unix:{self.dovecot.socket}").deliver(
            envelope(MANY[0], MANY[1]), MESSAGE
        )
        self.assertEqual(outcomes[Path.from_text(MANY[0])].reply.code, 451, self.dovecot.log())
        self.assertEqual(outcomes[Path.from_text(MANY[1])].reply.code, 250)
        self.assertEqual(len(self.dovecot.messages(MANY[1])), 1)

    @proves("D1")
    async def test_no_smtputf8(self) -> None:
        """Dovecot does not offer it, and is not given such an address."""
        outcomes = await self.relay(f"unix:{self.dovecot.socket}").deliver(
            envelope("é@example.nl", "core@example.nl"), MESSAGE
        )
        self.assertEqual(outcomes[Path.from_text("é@example.nl")].reply.code, 553)
        self.assertKept("core@example.nl", MESSAGE.octets)
