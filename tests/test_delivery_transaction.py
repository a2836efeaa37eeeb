"""One message over a session: grouping, verdicts per recipient, and what a hop cannot take."""

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import Damaged
from digipoort_msa.smtp.envelope import Arrival, Envelope, MailParameters, Notify, Path, RcptParameters
from tests.next_hop import DIE, EXTENSIONS, HANG, MESSAGE, Content, Network, SimpleHop, envelope
from tests.requirements import proves

THREE = ("a@example.nl", "b@example.nl", "c@example.nl")
LOCKSTEP = tuple(set(EXTENSIONS) - {"PIPELINING"})


class TransactionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, *servers: SimpleHop) -> None:
        waiting = list(servers)
        self.clock = Clock()
        self.network = Network(lambda name: waiting.pop(0) if waiting else SimpleHop())
        self.relay = Relay(
            self.clock,
            [Hop("hop", 25)],
            "msa.example.nl",
            ClientTLS("none"),
            endpoint=self.network.endpoint,
        )

    def deliver(
        self, message: Envelope | None = None, content: Content = MESSAGE, cut: int = 1 << 20
    ) -> dict[str, str]:
        """Each recipient's reply, as text."""
        delivery = self.relay.deliver(message or envelope(), content)
        self.network.pump(cut)
        outcomes = self.successResultOf(delivery)
        return {str(path): str(outcome.reply) for path, outcome in outcomes.items()}

    def codes(self, message: Envelope | None = None, content: Content = MESSAGE) -> dict[str, str]:
        return {path[0]: text[:9] for path, text in self.deliver(message, content).items()}


@proves("D1", "M2")
class DialogueTests(TransactionTestCase):
    def test_pipelined(self) -> None:
        outcomes = self.deliver(envelope(*THREE))
        self.assertEqual(set(outcomes), set(THREE))
        self.assertEqual(set(outcomes.values()), {"250 2.0.0 Ok: queued as HOP1"})
        [server] = self.network.servers
        self.assertEqual(
            server.receptions[1],
            b"MAIL FROM:<business@example.nl> SIZE=24\r\n"
            b"RCPT TO:<a@example.nl>\r\nRCPT TO:<b@example.nl>\r\nRCPT TO:<c@example.nl>\r\nDATA\r\n",
        )
        self.assertEqual(server.receptions[2], MESSAGE.octets + b".\r\n")
        self.assertEqual(server.messages[0][1], MESSAGE.octets)

    def test_lockstep(self) -> None:
        self.serve(SimpleHop(LOCKSTEP))
        self.deliver(envelope(*THREE))
        [server] = self.network.servers
        self.assertEqual(
            [octets[:4] for octets in server.receptions[1:-1]], [b"MAIL", *[b"RCPT"] * 3, b"DATA"]
        )
        self.assertEqual(server.messages[0][1], MESSAGE.octets)

    def test_one_octet_at_a_time(self) -> None:
        for extensions in (EXTENSIONS, LOCKSTEP):
            self.serve(SimpleHop(extensions))
            self.assertEqual(
                set(self.deliver(envelope(*THREE), cut=1).values()), {"250 2.0.0 Ok: queued as HOP1"}
            )

    def test_a_thousand_recipients_go_in_groups(self) -> None:
        recipients = [f"recipient-number-{number}@example.nl" for number in range(2000)]
        outcomes = self.deliver(envelope(*recipients))
        self.assertEqual(list(outcomes), recipients)
        self.assertEqual(set(outcomes.values()), {"250 2.0.0 Ok: queued as HOP1"})
        [server] = self.network.servers
        self.assertLess(max(map(len, server.receptions)), 20_000)
        self.assertEqual(len(server.messages[0][0]), 2000)

    def test_null_reverse_path(self) -> None:
        self.deliver(envelope(sender=""))
        self.assertIn(b"MAIL FROM:<> SIZE=24", self.network.servers[0].commands)

    def test_second_message_needs_no_reset(self) -> None:
        self.deliver()
        self.deliver()
        [server] = self.network.servers
        self.assertEqual(len(server.messages), 2)
        self.assertNotIn(b"RSET", server.commands)

    def test_plain_hop(self) -> None:
        """HELO where EHLO is unknown: nothing is declared."""
        self.serve(SimpleHop(answers={"EHLO": [b"502 5.5.2 What?\r\n"]}))
        self.deliver()
        [server] = self.network.servers
        self.assertEqual(server.commands[1:3], [b"HELO msa.example.nl", b"MAIL FROM:<business@example.nl>"])
        self.assertEqual(len(server.messages), 1)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.lists(st.sampled_from([b".", b"\r\n", b"\r\n.", b"x", b"\r\n.\r\n", b"\xe9", b"\0"])).map(
                b"".join
            ),
            min_size=1,
            max_size=4,
        ),
        st.integers(1, 50),
        st.booleans(),
    )
    def test_messages_in_are_messages_out(self, bodies: list[bytes], cut: int, pipelining: bool) -> None:
        """Byte for byte, with segments and replies cut anywhere, over one connection."""
        self.serve(SimpleHop(EXTENSIONS if pipelining else LOCKSTEP))
        bodies = [body + b"\r\n" for body in bodies]
        for body in bodies:
            segments = [body[start : start + cut] for start in range(0, len(body), cut)]
            self.deliver(content=Content(*segments), cut=cut)
        self.assertEqual([content for _, content in self.network.messages], bodies)
        self.assertEqual(len(self.network.servers), 1)


@proves("D3")
class VerdictTests(TransactionTestCase):
    def both(self, answers: dict[str, list[bytes | None]]) -> dict[str, str]:
        """Codes of three recipients, the same with and without PIPELINING."""
        self.serve(SimpleHop(answers=answers))
        pipelined = self.codes(envelope(*THREE))
        self.next_message_passes()
        self.serve(SimpleHop(LOCKSTEP, answers))
        self.assertEqual(self.codes(envelope(*THREE)), pipelined)
        self.next_message_passes()
        return pipelined

    def next_message_passes(self) -> None:
        before = len(self.network.messages)
        self.assertEqual(self.codes(), {"c": "250 2.0.0"})
        self.assertEqual(len(self.network.messages), before + 1)

    def test_each_recipient_has_its_own(self) -> None:
        answers: dict[str, list[bytes | None]] = {
            "RCPT": [b"250 2.1.5 Ok\r\n", b"550 5.1.1 Who?\r\n", b"452 4.2.2 Full\r\n"]
        }
        self.assertEqual(self.both(answers), {"a": "250 2.0.0", "b": "550 5.1.1", "c": "452 4.2.2"})

    def test_mail_refused(self) -> None:
        self.assertEqual(
            self.both({"MAIL": [b"550 5.7.1 No\r\n"]}),
            dict.fromkeys("abc", "550 5.7.1"),
        )

    @proves("D3")
    def test_a_hop_that_wants_a_login_loses_no_message(self) -> None:
        """It is the settings that are wrong, and an operator mends them: no message may fail for it."""
        for said in (b"530 5.7.0 Authentication required\r\n", b"535 5.7.8 No\r\n"):
            self.assertEqual(self.both({"MAIL": [said]}), dict.fromkeys("abc", "451 4.7.0"))

    def test_all_recipients_refused(self) -> None:
        answers: dict[str, list[bytes | None]] = {"RCPT": [b"550 5.1.1 Who?\r\n"] * 3}
        self.assertEqual(self.both(answers), dict.fromkeys("abc", "550 5.1.1"))
        self.assertIn(b"RSET", self.network.servers[0].commands)

    def test_no_recipient_but_354(self) -> None:
        """RFC 2920 3.1: the content is a lone dot."""
        self.serve(
            SimpleHop(
                answers={
                    "RCPT": [b"550 5.1.1 Who?\r\n"] * 3,
                    "DATA": [b"354 go on\r\n"],
                    ".": [b"554 5.5.0 No recipients\r\n"],
                }
            )
        )
        self.assertEqual(self.codes(envelope(*THREE)), dict.fromkeys("abc", "550 5.1.1"))
        [server] = self.network.servers
        self.assertEqual(server.receptions[-1], b".\r\n")
        self.next_message_passes()
        self.assertEqual(len(self.network.servers), 1)
        self.assertNotIn(b"RSET", server.commands)

    def test_data_refused(self) -> None:
        answers: dict[str, list[bytes | None]] = {
            "RCPT": [b"250 Ok\r\n", b"550 5.1.1 Who?\r\n"],
            "DATA": [b"451 4.3.0 Later\r\n"],
        }
        self.assertEqual(self.both(answers), {"a": "451 4.3.0", "b": "550 5.1.1", "c": "451 4.3.0"})

    def test_content_refused(self) -> None:
        answers: dict[str, list[bytes | None]] = {".": [b"554 5.6.0 Spam\r\n"]}
        self.assertEqual(self.both(answers), dict.fromkeys("abc", "554 5.6.0"))

    def test_reset_fails(self) -> None:
        self.serve(
            SimpleHop(answers={"RCPT": [b"550 5.1.1 Who?\r\n"], "RSET": [b"500 5.5.1 What?\r\n"]}),
        )
        self.codes()
        self.next_message_passes()
        self.assertEqual(len(self.network.servers), 2)

    def test_out_of_step(self) -> None:
        for verb in ("MAIL", "RCPT"):
            self.serve(SimpleHop(answers={verb: [b"354 go on\r\n"]}))
            self.assertEqual(self.codes(), {"c": "451 4.5.0"})
        self.serve(SimpleHop(answers={"DATA": [b"250 Ok\r\n"]}))
        self.assertEqual(self.codes(), {"c": "451 4.5.0"})

    def test_no_verdict_of_who_is_out_of_step_stands(self) -> None:
        """One reply too many, and what is said of one recipient is read as said of the next."""
        for extensions in (EXTENSIONS, LOCKSTEP):
            shifted = {"RCPT": [b"250 Ok\r\n", b"250 Ok\r\n", b"550 5.1.1 No\r\n"], "DATA": [b"250 Ok\r\n"]}
            self.serve(SimpleHop(extensions, shifted))
            self.assertEqual(set(self.codes(envelope(*THREE)).values()), {"451 4.5.0"})


@proves("D2")
class DyingTests(TransactionTestCase):
    def test_at_every_step(self) -> None:
        for verb in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "."):
            for answer in (DIE, b"421 4.3.2 down\r\n", b"garbage\r\n", b"x" * 5000):
                for extensions in (EXTENSIONS, LOCKSTEP):
                    self.serve(SimpleHop(extensions, {verb: [answer]}))
                    delivery = self.relay.deliver(envelope(*THREE), MESSAGE)
                    self.network.pump()
                    outcomes = self.successResultOf(delivery)
                    self.assertEqual(set(map(str, outcomes)), set(THREE))
                    for outcome in outcomes.values():
                        self.assertTrue(outcome.reply.transient, outcome)
                        self.assertEqual(outcome.hop, "hop:25")
                    self.assertEqual(self.network.messages, [])
                    self.clock.advance(10)  # the end of its rest
                    self.network.pump()
                    self.assertEqual(self.codes(), {"c": "250 2.0.0"})

    def test_hanging_at_every_step(self) -> None:
        for verb in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "."):
            self.serve(SimpleHop(answers={verb: [HANG]}))
            delivery = self.relay.deliver(envelope(), MESSAGE)
            self.network.pump()
            self.assertNoResult(delivery)
            self.clock.advance(600)
            self.network.pump()
            [outcome] = self.successResultOf(delivery).values()
            self.assertIn("4.4.2", str(outcome.reply))

    def test_what_was_refused_stays_refused(self) -> None:
        self.serve(SimpleHop(answers={"RCPT": [b"550 5.1.1 Who?\r\n", b"250 Ok\r\n", DIE]}))
        self.assertEqual(self.codes(envelope(*THREE)), {"a": "550 5.1.1", "b": "451 4.4.2", "c": "451 4.4.2"})

    def test_possible_duplicate_is_logged(self) -> None:
        from digipoort_msa import log

        emitted = []
        self.patch(log, "emit", lambda event, **fields: emitted.append((event, fields)))
        self.serve(SimpleHop(answers={".": [DIE]}))
        self.assertEqual(self.codes(), {"c": "451 4.4.2"})
        [fields] = [fields for event, fields in emitted if event is log.DUPLICATE_POSSIBLE]
        self.assertEqual((fields["queue_id"], fields["hop"]), ("Q1", "hop:25"))


class ContentTests(TransactionTestCase):
    @proves("M5")
    def test_not_canonical(self) -> None:
        for content in (b"a\nb\r\n", b"a\rb\r\n", b"a"):
            self.serve()
            self.assertEqual(self.codes(content=Content(content)), {"c": "554 5.6.0"})
            self.assertEqual(self.network.messages, [])
            self.assertEqual(self.codes(), {"c": "250 2.0.0"})

    def test_unreadable(self) -> None:
        content = Content(b"a\r\n", size=100)
        self.assertEqual(self.codes(content=content), {"c": "451 4.3.0"})
        self.assertEqual(self.network.messages, [])
        self.assertEqual(content.closed, 1)
        self.assertEqual(len(self.flushLoggedErrors(EOFError)), 1)

    @proves("D2")
    def test_damaged(self) -> None:
        """The connection is dropped without the final dot, and the queue is told what it is: no 4yz."""
        content = Content(b"a\r\n", b"b\r\n")
        reader = content.open()
        segments = iter([succeed(b"a\r\n"), fail(Damaged("its SHA-256 is another"))])
        reader.read = lambda: next(segments)
        self.patch(content, "open", lambda: reader)
        delivery = self.relay.deliver(envelope(), content)
        self.network.pump()
        self.failureResultOf(delivery, Damaged)
        self.assertEqual((self.network.messages, content.closed), ([], 1))
        self.assertEqual(self.codes(), {"c": "250 2.0.0"})


@proves("M4", "D3")
class SuitabilityTests(TransactionTestCase):
    EIGHT_BIT = Content("Subject: test\r\n\r\ncafé\r\n".encode())

    def hop(self, *extensions: str) -> None:
        self.serve(SimpleHop(extensions))

    def mail(self) -> bytes:
        return next(c for c in self.network.servers[-1].commands if c.startswith(b"MAIL"))

    def test_8bit(self) -> None:
        self.deliver(content=self.EIGHT_BIT)
        self.assertIn(b" BODY=8BITMIME", self.mail())
        self.assertEqual(self.network.messages[0][1], self.EIGHT_BIT.octets)

    def test_no_8bitmime(self) -> None:
        self.hop("SMTPUTF8")
        self.assertEqual(self.codes(content=self.EIGHT_BIT), {"c": "554 5.6.3"})
        self.assertEqual(self.network.messages, [])
        self.assertEqual(self.codes(), {"c": "250 2.0.0"})

    def test_size(self) -> None:
        self.hop(f"SIZE {MESSAGE.size}")
        self.assertEqual(self.codes(), {"c": "250 2.0.0"})
        self.hop(f"SIZE {MESSAGE.size - 1}")
        self.assertEqual(self.codes(), {"c": "552 5.3.4"})
        for unlimited in ("SIZE", "SIZE 0", "SIZE many", "SIZE " + "9" * 400, "size 5000"):
            self.hop(unlimited)
            self.assertEqual(self.codes(), {"c": "250 2.0.0"})

    def test_smtputf8(self) -> None:
        message = envelope("jörg@bücher.example", smtputf8=True)
        self.assertEqual(list(self.deliver(message).values()), ["250 2.0.0 Ok: queued as HOP1"])
        self.assertIn(b" SMTPUTF8", self.mail())
        self.assertEqual(self.network.messages[0][0], ["RCPT TO:<jörg@bücher.example>".encode()])

    def test_smtputf8_is_not_needed(self) -> None:
        """Asked for by the client, but all is ASCII (RFC 6531 3.4)."""
        self.hop("8BITMIME")
        self.assertEqual(self.codes(envelope(smtputf8=True)), {"c": "250 2.0.0"})
        self.assertNotIn(b"SMTPUTF8", self.mail())

    def test_no_smtputf8_for_a_recipient(self) -> None:
        self.hop("8BITMIME")
        message = envelope("a@example.nl", "jörg@example.nl", "x@bücher.example", smtputf8=True)
        self.assertEqual(self.codes(message), {"a": "250 2.0.0", "j": "553 5.6.7", "x": "553 5.6.7"})
        self.assertEqual(len(self.network.messages[0][0]), 1)

    def test_no_smtputf8_for_the_sender(self) -> None:
        self.hop("8BITMIME")
        self.assertEqual(self.codes(envelope(sender="jörg@example.nl", smtputf8=True)), {"c": "553 5.6.7"})

    def test_no_smtputf8_for_the_header(self) -> None:
        self.hop("8BITMIME")
        self.assertEqual(self.codes(envelope(smtputf8=True), self.EIGHT_BIT), {"c": "554 5.6.9"})

    def test_the_reason_blames_no_header_that_is_ascii(self) -> None:
        self.hop("8BITMIME")
        [reason] = self.deliver(envelope(smtputf8=True), self.EIGHT_BIT).values()
        self.assertNotIn("header", reason)

    def test_every_recipient_once(self) -> None:
        outcomes = self.relay.deliver(envelope("a@example.nl", "a@example.nl"), MESSAGE)
        self.network.pump()
        self.assertEqual(list(self.successResultOf(outcomes)), [Path("a", "example.nl")])
        self.assertEqual(len(self.network.messages[0][0]), 1)


@proves("D2", "D3")
class NotificationRequestTests(TransactionTestCase):
    """RFC 3461 5.2: what the submitter asked for goes to a hop that knows of it, and to no other."""

    NOTIFIED = evolve(
        envelope(*THREE),
        parameters=MailParameters(ret="HDRS", envid="QQ+2B1"),
        recipient_parameters={
            Path("a", "example.nl"): RcptParameters(
                frozenset({Notify.SUCCESS, Notify.DELAY, Notify.FAILURE}), "rfc822;A+2Bb@Example.NL"
            ),
            Path("b", "example.nl"): RcptParameters(frozenset({Notify.NEVER})),
        },
    )

    def arrivals(self, message: Envelope, *extensions: str) -> set[Arrival]:
        self.serve(SimpleHop(extensions))
        delivery = self.relay.deliver(message, MESSAGE)
        self.network.pump()
        return {outcome.arrival for outcome in self.successResultOf(delivery).values()}

    def commands(self) -> list[bytes]:
        return [line for line in self.network.servers[-1].commands if line.startswith((b"MAIL", b"RCPT"))]

    def test_a_hop_with_dsn(self) -> None:
        for extensions in (EXTENSIONS, LOCKSTEP):
            self.assertEqual(self.arrivals(self.NOTIFIED, *extensions, "DSN"), {Arrival.PASSED_ON})
            self.assertEqual(
                self.commands(),
                [
                    b"MAIL FROM:<business@example.nl> SIZE=24 RET=HDRS ENVID=QQ+2B1",
                    b"RCPT TO:<a@example.nl> NOTIFY=DELAY,FAILURE,SUCCESS ORCPT=rfc822;A+2Bb@Example.NL",
                    b"RCPT TO:<b@example.nl> NOTIFY=NEVER",
                    b"RCPT TO:<c@example.nl>",
                ],
            )

    def test_a_hop_without_dsn(self) -> None:
        self.assertEqual(self.arrivals(self.NOTIFIED, *EXTENSIONS), {Arrival.RELAYED})
        self.assertEqual(
            self.commands(),
            [
                b"MAIL FROM:<business@example.nl> SIZE=24",
                *(b"RCPT TO:<%b@example.nl>" % name for name in (b"a", b"b", b"c")),
            ],
        )

    def test_nothing_is_added(self) -> None:
        self.assertEqual(self.arrivals(envelope(), "DSN"), {Arrival.PASSED_ON})
        self.assertEqual(self.commands(), [b"MAIL FROM:<business@example.nl>", b"RCPT TO:<core@example.nl>"])

    def test_an_original_recipient_outside_ascii(self) -> None:
        """RFC 6533 3: in seven bits where the hop is not told SMTPUTF8."""
        path = Path("a", "example.nl")
        asked = RcptParameters(orcpt="utf-8;jörg\\x{1F600}@bücher.example")
        message = evolve(envelope("a@example.nl", smtputf8=True), recipient_parameters={path: asked})
        for extensions in (("DSN", "8BITMIME"), ("DSN", *EXTENSIONS)):
            self.arrivals(message, *extensions)
            self.assertEqual(
                self.commands()[1],
                b"RCPT TO:<a@example.nl> ORCPT=utf-8;j\\x{F6}rg\\x{1F600}@b\\x{FC}cher.example",
            )
        international = Path("jörg", "example.nl")
        message = evolve(message, recipients=(international,), recipient_parameters={international: asked})
        self.arrivals(message, "DSN", *EXTENSIONS)
        self.assertEqual(
            self.commands()[1].decode(),
            "RCPT TO:<jörg@example.nl> ORCPT=utf-8;jörg\\x{1F600}@bücher.example",
        )

    def test_groups_stay_small(self) -> None:
        paths = [Path(f"r{number}", "example.nl") for number in range(500)]
        asked = RcptParameters(frozenset({Notify.FAILURE}), "rfc822;" + "x" * 493)
        message = evolve(
            envelope(), recipients=tuple(paths), recipient_parameters=dict.fromkeys(paths, asked)
        )
        self.arrivals(message, "DSN", "PIPELINING")
        [server] = self.network.servers
        self.assertLess(max(map(len, server.receptions)), 20_000)
        self.assertEqual(len(server.messages[0][0]), 500)
