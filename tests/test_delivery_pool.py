"""Deliveries that wait for the place of a connection that takes its leave."""

from typing import Any

from tests.next_hop import HANG, MemoryTransport, SimpleHop
from tests.test_delivery_failover import FailoverTestCase

ACCEPTED = b"250 2.0.0 Ok\r\n"


class Lingering(SimpleHop):
    """Says nothing to QUIT."""

    def _line(self, line: bytes) -> bytes:
        return b"" if line == b"QUIT" else super()._line(line)


class PlaceTests(FailoverTestCase):
    """One connection works, and all others hang in QUIT."""

    def crowd(self, leaving: int) -> None:
        self.start("a:25", connections=leaving + 1, messages_per_connection=4, idle_timeout=1000.0)
        self.servers["a:25"] = [
            SimpleHop(answers={".": [ACCEPTED, HANG]}),
            *(Lingering() for _ in range(leaving)),
        ]
        self.deliver()
        self.working = self.begin()
        self.network.pump()
        for _ in range(4):
            deliveries = [self.begin() for _ in range(leaving)]
            self.network.pump()
            self.assertEqual({self.outcome(delivery)[0] for delivery in deliveries}, {"250 2.0.0"})
        self.waiting = [self.begin() for _ in range(leaving)]
        self.network.pump()
        self.assertEqual(self.connections("a:25"), leaving + 1)

    def transport(self, number: int) -> MemoryTransport:
        return self.network.connections[number][1]

    def goes_on(self, number: int, octets: bytes) -> None:
        """A hop that hung says this now, and goes on."""
        self.network.connections[number][2]._mute = False
        self.transport(number).protocol.dataReceived(octets)
        self.network.pump()

    def narrow(self) -> None:
        """The first who gets a place is refused, and the hop takes one connection for now."""
        self.servers["a:25"] = [SimpleHop(answers={"greeting": [b"554 5.3.2 too many\r\n"]})]
        leaving = len(self.waiting)
        for number in range(1, leaving + 1):
            self.goes_on(number, b"221 2.0.0 Bye\r\n")
        self.assertIn("hop-crowded", [name for name, _ in self.events])
        self.assertEqual(self.connections("a:25"), leaving + 2)

    def ended(self) -> list[Any]:
        return [delivery for delivery in self.waiting if delivery.called]

    def test_a_session_that_another_leaves_will_do(self) -> None:
        self.crowd(1)
        self.goes_on(0, ACCEPTED)
        self.assertEqual(self.outcome(self.waiting[0]), ("250 2.0.0", "a:25"))
        self.assertEqual(self.connections("a:25"), 2)

    def test_it_will_do_where_there_are_fewer_places_now(self) -> None:
        self.crowd(2)
        self.narrow()
        self.goes_on(0, ACCEPTED)
        self.assertEqual({self.outcome(delivery)[0] for delivery in self.waiting}, {"250 2.0.0"})

    def test_there_are_more_places_again(self) -> None:
        self.crowd(3)
        self.narrow()
        self.assertEqual(self.ended(), [])
        self.advance(60)
        self.assertEqual(len(self.ended()), 3)

    def test_nobody_waits_for_a_place_when_stopped(self) -> None:
        self.crowd(3)
        self.narrow()
        stopped = self.relay.stop()
        self.network.pump()
        self.assertEqual({self.outcome(delivery)[0] for delivery in self.waiting}, {"451 4.3.2"})
        self.goes_on(0, ACCEPTED)
        self.assertEqual(self.outcome(self.working)[0], "250 2.0.0")
        self.successResultOf(stopped)
