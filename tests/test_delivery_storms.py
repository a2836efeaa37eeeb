"""Hops that do anything at all, in any order: what holds all the same."""

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.hop import NextHop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from tests.next_hop import DIE, HANG, MESSAGE, Network, SimpleHop, envelope
from tests.requirements import proves

LIMIT = 2  # connections to a hop

WORDS = [DIE, HANG, b"421 4.3.2 down\r\n", b"450 4.2.0 later\r\n", b"550 5.7.1 no\r\n", b"?\r\n"]

answers = st.dictionaries(
    st.sampled_from(["greeting", "EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=2),
    max_size=2,
)
connection = st.none() | answers  # one that is refused, or what the hop says over it
hop = st.tuples(st.integers(1, 3), st.integers(0, 2), st.lists(connection, max_size=6))
step = st.sampled_from(["deliver", "deliver", "many", "lease", "cancel", "hand back", 1, 6, 40, 310, 700])


@proves("D2")
class StormTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(st.lists(hop, min_size=1, max_size=3), st.lists(step, max_size=25), st.integers())
    def test_every_delivery_ends_and_nothing_is_left(
        self, hops: list[Any], steps: list[Any], seed: int
    ) -> None:
        clock, random = Clock(), Random(seed)
        scripts = {f"hop{number}:25": list(script) for number, (_, _, script) in enumerate(hops)}

        def serve(name: str) -> SimpleHop | None:
            said = scripts[name].pop(0) if scripts[name] else {}
            return None if said is None else SimpleHop(answers=said)

        network = Network(serve)
        relay = Relay(
            clock,
            [NextHop(f"hop{n}:25", priority, weight) for n, (priority, weight, _) in enumerate(hops)],
            "msa.example.nl",
            ClientTLS("none"),
            endpoint=network.endpoint,
            connections=LIMIT,
            random=random.random,
        )
        deliveries: list[Deferred[Any]] = []
        waiting: list[Deferred[Any]] = []
        leases: list[Any] = []

        def lease() -> None:
            leased = relay.session(envelope())
            leased.addCallbacks(leases.append, lambda failure: None)
            waiting.append(leased)

        def bounded() -> None:
            network.pump()
            held = Counter(name for name, transport, _ in network.connections if not transport.lost)
            self.assertLessEqual(max(held.values(), default=0), LIMIT)

        for what in steps:
            if what == "lease":
                lease()
            elif what == "cancel" and waiting:
                waiting.pop(random.randrange(len(waiting))).cancel()
            elif what == "hand back" and leases:
                leases.pop(random.randrange(len(leases))).hand_back()
            elif isinstance(what, int):
                clock.advance(what)
            else:
                deliveries += [relay.deliver(envelope(), MESSAGE) for _ in range(10 if what == "many" else 1)]
            bounded()
        stopped = relay.stop()
        bounded()
        while leases:
            leases.pop().hand_back()
        for _ in range(5):
            clock.advance(10)
            bounded()
        self.successResultOf(stopped)
        for delivery in deliveries:
            [outcome] = self.successResultOf(delivery).values()
            self.assertIn(outcome.reply.code, (250, 450, 550, 451, 421))
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual([transport for _, transport, _ in network.connections if not transport.lost], [])
