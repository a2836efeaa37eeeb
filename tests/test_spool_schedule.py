from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool.schedule import Schedule
from tests.requirements import proves


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

    def test_giving_up(self) -> None:
        schedule = Schedule(give_up_after=100)
        self.assertFalse(schedule.given_up(since=1000, now=1099))
        self.assertTrue(schedule.given_up(since=1000, now=1100))

    def test_nonsense_is_refused(self) -> None:
        for setting in ("first_delay", "factor", "maximum_delay", "jitter", "give_up_after"):
            with self.assertRaises(ValueError):
                Schedule(**{setting: -1.0})
