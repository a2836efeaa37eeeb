"""The health of a hop: rests that grow, one probe at their end."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.delivery.failures import HopFailure, lost
from digipoort_msa.delivery.health import Health, Rests
from digipoort_msa.smtp.reply import reply
from tests.requirements import proves

DOWN = reply(421, "4.3.2", "down")


class HealthTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.start()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.patch(log, "emit", lambda event, **fields: self.events.append((event.name, fields)))

    def start(self, random: float = 0.5, first: float = 5, longest: float = 40) -> None:
        self.clock = Clock()
        self.probes: list[Deferred[None]] = []
        self.told: list[str] = []
        self.health = Health(
            self.clock,
            "hop:25",
            Rests(first, longest),
            lambda: random,
            self.probe,
            lambda: self.told.append("changed"),
            lambda: self.told.append("recovered"),
        )

    def probe(self) -> "Deferred[None]":
        self.probes.append(Deferred())
        return self.probes[-1]

    def rest(self) -> float:
        """How long it rests, until its probe."""
        [call] = self.clock.getDelayedCalls()
        seconds = call.getTime() - self.clock.seconds()
        probes = len(self.probes)
        self.clock.advance(seconds - 0.125)
        self.assertEqual(len(self.probes), probes)
        self.clock.advance(0.125)
        self.assertEqual(len(self.probes), probes + 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return seconds


class RestTests(HealthTestCase):
    @proves("D2")
    def test_longer_each_time(self) -> None:
        self.health.failed(DOWN)
        for expected in (5, 10, 20, 40, 40, 40):
            self.assertAlmostEqual(self.rest(), expected)
            self.probes[-1].errback(HopFailure(DOWN))
        self.assertIsNotNone(self.health.failing)
        self.assertEqual(self.told, ["changed"])

    def test_by_chance(self) -> None:
        for random, expected in ((0.0, 3.75), (1.0, 6.25)):
            self.start(random)
            self.health.failed(DOWN)
            self.assertAlmostEqual(self.rest(), expected)

    def test_recovery(self) -> None:
        self.health.failed(DOWN)
        self.clock.advance(5)
        self.assertIsNotNone(self.health.failing)
        self.probes[0].callback(None)
        self.assertIsNone(self.health.failing)
        self.assertEqual(self.told, ["changed", "changed", "recovered"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_since_when_and_the_latest_words(self) -> None:
        self.clock.advance(7)
        self.health.failed(DOWN)
        self.clock.advance(5)
        later = reply(554, None, "go away")
        self.probes[0].errback(HopFailure(later))
        assert self.health.failing is not None
        self.assertEqual((self.health.failing.since, self.health.failing.reply), (7, later))

    def test_one_rest_for_many_failures(self) -> None:
        """Those on their way when it begins do not make it longer, nor the log."""
        for _ in range(10):
            self.health.failed(DOWN)
        self.clock.advance(5)
        self.health.failed(DOWN)
        self.assertEqual(len(self.probes), 1)
        self.assertEqual([name for name, _ in self.events], ["hop-rests"])
        self.assertEqual(self.events[0][1]["seconds"], 5)

    def test_the_log_tells_of_each_rest_and_of_its_end(self) -> None:
        self.health.failed(DOWN)
        self.clock.advance(5)
        self.probes[0].errback(HopFailure(DOWN))
        self.clock.advance(10)
        self.probes[1].callback(None)
        self.assertEqual([name for name, _ in self.events], ["hop-rests", "hop-rests", "hop-recovered"])
        self.assertEqual(self.events[-1][1]["seconds"], 15)

    def test_a_defect_in_a_probe(self) -> None:
        """The hop is not left alone for ever."""
        self.health.failed(DOWN)
        self.clock.advance(5)
        self.probes[0].errback(LookupError("a defect"))
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertAlmostEqual(self.rest(), 10)


class FlappingTests(HealthTestCase):
    """A hop that recovers at each probe, and fails at the next message."""

    def fail_and_recover(self) -> float:
        self.health.failed(DOWN)
        seconds = self.rest()
        self.probes[-1].callback(None)
        return seconds

    def test_rests_longer(self) -> None:
        self.assertEqual([self.fail_and_recover() for _ in range(5)], [5, 10, 20, 40, 40])

    def test_until_a_transaction_comes_to_its_end(self) -> None:
        self.fail_and_recover()
        self.health.worked()
        self.assertEqual(self.fail_and_recover(), 5)

    def test_what_waits_is_not_thrown_at_it_each_time(self) -> None:
        """It is asked and answers, and fails at the first message: the next recovery has to be borne out."""
        recovered = []
        for _ in range(4):
            self.fail_and_recover()
            recovered.append(self.told.count("recovered"))
        self.assertEqual(recovered, [1, 1, 1, 1])
        self.health.worked()
        self.health.worked()
        self.assertEqual(self.told.count("recovered"), 2)
        self.fail_and_recover()
        self.assertEqual(self.told.count("recovered"), 3)

    def test_or_it_is_long_ago(self) -> None:
        self.fail_and_recover()
        self.clock.advance(41)
        self.assertEqual(self.fail_and_recover(), 5)
        self.assertEqual(self.told.count("recovered"), 2)

    def test_what_ends_during_a_rest_does_not_count(self) -> None:
        self.health.failed(DOWN)
        self.health.worked()
        self.assertEqual(self.rest(), 5)
        self.probes[-1].callback(None)
        self.assertEqual(self.fail_and_recover(), 10)


class BreakTests(HealthTestCase):
    def test_one_message_may_be_the_cause(self) -> None:
        for _ in range(10):
            self.health.broke(lost("hop:25", "reset"))
            self.health.broke(lost("hop:25", "reset"))
            self.health.worked()
        self.assertIsNone(self.health.failing)

    def test_again_and_again(self) -> None:
        for _ in range(3):
            self.assertIsNone(self.health.failing)
            self.health.broke(lost("hop:25", "reset"))
        self.assertIsNotNone(self.health.failing)


class StopTests(HealthTestCase):
    def test_well(self) -> None:
        self.health.stop()
        self.health.failed(DOWN)
        self.assertIsNone(self.health.failing)

    def test_while_it_rests(self) -> None:
        self.health.failed(DOWN)
        self.health.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_it_is_probed(self) -> None:
        self.health.failed(DOWN)
        self.clock.advance(5)
        self.health.stop()
        self.assertTrue(self.probes[0].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.told, ["changed"])

    def test_twice(self) -> None:
        self.health.failed(DOWN)
        self.health.stop()
        self.health.stop()
