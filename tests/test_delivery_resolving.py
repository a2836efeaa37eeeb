"""Look-ups in the DNS, against a real server on loopback."""

from typing import Any
from unittest import mock

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from digipoort_msa import log
from digipoort_msa.delivery.dane import TLSA
from digipoort_msa.delivery.records import Answer, ExchangerRecord, LookupFailed, ServiceRecord
from digipoort_msa.delivery.resolving import Resolver
from tests.dns_server import DNSServer
from tests.requirements import proves

SERVICE = "_submission._tcp.example.nl"


class ClockedReactor:
    """The real reactor's threads with a clock of the test's."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.seconds = self.clock.seconds
        self.callFromThread = reactor.callFromThread


class ResolverTestCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.server = DNSServer()
        self.addCleanup(self.server.stop)
        self.reactor = ClockedReactor()
        self.events: list[tuple[log.Event, dict[str, Any]]] = []
        self.patch(log, "emit", lambda event, **fields: self.events.append((event, fields)))
        self.resolver = self.start()

    def start(self, **settings: Any) -> Resolver:
        resolver = Resolver(self.reactor, self.server.address, **settings)
        self.addCleanup(resolver.stop)
        return resolver

    @inlineCallbacks
    def fails(self, lookup: "Deferred[Any]", *words: str) -> Any:
        error = yield self.assertFailure(lookup, LookupFailed)
        for word in words:
            self.assertIn(word, str(error))


class RecordTests(ResolverTestCase):
    @inlineCallbacks
    def test_mx(self) -> Any:
        self.server.zone["example.nl", "MX"] = ["20 two.example.nl.", "10 one.example.nl."]
        answer = yield self.resolver.mx("example.nl")
        self.assertEqual(
            answer, Answer((ExchangerRecord(10, "one.example.nl"), ExchangerRecord(20, "two.example.nl")))
        )

    @inlineCallbacks
    def test_srv(self) -> Any:
        self.server.zone[SERVICE, "SRV"] = ["1 5 587 one.example.nl.", "0 0 25 two.example.nl."]
        answer = yield self.resolver.srv(SERVICE)
        self.assertEqual(
            answer.records,
            (ServiceRecord(0, 0, 25, "two.example.nl"), ServiceRecord(1, 5, 587, "one.example.nl")),
        )

    @inlineCallbacks
    def test_tlsa(self) -> Any:
        self.server.zone["_25._tcp.one.example.nl", "TLSA"] = ["3 1 1 " + "ab" * 32]
        self.server.authenticated = True
        answer = yield self.resolver.tlsa("one.example.nl", 25)
        self.assertEqual(answer, Answer((TLSA(3, 1, 1, b"\xab" * 32),), authenticated=True))

    @inlineCallbacks
    def test_nobody(self) -> Any:
        self.server.zone["example.nl", "MX"] = ["0 ."]
        answer = yield self.resolver.mx("example.nl")
        self.assertEqual(answer.records, (ExchangerRecord(0, "."),))

    @inlineCallbacks
    def test_none(self) -> Any:
        """It matters whether the name is there."""
        self.server.zone["example.nl", "TXT"] = ["hello"]
        answer = yield self.resolver.mx("example.nl")
        self.assertEqual(answer, Answer())
        answer = yield self.resolver.mx("example.org")
        self.assertEqual(answer, Answer(exists=False))

    @inlineCallbacks
    def test_an_authenticated_denial(self) -> Any:
        self.server.authenticated = True
        answer = yield self.resolver.tlsa("one.example.nl", 25)
        self.assertEqual(answer, Answer(authenticated=True, exists=False))

    @inlineCallbacks
    def test_an_alias(self) -> Any:
        def answering(query: dns.message.Message) -> dns.message.Message:
            answer = dns.message.make_response(query)
            answer.answer = [
                dns.rrset.from_text("example.nl.", 60, "IN", "CNAME", "other.example.nl."),
                dns.rrset.from_text("other.example.nl.", 60, "IN", "MX", "0 one.example.nl."),
            ]
            return answer

        self.server.answering = answering
        answer = yield self.resolver.mx("example.nl")
        self.assertEqual(answer.records, (ExchangerRecord(0, "one.example.nl"),))


class HostileTests(ResolverTestCase):
    @inlineCallbacks
    def test_cut_short(self) -> Any:
        """An answer that is too long for UDP is fetched by TCP, and is bounded."""
        self.server.zone["example.nl", "MX"] = [
            f"{number} host{number}.example.nl." for number in range(2000)
        ]
        answer = yield self.resolver.mx("example.nl")
        self.assertEqual([transport for transport, _ in self.server.asked], ["udp", "tcp"])
        self.assertEqual([record.preference for record in answer.records], list(range(32)))

    @inlineCallbacks
    def test_servfail(self) -> Any:
        self.server.rcode = dns.rcode.SERVFAIL
        yield self.fails(self.start(lifetime=1).mx("example.nl"), "SERVFAIL")

    @inlineCallbacks
    def test_silence(self) -> Any:
        self.server.silent = True
        yield self.fails(self.start(lifetime=0.5).mx("example.nl"), "no answer within 0.5 s")

    @inlineCallbacks
    def test_aliases_in_a_circle(self) -> Any:
        def answering(query: dns.message.Message) -> dns.message.Message:
            answer = dns.message.make_response(query)
            answer.answer = [
                dns.rrset.from_text("example.nl.", 60, "IN", "CNAME", "example.org."),
                dns.rrset.from_text("example.org.", 60, "IN", "CNAME", "example.nl."),
            ]
            return answer

        self.server.answering = answering
        yield self.fails(self.start(lifetime=1).mx("example.nl"))

    @inlineCallbacks
    def test_nonsense(self) -> Any:
        for octets in (b"", b"x" * 5, b"\xff" * 600):
            self.server.answering = lambda query, octets=octets: query.to_wire()[:2] + octets
            yield self.fails(self.start(lifetime=0.5).mx("example.nl"))

    @inlineCallbacks
    def test_the_answer_to_another_question(self) -> Any:
        def answering(query: dns.message.Message) -> dns.message.Message:
            other = dns.message.make_query("example.org", "MX", id=query.id)
            answer = dns.message.make_response(other)
            answer.answer = [dns.rrset.from_text("example.org.", 60, "IN", "MX", "0 forged.example.")]
            return answer

        self.server.answering = answering
        yield self.fails(self.start(lifetime=0.5).mx("example.nl"))

    @inlineCallbacks
    def test_names_that_no_host_has(self) -> Any:
        self.server.zone["example.nl", "MX"] = [
            r"1 a\000b.example.nl.",
            r"2 a\013\010b.example.nl.",
            "3 127.0.0.1.",
            r"4 a\032b.example.nl.",
            r"5 a\.b.example.nl.",
        ]
        yield self.fails(self.resolver.mx("example.nl"), "makes sense")
        self.server.zone["example.org", "MX"] = ["1 127.0.0.1.", "2 one.example.org."]
        answer = yield self.resolver.mx("example.org")
        self.assertEqual(answer.records, (ExchangerRecord(2, "one.example.org"),))

    @inlineCallbacks
    def test_a_port_that_no_host_has(self) -> Any:
        self.server.zone[SERVICE, "SRV"] = ["0 0 0 one.example.nl.", "0 0 0 ."]
        answer = yield self.resolver.srv(SERVICE)
        self.assertEqual(answer.records, (ServiceRecord(0, 0, 0, "."),))

    @inlineCallbacks
    def test_a_name_that_cannot_be_asked_for(self) -> Any:
        yield self.fails(self.resolver.mx("x" * 64))
        self.assertEqual(self.server.asked, [])


class RememberingTests(ResolverTestCase):
    @inlineCallbacks
    def test_for_its_ttl(self) -> Any:
        self.server.zone["example.nl", "MX"] = ["0 one.example.nl."]
        for ttl, held in ((0, 30), (300, 300), (86_400, 3_600)):
            self.server.ttl = ttl
            self.server.asked.clear()
            resolver = self.start()
            for _ in range(3):
                yield resolver.mx("example.nl")
                self.reactor.clock.advance(held / 2 - 0.1)
                yield resolver.mx("EXAMPLE.nl.")
                self.reactor.clock.advance(held / 2 + 0.1)
            self.assertEqual(len(self.server.asked), 3, ttl)

    @inlineCallbacks
    def test_a_clock_that_jumps_back(self) -> Any:
        self.reactor.clock.advance(1_000_000)
        yield self.resolver.mx("example.nl")
        self.reactor.clock.rightNow = 0.0
        yield self.resolver.mx("example.nl")
        self.assertEqual(len(self.server.asked), 2)

    @inlineCallbacks
    def test_that_there_is_none(self) -> Any:
        for _ in range(2):
            yield self.resolver.mx("example.nl")
        self.assertEqual(len(self.server.asked), 1)

    @inlineCallbacks
    def test_asked_once_for_many(self) -> Any:
        self.server.zone["example.nl", "MX"] = ["0 one.example.nl."]
        lookups = [self.resolver.mx("example.nl") for _ in range(10_000)]
        yield gatherResults(lookups)
        self.assertEqual(len(self.server.asked), 1)

    @inlineCallbacks
    def test_one_of_many_gives_up(self) -> Any:
        impatient, patient = self.resolver.mx("example.nl"), self.resolver.mx("example.nl")
        impatient.addErrback(lambda _: None)
        impatient.cancel()
        answer = yield patient
        self.assertEqual(answer, Answer(exists=False))

    @inlineCallbacks
    def test_only_so_many_at_once(self) -> Any:
        lookups = [self.resolver.mx(f"host{number}.example.nl") for number in range(65)]
        yield self.fails(lookups.pop(), "other look-ups")
        yield gatherResults(lookups)

    @inlineCallbacks
    def test_only_so_many_names(self) -> Any:
        for number in range(1_100):
            yield self.resolver.mx(f"host{number}.example.nl")
        self.assertEqual(len(self.resolver._known), 1_000)


class DownTests(ResolverTestCase):
    @proves("D2")
    @inlineCallbacks
    def test_the_last_answer_is_kept(self) -> Any:
        """However long the DNS is down; the log says so once, and when it is back."""
        self.server.zone["example.nl", "MX"] = ["0 one.example.nl."]
        answer = yield self.resolver.mx("example.nl")
        self.server.rcode = dns.rcode.SERVFAIL
        for _ in range(5):
            self.reactor.clock.advance(100_000)
            again = yield self.resolver.mx("example.nl")
            self.assertEqual(again, answer)
            while self.resolver._asked:
                yield self.soon()
        [(event, fields)] = self.events
        self.assertEqual((event, fields["consequence"]), (log.LOOKUP_FAILED, "its last answer is used"))
        self.server.rcode = dns.rcode.NOERROR
        self.server.zone["example.nl", "MX"] = ["0 two.example.nl."]
        self.reactor.clock.advance(30)
        yield self.resolver.mx("example.nl")  # what is known, at once
        while self.resolver._asked:
            yield self.soon()
        answer = yield self.resolver.mx("example.nl")
        self.assertEqual(answer.records, (ExchangerRecord(0, "two.example.nl"),))
        self.assertEqual(self.events[-1][0], log.LOOKUP_WORKS)

    @inlineCallbacks
    def test_but_not_of_tlsa(self) -> Any:
        self.server.zone["_25._tcp.example.nl", "TLSA"] = ["3 1 1 " + "ab" * 32]
        yield self.resolver.tlsa("example.nl", 25)
        self.server.rcode = dns.rcode.SERVFAIL
        self.reactor.clock.advance(100_000)
        yield self.fails(self.resolver.tlsa("example.nl", 25), "SERVFAIL")

    @inlineCallbacks
    def test_not_asked_for_each_message(self) -> Any:
        self.server.rcode = dns.rcode.REFUSED
        yield self.fails(self.resolver.mx("example.nl"))
        asked = len(self.server.asked)
        for _ in range(10):
            yield self.fails(self.resolver.mx("example.nl"))
        self.assertEqual(len(self.server.asked), asked)

    @inlineCallbacks
    def test_stopped_meanwhile(self) -> Any:
        self.server.silent = True
        resolver = self.start(lifetime=0.5, threads=1)
        lookups = [resolver.mx(name) for name in ("example.nl", "example.org")]
        stopped = resolver.stop()
        for lookup in lookups:
            yield self.fails(lookup, "stopping")
        yield stopped
        yield self.fails(resolver.mx("example.nl"), "stopping")

    def soon(self) -> "Deferred[None]":
        soon: Deferred[None] = Deferred()
        reactor.callLater(0, soon.callback, None)
        return soon


class SettingTests(ResolverTestCase):
    def test_the_address(self) -> None:
        for address in ("", "localhost", "resolver.example.nl:53", "127.0.0.1", "127.0.0.1:0"):
            error = self.assertRaises(ValueError, Resolver, self.reactor, address)
            self.assertIn("is no DNS resolver", str(error))

    def test_without_dnspython(self) -> None:
        with mock.patch.dict("sys.modules", {"digipoort_msa.delivery.querying": None}):
            error = self.assertRaises(ValueError, Resolver, self.reactor, "127.0.0.1:53")
        self.assertIn("digipoort-msa[dns]", str(error))
