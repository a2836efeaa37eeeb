from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool.queue_ids import QueueIds
from tests.requirements import proves


class QueueIdTests(SynchronousTestCase):
    @proves("M6")
    @given(st.lists(st.integers(0, 2**20), min_size=1, max_size=50), st.integers(0, 2**28 - 1))
    @settings(deadline=None, max_examples=100)
    def test_unique_and_in_order_whatever_the_clock_does(self, times: list[int], bits: int) -> None:
        clock = iter([1.7e9 + number / 1_000_000 for number in times])
        queue_ids = QueueIds(lambda: next(clock), lambda _: bits)
        given_out = [queue_ids() for _ in times]
        self.assertEqual(sorted(set(given_out)), given_out)

    def test_form(self) -> None:
        queue_ids = QueueIds()
        for _ in range(100):
            self.assertRegex(queue_ids(), r"\A[0-9A-V]{16}\Z")

    def test_another_process_gives_out_others(self) -> None:
        ids = [queue_ids() for queue_ids in [QueueIds(lambda: 1.7e9) for _ in range(50)]]
        self.assertEqual(50, len(set(ids)))

    def test_later_ids_sort_later(self) -> None:
        self.assertLess(QueueIds(lambda: 1.7e9)(), QueueIds(lambda: 1.7e9 + 1)())
        self.assertEqual(16, len(QueueIds(lambda: 4e9)()))
