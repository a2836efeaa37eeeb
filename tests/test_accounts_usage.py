from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.usage import Usage, Use


class UsageTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1000)
        self.usage = Usage(self.clock.seconds)

    def test_by_account_and_mechanism(self):
        self.usage.succeeded("one.nl", "piet", "PLAIN", "192.0.2.1")
        self.clock.advance(5)
        self.usage.succeeded("one.nl", "piet", "PLAIN", "192.0.2.2")
        self.usage.succeeded("one.nl", "piet", "DIGEST-MD5", "192.0.2.3")
        self.assertEqual(
            self.usage.take(),
            {
                ("one.nl", "piet", "PLAIN"): Use(1000, 1005, "192.0.2.2", 2),
                ("one.nl", "piet", "DIGEST-MD5"): Use(1005, 1005, "192.0.2.3", 1),
            },
        )
        self.assertEqual(self.usage.take(), {})

    def test_what_was_not_written_is_not_lost(self):
        self.usage.succeeded("one.nl", "piet", "PLAIN", "192.0.2.1")
        taken = self.usage.take()
        self.clock.advance(5)
        self.usage.succeeded("one.nl", "piet", "PLAIN", "192.0.2.2")
        self.usage.give_back(taken)
        self.assertEqual(self.usage.take(), {("one.nl", "piet", "PLAIN"): Use(1000, 1005, "192.0.2.2", 2)})

    def test_a_clock_that_is_turned_back(self):
        later, earlier = Use(100, 200, "192.0.2.2", 3), Use(50, 150, "192.0.2.1", 1)
        both = Use(50, 200, "192.0.2.2", 4)
        self.assertEqual((later.after(earlier), earlier.after(later)), (both, both))
