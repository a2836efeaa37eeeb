"""Who may send, and to whom (M7)."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.interfaces import IPolicy
from digipoort_msa.policy.addresses import AddressPatterns, BoundSender, Recipients, Senders
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import NULL_PATH, Envelope, MailParameters, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase
from tests.requirements import proves
from tests.spooling import envelope


def path(text: str) -> Path:
    return Path.from_text(text)


class AddressPatternsTests(SynchronousTestCase):
    def test_match(self) -> None:
        for pattern, matching, others in (
            (
                "*@mijnbedrijf.nl",
                "a@mijnbedrijf.nl A.B@MIJNBEDRIJF.NL",
                "a@b.mijnbedrijf.nl a@mijnbedrijf.nl.",
            ),
            ("jan@*.nl", "jan@a.nl jan@a.b.nl JAN@a.nl", "piet@a.nl jan@nl jan@a.be"),
            ("a.b@c.nl", "a.b@c.nl", "axb@c.nl a.b@cxnl xa.b@c.nl a.b@c.nlx"),
            ("j*n@c.nl", "jn@c.nl jan@c.nl", "j@c.nl"),
            ("[ab]+@c.nl", "[ab]+@c.nl", "a@c.nl"),
        ):
            patterns = AddressPatterns.of([pattern, "nobody@example"])
            for text in matching.split():
                self.assertTrue(patterns.match(path(text)), (pattern, text))
            for text in others.split():
                self.assertFalse(patterns.match(path(text)), (pattern, text))

    def test_letters_that_only_look_the_same(self) -> None:
        """A domain with a dotless i is another's; an accent has two cases as any letter has."""
        patterns = AddressPatterns.of(["*@digid.nl", "*@caf\u00e9.nl"])
        for text in ("a@d\u0131gid.nl", "a@dig\u0130d.nl", "a@cafe.nl"):
            self.assertFalse(patterns.match(path(text)), text)
        self.assertTrue(patterns.match(path("a@CAF\u00c9.nl")))
        self.assertFalse(AddressPatterns.of(["info@shop.nl"]).match(path("info@\u017fhop.nl")))

    def test_a_quoted_local_part_that_looks_like_another_address(self) -> None:
        patterns = AddressPatterns.of(["*@mijnbedrijf.nl", "baas@*"])
        self.assertFalse(patterns.match(Path('"x@mijnbedrijf.nl"', "elders.nl")))
        self.assertFalse(patterns.match(Path('"baas@"', "elders.nl")))

    @settings(deadline=None, max_examples=200)
    @given(st.text("ab.*@", min_size=1, max_size=8), st.text("ab.@", max_size=10))
    def test_means_what_a_plain_translation_means(self, pattern: str, text: str) -> None:
        expression = "".join(".*" if char == "*" else re.escape(char) for char in pattern)
        self.assertEqual(
            AddressPatterns.of([pattern]).match(Path(text, "")), re.fullmatch(expression, text) is not None
        )

    def test_none_matches_nothing(self) -> None:
        self.assertFalse(AddressPatterns.of([]).match(path("a@b.nl")))
        self.assertFalse(AddressPatterns.of([]).match(NULL_PATH))


class RulesTests(SynchronousTestCase):
    def allows(self, rule: IPolicy, text: str, account: str = "piet") -> bool:
        verifyObject(IPolicy, rule)
        parameters = MailParameters()
        try:
            self.assertIsNone(rule.sender(account, path(text) if text else NULL_PATH, parameters))
        except Refused as refused:
            self.assertEqual(refused.reply, reply.SENDER_NOT_YOURS)
            self.assertNotEqual(refused.cause, "")
            return False
        return True

    @proves("M7")
    def test_senders(self) -> None:
        rule = Senders(AddressPatterns.of(["*@mijnbedrijf.nl"]))
        self.assertTrue(self.allows(rule, "ik@mijnbedrijf.nl"))
        self.assertFalse(self.allows(rule, "ik@elders.nl"))
        self.assertTrue(self.allows(rule, ""))

    @proves("M7")
    def test_bound_sender(self) -> None:
        rule = BoundSender({"piet": AddressPatterns.of(["*@mijnbedrijf.nl"])})
        for account, text, allowed in (
            ("piet", "ik@mijnbedrijf.nl", True),
            ("piet", "ik@elders.nl", False),
            ("Piet", "ik@mijnbedrijf.nl", False),
            ("jan", "ik@mijnbedrijf.nl", False),
            ("jan", "jan", False),
            ("jan@elders.nl", "Jan@Elders.nl", True),
            ("jan@elders.nl", "piet@elders.nl", False),
            ("piet", "", False),
            ("", "", False),
        ):
            self.assertEqual(self.allows(rule, text, account), allowed, (account, text))

    @proves("M7")
    def test_recipients(self) -> None:
        rule = Recipients(AddressPatterns.of(["*@overheid.nl"]))
        verifyObject(IPolicy, rule)
        so_far: Envelope = envelope()
        rule.recipient("piet", so_far, path("a@overheid.nl"), RcptParameters())
        for text in ("a@elders.nl", "postmaster"):
            refused = self.assertRaises(Refused, rule.recipient, "piet", so_far, path(text), RcptParameters())
            self.assertEqual(refused.reply, reply.RECIPIENT_NOT_ALLOWED)


class DialogueTests(ClockTestCase):
    @proves("M7")
    def test_a_realm_with_rules(self) -> None:
        wire = self.logged_in(
            policies=(
                Senders(AddressPatterns.of(["*@mijnbedrijf.nl"])),
                Recipients(AddressPatterns.of(["*@overheid.nl"])),
            )
        )
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
        self.assertIn("not among the realm's senders", self.events("refused")[0]["reason"])
