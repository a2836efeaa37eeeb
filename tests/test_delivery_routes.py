"""Next hops that are looked up: from the records of a real DNS server to a delivery over loopback."""

import os
import tempfile
from typing import Any

import dns.rcode
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.delivery.failures import NoHop
from digipoort_msa.delivery.hop import Hop, Limits, NextHop
from digipoort_msa.delivery.records import Answer, ExchangerRecord, LookupFailed, ServiceRecord
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.resolving import Resolver
from digipoort_msa.delivery.routes import Routes
from digipoort_msa.delivery.tls import ClientTLS
from tests.dns_server import DNSServer
from tests.next_hop import MESSAGE, HopProtocol, SimpleHop, envelope
from tests.requirements import proves

LIMITS = Limits()
SERVICE = "_submission._tcp.example.nl"


class Answers:
    """What a resolver would answer; a Deferred that has not fired where it is still at it."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def mx(self, domain: str) -> "Deferred[Any]":
        answer = self.answers["mx"]
        return answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(self._answer(answer))

    def srv(self, service: str) -> "Deferred[Any]":
        return Deferred.fromCoroutine(self._answer(self.answers["srv"]))

    async def _answer(self, answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


class RoutesTests(SynchronousTestCase):
    def found(self, *hops: str, next_hop: str | None = None, **answers: Any) -> list[tuple[str, int, int]]:
        routes = Routes([NextHop(hop) for hop in hops], LIMITS, Answers(**answers))
        entries = self.successResultOf(Deferred.fromCoroutine(routes.entries(next_hop)))
        return [(c.hop.name, entry.priority, c.priority) for entry in entries for c in entry.candidates]

    def fails(self, *hops: str, **answers: Any) -> str:
        routes = Routes([NextHop(hop) for hop in hops], LIMITS, Answers(**answers))
        return str(self.failureResultOf(Deferred.fromCoroutine(routes.entries()), NoHop).value)

    def test_settings_that_make_no_sense(self) -> None:
        self.assertRaises(ValueError, Routes, [], LIMITS, None)
        self.assertRaises(ValueError, Routes, [NextHop("mx:example.nl")], LIMITS, None)

    def test_exchangers(self) -> None:
        answer = Answer((ExchangerRecord(10, "a.example.nl"), ExchangerRecord(20, "b.example.nl")))
        self.assertEqual(
            self.found("core:25", "mx:example.nl:2525", mx=answer),
            [("core:25", 1, 0), ("a.example.nl:2525", 2, 10), ("b.example.nl:2525", 2, 20)],
        )

    def test_the_domain_itself_where_it_names_none(self) -> None:
        """RFC 5321 5.1; not where there is no such domain."""
        self.assertEqual(self.found("mx:example.nl", mx=Answer()), [("example.nl:25", 1, 0)])
        self.assertIn("451 4.4.4", self.fails("mx:example.nl", mx=Answer(exists=False)))

    def test_servers(self) -> None:
        answer = Answer((ServiceRecord(5, 7, 587, "a.example.nl"),))
        self.assertEqual(self.found(f"srv:{SERVICE}", srv=answer), [("a.example.nl:587", 1, 5)])
        self.assertIn("451 4.4.4", self.fails(f"srv:{SERVICE}", srv=Answer()))

    def test_nobody(self) -> None:
        """Null MX (RFC 7505), and RFC 2782's "decidedly not available"."""
        self.assertIn("451 4.4.4", self.fails("mx:example.nl", mx=Answer((ExchangerRecord(0, "."),))))
        self.assertIn("451 4.4.4", self.fails(f"srv:{SERVICE}", srv=Answer((ServiceRecord(0, 0, 0, "."),))))

    def test_one_that_fails_hides_no_other(self) -> None:
        failure = LookupFailed("SERVFAIL")
        self.assertEqual(self.found("mx:example.nl", "core:25", mx=failure), [("core:25", 2, 0)])
        words = self.fails("mx:example.nl", mx=failure)
        self.assertIn("451 4.4.3 mx:example.nl cannot be looked up: SERVFAIL", words)

    def test_whether_the_name_can_be_trusted(self) -> None:
        """DANE needs to know (RFC 7672 2.2.1)."""
        record = ExchangerRecord(0, "a.example.nl")
        for authenticated in (True, False):
            for answer, secure in (
                (Answer((record,), authenticated), authenticated),
                (Answer((), authenticated), True),  # the name in the settings
            ):
                routes = Routes([NextHop("mx:example.nl")], LIMITS, Answers(mx=answer))
                [entry] = self.successResultOf(Deferred.fromCoroutine(routes.entries()))
                self.assertEqual([c.hop.secure for c in entry.candidates], [secure])
        self.assertTrue(Hop.from_text("core:25").secure)

    def test_where_an_operator_sends_it(self) -> None:
        answer = Answer((ExchangerRecord(10, "a.example.nl"),))
        self.assertEqual(self.found("core:25", next_hop="other:25"), [("other:25", 1, 0)])
        self.assertEqual(self.found("core:25", next_hop="mx:e.nl", mx=answer), [("a.example.nl:25", 1, 10)])

    def test_stopped_meanwhile(self) -> None:
        routes = Routes([NextHop("mx:example.nl")], LIMITS, Answers(mx=Deferred()))
        entries = Deferred.fromCoroutine(routes.entries())
        self.assertNoResult(entries)
        routes.stop()
        self.assertIn("451 4.3.2", str(self.failureResultOf(entries, NoHop).value))


class LoopbackTests(TestCase):
    """Everything real: the DNS server, the sockets, the hops."""

    timeout = 30

    def setUp(self) -> None:
        self.server = DNSServer()
        self.addCleanup(self.server.stop)
        self.resolver = Resolver(reactor, self.server.address, lifetime=1)
        self.addCleanup(self.resolver.stop)
        self.hops: dict[str, list[SimpleHop]] = {}
        self.reached: list[Hop] = []

    def factory(self, name: str) -> Factory:
        def connected() -> HopProtocol:
            self.hops.setdefault(name, []).append(SimpleHop())
            return HopProtocol(self.hops[name][-1])

        factory = Factory.forProtocol(connected)
        factory.noisy = False
        return factory

    def listen(self, name: str) -> int:
        port = reactor.listenTCP(0, self.factory(name), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def relay(self, *hops: NextHop, **settings: Any) -> Relay:
        def endpoint(hop: Hop) -> TCP4ClientEndpoint:
            self.reached.append(hop)  # the names are the DNS server's, which has no addresses
            return TCP4ClientEndpoint(reactor, "127.0.0.1", hop.port)

        relay = Relay(
            reactor,
            hops,
            "msa.example.nl",
            ClientTLS("none"),
            **{"resolver": self.resolver, "endpoint": endpoint, **settings},
        )
        self.addCleanup(relay.stop)
        return relay

    @proves("D1")
    @inlineCallbacks
    def test_a_service(self) -> Any:
        """Down the priorities of its records, the first of which nobody serves."""
        port = self.listen("b")
        self.server.zone[SERVICE, "SRV"] = ["1 0 1 a.example.nl.", f"2 0 {port} b.example.nl."]
        self.server.authenticated = True
        relay = self.relay(NextHop(f"srv:{SERVICE}"))
        for _ in range(3):
            outcomes = yield relay.deliver(envelope(), MESSAGE)
            [outcome] = outcomes.values()
            self.assertEqual((outcome.reply.code, outcome.hop), (250, f"b.example.nl:{port}"))
        self.assertEqual([hop.host for hop in self.reached], ["a.example.nl", "b.example.nl"])
        self.assertTrue(all(hop.secure for hop in self.reached))
        self.assertEqual(len(self.hops["b"]), 1)

    @inlineCallbacks
    def test_a_domain(self) -> Any:
        port = self.listen("a")
        self.server.zone["example.nl", "MX"] = ["10 a.example.nl."]
        outcomes = yield self.relay(NextHop(f"mx:example.nl:{port}")).deliver(envelope(), MESSAGE)
        [outcome] = outcomes.values()
        self.assertEqual((outcome.reply.code, outcome.hop), (250, f"a.example.nl:{port}"))
        self.assertEqual([hop.secure for hop in self.reached], [False])

    @inlineCallbacks
    def test_a_dns_that_is_down(self) -> Any:
        self.server.rcode = dns.rcode.SERVFAIL
        outcomes = yield self.relay(NextHop("mx:example.nl")).deliver(envelope(), MESSAGE)
        [outcome] = outcomes.values()
        self.assertIn("451 4.4.3 mx:example.nl cannot be looked up", str(outcome.reply))
        self.assertEqual(outcome.hop, "mx:example.nl")

    @inlineCallbacks
    def test_a_dns_that_comes_back(self) -> Any:
        """Who found no hop meanwhile is tried again, and does not wait for its time."""
        flushes = []
        port = self.listen("a")
        resolver = Answers(mx=LookupFailed("SERVFAIL"))
        relay = self.relay(
            NextHop(f"mx:example.nl:{port}"), resolver=resolver, recovered=lambda: flushes.append(1)
        )
        for code in (451, 451):
            [outcome] = (yield relay.deliver(envelope(), MESSAGE)).values()
            self.assertEqual((outcome.reply.code, flushes), (code, []))
        resolver.answers["mx"] = Answer((ExchangerRecord(0, "a.example.nl"),))
        for _ in range(2):
            [outcome] = (yield relay.deliver(envelope(), MESSAGE)).values()
            self.assertEqual((outcome.reply.code, flushes), (250, [1]))

    @inlineCallbacks
    def test_stopped_while_the_dns_is_asked(self) -> Any:
        self.server.silent = True
        relay = self.relay(NextHop("mx:example.nl"))
        delivery = relay.deliver(envelope(), MESSAGE)
        yield relay.stop()
        outcomes = self.successResultOf(delivery)
        [outcome] = outcomes.values()
        self.assertEqual(outcome.reply.enhanced, "4.3.2")

    @inlineCallbacks
    def test_a_socket(self) -> Any:
        directory = tempfile.mkdtemp()
        path = os.path.join(directory, "hop")
        port = reactor.listenUNIX(path, self.factory("unix"))
        self.addCleanup(os.rmdir, directory)
        self.addCleanup(port.stopListening)
        relay = self.relay(NextHop(f"unix:{path}"), endpoint=None, resolver=None)
        outcomes = yield relay.deliver(envelope(), MESSAGE)
        [outcome] = outcomes.values()
        self.assertEqual((outcome.reply.code, outcome.hop), (250, f"unix:{path}"))

    @proves("D2")
    @inlineCallbacks
    def test_a_hop_that_goes_and_comes_back(self) -> Any:
        """By itself, without a message to find out."""
        port = self.listen("core")
        back: Deferred[None] = Deferred()
        relay = self.relay(
            NextHop("core.example.nl:1"),
            first_rest=0.05,
            longest_rest=0.1,
            recovered=lambda: back.callback(None),
            endpoint=lambda hop: TCP4ClientEndpoint(reactor, "127.0.0.1", self.port),
        )
        self.port = 1
        outcomes = yield relay.deliver(envelope(), MESSAGE)
        [outcome] = outcomes.values()
        self.assertEqual(outcome.reply.enhanced, "4.4.1")
        self.port = port
        yield back
        [hop] = self.hops["core"]
        self.assertEqual(hop.commands, [b"EHLO msa.example.nl"])
        outcomes = yield relay.deliver(envelope(), MESSAGE)
        [outcome] = outcomes.values()
        self.assertEqual(outcome.reply.code, 250)
        self.assertEqual(len(self.hops["core"]), 1)
