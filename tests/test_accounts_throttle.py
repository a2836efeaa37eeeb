from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.interfaces import Throttled
from tests.requirements import proves

LIMITS = {"per_account_and_source": 3, "per_source": 5, "per_network": 20, "per_account": 8, "window": 80.0}


@proves("A8")
class ThrottleTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.throttle = Throttle(self.clock.seconds, **LIMITS)

    def attempt(self, name="piet", source="192.0.2.1", realm="one.nl"):
        return self.throttle.attempt(realm, name, source)

    def fail_times(self, times, **who):
        for _ in range(times):
            attempt = self.attempt(**who)
            attempt.admit()
            attempt.failed()

    def assert_throttled(self, **who):
        with self.assertRaises(Throttled) as caught:
            self.attempt(**who).admit()
        return caught.exception.retry_after

    def test_per_account_and_source(self):
        self.fail_times(3)
        self.assertAlmostEqual(self.assert_throttled(), 80 / 3)
        self.attempt(source="192.0.2.2").admit()
        self.attempt(name="jan").admit()
        self.attempt(realm="two.nl").admit()

    def test_per_source(self):
        for number in range(5):
            self.fail_times(1, name=f"name{number}")
        self.assert_throttled(name="another")
        self.attempt(name="another", source="192.0.2.2").admit()

    def test_per_ipv6_site(self):
        """Guessing spread over the /64s of a /48 is stopped, and who logged in from there goes on."""
        self.attempt(source="2001:db8:1:ffff::1").succeeded()
        for number in range(20):
            self.fail_times(1, name=f"name{number}", source=f"2001:db8:1:{number:x}::1")
        self.assert_throttled(name="another", source="2001:db8:1:abc::1")
        self.attempt(name="another", source="2001:db8:2:abc::1").admit()
        self.attempt(source="2001:db8:1:ffff::1").admit()

    def test_per_account(self):
        for number in range(8):
            self.fail_times(1, source=f"192.0.2.{number}")
        self.assert_throttled(source="198.51.100.1")
        self.attempt(name="jan", source="198.51.100.1").admit()

    def test_time_opens_it_again(self):
        self.fail_times(3)
        self.clock.advance(self.assert_throttled())
        self.attempt().admit()

    def test_strangers_cannot_lock_a_business_out(self):
        self.attempt(source="203.0.113.5").succeeded()
        for number in range(8):
            self.fail_times(1, source=f"192.0.2.{number}")
        self.assert_throttled(source="198.51.100.1")
        self.assertEqual(self.attempt(source="203.0.113.5").admit(), 0)

    def test_neighbours_behind_one_address_cannot_either(self):
        self.attempt().succeeded()
        for number in range(5):
            self.fail_times(1, name=f"name{number}")
        self.assertEqual(self.attempt().admit(), 0)
        self.assert_throttled(name="jan")

    def test_a_trusted_source_cannot_guess_for_ever(self):
        self.attempt().succeeded()
        self.fail_times(3)
        self.assert_throttled()

    def test_a_login_forgives_nothing(self):
        self.fail_times(2)
        self.attempt().succeeded()
        self.fail_times(1)
        self.assert_throttled()

    def test_trust_ends(self):
        self.throttle = Throttle(self.clock.seconds, trust_for=100.0, **LIMITS)
        self.attempt(source="203.0.113.5").succeeded()
        self.clock.advance(100)
        for number in range(8):
            self.fail_times(1, source=f"192.0.2.{number}")
        self.assert_throttled(source="203.0.113.5")

    def test_delays_grow_to_a_limit(self):
        self.throttle = Throttle(self.clock.seconds, per_account_and_source=50, window=1e9)
        delays = []
        for _ in range(9):
            delays.append(self.attempt().admit())
            self.attempt().failed()
        self.assertEqual(delays, [0, 0.25, 0.5, 1, 2, 4, 8, 8, 8])

    def test_guesses_made_at_once_tell_no_more(self):
        """A thousand connections let in together get as many verdicts as one would have had."""
        attempts = [self.attempt() for _ in range(1000)]
        for attempt in attempts:
            attempt.admit()
        verdicts = 0
        for attempt in attempts[:-1]:
            try:
                attempt.failed()
                verdicts += 1
            except Throttled:
                pass
        self.assertEqual(verdicts, 3)
        self.assertRaises(Throttled, attempts[-1].succeeded)
        self.assertAlmostEqual(self.assert_throttled(), 80 / 3)  # and the wait is not longer for it

    def test_one_ipv6_host_is_one_source(self):
        self.fail_times(3, source="2001:db8::1")
        self.assert_throttled(source="2001:db8::ffff:2")
        self.attempt(source="2001:db8:0:1::1").admit()

    def test_spellings_of_one_address(self):
        self.fail_times(3, source="::ffff:192.0.2.1")
        self.assert_throttled(source="192.0.2.1")
        self.fail_times(3, source="fe80::1%eth0")
        self.assert_throttled(source="fe80::1")

    def test_a_local_peer(self):
        self.fail_times(3, source="local")
        self.assert_throttled(source="local")

    def test_memory_is_bounded(self):
        self.throttle = Throttle(self.clock.seconds, strangers=0, entries=10, trusted_entries=10)
        for number in range(200):
            self.fail_times(1, name="x" * 10_000 + str(number), source=f"192.0.{number}.1")
            self.attempt(name=f"trusted{number}").succeeded()
        for kind, record in self.throttle.records.items():
            self.assertEqual(len(record), 10, kind)
            for key in record.current():
                self.assertLess(max(map(len, key)), 81)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.floats(0, 30)),
            max_size=80,
        )
    )
    def test_no_order_of_guesses_passes_the_limits(self, guesses):
        """In any window there are at most twice the limit's verdicts: a full count, and what drains."""
        clock = Clock()
        throttle = Throttle(clock.seconds, **LIMITS)
        verdicts = []
        for name, source, pause in guesses:
            clock.advance(pause)
            attempt = throttle.attempt("one.nl", name, source)
            try:
                attempt.admit()
                attempt.failed()
            except Throttled:
                continue
            verdicts.append((clock.seconds(), name, source))
        for start, name, source in verdicts:
            window = [each for each in verdicts if start <= each[0] < start + LIMITS["window"]]
            pairs = [each for each in window if each[1:] == (name, source)]
            self.assertLessEqual(len(pairs), 2 * LIMITS["per_account_and_source"])
            self.assertLessEqual(
                len([each for each in window if each[2] == source]), 2 * LIMITS["per_source"]
            )
            self.assertLessEqual(len([each for each in window if each[1] == name]), 2 * LIMITS["per_account"])
