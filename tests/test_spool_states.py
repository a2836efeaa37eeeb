from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool.states import STORED, TABLE, UNFINISHED, WAITING, Event, State, rows_before, rows_in
from tests.requirements import proves


class StateTests(SynchronousTestCase):
    def test_every_event_has_its_line(self) -> None:
        self.assertEqual(set(Event), set(TABLE))

    @proves("D2")
    def test_there_is_no_fourth_end(self) -> None:
        """From everywhere something leads on, but from the three ends; and one of those can be reached."""
        ends = {State.DELIVERED, State.RETURNED, State.REMOVED}
        starts = frozenset().union(*(starts for starts, _ in TABLE.values()))
        self.assertEqual(ends, set(State) - starts)
        for state in set(State) - ends:
            found = {state}
            while more := {end for starts, end in TABLE.values() if end and starts & found} - found:
                found |= more
            self.assertEqual(ends, found & ends, state)

    def test_what_waits_can_be_taken_and_nothing_else(self) -> None:
        self.assertEqual(set(WAITING), TABLE[Event.TAKE][0])
        self.assertEqual(set(UNFINISHED), set(STORED) - {State.DELIVERED, State.RETURNED})

    @proves("D2")
    def test_what_is_held_while_it_is_under_way(self) -> None:
        """The attempt still ends it; and one that ends nothing leaves it held."""
        for event in (Event.DELIVER, Event.RETURN):
            self.assertIn(State.HELD, TABLE[event][0])
        self.assertNotIn(State.HELD, TABLE[Event.DEFER][0])

    def test_rows(self) -> None:
        self.assertEqual("state IN ('queued', 'deferred')", rows_in(WAITING))
        self.assertEqual("state IN ('held')", rows_before(Event.RELEASE))
        for event in (Event.DELIVER, Event.DEFER, Event.RETURN, Event.HOLD):  # what may come of an attempt
            self.assertEqual("state IN ('queued', 'deferred', 'held')", rows_before(event))
