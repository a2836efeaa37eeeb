"""The relay: hops in order, connections kept, leave taken."""

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import IDelivery
from tests.next_hop import DIE, EXTENSIONS, HANG, MESSAGE, Content, Network, SimpleHop, envelope
from tests.requirements import proves


class RelayTestCase(SynchronousTestCase):
    def start(self, *servers: SimpleHop | None, hops: tuple[str, ...] = ("hop:25",), **settings: Any) -> None:
        """``servers`` take the connections in turn; after them come well-behaved ones."""
        waiting = list(servers)
        self.clock = Clock()
        self.network = Network(lambda name: waiting.pop(0) if waiting else SimpleHop())
        self.relay = Relay(
            self.clock,
            [Hop.from_text(hop) for hop in hops],
            "msa.example.nl",
            ClientTLS("none"),
            endpoint=self.network.endpoint,
            **settings,
        )
        self.addCleanup(self.leave, self.relay, self.clock)

    def leave(self, relay: Relay, clock: Clock) -> None:
        """Nothing of one test lives on in the next."""
        relay.stop(0)
        clock.advance(0)

    def outcome(self, delivery: Deferred[Any]) -> tuple[str, str]:
        [outcome] = self.successResultOf(delivery).values()
        return str(outcome.reply), outcome.hop

    def deliver(self) -> tuple[str, str]:
        delivery = self.relay.deliver(envelope(), MESSAGE)
        self.network.pump()
        return self.outcome(delivery)

    OK = ("250 2.0.0 Ok: queued as HOP1", "hop:25")


class HopsTests(RelayTestCase):
    @proves("D1")
    def test_is_a_delivery(self) -> None:
        self.start()
        verifyObject(IDelivery, self.relay)
        self.assertEqual(self.deliver(), self.OK)

    def test_at_least_one(self) -> None:
        self.assertRaises(ValueError, self.start, hops=())

    def test_the_next_where_one_is_not_ready(self) -> None:
        for broken in (
            None,
            SimpleHop(answers={"greeting": [b"554 No\r\n"]}),
            SimpleHop(answers={"greeting": [DIE]}),
            SimpleHop(answers={"EHLO": [b"421 Busy\r\n"]}),
        ):
            self.start(broken, hops=("one:25", "two:25"))
            self.assertEqual(self.deliver(), (self.OK[0], "two:25"))

    def test_not_the_next_where_one_has_decided(self) -> None:
        self.start(SimpleHop(answers={"MAIL": [b"550 5.7.1 No\r\n"]}), hops=("one:25", "two:25"))
        self.assertEqual(self.deliver(), ("550 5.7.1 No", "one:25"))

    def test_none_can_be_reached(self) -> None:
        self.start(None, None, hops=("one:25", "[::1]:25"))
        reply, hop = self.deliver()
        self.assertEqual(hop, "[::1]:25")
        self.assertIn("451 4.4.1 [::1]:25 cannot be reached", reply)

    def test_connecting_is_timed(self) -> None:
        self.start()
        self.relay._endpoint = lambda hop: self
        delivery = self.relay.deliver(envelope(), MESSAGE)
        self.assertNoResult(delivery)
        self.clock.advance(30)
        self.assertIn("4.4.1", self.outcome(delivery)[0])

    def connect(self, factory: object) -> Deferred[Any]:
        return Deferred()


class ReuseTests(RelayTestCase):
    def test_the_connection_is_kept(self) -> None:
        self.start()
        for _ in range(5):
            self.assertEqual(self.deliver(), self.OK)
        self.assertEqual(len(self.network.servers), 1)

    def test_until_it_is_idle_too_long(self) -> None:
        self.start(idle_timeout=30)
        self.deliver()
        self.clock.advance(29)
        self.deliver()
        self.clock.advance(29)
        self.network.pump()
        self.assertFalse(self.network.servers[0].closed)
        self.clock.advance(1)
        self.network.pump()
        self.assertEqual(self.network.servers[0].commands[-1], b"QUIT")
        self.assertEqual(self.deliver(), self.OK)
        self.assertEqual(len(self.network.servers), 2)

    def test_a_message_that_comes_while_quit_is_under_way(self) -> None:
        """It would wait for ever behind the QUIT, or take the 221 for its own."""
        self.start(SimpleHop(answers={"QUIT": [HANG]}), idle_timeout=30)
        self.deliver()
        self.clock.advance(30)
        self.assertEqual(self.deliver(), self.OK)
        self.assertEqual(self.network.servers[0].commands[-1], b"QUIT")
        self.assertEqual([len(server.messages) for server in self.network.servers], [1, 1])

    def test_for_so_many_messages(self) -> None:
        self.start(messages_per_connection=2)
        for _ in range(5):
            self.deliver()
        self.assertEqual([len(server.messages) for server in self.network.servers], [2, 2, 1])
        self.assertEqual([server.closed for server in self.network.servers], [True, True, False])

    def test_the_hop_closes_an_idle_one(self) -> None:
        self.start()
        self.deliver()
        self.network.connections[0][1].lose(ConnectionDone())
        self.assertEqual(self.deliver(), self.OK)

    def test_the_hop_speaks_while_idle(self) -> None:
        self.start()
        self.deliver()
        self.network.connections[0][1].protocol.dataReceived(b"421 4.4.2 idle too long\r\n")
        self.assertEqual(self.deliver(), self.OK)
        self.assertEqual([len(server.messages) for server in self.network.servers], [1, 1])

    @proves("D2")
    def test_closed_just_as_it_is_used(self) -> None:
        """The message goes over a fresh connection: the old one never saw more than its envelope."""
        for answer in (DIE, b"421 4.4.2 idle\r\n"):
            for extensions in (EXTENSIONS, ("8BITMIME",)):
                self.start(SimpleHop(extensions, {"MAIL": [b"250 Ok\r\n", answer]}))
                self.deliver()
                self.assertEqual(self.deliver(), self.OK)
                self.assertEqual([len(server.messages) for server in self.network.servers], [1, 1])

    def test_retried_once(self) -> None:
        dying: list[bytes | None] = [DIE]
        self.start(SimpleHop(answers={"MAIL": [b"250 Ok\r\n", DIE]}), SimpleHop(answers={"MAIL": dying}))
        self.deliver()
        self.assertIn("4.4.2", self.deliver()[0])
        self.assertEqual(len(self.network.servers), 2)

    @proves("D2")
    def test_who_is_cancelled_does_not_begin_anew(self) -> None:
        """Nobody would keep the outcome: the message would be delivered again, and no log would say so."""
        answers = [b"250 Ok\r\n", HANG]
        for used_before in (False, True):
            self.start(SimpleHop(answers={"MAIL": answers[not used_before :]}), hops=("a:25", "b:25"))
            if used_before:
                self.deliver()
            delivery = self.relay.deliver(envelope(), MESSAGE)
            self.network.pump()
            self.assertNoResult(delivery)
            delivery.cancel()
            self.network.pump()
            self.assertIn("451 4.3.2", self.outcome(delivery)[0])
            self.assertEqual((len(self.network.servers), len(self.network.messages)), (1, used_before))
            self.assertEqual(self.deliver(), ("250 2.0.0 Ok: queued as HOP1", "a:25"))

    def test_not_retried_past_mail(self) -> None:
        self.start(SimpleHop(answers={"RCPT": [b"250 Ok\r\n", DIE]}))
        self.deliver()
        self.assertIn("4.4.2", self.deliver()[0])
        self.assertEqual(len(self.network.servers), 1)


class LimitTests(RelayTestCase):
    def test_connections(self) -> None:
        self.start(connections=3)
        deliveries = [self.relay.deliver(envelope(queue_id=f"Q{number}"), MESSAGE) for number in range(20)]
        self.network.pump()
        for delivery in deliveries:
            self.assertEqual(self.outcome(delivery), self.OK)
        self.assertEqual(len(self.network.servers), 3)
        self.assertEqual(len(self.network.messages), 20)

    def test_a_hop_that_refuses_all_and_hangs_at_quit(self) -> None:
        """A backlog meets it with as many sockets as any other hop, not with one for each message."""
        refusing = [SimpleHop(answers={"greeting": [b"554 No\r\n"], "QUIT": [HANG]}) for _ in range(20)]
        self.start(*refusing, connections=3)
        deliveries = [self.relay.deliver(envelope(), MESSAGE) for _ in refusing]
        for _ in range(10):
            self.network.pump()
            held = [transport for _, transport, _ in self.network.connections if not transport.lost]
            self.assertLessEqual(len(held), 3)
            self.clock.advance(10)
        for delivery in deliveries:
            self.assertIn("554 No", self.outcome(delivery)[0])

    def test_a_connection_in_an_unexpected_failure_is_given_up(self) -> None:
        self.start(connections=1)
        with mock.patch("digipoort_msa.delivery.session._extensions", side_effect=LookupError("a defect")):
            delivery = self.relay.deliver(envelope(), MESSAGE)
            self.network.pump()
            self.failureResultOf(delivery, LookupError)
        self.assertEqual(self.network.servers[0].commands, [b"QUIT"])
        self.assertEqual(self.deliver(), self.OK)

    def test_a_transaction_that_broke_off_leaves_no_replies_behind(self) -> None:
        """The next message would take them for its own."""
        self.start(connections=1)
        with mock.patch("digipoort_msa.delivery.transaction.Transaction._verdict", side_effect=LookupError):
            delivery = self.relay.deliver(envelope(), MESSAGE)
            self.network.pump()
            self.failureResultOf(delivery, LookupError)
        self.assertEqual(self.deliver(), self.OK)
        self.assertEqual([len(server.messages) for server in self.network.servers], [0, 1])

    def test_many_that_end_at_once(self) -> None:
        """No recursion where each of a long queue is refused without a word to the hop."""
        self.start(SimpleHop(["SIZE 5"]), connections=1)
        deliveries = [self.relay.deliver(envelope(), Content(b"too long\r\n")) for _ in range(5_000)]
        self.network.pump()
        self.assertEqual({self.outcome(delivery)[0][:9] for delivery in deliveries}, {"552 5.3.4"})


class StoppingTests(RelayTestCase):
    def test_idle(self) -> None:
        self.start()
        self.deliver()
        stopped = self.relay.stop()
        self.network.pump()
        self.successResultOf(stopped)
        self.assertEqual(self.network.servers[0].commands[-1], b"QUIT")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_open(self) -> None:
        self.start()
        self.successResultOf(self.relay.stop())

    def test_transactions_end_first(self) -> None:
        self.start(connections=1)
        working, waiting = (self.relay.deliver(envelope(), MESSAGE) for _ in range(2))
        stopped = self.relay.stop()
        self.assertNoResult(stopped)
        self.network.pump()
        self.assertEqual(self.outcome(working), self.OK)
        self.assertIn("451 4.3.2", self.outcome(waiting)[0])
        self.successResultOf(stopped)
        self.assertIn("451 4.3.2", self.deliver()[0])

    def test_within_its_grace(self) -> None:
        for verb in ("greeting", "MAIL", "."):
            self.start(SimpleHop(answers={verb: [HANG]}))
            hanging = self.relay.deliver(envelope(), MESSAGE)
            self.network.pump()
            stopped = self.relay.stop(5)
            self.clock.advance(5)
            self.assertIn("451 4.3.2", self.outcome(hanging)[0])
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_connecting(self) -> None:
        self.start()
        self.relay._endpoint = lambda hop: self
        delivery = self.relay.deliver(envelope(), MESSAGE)
        stopped = self.relay.stop(5)
        self.clock.advance(5)
        self.assertIn("451 4.3.2", self.outcome(delivery)[0])
        self.successResultOf(stopped)

    def connect(self, factory: object) -> Deferred[Any]:
        return Deferred()
