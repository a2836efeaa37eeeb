"""LMTP (RFC 2033): a reply for each recipient, and what becomes of those that get none."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.lmtp import LMTP
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.smtp.envelope import Arrival, Envelope, Path
from tests.next_hop import DIE, EXTENSIONS, HANG, MESSAGE, Content, Network, SimpleHop, envelope
from tests.requirements import proves

THREE = ("a@example.nl", "b@example.nl", "c@example.nl")
LOCKSTEP = tuple(set(EXTENSIONS) - {"PIPELINING"})


class LMTPHop(SimpleHop):
    """Has an answer to the final dot for each recipient that it has accepted."""

    def _line(self, line: bytes) -> bytes:
        if line.startswith(b"EHLO"):
            return b"500 5.5.1 This is LMTP\r\n"
        reply = super()._line(line.replace(b"LHLO", b"EHLO"))
        if line.startswith(b"LHLO"):
            self.commands[-1] = line
        return reply

    def _content_line(self, line: bytes) -> bytes:
        assert self._content is not None
        if line != b".":
            return super()._content_line(line)
        content = b"".join(line + b"\r\n" for line in self._content)
        self._content = None
        replies = b""
        for recipient in self._recipients or []:
            if self.closed or self._mute:
                break
            reply = self._answer(".", b"250 2.0.0 Saved\r\n")
            replies += reply
            if reply.startswith(b"2"):
                self.messages.append(([recipient], content))
        self._recipients = None
        return replies


class LMTPTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.emitted: list[Any] = []
        self.patch(log, "emit", lambda event, **fields: self.emitted.append((event, fields)))
        self.serve()

    def serve(self, *servers: SimpleHop) -> None:
        waiting = list(servers)
        self.clock = Clock()
        self.network = Network(lambda name: waiting.pop(0) if waiting else LMTPHop())
        self.relay = Relay(
            self.clock,
            [Hop.from_text("unix:/run/lmtp")],
            "msa.example.nl",
            ClientTLS("none"),
            dialogue=LMTP,
            endpoint=self.network.endpoint,
        )

    def deliver(
        self, message: Envelope | None = None, content: Content = MESSAGE, cut: int = 1 << 20
    ) -> dict[str, str]:
        """The beginning of each recipient's reply; a silence is waited out."""
        delivery = self.relay.deliver(message or envelope(*THREE), content)
        self.network.pump(cut)
        if not delivery.called:
            self.clock.advance(600)
            self.network.pump(cut)
        self.outcomes = self.successResultOf(delivery)
        return {str(path)[0]: str(outcome.reply)[:9] for path, outcome in self.outcomes.items()}

    @property
    def possible_duplicates(self) -> list[dict[str, Any]]:
        return [fields for event, fields in self.emitted if event is log.DUPLICATE_POSSIBLE]


@proves("D1")
class DialogueTests(LMTPTestCase):
    def test_each_has_its_own_reply(self) -> None:
        answers = [b"250 2.0.0 Saved\r\n", b"552 5.2.2 Full\r\n", b"452 4.2.2 Fuller\r\n"]
        for extensions in (EXTENSIONS, LOCKSTEP):
            for cut in (1, 1 << 20):
                self.serve(LMTPHop(extensions, {".": list(answers)}))
                codes = self.deliver(cut=cut)
                self.assertEqual(codes, {"a": "250 2.0.0", "b": "552 5.2.2", "c": "452 4.2.2"})
                [server] = self.network.servers
                self.assertEqual(server.commands[0], b"LHLO msa.example.nl")
                self.assertEqual(server.messages, [([b"RCPT TO:<a@example.nl>"], MESSAGE.octets)])

    @given(st.lists(st.sampled_from([b"250 2.1.5 Ok\r\n", b"550 5.1.1 Who?\r\n"]), min_size=3, max_size=3))
    def test_only_those_that_rcpt_accepted_are_answered(self, answers: list[bytes]) -> None:
        """The replies are counted off in order: nobody gets another's."""
        for extensions in (EXTENSIONS, LOCKSTEP):
            words = [b"250 2.0.0 Saved 1\r\n", b"552 5.2.2 Saved 2\r\n", b"452 4.2.2 Saved 3\r\n"]
            self.serve(LMTPHop(extensions, {"RCPT": list(answers), ".": list(words)}))
            codes = self.deliver()
            ends = iter(words)
            for path, answer in zip("abc", answers, strict=True):
                expected = next(ends) if answer.startswith(b"2") else answer
                self.assertEqual(codes[path], expected[:9].decode())
            self.network.servers[0].answers.clear()
            self.assertEqual(self.deliver(), dict.fromkeys("abc", "250 2.0.0"))
            self.assertEqual(len(self.network.servers), 1)

    def test_none_accepted(self) -> None:
        self.serve(LMTPHop(answers={"RCPT": [b"550 5.1.1 Who?\r\n"] * 3}))
        self.assertEqual(self.deliver(), dict.fromkeys("abc", "550 5.1.1"))
        self.assertEqual(self.deliver(), dict.fromkeys("abc", "250 2.0.0"))

    def test_a_content_for_nobody(self) -> None:
        """How many replies to it would come is anyone's guess: the connection is given up."""
        self.serve(LMTPHop(answers={"RCPT": [b"550 5.1.1 Who?\r\n"] * 3, "DATA": [b"354 go on\r\n"]}))
        self.assertEqual(self.deliver(), dict.fromkeys("abc", "550 5.1.1"))
        self.assertEqual(self.deliver(), dict.fromkeys("abc", "250 2.0.0"))
        self.assertEqual(len(self.network.servers), 2)

    def test_a_recipient_given_twice(self) -> None:
        self.assertEqual(self.deliver(envelope("a@example.nl", *THREE)), dict.fromkeys("abc", "250 2.0.0"))
        self.assertEqual(len(self.network.messages), 3)

    def test_how_far_it_came(self) -> None:
        """Where the hop knows of notifications, any report is its own (RFC 3461 5.2.1)."""
        for extensions, arrival in (
            (EXTENSIONS, Arrival.DELIVERED),
            ((*EXTENSIONS, "DSN"), Arrival.PASSED_ON),
        ):
            self.serve(LMTPHop(extensions))
            self.deliver()
            self.assertEqual({outcome.arrival for outcome in self.outcomes.values()}, {arrival})
            self.assertEqual({outcome.hop for outcome in self.outcomes.values()}, {"unix:/run/lmtp"})

    def test_a_thousand_recipients(self) -> None:
        recipients = [f"{number}@example.nl" for number in range(1000)]
        answers = [b"452 4.2.2 Full\r\n" if number % 2 else b"250 2.0.0 Ok\r\n" for number in range(1000)]
        self.serve(LMTPHop(answers={".": answers}))
        self.deliver(envelope(*recipients))
        for number, recipient in enumerate(recipients):
            reply = self.outcomes[Path.from_text(recipient)].reply
            self.assertEqual(reply.code, 452 if number % 2 else 250)

    def test_a_hop_of_smtp(self) -> None:
        self.serve(SimpleHop(answers={"LHLO": [b"500 5.5.1 What?\r\n"]}))
        self.assertEqual(self.deliver(), dict.fromkeys("abc", "451 4.3.2"))


@proves("D1", "D2")
class DyingTests(LMTPTestCase):
    def test_amid_the_replies(self) -> None:
        """What was said stands; of the others nobody knows."""
        for answer in (DIE, HANG, b"garbage\r\n", b"354 more\r\n", b"221 2.0.0 Bye\r\n"):
            self.serve(LMTPHop(answers={".": [b"250 2.0.0 Saved\r\n", answer]}))
            del self.emitted[:]
            codes = self.deliver()
            self.assertEqual(codes.pop("a"), "250 2.0.0")
            self.assertEqual({code[:5] for code in codes.values()}, {"451 4"}, answer)
            [possible] = self.possible_duplicates
            self.assertEqual((possible["queue_id"], possible["hop"]), ("Q1", "unix:/run/lmtp"))
            self.assertEqual(self.deliver(), dict.fromkeys("abc", "250 2.0.0"))

    def test_before_the_first(self) -> None:
        self.serve(LMTPHop(answers={".": [DIE]}))
        self.assertEqual(self.deliver(), dict.fromkeys("abc", "451 4.4.2"))
        self.assertEqual(len(self.possible_duplicates), 1)

    def test_421_is_an_answer(self) -> None:
        """To the recipient that it comes to.  Where others are left without one, nobody knows of those."""
        ok, leaving = b"250 2.0.0 Saved\r\n", b"421 4.3.2 down\r\n"
        for answers, codes, possible in (
            ([ok, ok, leaving], ("250 2.0.0", "250 2.0.0", "421 4.3.2"), 0),
            ([ok, leaving, ok], ("250 2.0.0", "421 4.3.2", "250 2.0.0"), 0),  # said in the same breath
            ([ok, leaving, DIE], ("250 2.0.0", "421 4.3.2", "421 4.3.2"), 1),
        ):
            self.serve(LMTPHop(answers={".": list(answers)}))
            del self.emitted[:]
            self.assertEqual(tuple(self.deliver().values()), codes)
            self.assertEqual(len(self.possible_duplicates), possible)

    def test_at_every_earlier_step(self) -> None:
        for verb in ("greeting", "LHLO", "MAIL", "RCPT", "DATA"):
            for answer in (DIE, HANG, b"421 4.3.2 down\r\n", b"garbage\r\n"):
                self.serve(LMTPHop(answers={verb.replace("LHLO", "EHLO"): [answer]}))
                del self.emitted[:]
                for code in self.deliver().values():
                    self.assertIn(code[:5], ("451 4", "421 4"), (verb, answer))
                self.assertEqual((self.network.messages, self.possible_duplicates), ([], []))
                self.clock.advance(600)
                self.network.pump()
                self.assertEqual(self.deliver(), dict.fromkeys("abc", "250 2.0.0"))

    def test_one_reply_too_many(self) -> None:
        """Is taken for nothing."""
        self.serve(LMTPHop(answers={".": [b"250 1\r\n", b"250 2\r\n", b"250 3\r\n250 4\r\n"]}))
        self.deliver()
        self.assertEqual(self.deliver(), dict.fromkeys("abc", "250 2.0.0"))
        self.assertEqual(len(self.network.servers), 2)
