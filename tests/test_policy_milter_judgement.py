"""A milter judges a message: what it is told, what comes of its answers, and of its failures."""

import struct

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from digipoort_msa import log
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.policy.milter.packets import STEPS, packet
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import MailParameters, Path
from tests.milter import (
    ACCEPT,
    CONTINUE,
    DEFERS,
    HANG,
    MESSAGE,
    PASSED,
    REJECTS,
    TRACE,
    UNAVAILABLE,
    WORDS,
    Asked,
    MilterTestCase,
    agreed,
    refused_at,
)
from tests.requirements import proves

BODY = MESSAGE.partition(b"\r\n\r\n")[2]


class DialogueTests(MilterTestCase):
    def test_interfaces(self) -> None:
        asked = Asked()
        verifyObject(IPolicy, asked.rule)
        verifyObject(IJudgement, asked.begin().judgement)

    @proves("M2")
    def test_whole(self) -> None:
        """In order, each step with its macros, and every octet of the body."""
        asked = Asked()
        self.assertEqual(asked.begin().whole(), PASSED)
        conversation = asked.script.last
        self.assertEqual(conversation.codes, "OCHMRTLNBEQ")
        self.assertEqual(conversation.data(b"H"), [b"client.example\0"])
        self.assertEqual(conversation.data(b"M"), [b"<a@example.nl>\0"])
        self.assertEqual(conversation.data(b"R"), [b"<b@example.nl>\0"])
        self.assertEqual(conversation.data(b"L"), [b"From\0<a@example.nl>\0", b"Subject\0one\n\ttwo\0"])
        self.assertEqual(b"".join(conversation.data(b"B")), BODY)
        self.assertEqual([len(data) <= 65_535 for data in conversation.data(b"B")], [True] * 3)
        macros = {data[:1]: data[1:].split(b"\0") for data in conversation.data(b"D")}
        self.assertEqual(set(macros), {b"C", b"M", b"R", b"T", b"N", b"E"})
        self.assertEqual(macros[b"M"][:2], [b"{auth_authen}", b"business"])
        for code in (b"R", b"T", b"N", b"E"):
            self.assertEqual(macros[code][:2], [b"i", b"Q1"])
        self.assertNothingLeft(asked)

    def test_no_ehlo(self) -> None:
        """Nothing is made up where the client did not say it under TLS (T5)."""
        asked = Asked()
        self.assertEqual(asked.begin(evolve(TRACE, client_name=None)).whole(), PASSED)
        self.assertEqual(asked.script.last.codes, "OCMRTLNBEQ")

    def test_steps_that_it_does_without(self) -> None:
        for step in STEPS[:-1]:
            asked = Asked({b"O": agreed(step.unwanted)})
            self.assertEqual(asked.begin().whole(), PASSED, step)
            codes = "OCHMRTLNBEQ".replace(step.code.decode(), "")
            self.assertEqual(asked.script.last.codes, codes, step)
            # What it may look up is told all the same.
            self.assertEqual(len(asked.script.last.data(b"D")), 6, step)
            self.assertNothingLeft(asked)

    def test_steps_that_it_does_not_answer(self) -> None:
        for step in STEPS[:-1]:
            asked = Asked({b"O": agreed(step.unanswered), step.code: HANG})
            self.assertEqual(asked.begin().whole(), PASSED, step)
            self.assertEqual(asked.script.last.codes, "OCHMRTLNBEQ", step)
            self.assertEqual(b"".join(asked.script.last.data(b"B")), BODY)
            self.assertNothingLeft(asked)

    def test_none_answered_but_the_end(self) -> None:
        """As rspamd has it."""
        unanswered = sum(step.unanswered for step in STEPS)
        everything: dict[bytes, bytes | None] = {step.code: HANG for step in STEPS[:-1]}
        asked = Asked({**everything, b"O": agreed(unanswered), b"E": WORDS})
        self.assertEqual(asked.begin().whole(), refused_at(b"E", "550 5.7.1 A virus, 100% sure"))
        self.assertEqual(b"".join(asked.script.last.data(b"B")), BODY)
        self.assertNothingLeft(asked)

    def test_leading_space(self) -> None:
        asked = Asked({b"O": agreed(1 << 20)})
        asked.begin().whole()
        self.assertEqual(asked.script.last.data(b"L")[0], b"From\0 <a@example.nl>\0")

    def test_enough(self) -> None:
        """SKIP: the rest of the body is not told, the end of the message is."""
        asked = Asked({b"B": packet(b"s")})
        self.assertEqual(asked.begin().whole(), PASSED)
        self.assertEqual(len(asked.script.last.data(b"B")), 1)
        self.assertEqual(asked.script.last.codes[-2:], "EQ")
        asked = Asked({b"L": packet(b"s")})
        self.assertEqual(asked.begin().whole(), PASSED)

    def test_small_writes(self) -> None:
        """A message of few octets, each in a write of its own; one without a body; one without anything."""
        for message in (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n", b"\r\nbody\r\n", b""):
            asked = Asked()
            self.assertEqual(asked.begin().whole(message, size=1), PASSED)
            self.assertEqual(
                b"".join(asked.script.last.data(b"B")),
                message.partition(b"\r\n")[2][2:] if message.startswith(b"A") else message[2:],
            )
            self.assertNothingLeft(asked)

    def test_several_recipients(self) -> None:
        asked = Asked()
        one = asked.begin()
        self.assertEqual(one.sender(), "")
        for name in "bcd":
            self.assertEqual(one.recipient(Path(name, "example.nl")), "")
        self.assertEqual(asked.script.last.data(b"R")[2], b"<d@example.nl>\0")
        one.judgement.abort()
        self.assertNothingLeft(asked)

    def test_back_pressure(self) -> None:
        """A milter that takes nothing holds the client back."""
        asked = Asked({b"O": agreed(STEPS[7].unanswered)})
        one = asked.begin()
        for said in (one.sender(), one.recipient(), one.open(), one.write(b"A: b\r\n\r\n")):
            self.assertEqual(said, "")
        waiting = one.judgement.write(b"x" * 200_000)
        assert isinstance(waiting, Deferred)
        self.assertNoResult(waiting)
        asked.script.pump()
        self.assertIsNone(self.successResultOf(waiting))
        self.assertIsNone(one.judgement.write(b"few octets"))
        one.judgement.abort()
        self.assertNothingLeft(asked)


class VerdictTests(MilterTestCase):
    def asked(self, code: bytes, answer: bytes) -> list[str]:
        asked = Asked({code: answer})
        said = asked.begin().whole()
        self.assertNothingLeft(asked)
        return said

    def test_accepted(self) -> None:
        """At any step: nothing more is told."""
        for step in STEPS:
            asked = Asked({step.code: ACCEPT})
            self.assertEqual(asked.begin().whole(), PASSED, step)
            self.assertTrue(asked.script.last.codes.endswith("Q"), step)
            self.assertNothingLeft(asked)

    def test_refused(self) -> None:
        """At any step, the client is told at the next moment at which it can be."""
        for step in STEPS:
            for answer, said in {
                packet(b"r"): REJECTS,
                packet(b"t"): DEFERS,
                packet(b"4"): DEFERS,
                packet(b"f"): DEFERS,
                WORDS: "550 5.7.1 A virus, 100% sure",
                packet(b"y", b"451 4.7.1 Not yet\0"): "451 4.7.1 Not yet",
            }.items():
                self.assertEqual(self.asked(step.code, answer), refused_at(step.code, said), step)

    @proves("D2")
    def test_discarded(self) -> None:
        """No message is lost in silence: its sender is told."""
        for step in STEPS:
            self.assertEqual(self.asked(step.code, packet(b"d")), refused_at(step.code, REJECTS), step)

    @proves("D2")
    def test_quarantined(self) -> None:
        for last in (CONTINUE, ACCEPT):
            self.assertEqual(self.asked(b"E", packet(b"q", b"a virus\0") + last), refused_at(b"E", REJECTS))
        self.assertEqual(
            self.asked(b"E", packet(b"q", b"a virus\0") + WORDS)[2], "550 5.7.1 A virus, 100% sure"
        )

    def test_one_recipient_refused(self) -> None:
        """The others stand."""
        asked = Asked({b"R": WORDS})
        one = asked.begin()
        self.assertEqual(one.sender(), "")
        self.assertEqual(one.recipient(), "550 5.7.1 A virus, 100% sure")
        asked.script.answers[b"R"] = CONTINUE
        self.assertEqual(one.recipient(), "")
        self.assertEqual(one.open(), "")
        self.assertEqual(one.write(MESSAGE), "")
        self.assertEqual(one.complete(), "")
        self.assertNothingLeft(asked)

    def test_discarded_at_a_recipient(self) -> None:
        """It is of the whole message: no recipient is taken any more, nor is the content."""
        asked = Asked()
        one = asked.begin()
        one.sender()
        self.assertEqual(one.recipient(), "")
        asked.script.answers[b"R"] = packet(b"d")
        self.assertEqual([one.recipient(), one.recipient()], [REJECTS] * 2)
        self.assertEqual([one.open(), one.write(MESSAGE), one.complete()], ["", "", REJECTS])
        self.assertNothingLeft(asked)

    def test_progress(self) -> None:
        """It keeps a verdict waiting no longer than the whole time."""
        self.assertEqual(self.asked(b"E", packet(b"p") * 50 + CONTINUE), PASSED)
        asked = Asked({b"E": packet(b"p")})
        one = asked.begin()
        self.assertEqual(one.whole(), refused_at(b"E", UNAVAILABLE))
        self.assertEqual(one.seconds, 300)
        self.assertNothingLeft(asked)

    @proves("M2")
    def test_header_changes_are_left_out(self) -> None:
        """The log tells once of each kind."""
        changes = packet(b"h", b"X-Spam\0Yes\0") + packet(b"m", struct.pack("!L", 1) + b"Subject\0x\0")
        asked = Asked({b"E": changes * 3 + CONTINUE})
        for _ in range(2):
            self.assertEqual(asked.begin().whole(), PASSED)
        self.assertEqual(len(self.events(log.MILTER_CHANGE_LEFT_OUT.name)), 2)
        self.assertNothingLeft(asked)

    @proves("M1", "M2")
    def test_other_changes_are_a_failure(self) -> None:
        for code in (b"+", b"2", b"-", b"e", b"b"):
            self.assertEqual(
                self.asked(b"E", packet(code, b"<c@example.nl>\0") + CONTINUE), refused_at(b"E", UNAVAILABLE)
            )

    @proves("M5")
    def test_header_that_cannot_be_told(self) -> None:
        """It is the client's doing: refused, also where failures are passed."""
        for header, said in {
            b"A: b\r\nno field\r\n\r\n": reply.HEADER_MALFORMED,
            b"A: b\0\r\n\r\n": reply.HEADER_MALFORMED,
            b"A: " + b"x" * 66_000 + b"\r\n\r\n": reply.HEADER_TOO_BIG,
            b"A: x\r\n" * 1_001 + b"\r\n": reply.HEADER_TOO_BIG,
        }.items():
            for passes in (False, True):
                asked = Asked(passes=passes)
                self.assertEqual(asked.begin().whole(header + b"body\r\n" * 20_000), ["", "", str(said)])
                self.assertNotIn("E", asked.script.last.codes)
                self.assertNothingLeft(asked)

    def test_size(self) -> None:
        """As MAIL says it, and as it is."""
        asked = Asked(maximum_size=1_000)
        self.assertEqual(asked.begin().whole(b"A: b\r\n\r\n" + b"x" * 992), PASSED)
        self.assertEqual(
            asked.begin().whole(b"A: b\r\n\r\n" + b"x" * 993), ["", "", str(reply.FILTER_TOO_BIG)]
        )
        self.assertEqual(asked.begin().sender(MailParameters(size=1_001)), str(reply.FILTER_TOO_BIG))
        self.assertNotIn("E", asked.script.last.codes)
        self.assertNothingLeft(asked)
        asked = Asked(maximum_size=1_000, passes=True)
        self.assertEqual(asked.begin().whole(b"A: b\r\n\r\n" + b"x" * 993), PASSED)
        self.assertEqual(len(self.events(log.MILTER_PASSED_OVER.name)), 1)
        self.assertIsNone(asked.milter.health.resting)
        self.assertNothingLeft(asked)

    def test_a_small_message_that_says_it_is_large(self) -> None:
        """Where failures pass, what MAIL says of the size gets nobody past the milter."""
        asked = Asked({b"E": packet(b"r")}, maximum_size=1_000, passes=True)
        transaction = asked.begin()
        self.assertEqual(transaction.sender(MailParameters(size=1_001)), "")
        transaction.recipient()
        transaction.open()
        transaction.write(b"A: b\r\n\r\nx\r\n")
        self.assertEqual(transaction.complete(), str(reply.FILTER_REJECTS))
        transaction.judgement.abort()
        self.assertEqual(self.events(log.MILTER_PASSED_OVER.name), [])
        self.assertNothingLeft(asked)
