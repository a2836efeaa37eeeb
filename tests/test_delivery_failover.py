"""Several hops: which one a delivery takes, and what becomes of the others."""

from collections import Counter
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.delivery import hops as delivery_hops
from digipoort_msa.delivery.failures import HopFailure, NoHop, lost
from digipoort_msa.delivery.hop import NextHop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.smtp.envelope import Envelope
from tests.next_hop import DIE, HANG, MESSAGE, Network, SimpleHop, envelope
from tests.requirements import proves

REFUSING = {"greeting": [b"554 No\r\n"]}


class FailoverTestCase(SynchronousTestCase):
    def start(self, *hops: str | NextHop, **settings: Any) -> None:
        """``down`` holds the hops that take no connection; ``servers`` those that take the next ones."""
        self.down: set[str] = set()
        self.servers: dict[str, list[SimpleHop]] = {}
        self.flushes: list[float] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.patch(log, "emit", lambda event, **fields: self.events.append((event.name, fields)))
        self.clock = Clock()
        self.network = Network(self.serve)
        self.relay = Relay(
            self.clock,
            [hop if isinstance(hop, NextHop) else NextHop(hop) for hop in hops],
            "msa.example.nl",
            ClientTLS("none"),
            endpoint=self.network.endpoint,
            recovered=lambda: self.flushes.append(self.clock.seconds()),
            **{"random": lambda: 0.5, **settings},
        )
        self.addCleanup(self.leave, self.relay, self.clock)

    def leave(self, relay: Relay, clock: Clock) -> None:
        """Nothing of one test lives on in the next."""
        relay.stop(0)
        clock.advance(0)

    def serve(self, name: str) -> SimpleHop | None:
        if name in self.down:
            return None
        waiting = self.servers.get(name)
        return waiting.pop(0) if waiting else SimpleHop()

    def begin(self, message: Envelope | None = None) -> "Deferred[Any]":
        return self.relay.deliver(message or envelope(), MESSAGE)

    def deliver(self, message: Envelope | None = None) -> tuple[str, str]:
        delivery = self.begin(message)
        self.network.pump()
        return self.outcome(delivery)

    def outcome(self, delivery: "Deferred[Any]") -> tuple[str, str]:
        """The enhanced code, or what there is, and the hop."""
        [outcome] = self.successResultOf(delivery).values()
        return f"{outcome.reply.code} {outcome.reply.enhanced}", outcome.hop

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.network.pump()

    def connections(self, name: str) -> int:
        return sum(called == name for called, _, _ in self.network.connections)

    def stop(self) -> None:
        stopped = self.relay.stop()
        self.network.pump()
        self.advance(10)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])


ONE, TWO = ("250 2.0.0", "one:25"), ("250 2.0.0", "two:25")


@proves("D1", "D2")
class RestingTests(FailoverTestCase):
    def test_left_alone_and_asked_once(self) -> None:
        self.start("one:25", "two:25")
        self.servers["one:25"] = [SimpleHop(answers=REFUSING) for _ in range(2)]
        for _ in range(5):
            self.assertEqual(self.deliver(), TWO)
        self.assertEqual(self.connections("one:25"), 1)
        self.advance(5)  # the probe is refused
        self.assertEqual(self.connections("one:25"), 2)
        self.assertEqual(self.deliver(), TWO)
        self.advance(10)  # and the next one is not
        self.assertEqual(self.connections("one:25"), 3)
        self.assertEqual(self.network.servers[-1].commands, [b"EHLO msa.example.nl"])
        self.assertEqual(self.deliver(), ONE)
        self.assertEqual(self.connections("one:25"), 3)
        names = [name for name, _ in self.events if name not in ("hop-connected",)]
        self.assertEqual(names, ["hop-rests", "hop-rests", "hop-recovered"])
        self.assertEqual(self.flushes, [])  # no delivery was without a hop
        self.stop()

    def test_all_rest(self) -> None:
        """Nothing is tried; the operator reads which hops, since when and why.  Then comes the flush."""
        self.start("one:25", "two:25")
        self.down = {"one:25", "two:25"}
        self.assertEqual(self.deliver(), ("451 4.4.1", "two:25"))
        self.clock.advance(1)
        delivery = self.begin()
        [outcome] = self.successResultOf(delivery).values()
        self.assertEqual(outcome.hop, "one:25, two:25")
        for word in ("one:25 since 1970-01-01 00:00:00 UTC (451 4.4.1 one:25 cannot be reached", "; two:25"):
            self.assertIn(word, str(outcome.reply))
        self.down.clear()
        self.advance(4)
        self.assertEqual(self.flushes, [5.0])
        self.assertEqual(self.deliver(), ONE)
        self.stop()

    def test_a_refused_message_is_no_failure(self) -> None:
        self.start("one:25", "two:25")
        for verb in ("MAIL", "RCPT", "DATA", "."):
            for answer, code in ((b"550 5.7.1 No\r\n", "550 5.7.1"), (b"450 4.2.0 Later\r\n", "450 4.2.0")):
                self.servers["one:25"] = [SimpleHop(answers={verb: [answer] * 5})]
                for _ in range(5):
                    self.assertEqual(self.deliver(), (code, "one:25"))
                self.advance(31)
        self.assertEqual(self.connections("two:25"), 0)

    def test_lost_before_mail_is_answered(self) -> None:
        """Nobody has seen the message: another hop gets it in the same delivery."""
        for answer in (DIE, b"421 4.3.2 down\r\n", b"garbage\r\n"):
            self.start("one:25", "two:25")
            self.servers["one:25"] = [SimpleHop(answers={"MAIL": [answer]})]
            self.assertEqual(self.deliver(), TWO)
            self.assertEqual(self.deliver(), TWO)
            self.assertEqual(self.connections("one:25"), 1)

    def test_lost_amid_the_message(self) -> None:
        """Another hop could make it a duplicate, and the message may be the cause; not three times over."""
        for verb in ("RCPT", "DATA", "."):
            self.start("one:25", "two:25")
            self.servers["one:25"] = [SimpleHop(answers={verb: [DIE]}) for _ in range(3)]
            for _ in range(3):
                self.assertEqual(self.deliver(), ("451 4.4.2", "one:25"))
            self.assertEqual(self.deliver(), TWO)

    def test_a_content_of_ours_that_fails_is_not_the_hops_fault(self) -> None:
        self.start("one:25", "two:25")
        for _ in range(5):
            delivery = self.relay.deliver(envelope(), type(MESSAGE)(b"a\rb\r\n"))
            self.network.pump()
            self.assertEqual(self.outcome(delivery), ("554 5.6.0", "one:25"))
        self.assertEqual(self.deliver(), ONE)

    def test_accepts_and_never_speaks(self) -> None:
        self.start("one:25", "two:25", connections=2)
        self.servers["one:25"] = [SimpleHop(answers={"greeting": [HANG]}) for _ in range(10)]
        deliveries = [self.begin() for _ in range(20)]
        self.network.pump()
        self.assertEqual(self.connections("one:25"), 2)
        self.advance(300)
        self.network.pump()
        self.assertEqual([self.outcome(delivery) for delivery in deliveries], [TWO] * 20)
        for rest in (5, 10, 20):
            self.advance(rest)
            self.advance(100)  # one probe at a time, however long it hangs
            self.advance(200)
        self.assertEqual(self.connections("one:25"), 5)
        self.stop()

    def test_ten_thousand_that_wait_for_a_hop_that_fails(self) -> None:
        self.start("one:25", connections=1)
        self.servers["one:25"] = [SimpleHop(answers={"greeting": [HANG]})]
        deliveries = [self.begin() for _ in range(10_000)]
        self.advance(300)
        self.assertEqual({self.outcome(delivery)[0] for delivery in deliveries}, {"451 4.4.1", "451 4.4.2"})
        self.assertEqual(sum(name == "hop-rests" for name, _ in self.events), 1)

    def test_a_flush_is_bounded_by_the_pool(self) -> None:
        self.start("one:25", connections=3, messages_per_connection=10_000)
        self.down = {"one:25"}
        self.deliver()
        self.down.clear()
        deliveries: list[Deferred[Any]] = []
        self.relay._recovered = lambda: deliveries.extend(self.begin() for _ in range(5_000))
        self.advance(5)
        self.assertEqual({self.outcome(delivery) for delivery in deliveries}, {ONE})
        self.assertEqual(len(deliveries), 5_000)
        self.assertEqual(self.connections("one:25"), 3)


class SharingTests(FailoverTestCase):
    def test_a_busy_hop_sends_nobody_to_a_lesser_one(self) -> None:
        self.start("one:25", "two:25", connections=1)
        self.servers["one:25"] = [SimpleHop(answers={"MAIL": [HANG]})]
        for _ in range(3):
            self.begin()
        self.network.pump()
        self.assertEqual((self.connections("one:25"), self.connections("two:25")), (1, 0))

    def test_but_to_an_equal_one(self) -> None:
        self.start(NextHop("one:25", 1), NextHop("two:25", 1), connections=1)
        self.servers = {name: [SimpleHop(answers={".": [HANG]})] for name in ("one:25", "two:25")}
        hanging = [self.begin() for _ in range(2)]
        waiting = [self.begin() for _ in range(4)]
        self.network.pump()
        self.assertEqual((self.connections("one:25"), self.connections("two:25")), (1, 1))
        self.advance(600)
        self.assertEqual({self.outcome(delivery)[0] for delivery in hanging}, {"451 4.4.2"})
        self.assertEqual({self.outcome(delivery)[0] for delivery in waiting}, {"250 2.0.0"})

    def test_who_waits_for_a_hop_that_rests_goes_elsewhere(self) -> None:
        """At once, however long the transactions under way there take."""
        self.start("one:25", "two:25", connections=2)
        self.servers["one:25"] = [
            SimpleHop(answers={".": [HANG]}),
            SimpleHop(answers={"greeting": [HANG]}),
        ]
        hanging, failing, waiting = (self.begin() for _ in range(3))
        self.network.pump()
        self.assertNoResult(waiting)
        self.advance(300)
        self.assertNoResult(hanging)
        self.assertEqual([self.outcome(failing), self.outcome(waiting)], [TWO, TWO])

    def test_by_weight(self) -> None:
        self.start(NextHop("one:25", 1, 3), NextHop("two:25", 1, 1), random=Random(1).random)
        counted = Counter(self.deliver()[1] for _ in range(2_000))
        self.assertLess(abs(counted["one:25"] / 2_000 - 0.75), 0.05)

    def test_its_own_limits(self) -> None:
        self.start(NextHop("one:25", connections=1, messages_per_connection=2, idle_timeout=7))
        deliveries = [self.begin() for _ in range(4)]
        self.network.pump()
        self.assertEqual([self.outcome(delivery) for delivery in deliveries], [ONE] * 4)
        self.assertEqual([len(server.messages) for server in self.network.servers], [2, 2])
        self.deliver()
        self.advance(7)
        self.assertTrue(all(server.closed for server in self.network.servers))


class CrowdedTests(FailoverTestCase):
    """A hop that takes fewer connections than we may have."""

    def test_makes_do(self) -> None:
        for refusal in (b"421 4.7.0 too many connections\r\n", b"554 5.7.0 too many\r\n"):
            self.start("one:25", "two:25", connections=5)
            self.servers["one:25"] = [
                SimpleHop(),
                SimpleHop(),
                *(SimpleHop(answers={"greeting": [refusal]}) for _ in range(3)),
            ]
            for _ in range(2):
                for delivery in [self.begin() for _ in range(2)]:
                    self.network.pump()
                    self.assertEqual(self.outcome(delivery), ONE)
            deliveries = [self.begin() for _ in range(50)]
            self.network.pump()
            self.assertEqual({self.outcome(delivery) for delivery in deliveries}, {ONE})
            self.assertEqual(self.connections("two:25"), 0)
            names = Counter(name for name, _ in self.events)
            self.assertEqual((names["hop-crowded"], names["hop-rests"]), (1, 0))
            tried = self.connections("one:25")
            self.advance(29)  # the two are still there
            deliveries = [self.begin() for _ in range(50)]
            self.network.pump()
            self.assertEqual(self.connections("one:25"), tried)
            for _ in range(2):
                self.advance(29)
                self.deliver()
            deliveries = [self.begin() for _ in range(50)]
            self.network.pump()
            self.assertGreater(self.connections("one:25"), tried)
            self.stop()

    def test_none_works(self) -> None:
        self.start("one:25", "two:25")
        self.servers["one:25"] = [SimpleHop(answers={"greeting": [b"421 4.7.0 too many\r\n"]})]
        self.assertEqual(self.deliver(), TWO)
        self.assertEqual(next(name for name, _ in self.events), "hop-rests")


class MovedTests(FailoverTestCase):
    """Messages that an operator sends elsewhere."""

    def moved(self, hop: str) -> Envelope:
        message = envelope()
        return Envelope(
            message.queue_id,
            message.realm,
            message.account,
            message.session_id,
            message.reverse_path,
            message.recipients,
            0.0,
            next_hop=hop,
        )

    def test_there_and_nowhere_else(self) -> None:
        self.start("one:25")
        self.assertEqual(self.deliver(self.moved("three:25")), ("250 2.0.0", "three:25"))
        self.down = {"three:25"}
        self.advance(31)
        self.assertEqual(self.deliver(self.moved("three:25")), ("451 4.4.1", "three:25"))
        self.assertEqual(self.deliver(), ONE)
        self.assertEqual(self.connections("one:25"), 1)
        self.stop()

    def test_to_one_of_the_settings(self) -> None:
        """Its connections are shared, and it stays."""
        self.start("one:25", "two:25")
        self.assertEqual(self.deliver(self.moved("two:25")), TWO)
        self.down = {"one:25"}
        self.assertEqual(self.deliver(), TWO)
        self.assertEqual(self.connections("two:25"), 1)

    def test_to_nowhere(self) -> None:
        self.start("one:25")
        for hop in ("nonsense", "mx:example.nl", "srv:_smtp._tcp.example.nl"):
            code, name = self.deliver(self.moved(hop))
            self.assertIn(code, ("451 4.4.4", "451 4.4.3"))
            self.assertEqual(name, hop)

    def test_forgotten_when_idle_for_long(self) -> None:
        self.start("one:25")
        self.deliver(self.moved("three:25"))
        self.down = {"four:25"}
        self.deliver(self.moved("four:25"))
        for _ in range(25):
            self.advance(60)
        self.assertEqual([str(hop) for hop in self.relay._hops._members], ["one:25"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.stop()

    def test_not_while_a_delivery_is_there(self) -> None:
        self.start("one:25")
        self.servers["three:25"] = [SimpleHop(answers={".": [HANG]})]
        hanging = self.begin(self.moved("three:25"))
        self.network.pump()
        self.clock.advance(599)
        self.begin(self.moved("four:25"))
        self.advance(0.5)
        self.assertNoResult(hanging)
        self.assertIn("three:25", map(str, self.relay._hops._members))

    def test_only_so_many(self) -> None:
        self.patch(delivery_hops, "_MOST", 3)
        self.start("one:25")
        for number in range(10):
            self.assertEqual(self.deliver(self.moved(f"hop{number}:25"))[0], "250 2.0.0")
            self.advance(2)
        self.assertEqual(len(self.relay._hops._members), 4)

    def test_none_to_make_room_for(self) -> None:
        self.patch(delivery_hops, "_MOST", 2)
        self.start("one:25")
        for name in ("a:25", "b:25"):
            self.servers[name] = [SimpleHop(answers={".": [HANG]})]
            self.begin(self.moved(name))
        self.network.pump()
        self.assertEqual(self.deliver(self.moved("c:25")), ("451 4.3.2", "c:25"))
        self.assertEqual(self.deliver(), ONE)


class LeaseTests(FailoverTestCase):
    """A session for somebody who conducts the dialogue himself."""

    def lease(self) -> Any:
        leased = self.relay.session(envelope())
        self.network.pump()
        return self.successResultOf(leased)

    def test_handed_back(self) -> None:
        self.start("one:25", connections=1)
        lease = self.lease()
        self.assertEqual((lease.session.hop.name, lease.used_before), ("one:25", False))
        waiting = self.begin()
        self.network.pump()
        self.assertNoResult(waiting)
        lease.hand_back()
        lease.hand_back()
        self.network.pump()
        self.assertEqual(self.outcome(waiting), ONE)
        self.assertEqual(self.connections("one:25"), 1)
        self.assertTrue(self.lease().used_before)

    def test_failed(self) -> None:
        self.start("one:25", "two:25")
        lease = self.lease()
        lease.session.connection.fail(failure().reply)
        lease.failed(failure())
        lease.hand_back()
        self.assertEqual(self.deliver(), TWO)

    def test_renewed(self) -> None:
        self.start("one:25", connections=1)
        self.deliver()
        lease = self.lease()
        lease.session.connection.fail(failure().reply)
        renewed = Deferred.fromCoroutine(lease.renew())
        self.network.pump()
        self.successResultOf(renewed)
        self.assertFalse(lease.used_before)
        self.assertTrue(lease.session.connection.usable)
        lease.hand_back()
        self.assertEqual(self.deliver(), ONE)
        self.assertEqual(self.connections("one:25"), 2)

    def test_not_renewed(self) -> None:
        """The lease is over, and the hop rests."""
        self.start("one:25", "two:25", connections=1)
        self.deliver()
        lease = self.lease()
        self.down = {"one:25"}
        lease.session.connection.fail(failure().reply)
        self.failureResultOf(Deferred.fromCoroutine(lease.renew()), HopFailure)
        lease.hand_back()
        self.assertEqual(self.deliver(), TWO)
        self.stop()

    def test_none_to_be_had(self) -> None:
        self.start("one:25")
        self.down = {"one:25"}
        error = self.failureResultOf(self.relay.session(envelope()), NoHop).value
        self.assertEqual(error.hop, "one:25")

    def test_given_up_at_each_moment(self) -> None:
        """Whoever waits can go; the slot is the next one's."""
        for answers in ({"greeting": [HANG]}, {"EHLO": [HANG]}):
            self.start("one:25", connections=1)
            self.servers["one:25"] = [SimpleHop(answers=answers)]
            working = self.relay.session(envelope())
            waiting = self.relay.session(envelope())
            self.network.pump()
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            working.cancel()
            self.failureResultOf(working, CancelledError, HopFailure)
            self.network.pump()
            self.assertEqual(self.deliver(), ONE)
            self.stop()


def failure() -> HopFailure:
    return HopFailure(lost("one:25", "reset"))


class StoppingTests(FailoverTestCase):
    def test_while_a_hop_rests(self) -> None:
        self.start("one:25")
        self.down = {"one:25"}
        self.deliver()
        self.successResultOf(self.relay.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_a_hop_is_probed(self) -> None:
        for verb in ("greeting", "EHLO"):
            self.start("one:25")
            self.servers["one:25"] = [SimpleHop(answers=REFUSING), SimpleHop(answers={verb: [HANG]})]
            self.deliver()
            self.advance(5)
            self.assertEqual(self.connections("one:25"), 2)
            self.stop()
            self.assertEqual([name for name, _ in self.events], ["hop-rests"])

    def test_while_a_probe_waits_for_its_slot(self) -> None:
        self.start("one:25", connections=2)
        self.servers["one:25"] = [
            SimpleHop(answers={".": [HANG]}),
            SimpleHop(answers=REFUSING),
            SimpleHop(),
        ]
        self.begin()
        self.network.pump()
        self.begin()
        self.network.pump()
        self.relay._hops._members[next(iter(self.relay._hops._members))].pool.slots.limit = 1
        self.advance(5)
        self.stop()

    def test_while_the_hops_are_crowded(self) -> None:
        self.start("one:25", connections=2)
        self.servers["one:25"] = [
            SimpleHop(answers={".": [b"250 Ok\r\n", HANG]}),
            SimpleHop(answers={"greeting": [b"421 4.7.0 too many\r\n"]}),
        ]
        self.deliver()
        deliveries = [self.begin() for _ in range(3)]
        self.network.pump()
        self.stop()
        self.assertEqual({self.outcome(delivery)[0] for delivery in deliveries}, {"451 4.3.2"})
