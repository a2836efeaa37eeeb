"""A milter that fails, a transaction that is given up, and what is left of either: nothing."""

from collections.abc import Iterator
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.policy.milter.connection import MilterConnection
from digipoort_msa.policy.milter.packets import STEPS, MilterError, Step, packet
from digipoort_msa.smtp.envelope import MailParameters, Path
from tests.milter import (
    ACCEPT,
    CONTINUE,
    DIE,
    HANG,
    MESSAGE,
    PASSED,
    REJECTS,
    UNAVAILABLE,
    WORDS,
    Asked,
    MilterTestCase,
    agreed,
    envelope,
    refused_at,
)

CODES = [b"O", *(step.code for step in STEPS)]


def faults(step: bytes) -> Iterator[tuple[str, bytes | None]]:
    yield "it closes", DIE
    yield "it is silent", HANG
    yield "no packet", b"HTTP/1.1 400 Bad Request\r\n"
    yield "an endless packet", b"\0\2\0\1c"
    yield "an empty packet", bytes(4)
    yield "half a packet", b"\0\0\0\2c"
    yield "an unknown answer", packet(b"X")
    yield "an answer with more to it", packet(b"c", b"more")
    yield "two answers", (agreed() if step == b"O" else CONTINUE) + CONTINUE
    yield "words that are no reply", packet(b"y", b"250 2.0.0 Ok\0")
    if step != b"E":
        yield "a change before the end", packet(b"h", b"A\0b\0")
        yield "progress before the end", packet(b"p")
    if step not in b"LB":
        yield "enough of what comes once", packet(b"s")


class ConnectionTests(SynchronousTestCase):
    def test_a_verdict_comes_before_the_end(self) -> None:
        """A milter that has decided, takes no more and goes is heard, not failed."""
        connection = MilterConnection(Clock())
        connection.makeConnection(StringTransport())
        connection.pauseProducing()
        connection.tell(b"x")
        room = Deferred.fromCoroutine(connection.room(30))
        self.assertNoResult(room)
        connection.dataReceived(packet(b"r"))
        connection.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(room)
        self.successResultOf(Deferred.fromCoroutine(connection.room(30)))
        answer = self.successResultOf(Deferred.fromCoroutine(connection.packet(30, "none")))
        self.assertEqual(answer.code, b"r")
        self.failureResultOf(Deferred.fromCoroutine(connection.packet(30, "none")), MilterError)

    def test_what_is_broken_is_not_heard(self) -> None:
        """Not even what came before it."""
        connection = MilterConnection(Clock())
        connection.makeConnection(StringTransport())
        connection.tell(b"x")
        connection.dataReceived(packet(b"a") + bytes(4))
        self.failureResultOf(Deferred.fromCoroutine(connection.packet(30, "none")), MilterError)


class FailureTests(MilterTestCase):
    def test_refused(self) -> None:
        """Every step, every fault: 451, and nothing leaks."""
        for code in CODES:
            for name, answer in faults(code):
                asked = Asked({code: answer})
                one = asked.begin()
                said = one.whole()
                if (code, name) == (b"L", "two answers"):
                    self.assertEqual(said[2], UNAVAILABLE)  # noticed at the end of the header
                else:
                    self.assertEqual(said, refused_at(code, UNAVAILABLE), (code, name))
                most = 300 if code == b"E" else 30
                # Of two header fields, two halves make a packet.
                waits = name == "it is silent" or (name == "half a packet" and code != b"L")
                self.assertEqual(one.seconds, most if waits else 0, (code, name))
                self.assertEqual(self.events(log.MILTER_PASSED_OVER.name), [])
                self.assertNothingLeft(asked)

    def test_passed(self) -> None:
        """The same where a failure is to be passed: the log says so each time."""
        for code in CODES:
            for name, answer in faults(code):
                asked = Asked({code: answer}, passes=True)
                self.assertEqual(asked.begin().whole(), PASSED, (code, name))
                (event,) = self.events(log.MILTER_PASSED_OVER.name)
                self.assertEqual((event["session"], event["account"]), ("S1", "business"))
                self.logged.clear()
                self.assertNothingLeft(asked)

    def test_slow_octets(self) -> None:
        """Answers in the smallest segments are answers."""
        for answer, said in ((CONTINUE, PASSED), (WORDS, refused_at(b"E", "550 5.7.1 A virus, 100% sure"))):
            asked = Asked({b"E": packet(b"p") * 3 + answer})
            asked.script.cut = 1
            self.assertEqual(asked.begin().whole(), said)
            self.assertNothingLeft(asked)

    def test_no_connection(self) -> None:
        for state, seconds in (("down", 0), ("silent", 5)):
            for passes in (False, True):
                asked = Asked(passes=passes)
                asked.script.state = state
                one = asked.begin()
                self.assertEqual(one.whole(), PASSED if passes else [UNAVAILABLE])
                self.assertEqual(one.seconds, seconds)
                self.assertNothingLeft(asked)

    def test_gone_while_nothing_was_asked(self) -> None:
        """The client may have kept it waiting: that gets no message past it, and does it no harm."""
        for answer in (None, ACCEPT):
            for passes in (False, True):
                for moments in (0, 1, 2, 3):
                    asked = Asked(passes=passes)
                    one = asked.begin()
                    self.assertEqual(one.sender(), "")
                    for ask in (one.recipient, one.open, lambda: one.write(b"A: b\r\n\r\n"))[:moments]:  # noqa: B023
                        self.assertEqual(ask(), "")
                    transport, conversation = asked.script.connections[0]
                    if answer is None:
                        conversation.closed = True
                        asked.script.pump()
                    else:
                        transport.protocol.dataReceived(answer)
                    self.assertTrue(transport.lost)
                    if moments == 0:
                        self.assertEqual([one.recipient(), one.recipient()], [UNAVAILABLE] * 2)
                    self.assertEqual([one.open(), one.write(MESSAGE), one.complete()], ["", "", UNAVAILABLE])
                    self.assertEqual(self.events(log.MILTER_PASSED_OVER.name), [])
                    self.assertEqual(asked.milter.health._breaks, 0)
                    self.assertNothingLeft(asked)

    def test_it_takes_nothing(self) -> None:
        """It does not answer parts of the body, and reads none."""
        for passes in (False, True):
            asked = Asked({b"O": agreed(STEPS[7].unanswered)}, passes=passes)
            one = asked.begin()
            for said in (one.sender(), one.recipient(), one.open(), one.write(b"A: b\r\n\r\n")):
                self.assertEqual(said, "")
            waiting = one.judgement.write(b"x" * 200_000)
            asked.clock.pump([1] * 31)
            self.assertIsNone(self.successResultOf(waiting))
            self.assertEqual(one.complete(), "" if passes else UNAVAILABLE)
            self.assertNothingLeft(asked)

    def test_a_flood(self) -> None:
        asked = Asked({b"E": packet(b"p") * 20_000})
        self.assertEqual(asked.begin().whole(), refused_at(b"E", UNAVAILABLE))
        self.assertNothingLeft(asked)

    def test_an_unread_farewell(self) -> None:
        """A milter that does not take our last words is not waited for for ever."""
        asked = Asked()
        one = asked.begin()
        self.assertEqual(one.sender(), "")
        one.judgement.abort()
        self.assertEqual(asked.script.open, 1)
        asked.clock.advance(10)
        self.assertNothingLeft(asked)


class FuzzTests(MilterTestCase):
    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(CODES), st.binary(max_size=40), st.booleans(), st.integers(1, 7))
    def test_any_octets(self, code: bytes, answer: bytes, framed: bool, cut: int) -> None:
        """Whatever a milter says at a step: it ends, nothing is left, and only an agreement passes."""
        said = packet(answer[:1], answer[1:]) if framed and answer else answer
        asked = Asked({code: said})
        asked.script.cut = cut
        message = b"From: <a@example.nl>\r\n\r\nfew octets\r\n"
        if asked.begin().whole(message) == PASSED:
            self.assertIn(said[4:5], b"cas")
        self.assertNothingLeft(asked)


class AbortTests(MilterTestCase):
    def steps(self) -> Iterator[tuple[Step | None, Asked]]:
        """A transaction that hangs at each step."""
        for step in STEPS:
            yield step, Asked({step.code: HANG})
        yield None, Asked({b"O": HANG})

    def hanging(self, asked: Asked) -> "tuple[Deferred[None], Any]":
        """Go as far as it goes."""
        one = asked.begin()
        moments = [
            lambda: one.judgement.sender(Path("a", "b"), MailParameters()),
            lambda: one.judgement.recipient(envelope(), Path("a", "b"), None),
            lambda: one.judgement.open(envelope()),
            lambda: one.judgement.write(MESSAGE),
            one.judgement.complete,
        ]
        for ask in moments:
            waiting = ask()
            asked.script.pump()
            if waiting is not None and not waiting.called:
                return waiting, one.judgement
        raise AssertionError("it does not hang")

    def test_cancelled(self) -> None:
        for _, asked in self.steps():
            waiting, judgement = self.hanging(asked)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            judgement.abort()
            self.assertIsNone(asked.milter.health.resting)
            self.assertNothingLeft(asked)

    def test_aborted(self) -> None:
        """Without a cancellation: whoever waits is told nothing, and the log nothing of a failure."""
        for passes in (False, True):
            for _, asked in self.steps():
                asked.rule = evolve(asked.rule, passes_on_failure=passes)
                waiting, judgement = self.hanging(asked)
                judgement.abort()
                self.assertIsNone(self.successResultOf(waiting))
                self.assertEqual(self.events(log.MILTER_PASSED_OVER.name), [])
                self.assertIsNone(asked.milter.health.resting)
                self.assertNothingLeft(asked)

    def test_cancelled_while_it_connects(self) -> None:
        asked = Asked()
        asked.script.state = "silent"
        one = asked.begin()
        waiting = one.judgement.sender(Path("a", "b"), MailParameters())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        one.judgement.abort()
        self.assertIsNone(asked.milter.health.resting)
        self.assertNothingLeft(asked)

    def test_aborted_between_two_steps(self) -> None:
        """It is told so."""
        asked = Asked()
        one = asked.begin()
        one.sender()
        one.judgement.abort()
        asked.script.pump()
        self.assertEqual(asked.script.last.codes, "OCHMAQ")
        self.assertNothingLeft(asked)

    def test_stopped(self) -> None:
        """With the service, what is open is dropped."""
        asked = Asked()
        for _ in range(3):
            asked.begin().sender()
        self.assertEqual(asked.script.open, 3)
        self.assertIsNone(self.successResultOf(asked.rule.stop()))
        self.assertEqual(asked.script.open, 0)


class HealthTests(MilterTestCase):
    def test_a_rest(self) -> None:
        """One that is away costs one message its time, and the others nothing, until the rest is over."""
        asked = Asked()
        asked.script.state = "silent"
        first, second = asked.begin(), asked.begin()
        self.assertEqual([first.sender(), second.sender()], [UNAVAILABLE] * 2)
        self.assertEqual((first.seconds, second.seconds), (5, 0))
        (event,) = self.events(log.MILTER_FAILED.name)
        self.assertEqual(
            event["log_format"].format(**event),
            "the milter unix:/milter is left alone for 2 s: no connection in 5 s",
        )
        asked.script.state = "up"
        asked.clock.advance(2)
        self.assertEqual(asked.begin().whole(), PASSED)
        (event,) = self.events(log.MILTER_WORKS.name)
        self.assertEqual(event["seconds"], 2)
        self.assertNothingLeft(asked)

    def test_rests_grow_until_there_is_a_verdict(self) -> None:
        asked = Asked()
        asked.script.state = "down"
        for seconds in (2, 4, 8, 16, 32, 60, 60):
            self.assertEqual(asked.begin().sender(), UNAVAILABLE)
            asked.clock.advance(seconds - 0.1)
            self.assertIn("left alone", asked.milter.health.resting or "")
            asked.clock.advance(0.1)
            self.assertIsNone(asked.milter.health.resting)
        asked.script.state = "up"
        self.assertEqual(asked.begin().whole(), PASSED)
        asked.script.state = "down"
        asked.begin().sender()
        self.assertEqual([event["seconds"] for event in self.events(log.MILTER_FAILED.name)][-2:], [60, 2])

    def test_a_message_may_be_to_blame(self) -> None:
        """Two that come to grief are no reason for a rest, three are; after a rest, one is."""
        asked = Asked({b"E": DIE})
        for rests in (False, False, True):
            self.assertEqual(asked.begin().whole(), refused_at(b"E", UNAVAILABLE))
            self.assertEqual(asked.milter.health.resting is not None, rests)
        asked.clock.advance(2)
        self.assertEqual(asked.begin().whole(), refused_at(b"E", UNAVAILABLE))
        self.assertIsNotNone(asked.milter.health.resting)
        asked.clock.advance(4)
        asked.script.answers[b"E"] = packet(b"r")  # a verdict is a verdict
        self.assertEqual(asked.begin().whole(), refused_at(b"E", REJECTS))
        asked.script.answers[b"E"] = DIE
        self.assertEqual(asked.begin().whole(), refused_at(b"E", UNAVAILABLE))
        self.assertIsNone(asked.milter.health.resting)


class MemoryTests(SynchronousTestCase):
    def test_nothing_is_kept_of_a_large_message(self) -> None:
        """What is not told yet is less than a part."""
        asked = Asked()
        one = asked.begin()
        for said in (one.sender(), one.recipient(), one.open(), one.write(b"A: b\r\n\r\n")):
            self.assertEqual(said, "")
        for size in (1, 65_535, 65_536, 100_000, 300_000, 7):
            self.assertEqual(one.write(b"x" * size), "")
            self.assertLess(len(one.judgement._content._body), 65_535)
        one.judgement.abort()
