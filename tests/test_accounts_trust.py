from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.trust import Trust
from tests.requirements import proves


def key(account="piet", source="192.0.2.1"):
    return ("one.nl", account, source)


@proves("A8")
class TrustTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.trust = Trust(self.clock.seconds, seconds=100.0, entries=50)

    def test_a_pair_until_its_end(self):
        self.trust.add(key())
        self.assertTrue(self.trust.holds(key()))
        self.assertFalse(self.trust.holds(key(account="jan")))
        self.assertFalse(self.trust.holds(key(source="192.0.2.2")))
        self.assertFalse(self.trust.holds(("two.nl", "piet", "192.0.2.1")))
        self.clock.advance(60)
        self.assertAlmostEqual(self.trust.remaining(key()), 40)
        self.trust.add(key())
        self.clock.advance(99)
        self.assertEqual(list(self.trust.current()), [key()])
        self.clock.advance(1)
        self.assertFalse(self.trust.holds(key()))
        self.assertEqual(list(self.trust.current()), [])
        self.assertEqual((self.trust.remaining(key()), self.trust.remaining(key("jan"))), (0, 0))

    def test_a_known_source(self):
        self.trust.add(key())
        self.trust.add(key("jan"))
        self.assertTrue(self.trust.knows("192.0.2.1"))
        self.assertFalse(self.trust.knows("192.0.2.2"))
        self.trust.forget(key())
        self.assertTrue(self.trust.knows("192.0.2.1"))
        self.trust.forget(key("jan"))
        self.trust.forget(key("jan"))
        self.assertFalse(self.trust.knows("192.0.2.1"))
        self.assertEqual(len(self.trust), 0)
        self.trust.add(key())
        self.clock.advance(100)
        self.assertFalse(self.trust.knows("192.0.2.1"))

    def test_one_account_displaces_its_own_alone(self):
        """A stolen password, and a /48 to log in from: the others stay trusted."""
        self.trust.add(key())
        self.trust.add(key("stolen", "192.0.2.77"))
        for number in range(1000):
            self.trust.add(key("stolen", f"2001:db8:1:{number:x}::/64"))
        self.assertTrue(self.trust.holds(key()))
        self.assertFalse(self.trust.holds(key("stolen", "192.0.2.77")))
        self.assertEqual(len(self.trust), 33)
        self.assertFalse(self.trust.knows("192.0.2.77"))

    def test_bounded_in_all(self):
        self.trust.add(key())
        self.trust.add(key(source="192.0.2.2"))
        for number in range(60):
            self.trust.add(key(f"name{number}"))
        self.assertEqual(len(self.trust), 50)
        self.assertFalse(self.trust.holds(key()))
        self.assertTrue(self.trust.holds(key("name59")))
        self.assertTrue(self.trust.knows("192.0.2.1"))
        self.assertFalse(self.trust.knows("192.0.2.2"))

    def test_restored(self):
        self.trust.restore(key(), 30.0)
        self.trust.restore(key("jan"), 1e12)
        self.trust.restore(key("kees"), 0.0)
        self.assertAlmostEqual(self.trust.remaining(key()), 30)
        self.assertAlmostEqual(self.trust.remaining(key("jan")), 100)
        self.assertEqual(len(self.trust), 2)

    def test_changes(self):
        self.trust.add(key())
        self.trust.add(key())
        self.trust.forget(key())
        self.assertEqual(self.trust.take_changes(), {key()})
        self.assertEqual(self.trust.take_changes(), set())
        for number in range(101):
            self.trust.add(key(f"name{number}"))
        self.assertIsNone(self.trust.take_changes())
        self.trust.give_back(None)
        self.assertIsNone(self.trust.take_changes())
