from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool.schedule import ENOUGH_ATTEMPTS, Schedule
from tests.requirements import proves

HOUR = 3600.0
YEAR = 365 * 24 * HOUR


class ScheduleTests(SynchronousTestCase):
    @proves("D3")
    def test_delays_grow_to_the_maximum(self) -> None:
        delays = [Schedule().delay(attempts, lambda: 0.5) for attempts in range(1, 10)]
        self.assertEqual([60, 120, 240, 480, 960, 1920, 3840, 7200, 7200], delays)

    @given(st.integers(1, 100_000), st.floats(0, 1, exclude_max=True))
    def test_jitter_stays_within_its_share(self, attempts: int, random: float) -> None:
        schedule = Schedule()
        middle = schedule.delay(attempts, lambda: 0.5)
        delay = schedule.delay(attempts, lambda: random)
        self.assertTrue(0.8 * middle <= delay <= 1.2 * middle)
        self.assertLessEqual(delay, schedule.longest_delay)

    def test_giving_up(self) -> None:
        schedule = Schedule(give_up_after=100)
        self.assertFalse(schedule.given_up(since=1000, now=1099, attempts=20))
        self.assertTrue(schedule.given_up(since=1000, now=1100, attempts=20))

    @given(st.floats(1, 1e5), st.floats(1, 10), st.floats(1, 1e5), st.floats(0, 0.9), st.floats(1, 1e6))
    def test_any_schedule_gives_up_near_its_time_where_the_clock_is_right(
        self, first: float, factor: float, maximum: float, jitter: float, give_up: float
    ) -> None:
        """Later than asked for by one delay, and by twice that share that the jitter may add."""
        schedule = Schedule(first, factor, maximum, jitter, give_up)
        now = 1000.0
        for attempts in range(1, 200):
            if schedule.given_up(1000.0, now, attempts):
                break
            last, now = now, now + schedule.delay(attempts, lambda: 1.0)
        else:
            self.assertLess(now - 1000.0, give_up)
            return
        self.assertGreaterEqual(now - 1000.0, give_up)
        if attempts > 1:
            self.assertLess(last - 1000.0, max(give_up, 1) * (1 + jitter) * 1.0001)

    def test_telling_of_a_delay(self) -> None:
        schedule = Schedule()
        self.assertFalse(schedule.takes_long(1000, 1000 + 4 * HOUR - 1, attempts=9))
        self.assertTrue(schedule.takes_long(1000, 1000 + 4 * HOUR, attempts=9))
        self.assertEqual(1000 + 72 * HOUR, schedule.gives_up_at(1000, 1000 + 4 * HOUR))

    def test_nonsense_is_refused(self) -> None:
        settings = (
            "first_delay",
            "factor",
            "maximum_delay",
            "jitter",
            "give_up_after",
            "tell_of_delay_after",
        )
        for setting in settings:
            with self.assertRaises(ValueError):
                Schedule(**{setting: -1.0})


class ClockTests(SynchronousTestCase):
    """A wall clock that jumps."""

    @proves("D2")
    def test_a_jump_forward_alone_fails_nothing(self) -> None:
        schedule = Schedule()
        now = 1000 + YEAR
        for attempts in range(1, ENOUGH_ATTEMPTS):
            self.assertFalse(schedule.given_up(1000, now, attempts))
            now += schedule.delay(attempts, lambda: 0.5)
        self.assertGreater(now - 1000 - YEAR, 9 * HOUR)
        self.assertTrue(schedule.given_up(1000, now, ENOUGH_ATTEMPTS))

    def test_few_attempts_are_enough_where_the_schedule_makes_few(self) -> None:
        schedule = Schedule(give_up_after=400)  # attempts after 0, 60, 180 and 420 s
        self.assertFalse(schedule.given_up(1000, 1000 + YEAR, 2))
        self.assertTrue(schedule.given_up(1000, 1000 + YEAR, 3))
        self.assertTrue(Schedule(give_up_after=10).given_up(1000, 1010, 1))

    @proves("D3")
    def test_a_message_from_the_future_fails_in_due_time(self) -> None:
        schedule = Schedule()
        since, now, attempts = 1000 + YEAR, 1000.0, 1
        told = 0.0
        while not schedule.given_up(since, now, attempts):
            now += schedule.delay(attempts, lambda: 0.5)
            attempts += 1
            if not told and schedule.takes_long(since, now, attempts):
                told = now - 1000
        self.assertTrue(72 * HOUR <= now - 1000 < 75 * HOUR)
        self.assertTrue(4 * HOUR <= told < 7 * HOUR)
        self.assertEqual(1000 + 72 * HOUR, schedule.gives_up_at(since, 1000))

    def test_a_clock_set_right_by_a_little_changes_nothing(self) -> None:
        schedule = Schedule(give_up_after=1)
        self.assertFalse(schedule.given_up(since=1000.5, now=1000.3, attempts=1))

    @given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True), st.floats(0, 8000))
    def test_no_next_attempt_is_beyond_the_horizon_but_after_a_jump(
        self, attempts: int, random: float, back: float
    ) -> None:
        schedule = Schedule()
        next_attempt = 1e9 + schedule.delay(attempts, lambda: random)
        self.assertLessEqual(next_attempt, schedule.horizon(1e9 - min(back, schedule.longest_delay)))
        self.assertGreater(next_attempt, schedule.horizon(1e9 - 3 * schedule.longest_delay))
