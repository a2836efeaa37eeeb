"""Who may send (M7)."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.policy.addresses import AddressPatterns, OwnAddresses
from digipoort_msa.policy.recipients import RecipientsRule
from digipoort_msa.policy.sender import SenderRule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import NULL_PATH, MailParameters, Path
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase
from tests.requirements import proves
from tests.test_submission import trace


def rule(*patterns: str, own: bool = True, null: bool = False) -> SenderRule:
    """Where ``piet`` is granted a domain by the settings."""
    granted = OwnAddresses.of({"piet": ["*@mijnbedrijf.nl"]})
    return SenderRule(granted if own else None, AddressPatterns.of(patterns), null)


class SenderRuleTests(SynchronousTestCase):
    def allows(self, rule: SenderRule, text: str, account: str = "piet", *addresses: str) -> bool:
        verifyObject(IPolicy, rule)
        judgement = rule.begin(Identity(name=account, realm="one.nl", addresses=addresses), trace())
        verifyObject(IJudgement, judgement)
        path = Path.from_text(text) if text else NULL_PATH
        try:
            self.assertIsNone(judgement.sender(path, MailParameters()))
        except Refused as refused:
            self.assertEqual(refused.reply, reply.SENDER_NOT_YOURS)
            self.assertNotEqual(refused.cause, "")
            return False
        return True

    @proves("M7")
    def test_own_addresses(self) -> None:
        for account, text, allowed in (
            ("piet", "ik@mijnbedrijf.nl", True),
            ("piet", "ik@elders.nl", False),
            ("Piet", "ik@mijnbedrijf.nl", False),
            ("jan", "ik@mijnbedrijf.nl", False),
            ("jan", "jan", False),
            ("jan@elders.nl", "Jan@Elders.nl", True),
            ("jan@elders.nl", "piet@elders.nl", False),
        ):
            self.assertEqual(self.allows(rule(), text, account), allowed, (account, text))

    @proves("M7")
    def test_what_the_store_says(self) -> None:
        self.assertTrue(self.allows(rule(), "info@winkel.nl", "jan", "*@winkel.nl", "jan@thuis.nl"))
        self.assertFalse(self.allows(rule(), "info@winkel.nl", "jan", "jan@thuis.nl"))
        self.assertFalse(self.allows(rule(own=False), "info@winkel.nl", "jan", "*@winkel.nl"))

    @proves("M7")
    def test_patterns_for_everyone(self) -> None:
        self.assertTrue(self.allows(rule("*@elders.nl", own=False), "ik@elders.nl"))
        self.assertFalse(self.allows(rule("*@elders.nl", own=False), "ik@mijnbedrijf.nl"))

    def test_no_sender(self) -> None:
        self.assertFalse(self.allows(rule("*@*"), ""))
        self.assertFalse(self.allows(rule("*@*"), "", ""))
        self.assertTrue(self.allows(rule(null=True), ""))


class DialogueTests(ClockTestCase):
    @proves("M7")
    def test_a_realm_with_rules(self) -> None:
        recipients = RecipientsRule(AddressPatterns.of(["*@overheid.nl"]), {})
        wire = self.logged_in(policies=(rule("*@mijnbedrijf.nl"), recipients))
        self.assertEqual(wire.ask("MAIL FROM:<ik@elders.nl>")[:9], "550 5.7.1")
        self.assertEqual(wire.ask("RCPT TO:<a@overheid.nl>")[:9], "503 5.5.1")
        self.assertEqual(wire.ask("MAIL FROM:<ik@mijnbedrijf.nl>")[:9], "250 2.1.0")
        self.assertEqual(wire.ask("RCPT TO:<a@elders.nl>")[:9], "550 5.7.1")
        self.assertEqual(wire.ask("DATA")[:9], "503 5.5.1")
        self.assertEqual(wire.ask("RCPT TO:<a@overheid.nl>")[:9], "250 2.1.5")
        self.assertEqual(wire.ask("DATA")[:4], "354 ")
        self.assertIn("queued as", wire.ask("."))
        self.assertEqual([str(to) for to in self.spool.kept[0][0].recipients], ["a@overheid.nl"])
        # The client never hears of patterns, nor of its own octets.
        self.assertIn("is not an address of", self.events("refused")[0]["reason"])
