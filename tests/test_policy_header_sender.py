"""Who a message says it is from (M7)."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.policy.addresses import AddressPatterns, OwnAddresses
from digipoort_msa.policy.header_sender import HeaderSenderRule
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase
from tests.requirements import proves
from tests.test_submission import trace

RULE = HeaderSenderRule(
    OwnAddresses.of({"piet": ["*@mijnbedrijf.nl"]}), AddressPatterns.of(["no-reply@dienst.nl"])
)
OWN = "From: ik@mijnbedrijf.nl\r\n"
NOT_YOURS = "550 5.7.1 The header's {} names an address that is not this account's"
UNCLEAR = "550 5.7.1 The header's {} has to be there once, as a plain list of addresses"


class HeaderSenderTests(SynchronousTestCase):
    def verdict(self, message: str | bytes, cut: int | None = None) -> str:
        judgement = RULE.begin(Identity(name="piet", realm="one.nl", addresses=("*@winkel.nl",)), trace())
        octets = message if isinstance(message, bytes) else message.encode()
        for segment in (octets,) if cut is None else (octets[:cut], octets[cut:]):
            judgement.write(segment)
        try:
            judgement.complete()
        except Refused as refused:
            self.assertNotEqual(refused.cause, "")
            return str(refused.reply)
        return "passed"

    def test_interfaces(self) -> None:
        verifyObject(IPolicy, RULE)
        verifyObject(IJudgement, RULE.begin(Identity(name="piet", realm="one.nl"), trace()))

    @proves("M7")
    def test_own(self) -> None:
        for header in (
            OWN,
            "from:Ik <IK@Mijnbedrijf.NL>\r\n",
            "Subject: x\r\nFROM: a@mijnbedrijf.nl,\r\n b@winkel.nl\r\n",
            "From: <no-reply@dienst.nl>\r\nSender: ik@mijnbedrijf.nl\r\n",
            '"x": y\r\n'.replace('"x"', "X") + OWN,
        ):
            for end in ("\r\n", "\r\nFrom: a@elders.nl\r\n", ""):
                self.assertEqual(self.verdict(header + end), "passed", header)
        for cut in range(len(OWN) + 4):
            self.assertEqual(self.verdict(f"{OWN}\r\nx", cut), "passed")

    @proves("M7")
    def test_not_yours(self) -> None:
        for header, name in (
            ("From: a@elders.nl\r\n", "From"),
            ("From: ik@mijnbedrijf.nl, a@elders.nl\r\n", "From"),
            ('From: "ik@mijnbedrijf.nl" <a@elders.nl>\r\n', "From"),
            ("From: ik@mijnbedrijf.nl.elders.nl\r\n", "From"),
            ("From: (x) a@elders.nl (<ik@mijnbedrijf.nl>)\r\n", "From"),
            (OWN + "Sender: a@elders.nl\r\n", "Sender"),
        ):
            for cut in (None, *range(len(header))):
                self.assertEqual(self.verdict(header + "\r\n", cut), NOT_YOURS.format(name), header)

    @proves("M7")
    def test_unclear(self) -> None:
        """What one program reads in one way, and another in another."""
        for header, name in (
            ("", "From"),
            ("Subject: x\r\n", "From"),
            ("X-From: ik@mijnbedrijf.nl\r\n", "From"),
            (OWN + "From: a@elders.nl\r\n", "From"),
            (OWN + OWN, "From"),
            (OWN + "Sender: ik@mijnbedrijf.nl\r\nSENDER: a@elders.nl\r\n", "Sender"),
            (OWN + "From : a@elders.nl\r\n", "From"),
            (OWN + "no field\r\nFrom: a@elders.nl\r\n", "From"),
            (" From: a@elders.nl\r\n" + OWN, "From"),
            (OWN + " \r\nFrom: a@elders.nl\r\n", "From"),
            ("From: Groep: ik@mijnbedrijf.nl;\r\n", "From"),
            ("From: ik@mijnbedrijf.nl <a@elders.nl>\r\n", "From"),
            ("From:\r\n", "From"),
            ("From: =?utf-8?q?a=40elders.nl?= <ik@mijnbedrijf.nl>\r\n", "From"),
        ):
            self.assertEqual(self.verdict(header + "\r\n"), UNCLEAR.format(name), header)
        self.assertEqual(self.verdict(b"From: \xff <ik@mijnbedrijf.nl>\r\n\r\n"), UNCLEAR.format("From"))
        self.assertEqual(self.verdict(OWN + "A: b"), UNCLEAR.format("From"))

    def test_a_header_without_end(self) -> None:
        judgement = RULE.begin(Identity(name="piet", realm="one.nl"), trace())
        for _ in range(1000):
            judgement.write(b"A: " + b"x" * 60_000 + b"\r\n")
        self.assertRaises(Refused, judgement.complete)


class DialogueTests(ClockTestCase):
    @proves("M7")
    def test_at_the_end_of_data(self) -> None:
        rule = HeaderSenderRule(OwnAddresses.of({}), AddressPatterns.of(["*@mijnbedrijf.nl"]))
        wire = self.logged_in(policies=(rule,))
        said = wire.submit(b"From: a@elders.nl\r\n\r\nx\r\n").split("\r\n")[3]
        self.assertEqual(said, NOT_YOURS.format("From"))
        self.assertEqual(self.spool.kept, [])
        self.assertIn("queued as", wire.submit(b"From: a@mijnbedrijf.nl\r\n\r\nx\r\n"))
