from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.counts import LeakyCounts

K = ("one.nl", "piet", "192.0.2.1")


def key(number):
    return ("one.nl", f"name{number}", "")


class LeakyCountsTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.counts = LeakyCounts(self.clock.seconds, limit=4, window=40.0, entries=3)

    def test_drains_evenly(self):
        for expected in (1, 2, 3, 4):
            self.assertEqual(self.counts.wait(K), 0)
            self.counts.add(K)
            self.assertAlmostEqual(self.counts.value(K), expected)
        self.assertAlmostEqual(self.counts.wait(K), 10.0)
        self.clock.advance(4)
        self.assertAlmostEqual(self.counts.wait(K), 6.0)
        self.clock.advance(6)
        self.assertEqual(self.counts.wait(K), 0)
        self.assertAlmostEqual(self.counts.value(K), 3)
        self.clock.advance(30)
        self.assertEqual(self.counts.value(K), 0)

    def test_room(self):
        for room in (4, 3, 2, 1, 0, 0):
            self.assertEqual(self.counts.room(K), room)
            self.counts.add(K)
        self.counts.restore(K, 40.0)
        for _ in range(1000):
            self.clock.advance(0.04)
            self.assertEqual(self.counts.room(K) == 0, self.counts.wait(K) > 0)

    def test_bounded(self):
        for number in range(100):
            self.counts.add(key(number))
            self.assertLessEqual(len(self.counts), 3)
        self.assertAlmostEqual(self.counts.value(key(99)), 1)

    def test_what_has_drained_is_forgotten(self):
        for number in range(3):
            self.counts.add(key(number))
        self.clock.advance(1000)
        self.counts.add(K)
        self.assertEqual(len(self.counts), 1)

    def test_restored(self):
        """By the time that is left; more than a window is nobody's."""
        self.counts.restore(K, 20.0)
        self.assertAlmostEqual(self.counts.value(K), 2)
        self.assertAlmostEqual(self.counts.remaining(K), 20.0)
        self.counts.restore(K, 1e12)
        self.assertAlmostEqual(self.counts.value(K), 4)
        self.counts.restore(key(1), -5.0)
        self.assertEqual([K], list(self.counts.current()))

    def test_forgotten(self):
        self.counts.add(K)
        self.counts.forget(K)
        self.counts.forget(key(1))
        self.assertEqual((self.counts.value(K), len(self.counts)), (0, 0))

    def test_changes(self):
        """What is added, pushed out, drained or forgotten; each once."""
        for number in range(4):
            self.counts.add(key(number))
        self.assertEqual(self.counts.take_changes(), {key(0), key(1), key(2), key(3)})
        self.assertEqual(self.counts.take_changes(), set())
        self.counts.forget(key(1))
        self.counts.forget(key(1))
        self.assertEqual(self.counts.take_changes(), {key(1)})
        self.clock.advance(1000)
        self.counts.add(K)
        self.assertEqual(self.counts.take_changes(), {key(2), key(3), K})

    def test_changes_that_nobody_takes_are_bounded(self):
        for number in range(7):
            self.counts.add(key(number))
        self.assertIsNone(self.counts.take_changes())
        self.counts.add(K)
        self.assertEqual(self.counts.take_changes(), {K, key(4)})
        self.counts.give_back(None)
        self.assertIsNone(self.counts.take_changes())

    def test_changes_that_were_not_kept(self):
        self.counts.add(K)
        taken = self.counts.take_changes()
        self.counts.add(key(1))
        self.counts.give_back(taken)
        self.assertEqual(self.counts.take_changes(), {K, key(1)})
