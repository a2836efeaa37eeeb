"""Slots: everyone gets one, in order, however many leave at once."""

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.pool import Slots


class SlotsTests(SynchronousTestCase):
    def test_in_order(self) -> None:
        slots = Slots(2)
        taken = [slots.take() for _ in range(4)]
        self.successResultOf(taken[0])
        self.successResultOf(taken[1])
        self.assertNoResult(taken[2])
        slots.give()
        self.successResultOf(taken[2])
        self.assertNoResult(taken[3])
        for _ in range(3):
            slots.give()
        self.assertTrue(slots.unused)

    def test_all_leave_at_once(self) -> None:
        slots = Slots(1)
        slots.take()
        gone: list[int] = []
        for number in range(10_000):
            slots.take().addCallback(lambda _, number=number: (gone.append(number), slots.give()))
        slots.give()
        self.assertEqual(gone, list(range(10_000)))
        self.assertTrue(slots.unused)

    def test_who_gives_up_takes_none(self) -> None:
        slots = Slots(1)
        slots.take()
        impatient, patient = slots.take(), slots.take()
        impatient.cancel()
        self.failureResultOf(impatient, CancelledError)
        slots.give()
        self.successResultOf(patient)
