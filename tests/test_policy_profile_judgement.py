"""The policy: in threads, a batch at a time, and in a dialogue."""

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy, Unavailable
from digipoort_msa.policy.profile import Attachments, Profile, ProfileRule
from digipoort_msa.policy.profile.judgement import BATCH
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.threads import Threads
from tests.account_doubles import Inline
from tests.msa import ClockTestCase
from tests.requirements import proves
from tests.test_policy_profile_scanner import multipart

WHO: Any = Identity(name="piet", realm="r")
TRACE: Any = None  # a profile does not ask
REFUSED = "550 5.7.1 The message flow's profile customs refuses this: required-header (X-Flow)"


class HeldThreads:
    """``Threads`` whose work is done when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def call(self, work: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
        answer: Deferred[Any] = Deferred()
        self.calls.append((answer, lambda: work(*arguments)))
        return answer

    def work(self) -> None:
        answer, work = self.calls.pop(0)
        answer.callback(work())


class JudgementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = HeldThreads()
        profile = Profile(name="customs", required_headers=("X-Flow",))
        self.rule = ProfileRule(profile, self.threads)  # type: ignore[arg-type]
        self.judgement: Any = self.rule.begin(WHO, TRACE)

    def test_contracts(self) -> None:
        verifyObject(IPolicy, self.rule)
        verifyObject(IJudgement, self.judgement)

    def verdict(self) -> object:
        answer = self.judgement.complete()
        while self.threads.calls:
            self.threads.work()
        return self.failureResultOf(answer, Refused).value if answer.called and answer.result else answer

    @proves("M10")
    def test_a_message_of_one_batch_costs_one_hop(self) -> None:
        for segment in (b"X-Flow: 1\r\n", b"\r\n", b"x" * 10_000 + b"\r\n"):
            self.assertIsNone(self.judgement.write(segment))
        answer = self.judgement.complete()
        self.assertNoResult(answer)
        self.assertEqual(len(self.threads.calls), 1)
        self.threads.work()
        self.assertIsNone(self.successResultOf(answer))

    @proves("M10")
    def test_batches_hold_the_client_back(self) -> None:
        self.assertIsNone(self.judgement.write(b"X-Flow: 1\r\n\r\n"))
        for _ in range(3):
            waiting = self.judgement.write(b"x" * BATCH)
            self.assertNoResult(waiting)
            (_,) = self.threads.calls
            self.threads.work()
            self.assertIsNone(self.successResultOf(waiting))
        answer = self.judgement.complete()
        self.threads.work()
        self.assertIsNone(self.successResultOf(answer))

    @proves("M10")
    def test_a_violation_is_told_at_the_end_and_the_rest_is_not_looked_at(self) -> None:
        waiting = self.judgement.write(b"Subject: x\r\n\r\n" + b"x" * BATCH)
        self.threads.work()
        self.assertIsNone(self.successResultOf(waiting))
        for _ in range(3):
            self.assertIsNone(self.judgement.write(b"x" * BATCH))
        refused = self.assertRaises(Refused, self.judgement.complete)
        self.assertEqual(str(refused.reply), REFUSED)
        self.assertEqual(refused.cause, "required-header (X-Flow): it is not there")
        self.assertEqual(self.threads.calls, [])

    def test_a_violation_in_the_last_batch(self) -> None:
        self.judgement.write(b"Subject: x\r\n\r\n")
        answer = self.judgement.complete()
        self.threads.work()
        self.assertEqual(str(self.failureResultOf(answer, Refused).value.reply), REFUSED)

    def test_small_chunks_take_no_more_memory(self) -> None:
        """A batch is its octets, not as many objects as a client cares to send them in."""
        for _ in range(50_000):
            self.judgement.write(b"ab")
        self.assertLess(sys.getsizeof(self.judgement._batch), 150_000)

    def test_sizes_have_a_code_of_their_own(self) -> None:
        profile = Profile(name="customs", attachments=Attachments(maximum_size=3))
        judgement: Any = ProfileRule(profile, Inline()).begin(WHO, TRACE)  # type: ignore[arg-type]
        judgement.write(multipart(b"Content-Type: text/xml\r\n\r\n<a/>"))
        refused = self.failureResultOf(judgement.complete(), Refused).value
        self.assertEqual(
            str(refused.reply),
            "552 5.3.4 The message flow's profile customs refuses this: attachment-size (attachment 1)",
        )

    def test_threads_without_room(self) -> None:
        self.judgement.write(b"x")
        answer = self.judgement.complete()
        self.threads.calls.pop()[0].errback(Unavailable("no room"))
        self.failureResultOf(answer, Unavailable)

    def test_an_abort_lets_go_of_everything(self) -> None:
        """Amid a batch, too: the thread has what it was given, and then nobody has."""
        self.judgement.write(b"X-Flow: 1\r\n\r\n" + b"x" * BATCH)
        self.judgement.write(b"y")
        reading = weakref.ref(self.judgement._reading)
        self.judgement.abort()
        self.assertIsNone(self.judgement.write(b"z"))
        self.assertEqual(self.judgement._batch, b"")
        self.threads.work()
        gc.collect()
        self.assertIsNone(reading())


class ThreadTests(TestCase):
    @proves("M10")
    async def test_outside_the_reactors_thread(self) -> None:
        threads = Threads(reactor, "policies", size=1, waiting=10)
        self.addCleanup(threads.stop)
        seen: set[int] = set()
        call = threads.call

        def watched(work: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
            def noted(*inner: Any) -> Any:
                seen.add(threading.get_ident())
                return work(*inner)

            return call(noted, *arguments)

        self.patch(threads, "call", watched)
        judgement: Any = ProfileRule(Profile(name="customs"), threads).begin(WHO, TRACE)
        await judgement.write(b"Subject: x\r\n\r\n" + b"x" * BATCH)
        await judgement.complete()
        judgement.accepted()
        self.assertEqual(len(seen), 1)
        self.assertNotIn(threading.get_ident(), seen)


class DialogueTests(ClockTestCase):
    @proves("M10", "M6")
    def test_a_message_that_does_not_conform(self) -> None:
        inline: Any = Inline()
        profile = Profile(name="customs", required_headers=("X-Flow",), header_patterns={"X-Flow": "^a$"})
        wire = self.logged_in(policies=(ProfileRule(profile, inline),))
        for message, answer in (
            (b"Subject: x\r\n\r\n", REFUSED),
            (b"X-Flow: b\r\n\r\n", REFUSED.replace("required-header", "header-pattern")),
            (b"X-Flow : a\r\n\r\n", REFUSED.replace("required-header (X-Flow)", "well-formed (the message)")),
        ):
            self.assertEqual(wire.submit(message).split("\r\n")[3], answer)
        self.assertEqual(self.spool.kept, [])
        self.assertTrue(all(incoming.aborted for incoming in self.spool.incoming))
        self.assertIn("queued as", wire.submit(b"X-Flow: a\r\n\r\nx\r\n"))

    @proves("M10")
    def test_nothing_of_the_clients_is_in_the_reply(self) -> None:
        inline: Any = Inline()
        profile = Profile(name="customs", attachments=Attachments(maximum=0))
        wire = self.logged_in(policies=(ProfileRule(profile, inline),))
        said = wire.submit(multipart(b"Content-Type: evil/evil; name=evil\r\n\r\nevil"))
        self.assertIn("attachment-count (the message)", said)
        self.assertNotIn("evil", said)
