"""Messages that go through: the hop's verdicts, and nothing delivered before the final dot."""

from collections.abc import Callable
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa import log
from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.passage import Passage
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.through import Through, prompt
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import IIncoming, IIntake
from digipoort_msa.smtp.envelope import MailParameters, Notify, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused
from tests.next_hop import DIE, EXTENSIONS, HANG, Network, SimpleHop, envelope
from tests.requirements import proves

A, B = Path.from_text("a@example.nl"), Path.from_text("b@example.nl")
PLAIN = RcptParameters()
CONTENT = (b"Received: from us\r\n", b"Subject: test\r\n\r\n.Hel", b"lo\r\n")
Answers = dict[str, list[bytes | None]]


class ThroughTestCase(SynchronousTestCase):
    hops = 1
    connections = 10

    def setUp(self) -> None:
        self.serve()

    def serve(self, *servers: SimpleHop | None, hops: int = 1, connections: int = 10) -> None:
        """Hops in memory: of each connection the next of ``servers``, then one that takes everything."""
        waiting = list(servers)
        self.clock = Clock()
        self.network = Network(lambda name: waiting.pop(0) if waiting else SimpleHop())
        self.relay = Relay(
            self.clock,
            [Hop(f"hop{number}", 25) for number in range(hops)],
            "msa.example.nl",
            ClientTLS("none"),
            endpoint=self.network.endpoint,
            connections=connections,
            timeouts=prompt(Timeouts()),
            random=lambda: 0.5,
        )
        ids = iter(f"Q{number}" for number in range(1, 1000))
        self.through = Through(self.relay, lambda: next(ids), self.clock)
        self.emitted: list[Any] = []
        self.patch(log, "emit", lambda event, **fields: self.emitted.append((event, fields)))

    def begin(self, **parameters: Any) -> Passage:
        """A message whose MAIL the hop has accepted."""
        passage = self.through.receive("realm")
        self.assertIsNone(self.now(passage.sender(self.envelope(passage, **parameters))))
        return passage

    def envelope(self, passage: Passage, **parameters: Any) -> Any:
        about = evolve(envelope(queue_id=passage.queue_id), recipients=())
        return evolve(about, parameters=MailParameters(**parameters))

    def now(self, waiting: Any) -> Any:
        """The result, once all is quiet."""
        self.network.pump()
        return self.successResultOf(waiting) if isinstance(waiting, Deferred) else waiting

    def refused(self, waiting: Any) -> str:
        self.network.pump()
        return str(self.failureResultOf(waiting, Refused).value.reply)

    def write(self, passage: Passage, *parts: bytes) -> None:
        for part in parts:
            self.now(passage.write(part))

    def submit(self, **parameters: Any) -> str:
        """A whole message; what the client is told of it at the end of data."""
        passage = self.begin(**parameters)
        self.now(passage.recipient(A, PLAIN))
        self.write(passage, *CONTENT)
        return self.end(passage)

    def end(self, passage: Passage) -> str:
        committed = passage.commit(self.envelope(passage))
        self.network.pump()
        committed.addErrback(lambda failure: str(failure.value.reply))
        return str(self.successResultOf(committed))

    @property
    def commands(self) -> list[bytes]:
        return [command.split(b" ")[0] for server in self.network.servers for command in server.commands]

    def assertServes(self) -> None:
        """Whatever has been: the hop takes the next message, and no slot is lost."""
        self.clock.advance(10)  # the end of a rest
        self.network.pump()
        messages = len(self.network.messages)
        self.assertIn("250 2.0.0", self.submit())
        self.assertEqual(len(self.network.messages), messages + 1)
        for member in self.relay._hops._members.values():
            self.assertEqual(member.pool.slots.used, 0)


@proves("D1", "M6")
class PassageTests(ThroughTestCase):
    def test_what_it_is(self) -> None:
        verifyObject(IIntake, self.through)
        verifyObject(IIncoming, self.through.receive("realm"))

    def test_each_step_is_the_hops(self) -> None:
        passage = self.begin()
        self.assertEqual(self.commands, [b"EHLO", b"MAIL"])
        self.now(passage.recipient(A, PLAIN))
        self.assertEqual(self.commands[2:], [b"RCPT"])
        waiting = passage.write(CONTENT[0])
        self.assertNoResult(waiting)  # until the 354
        self.now(waiting)
        self.write(passage, *CONTENT[1:])
        committed = passage.commit(self.envelope(passage))
        self.assertNoResult(committed)
        self.assertEqual(self.network.messages, [])
        self.assertEqual(self.now(committed), "hop0:25 (250 2.0.0 Ok: queued as HOP1)")
        self.assertEqual(self.network.messages[0][1], b"".join(CONTENT))
        self.assertServes()

    @given(
        st.lists(st.lists(st.sampled_from([b".", b"\r\n", b"x", b"\r\n.\r\n"])).map(b"".join), max_size=8),
    )
    @settings(max_examples=100, deadline=None)
    def test_contents(self, parts: list[bytes]) -> None:
        """Cut anywhere, what comes in goes out."""
        self.serve()
        passage = self.begin()
        self.now(passage.recipient(A, PLAIN))
        content = [b"Received: x\r\n", *parts, b"\r\n"]
        self.write(passage, *content)
        self.assertIn("250 2.0.0", self.end(passage))
        self.assertEqual(self.network.messages[0][1], b"".join(content))

    def test_parameters(self) -> None:
        self.serve(SimpleHop((*EXTENSIONS, "DSN")))
        passage = self.begin(size=1000, body_8bitmime=True, smtputf8=True, ret="HDRS", envid="QQ314159")
        wanted = RcptParameters(frozenset({Notify.SUCCESS, Notify.DELAY}), "rfc822;x@example.nl")
        self.now(passage.recipient(A, wanted))
        [server] = self.network.servers
        self.assertEqual(
            server.commands[1:],
            [
                b"MAIL FROM:<business@example.nl> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159",
                b"RCPT TO:<a@example.nl> NOTIFY=DELAY,SUCCESS ORCPT=rfc822;x@example.nl",
            ],
        )

    def test_a_plain_hop_is_told_nothing_that_it_does_not_know(self) -> None:
        self.serve(SimpleHop(["HELP"]))
        passage = self.begin(size=1000, body_8bitmime=True, smtputf8=True, ret="HDRS")
        self.now(passage.recipient(A, RcptParameters(frozenset({Notify.NEVER}))))
        [server] = self.network.servers
        self.assertEqual(server.commands[1:], [b"MAIL FROM:<business@example.nl>", b"RCPT TO:<a@example.nl>"])

    def test_the_connection_is_kept(self) -> None:
        for _ in range(3):
            self.submit()
        self.assertEqual(len(self.network.servers), 1)
        self.assertNotIn(b"RSET", self.commands)


@proves("D1")
class VerdictTests(ThroughTestCase):
    def test_mail(self) -> None:
        self.serve(SimpleHop(answers={"MAIL": [b"550 5.7.1 Not you\r\n"]}))
        passage = self.through.receive("realm")
        self.assertEqual(self.refused(passage.sender(self.envelope(passage))), "550 5.7.1 Not you")
        passage.abort()
        self.assertServes()
        self.assertEqual(len(self.network.servers), 1)

    def test_each_recipient(self) -> None:
        self.serve(SimpleHop(answers={"RCPT": [b"550 5.1.1 Who?\r\n", b"250 Ok\r\n", b"452 4.5.3 Many\r\n"]}))
        passage = self.begin()
        self.assertEqual(self.refused(passage.recipient(A, PLAIN)), "550 5.1.1 Who?")
        self.now(passage.recipient(B, PLAIN))
        self.assertEqual(self.refused(passage.recipient(A, PLAIN)), "452 4.5.3 Many")
        self.write(passage, *CONTENT)
        self.assertIn("250 2.0.0", self.end(passage))
        self.assertEqual(self.network.messages[0][0], [b"RCPT TO:<b@example.nl>"])

    def test_data(self) -> None:
        """The client hears it at its end of data; meanwhile its content goes nowhere."""
        self.serve(SimpleHop(answers={"DATA": [b"554 5.7.1 No\r\n"]}))
        self.assertEqual(self.submit(), "554 5.7.1 No")
        self.assertEqual(self.commands[-1], b"RSET")
        self.assertServes()
        self.assertEqual(len(self.network.servers), 1)

    def test_the_end_of_data(self) -> None:
        for answer, told in (
            (b"554 5.6.0 Spam\r\n", "554 5.6.0 Spam"),
            (b"452 4.3.1 Full\r\n", "452 4.3.1 Full"),
            (b"530 5.7.0 Log in\r\n", "451 4.7.0 Log in"),
            (b"221 2.0.0 Bye\r\n", "451 4.4.2 "),
            (b"354 go on\r\n", "451 4.4.2 "),
        ):
            self.serve(SimpleHop(answers={".": [answer]}))
            self.assertIn(told, self.submit())
            self.assertServes()

    def test_words_amid_the_content(self) -> None:
        self.serve()
        passage = self.begin()
        self.now(passage.recipient(A, PLAIN))
        self.write(passage, *CONTENT)
        self.network.connections[0][1].protocol.dataReceived(b"552 5.3.4 Too big\r\n")
        self.write(passage, *CONTENT)
        self.assertEqual(self.end(passage), "552 5.3.4 Too big")
        self.assertEqual(self.network.messages, [])
        self.assertServes()

    def test_what_the_hop_does_not_take(self) -> None:
        eight, utf8 = [e for e in EXTENSIONS if e != "8BITMIME"], [e for e in EXTENSIONS if e != "SMTPUTF8"]
        for extensions, smtputf8, told in ((eight, False, "554 5.6.3"), (utf8, True, "554 5.6.9")):
            self.serve(SimpleHop(extensions))
            passage = self.begin(smtputf8=smtputf8)
            self.now(passage.recipient(A, PLAIN))
            self.write(passage, *CONTENT, "é\r\n".encode(), *CONTENT)
            self.assertIn(told, self.end(passage))
            self.assertEqual(self.network.messages, [])
            self.assertServes()

    def test_addresses_that_the_hop_does_not_take(self) -> None:
        self.serve(SimpleHop([e for e in EXTENSIONS if e != "SMTPUTF8"]))
        passage = self.begin(smtputf8=True)
        self.assertIn("553 5.6.7", self.refused(passage.recipient(Path("é", "example.nl"), PLAIN)))
        passage.abort()
        self.network.pump()
        passage = self.through.receive("realm")
        about = evolve(self.envelope(passage), reverse_path=Path("é", "example.nl"))
        self.assertIn("553 5.6.7", self.refused(passage.sender(about)))
        self.assertServes()

    def test_content_that_is_not_canonical(self) -> None:
        """The session refuses it besides; here no final dot goes out whatever happens."""
        for bad, told in ((b"a\nb\r\n", "554 5.6.0"), (b"a\rb\r\n", "554 5.6.0"), (b"no end", "554 5.6.0")):
            self.serve()
            passage = self.begin()
            self.now(passage.recipient(A, PLAIN))
            self.write(passage, *CONTENT, bad)
            self.assertIn(told, self.end(passage))
            self.assertEqual(self.network.messages, [])
            self.assertServes()


@proves("D1")
class HopsTests(ThroughTestCase):
    def test_the_next_where_one_cannot_be_reached(self) -> None:
        self.serve(None, hops=2)
        self.assertIn("hop1:25", self.submit())

    def test_the_next_where_one_goes_away_at_mail(self) -> None:
        for answer in (DIE, b"421 4.3.2 down\r\n", b"354 what\r\n"):
            self.serve(SimpleHop(answers={"MAIL": [answer]}), hops=2)
            self.assertIn("hop1:25", self.submit())

    def test_not_the_next_where_one_has_decided(self) -> None:
        self.serve(SimpleHop(answers={"MAIL": [b"451 4.3.0 Later\r\n"]}), hops=2)
        passage = self.through.receive("realm")
        self.assertEqual(self.refused(passage.sender(self.envelope(passage))), "451 4.3.0 Later")

    def test_none(self) -> None:
        """The client learns nothing of our hops; the log does."""
        self.serve(None, None, hops=2)
        for cause in ("refused", "left alone"):
            passage = self.through.receive("realm")
            waiting = passage.sender(self.envelope(passage))
            failure = self.failureResultOf(waiting, Refused).value
            self.assertEqual(str(failure.reply)[:9], "451 4.4.1")
            self.assertNotIn("hop1", str(failure.reply))
            self.assertIn(cause, failure.cause)
        self.assertServes()

    def test_a_kept_connection_that_is_dead(self) -> None:
        self.serve(SimpleHop(answers={"MAIL": [b"250 Ok\r\n", DIE]}))
        self.submit()
        self.assertIn("hop0:25", self.submit())
        self.assertEqual(len(self.network.servers), 2)

    def test_a_kept_connection_that_is_dead_and_no_other(self) -> None:
        self.serve(SimpleHop(answers={"MAIL": [b"250 Ok\r\n", DIE]}), None)
        self.submit()
        passage = self.through.receive("realm")
        self.assertIn("451 4.4.1", self.refused(passage.sender(self.envelope(passage))))
        self.assertServes()

    def test_a_hop_that_never_greets(self) -> None:
        """Is found out while the client is patient, and rests."""
        self.serve(SimpleHop(answers={"greeting": [HANG]}), hops=2)
        passage = self.through.receive("realm")
        waiting = passage.sender(self.envelope(passage))
        self.network.pump()
        self.assertNoResult(waiting)
        self.clock.advance(60)
        self.now(waiting)
        self.assertIsNotNone(self.relay._hops.get(Hop("hop0", 25), None).health.failing)
        passage.abort()

    def test_stopping(self) -> None:
        passage = self.begin()
        stopped = self.through.stop()
        self.network.pump()
        self.assertNoResult(stopped)
        self.now(passage.recipient(A, PLAIN))  # what has begun may come to its end
        self.write(passage, *CONTENT)
        self.assertIn("250 2.0.0", self.end(passage))
        self.network.pump()
        self.successResultOf(stopped)
        late = self.through.receive("realm")
        self.assertIn("451 4.4.1", self.refused(late.sender(self.envelope(late))))

    def test_stopping_in_the_end(self) -> None:
        passage = self.begin()
        stopped = self.through.stop()
        self.clock.advance(10)
        self.successResultOf(stopped)
        self.assertIn("451 4.4.2", self.refused(passage.recipient(A, PLAIN)))
        passage.abort()


class OneConnectionTests(ThroughTestCase):
    def setUp(self) -> None:
        self.serve(connections=1)

    def test_the_second_waits(self) -> None:
        first, second = self.begin(), self.through.receive("realm")
        waiting = second.sender(self.envelope(second))
        self.network.pump()
        self.assertNoResult(waiting)
        self.now(first.recipient(A, PLAIN))
        self.write(first, *CONTENT)
        self.assertNoResult(waiting)
        self.end(first)
        self.now(waiting)
        second.abort()
        self.assertEqual(len(self.network.servers), 1)
        self.assertServes()

    def test_not_for_ever(self) -> None:
        first, second = self.begin(), self.through.receive("realm")
        waiting = second.sender(self.envelope(second))
        self.clock.advance(239)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.assertIn("451 4.4.1", self.refused(waiting))
        second.abort()
        first.abort()
        self.assertServes()

    def test_who_leaves_the_line_holds_nothing(self) -> None:
        first, second = self.begin(), self.through.receive("realm")
        waiting = second.sender(self.envelope(second))
        waiting.cancel()
        second.abort()
        self.failureResultOf(waiting, CancelledError)
        first.abort()
        self.network.pump()
        self.assertServes()

    def test_a_hop_that_goes_while_its_client_is_silent(self) -> None:
        """Its place is free at once, and it is not to blame: it may have waited for the client too long."""
        for _ in range(5):
            silent = self.begin()
            self.network.connections[-1][1].protocol.dataReceived(b"421 4.4.2 idle\r\n")
            self.assertServes()
            self.assertIn("451 4.4.2 idle", self.refused(silent.recipient(A, PLAIN)))
            silent.abort()
            self.network.connections[-1][1].lose(ConnectionLost())


Step = Callable[["LeavingTests", Passage], Any]


def _mail(test: "LeavingTests", passage: Passage) -> Any:
    return passage.sender(test.envelope(passage))


def _rcpt(test: "LeavingTests", passage: Passage) -> Any:
    return passage.recipient(A, PLAIN)


def _part(test: "LeavingTests", passage: Passage) -> Any:
    return passage.write(CONTENT[0])


STEPS: tuple[Step, ...] = (_mail, _rcpt, _rcpt, _part, _part)


@proves("D2", "M6")
class LeavingTests(ThroughTestCase):
    """The client is cut off."""

    def cut_off(self, passage: Passage, waiting: Any) -> None:
        """As the server does it."""
        if isinstance(waiting, Deferred) and not waiting.called:
            waiting.cancel()
            waiting.addErrback(lambda failure: failure.trap(CancelledError))
        passage.abort()

    def test_between_steps(self) -> None:
        for steps in range(1, len(STEPS) + 1):
            self.serve()
            passage = self.through.receive("realm")
            for step in STEPS[:steps]:
                self.now(step(self, passage))
            passage.abort()
            passage.write(b"more\r\n")
            self.network.pump()
            self.assertEqual(self.network.messages, [])
            begun = steps > 3
            self.assertEqual(self.commands[-1], b"DATA" if begun else b"RSET")
            self.assertServes()
            self.assertEqual(len(self.network.servers), 2 if begun else 1)

    def test_amid_a_step(self) -> None:
        """While the hop owes its reply, from connecting on; or before it has heard the question."""
        for steps in range(1, len(STEPS) + 1):
            for verb in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", ""):
                self.serve(SimpleHop(answers={verb: [HANG]}))
                passage = self.through.receive("realm")
                for step in STEPS[:steps]:
                    waiting = step(self, passage)
                    if isinstance(waiting, Deferred):
                        if step is not STEPS[steps - 1] or verb:
                            self.network.pump()
                        if not waiting.called:
                            break
                self.cut_off(passage, waiting)
                self.network.pump()
                self.assertEqual(self.network.messages, [], (steps, verb))
                self.network.servers[0].answers.clear()
                self.clock.advance(60)  # a silent hop is found out all the same
                self.assertServes()

    def test_while_the_name_is_looked_up(self) -> None:
        """What the end of a look-up that is given up looks like is no failure of the hop."""
        looked_up: Deferred[Any] = Deferred(lambda deferred: deferred.errback(DNSLookupError("localhost")))
        self.patch(self.relay, "_endpoint", lambda hop: self)
        self.connect = lambda factory: looked_up.addCallback(lambda _: self.network.connect("hop0", factory))
        passage = self.through.receive("realm")
        self.cut_off(passage, passage.sender(self.envelope(passage)))
        self.assertNotIn(log.HOP_RESTS, [event for event, _ in self.emitted])
        self.connect = lambda factory: self.network.connect("hop0", factory)
        self.assertServes()
        self.assertEqual(len(self.network.servers), 1)

    def test_after_the_final_dot(self) -> None:
        """What was sent whole goes its way."""
        passage = self.begin()
        self.now(passage.recipient(A, PLAIN))
        self.write(passage, *CONTENT)
        committed = passage.commit(self.envelope(passage))
        self.network.pump()
        self.successResultOf(committed)
        self.assertEqual(len(self.network.messages), 1)


@proves("D2")
class DyingTests(ThroughTestCase):
    """The hop goes away, falls silent or talks nonsense, at each step."""

    def conversation(self) -> list[str]:
        """What the client is told; a silence is waited out."""
        told = []
        passage = self.through.receive("realm")
        for step in (*STEPS, _end):
            waiting = step(self, passage)
            self.network.pump()
            if isinstance(waiting, Deferred):
                if not waiting.called:
                    self.clock.advance(600)
                    self.network.pump()
                outcome: list[Any] = []
                waiting.addBoth(outcome.append)
                self.assertEqual(len(outcome), 1, (step, told))
                value = getattr(outcome[0], "value", None)
                if value is not None:
                    self.assertIsInstance(value, Refused, str(outcome[0]))
                    told.append(str(value.reply)[:9])
            if told and step is _mail:
                break
        if step is not _end:
            passage.abort()
        return told

    def test_at_every_step(self) -> None:
        for answer in (DIE, HANG, b"421 4.3.2 down\r\n", b"garbage\r\n", b"x" * 5000):
            for verb in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "."):
                self.serve(SimpleHop(answers={verb: [answer]}))
                told = self.conversation()
                self.assertEqual(self.network.messages, [], (verb, answer))
                self.assertTrue(told, (verb, answer))
                for words in told:
                    self.assertEqual(words[:4], "451 ", (verb, answer))
                self.clock.advance(600)
                self.assertServes()

    def test_a_recipient_that_is_answered_late(self) -> None:
        """Within the time there is."""
        server = SimpleHop()
        self.serve(server)
        passage = self.begin()
        held: list[bytes] = []
        receive = server.receive
        server.receive = lambda octets: (held.append(octets), b"")[1]  # type: ignore[method-assign]
        waiting = passage.recipient(A, PLAIN)
        self.network.pump()
        self.clock.advance(269)
        self.assertNoResult(waiting)
        server.receive = receive  # type: ignore[method-assign]
        self.network.connections[0][1].protocol.dataReceived(receive(held[0]))
        self.now(waiting)
        self.write(passage, *CONTENT)
        self.assertIn("250 2.0.0", self.end(passage))

    def test_a_hop_that_stops_reading(self) -> None:
        """The client is read no further; in the end the hop is given up, and the client hears it."""
        for patient in (True, False):
            self.serve()
            passage = self.begin()
            self.now(passage.recipient(A, PLAIN))
            self.write(passage, CONTENT[0])
            waiting = passage.write(CONTENT[1])
            self.assertNoResult(waiting)
            if patient:
                self.clock.advance(180)
            else:
                passage.abort()
            self.successResultOf(waiting)
            self.assertIsNone(passage.write(CONTENT[2]))
            if patient:
                self.assertIn("451 4.4.2", self.end(passage))
            self.assertEqual(self.network.messages, [])
            self.assertServes()

    def test_possible_duplicates_are_logged(self) -> None:
        for answer, possible in ((DIE, True), (HANG, True), (b"250\n", True), (b"421 4.3.2 down\r\n", False)):
            self.serve(SimpleHop(answers={".": [answer]}))
            self.conversation()
            fields = [fields for event, fields in self.emitted if event is log.DUPLICATE_POSSIBLE]
            self.assertEqual([field["queue_id"] for field in fields], ["Q1"] if possible else [])

    def test_a_defect(self) -> None:
        """Ends in no final dot."""
        passage = self.begin()
        self.now(passage.recipient(A, PLAIN))
        self.write(passage, CONTENT[0])
        self.patch(passage._stream._stuffing, "stuff", lambda octets: 1 / 0)
        self.write(passage, CONTENT[1], CONTENT[2])
        self.assertIn("451 4.3.0", self.end(passage))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.network.messages, [])
        self.assertServes()


def _end(test: LeavingTests, passage: Passage) -> Any:
    return passage.commit(test.envelope(passage))
