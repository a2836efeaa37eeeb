"""The circuit breaker, with a clock that the test turns."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.http.breaker import Breaker, State
from digipoort_msa.interfaces import Unavailable
from tests.msa import _Events as Events


class BreakerTests(Events, SynchronousTestCase):
    def setUp(self) -> None:
        self.collect_events()
        self.clock = Clock()
        self.breaker = Breaker("one.nl", self.clock.seconds, failures=3, first_rest=1.0, longest_rest=3.0)

    def ask(self, *, answers: bool) -> None:
        self.breaker.admit()
        if answers:
            self.breaker.succeeded()
        else:
            self.breaker.failed("no answer in 4 s")

    def test_only_failures_in_a_row_count(self) -> None:
        for answers in (False, False, True) * 3:
            self.ask(answers=answers)
        self.assertIs(self.breaker.state, State.CLOSED)
        self.assertEqual(self.logged, [])

    def test_it_rests(self) -> None:
        """Nobody is let through before the rest is over, and each is told at once."""
        for _ in range(3):
            self.ask(answers=False)
        self.assertIs(self.breaker.state, State.RESTING)
        self.clock.advance(0.9)
        error = self.assertRaises(Unavailable, self.breaker.admit)
        self.assertEqual(str(error), "it did not answer, and is left alone for another 0.1 s")
        (event,) = self.events("store-rests")
        self.assertEqual(
            (event["realm"], event["seconds"], event["reason"]), ("one.nl", 1.0, "no answer in 4 s")
        )

    def test_one_tries_it(self) -> None:
        """However many come."""
        for _ in range(3):
            self.ask(answers=False)
        self.clock.advance(1)
        self.breaker.admit()
        for _ in range(3):
            error = self.assertRaises(Unavailable, self.breaker.admit)
            self.assertIn("until one login has tried it", str(error))
        self.clock.advance(5)
        self.assertRaises(Unavailable, self.breaker.admit)
        self.breaker.succeeded()
        self.assertIs(self.breaker.state, State.CLOSED)
        (event,) = self.events("store-recovered")
        self.assertEqual(event["seconds"], 6)
        self.ask(answers=False)  # the row begins anew
        self.assertIs(self.breaker.state, State.CLOSED)

    def test_rests_grow(self) -> None:
        for _ in range(3):
            self.ask(answers=False)
        for rest in (1, 2, 3, 3):
            self.assertRaises(Unavailable, self.breaker.admit)
            self.clock.advance(rest - 0.01)
            self.assertRaises(Unavailable, self.breaker.admit)
            self.clock.advance(0.02)
            self.ask(answers=False)
        self.assertEqual([event["seconds"] for event in self.events("store-rests")], [1, 2, 3, 3, 3])
        self.clock.advance(3)
        self.ask(answers=True)
        for _ in range(3):
            self.ask(answers=False)
        self.assertEqual(self.events("store-rests")[-1]["seconds"], 1)

    def test_those_that_were_under_way(self) -> None:
        """Many fail at once: that is one rest, and not a longer one."""
        for _ in range(10):
            self.breaker.admit()
        for _ in range(10):
            self.breaker.failed("no answer in 4 s")
        self.assertEqual([event["seconds"] for event in self.events("store-rests")], [1])

    def test_an_answer_that_comes_late(self) -> None:
        """It answers after all: it need not rest."""
        for _ in range(4):
            self.breaker.admit()
        for _ in range(3):
            self.breaker.failed("no answer in 4 s")
        self.breaker.succeeded()
        self.ask(answers=True)
