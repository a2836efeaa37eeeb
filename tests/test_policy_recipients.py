"""To whom an account may send (M7)."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IPolicy
from digipoort_msa.policy.addresses import AddressPatterns
from digipoort_msa.policy.recipients import RecipientsRule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Path, RcptParameters
from digipoort_msa.smtp.reply import Refused
from tests.requirements import proves
from tests.spooling import envelope
from tests.test_submission import trace


class RecipientsRuleTests(SynchronousTestCase):
    @proves("M7")
    def test_the_realms_and_the_accounts(self) -> None:
        rule = RecipientsRule(
            AddressPatterns.of(["*@overheid.nl"]), {"piet": AddressPatterns.of(["*@gemeente.nl"])}
        )
        verifyObject(IPolicy, rule)
        for account, text, allowed in (
            ("piet", "a@overheid.nl", True),
            ("piet", "a@gemeente.nl", True),
            ("jan", "a@overheid.nl", True),
            ("jan", "a@gemeente.nl", False),
            ("Piet", "a@gemeente.nl", False),
            ("piet", "a@elders.nl", False),
            ("piet", "postmaster", False),
        ):
            judgement = rule.begin(Identity(name=account, realm="one.nl"), trace())
            path = Path.from_text(text)
            if allowed:
                self.assertIsNone(judgement.recipient(envelope(), path, RcptParameters()))
            else:
                refused = self.assertRaises(Refused, judgement.recipient, envelope(), path, RcptParameters())
                self.assertEqual(refused.reply, reply.RECIPIENT_NOT_ALLOWED)
