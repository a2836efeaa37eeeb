"""The line for slots: everyone gets one, in order, however many leave at once."""

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.line import Line, Slots


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.line = Line()

    def test_in_order(self) -> None:
        slots = Slots(2)
        taken = [self.line.take([slots]) for _ in range(4)]
        self.assertIs(self.successResultOf(taken[0]), slots)
        self.assertIs(self.successResultOf(taken[1]), slots)
        self.assertNoResult(taken[2])
        self.line.give(slots)
        self.assertIs(self.successResultOf(taken[2]), slots)
        self.assertNoResult(taken[3])
        for _ in range(3):
            self.line.give(slots)
        self.assertEqual(slots.used, 0)

    def test_all_leave_at_once(self) -> None:
        one, two = Slots(1), Slots(1)
        self.line.take([one])
        self.line.take([two])
        gone: list[int] = []

        def leave(slots: Slots | None, number: int) -> None:
            gone.append(number)
            assert slots is not None
            self.line.give(slots)

        for number in range(10_000):
            self.line.take([one, two]).addCallback(leave, number)
        self.line.give(one)
        self.assertEqual(gone, list(range(10_000)))
        self.line.give(two)
        self.assertEqual((one.used, two.used, len(two.waiting)), (0, 0, 0))

    def test_any_of_several(self) -> None:
        one, two = Slots(1), Slots(1)
        self.assertIs(self.successResultOf(self.line.take([one, two])), one)
        self.assertIs(self.successResultOf(self.line.take([one, two])), two)
        either, only_one = self.line.take([one, two]), self.line.take([one])
        self.line.give(two)
        self.assertIs(self.successResultOf(either), two)
        self.line.give(one)
        self.assertIs(self.successResultOf(only_one), one)

    def test_nobody_overtakes(self) -> None:
        slots = Slots(1)
        self.line.take([slots])
        first = self.line.take([slots])
        slots.limit = 2
        self.assertNoResult(self.line.take([slots]))
        self.line.serve(slots)
        self.successResultOf(first)

    def test_who_gives_up_takes_none(self) -> None:
        slots = Slots(1)
        self.line.take([slots])
        impatient, patient = self.line.take([slots]), self.line.take([slots])
        impatient.cancel()
        self.failureResultOf(impatient, CancelledError)
        self.line.give(slots)
        self.successResultOf(patient)

    def test_who_gives_up_before_it_hears(self) -> None:
        """Its slot goes to the next."""
        slots = Slots(2)
        self.line.take([slots])
        self.line.take([slots])
        first, second, third = (self.line.take([slots]) for _ in range(3))
        first.addCallback(lambda _: (self.line.give(slots), second.cancel()))
        self.line.give(slots)
        self.failureResultOf(second, CancelledError)
        self.successResultOf(third)
        self.assertEqual(slots.used, 2)

    def test_everyone_looks_around(self) -> None:
        """Once, and in order; whoever comes back in line meanwhile stays there."""
        slots = Slots(1)
        self.line.take([slots])
        looked: list[int] = []
        again = []
        for number in range(3):
            self.line.take([slots]).addCallback(
                lambda given, number=number: (looked.append(number), again.append(self.line.take([slots])))
            )
        self.line.look_around()
        self.assertEqual(looked, [0, 1, 2])
        self.line.give(slots)
        self.assertIs(self.successResultOf(again[0]), slots)

    def test_fewer_than_are_in_use(self) -> None:
        slots = Slots(3)
        for _ in range(3):
            self.line.take([slots])
        slots.limit = 1
        waiting = self.line.take([slots])
        self.line.give(slots)
        self.line.give(slots)
        self.assertNoResult(waiting)
        self.line.give(slots)
        self.successResultOf(waiting)
