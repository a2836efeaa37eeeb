"""An intake that is a next hop: its verdicts at MAIL and RCPT reach the client, and a client that is cut off
leaves nothing open."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.identity import Identity
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Notify, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.submission import Submission, Submitter
from tests.msa import ClockTestCase, MemoryIncoming, MemorySpool, Wire
from tests.requirements import proves
from tests.test_submission import ONE, SENDER, TWO, Held, Says, trace


class HopIncoming(MemoryIncoming):
    """As a next hop's: MAIL and RCPT have verdicts, and an abort comes once."""

    aborts = 0

    def sender(self, envelope: Envelope) -> Any:
        self.spool.asked.append(envelope)
        return given(self.spool.sender_answer)

    def recipient(self, path: Path, parameters: RcptParameters) -> Any:
        self.spool.asked.append((path, parameters))
        return given(self.spool.recipient_answer)

    def abort(self) -> None:
        super().abort()
        self.aborts += 1


class HopIntake(MemorySpool):
    """An intake whose messages go through: each verdict is what the test says."""

    receive_answer: Any = None
    sender_answer: Any = None
    recipient_answer: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def receive(self, realm: str) -> MemoryIncoming:
        given(self.receive_answer)
        self.incoming.append(HopIncoming(self, f"Q{len(self.incoming) + 1:05}"))
        return self.incoming[-1]


def given(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


NO = Refused(reply.reply(550, "5.1.1", "No such user"), "the hop")
WANTED = RcptParameters(frozenset({Notify.SUCCESS}), "rfc822;x@y.nl")


class SubmissionTests(SynchronousTestCase):
    """The intake has its say at MAIL and RCPT, after the policies."""

    def setUp(self) -> None:
        self.intake = HopIntake()

    def submitter(self, *policies: Any, add: bool = False) -> Submitter:
        identity = Identity(name="piet", realm="one.nl")
        return Submitter(identity, self.intake, Clock().seconds, policies, add)

    def aborts(self) -> list[int]:
        return [incoming.aborts for incoming in self.intake.incoming]

    def start(self, *policies: Any) -> Any:
        return self.submitter(*policies).begin(SENDER, MailParameters(ret="HDRS"), trace())

    @proves("D2")
    def test_answers_at_once_cost_no_deferred(self) -> None:
        submission = self.start()
        self.assertIsInstance(submission, Submission)
        self.assertIsNone(submission.recipient(ONE, WANTED))
        self.assertIsNone(submission.recipient(TWO, RcptParameters()))
        submission.open()
        self.successResultOf(submission.commit())
        ((envelope, _),) = self.intake.kept
        self.assertEqual(envelope.recipients, (ONE, TWO))
        self.assertEqual(envelope.recipient_parameters, {ONE: WANTED})
        self.assertEqual(envelope.parameters.ret, "HDRS")
        asked, *recipients = self.intake.asked
        self.assertEqual((asked.queue_id, asked.recipients, asked.reverse_path), ("Q00001", (), SENDER))
        self.assertEqual(recipients, [(ONE, WANTED), (TWO, RcptParameters())])
        self.assertEqual(self.aborts(), [0])

    @proves("D2")
    def test_a_recipient_given_twice(self) -> None:
        """The last words count, and the message is delivered to it once."""
        submission = self.start()
        for path, parameters in (
            (ONE, WANTED),
            (TWO, RcptParameters()),
            (ONE, RcptParameters()),
            (TWO, WANTED),
        ):
            submission.recipient(path, parameters)
        submission.open()
        self.successResultOf(submission.commit())
        self.assertEqual(self.intake.kept[0][0].recipient_parameters, {TWO: WANTED})
        self.assertEqual(self.intake.kept[0][0].recipients, (ONE, TWO))

    @proves("D2", "M7")
    def test_no_message_can_be_taken(self) -> None:
        full = self.intake.receive_answer = Refused(reply.reply(452, "4.3.1", "no space"), "low")
        self.assertIs(self.assertRaises(Refused, self.start), full)
        held = Held()
        begun = self.start(held)
        self.assertNoResult(begun)
        held.sender_answer.callback(None)
        self.assertIs(self.failureResultOf(begun, Refused).value, full)
        self.assertEqual(self.aborts(), [])

    @proves("D3")
    def test_the_sender_is_refused(self) -> None:
        for answer in (NO, fail(NO)):
            for late in (False, True):
                self.intake.sender_answer = answer if isinstance(answer, Exception) else fail(NO)
                held = Held()
                held.sender_answer = succeed(None)
                begun = maybeDeferred(self.start, *((held,) if late else ()))
                self.assertIs(self.failureResultOf(begun, Refused).value, NO)
                self.assertEqual(self.intake.incoming[-1].aborts, 1)

    def test_a_defect_in_the_intake(self) -> None:
        self.intake.sender_answer = ZeroDivisionError()
        self.assertRaises(ZeroDivisionError, self.start)
        self.intake.sender_answer = fail(ZeroDivisionError())
        self.failureResultOf(self.start(), ZeroDivisionError)
        self.assertEqual(self.aborts(), [1, 1])

    @proves("D3")
    def test_a_recipient_is_refused_and_the_others_stand(self) -> None:
        for late in (False, True):
            submission = self.start()
            self.intake.recipient_answer = fail(NO) if late else NO
            refused = maybeDeferred(submission.recipient, ONE, WANTED)
            self.assertIs(self.failureResultOf(refused, Refused).value, NO)
            self.intake.recipient_answer = waiting = Deferred() if late else None
            added = submission.recipient(TWO, WANTED)
            if waiting:
                self.assertNoResult(added)
                waiting.callback(None)
            submission.open()
            self.successResultOf(submission.commit())
            envelope, _ = self.intake.kept[-1]
            self.assertEqual((envelope.recipients, envelope.recipient_parameters), ((TWO,), {TWO: WANTED}))
        self.assertEqual(self.aborts(), [0, 0])

    @proves("M7")
    def test_the_policies_come_first(self) -> None:
        submission = self.start(Says("recipient"))
        self.assertRaises(Refused, submission.recipient, ONE, WANTED)
        self.assertEqual(len(self.intake.asked), 1)  # MAIL alone
        held = Held()
        held.sender_answer = succeed(None)
        submission = self.successResultOf(self.start(held))
        added = submission.recipient(ONE, WANTED)
        self.assertEqual(len(self.intake.asked), 2)
        held.recipient_answer.callback(None)
        self.assertEqual(self.intake.asked[2:], [(ONE, WANTED)])
        self.successResultOf(added)

    def test_cut_off_while_the_sender_is_judged(self) -> None:
        held = Held()
        begun = self.start(held)
        begun.cancel()
        self.failureResultOf(begun, CancelledError)
        self.assertEqual(self.intake.incoming, [])
        given_up: list[Any] = []
        self.intake.sender_answer = Deferred(given_up.append)
        held.sender_answer = succeed(None)
        for policies in ((), (held,)):
            self.intake.sender_answer = Deferred(given_up.append)
            begun = self.start(*policies)
            begun.cancel()
            self.failureResultOf(begun, CancelledError)
        self.assertEqual((len(given_up), self.aborts()), (2, [1, 1]))

    def test_cut_off_while_a_recipient_is_judged(self) -> None:
        """By a policy or by the intake; with a cancel, or with none."""
        held = Held()
        held.sender_answer = succeed(None)
        for cancel in (True, False):
            held.recipient_answer = Deferred()
            submission = self.successResultOf(self.start(held))
            added = submission.recipient(ONE, WANTED)
            if cancel:
                added.cancel()
            submission.abort()
            if cancel:
                self.failureResultOf(added, CancelledError)
            else:
                held.recipient_answer.callback(None)
                self.successResultOf(added)
            self.assertEqual(len(self.intake.asked), 1)  # the hop hears nothing of it
            self.intake.asked.clear()
        self.intake.recipient_answer = Deferred()
        submission = self.start()
        added = submission.recipient(ONE, WANTED)
        submission.abort()
        submission.abort()
        self.intake.recipient_answer.callback(None)
        self.assertEqual(self.aborts(), [1, 1, 1])

    @proves("M7", "D2")
    def test_the_hop_takes_nothing_while_policies_judge(self) -> None:
        """It has the content, but not the end of it; whether that comes is the policies' verdict."""
        for verdict in (None, NO):
            held = Held()
            held.sender_answer = held.recipient_answer = succeed(None)
            submission = self.successResultOf(self.start(held))
            self.successResultOf(submission.recipient(ONE, WANTED))
            self.successResultOf(submission.open())
            submission.write(b"A: b\r\n\r\n")
            committed = submission.commit()
            incoming = self.intake.incoming[-1]
            self.assertIsNone(incoming.committed)
            held.content_answer.callback(None) if verdict is None else held.content_answer.errback(verdict)
            if verdict is None:
                self.successResultOf(committed)
            else:
                self.failureResultOf(committed, Refused)
            self.assertEqual(incoming.committed is None, verdict is not None)
            self.assertEqual(incoming.aborts, 0 if verdict is None else 1)
            self.assertEqual(held.ends, ["accepted" if verdict is None else "aborted"])

    def test_aborted_once_whatever_fails(self) -> None:
        for moment in ("content", "header"):
            submission = self.submitter(Says("complete"), add=moment == "header").begin(
                SENDER, MailParameters(), trace()
            )
            assert isinstance(submission, Submission)
            submission.open()
            if moment == "header":
                self.patch(HopIncoming, "write", lambda *_: given(OSError("gone")))
            self.assertRaises((Refused, OSError), submission.commit)
            submission.abort()
            self.assertEqual(self.intake.incoming[-1].aborts, 1)


class ServerTests(ClockTestCase):
    """The same, as the client sees it."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.intake = HopIntake()

    def aborts(self) -> list[int]:
        return [incoming.aborts for incoming in self.intake.incoming]

    @proves("D2", "M8")
    def test_the_parameters_are_kept(self) -> None:
        """Whole, and cut at every octet."""
        octets = (
            b"MAIL FROM:<ik@mijnbedrijf.nl> RET=HDRS ENVID=Q+2B1\r\n"
            b"RCPT TO:<een@overheid.nl> NOTIFY=SUCCESS ORCPT=rfc822;x@y.nl\r\n"
            b"RCPT TO:<twee@overheid.nl>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n"
        )
        for cut in range(len(octets)):
            wire = self.logged_in()
            wire.send(octets[:cut])
            wire.send(octets[cut:])
            self.assertEqual(
                [line[:3] for line in wire.read().splitlines()], ["250", "250", "250", "354", "250"]
            )
            envelope, _ = self.intake.kept.pop()
            self.assertEqual(envelope.parameters, MailParameters(ret="HDRS", envid="Q+2B1"))
            self.assertEqual(envelope.recipients, (ONE, TWO))
            self.assertEqual(envelope.recipient_parameters, {ONE: WANTED})

    @proves("M8")
    def test_bad_parameters(self) -> None:
        wire = self.logged_in()
        answers = wire.ask(
            "MAIL FROM:<a@b.nl> ENVID=+0D+0A",
            "MAIL FROM:<a@b.nl> RET=FULL RET=FULL",
            "MAIL FROM:<a@b.nl> NOTIFY=NEVER",
            "MAIL FROM:<a@b.nl>",
            "RCPT TO:<a@b.nl> NOTIFY=NEVER,SUCCESS",
            "RCPT TO:<a@b.nl> ORCPT=rfc822;+00",
            "RCPT TO:<a@b.nl> RET=FULL",
            "RCPT TO:<a@b.nl> ORCPT=utf-8;\xe9@b.nl",
            "DATA",
        )
        self.assertEqual(
            [line[:9] for line in answers.splitlines()],
            [
                *("501 5.5.4", "501 5.5.4", "555 5.5.4", "250 2.1.0"),
                *("501 5.5.4", "501 5.5.4", "555 5.5.4", "553 5.6.7", "503 5.5.1"),
            ],
        )

    @proves("D3", "M8")
    def test_the_hops_words(self) -> None:
        hop = reply.Reply(421, "4.3.2", ("hop.example is closing",))
        self.intake.sender_answer = fail(Refused(reply.passed_on(hop)))
        wire = self.logged_in()
        self.assertEqual(wire.ask("MAIL FROM:<a@b.nl>"), "451 4.3.2 hop.example is closing\r\n")
        self.assertFalse(wire.closed)
        self.intake.sender_answer = None
        self.assertEqual(wire.ask("RCPT TO:<a@b.nl>")[:3], "503")
        self.intake.recipient_answer = NO
        self.assertEqual(
            wire.ask("MAIL FROM:<a@b.nl>", "RCPT TO:<a@b.nl>", "DATA").splitlines()[1:],
            ["550 5.1.1 No such user", str(reply.NEED_RCPT)],
        )
        self.assertEqual(wire.ask("RSET"), "250 2.0.0 Ok\r\n")
        self.assertEqual(self.aborts(), [1, 1])

    def test_replies_stay_in_order(self) -> None:
        """Pipelined, with a hop that takes its time."""
        self.intake.sender_answer = sender = Deferred()
        self.intake.recipient_answer = NO
        wire = self.logged_in()
        self.assertEqual(wire.ask("MAIL FROM:<a@b.nl>", "RCPT TO:<a@b.nl>", "NOOP", "RSET", "QUIT"), "")
        sender.callback(None)
        self.assertEqual([line[:3] for line in wire.read().splitlines()], ["250", "550", "250", "250", "221"])
        self.assertEqual(self.aborts(), [1])

    def cut_off(self, *lines: str) -> Wire:
        wire = self.logged_in()
        wire.say(*lines)
        wire.lose()
        self.assertEqual(self.events("defect"), [])
        return wire

    def test_cut_off_while_a_verdict_is_open(self) -> None:
        given_up: list[Any] = []
        self.intake.sender_answer = Deferred(given_up.append)
        self.cut_off("MAIL FROM:<a@b.nl>")
        self.assertEqual((len(given_up), self.aborts()), (1, [1]))
        self.intake.sender_answer = None
        self.intake.recipient_answer = Deferred(given_up.append)
        self.cut_off("MAIL FROM:<a@b.nl>", "RCPT TO:<a@b.nl>", "DATA", "x", ".")
        self.assertEqual((len(given_up), self.aborts()), (2, [1, 1]))
        self.assertEqual(self.intake.kept, [])

    def test_a_verdict_that_comes_anyway(self) -> None:
        """A hop that cannot be called off: its answer is nobody's, but what it began is let go of."""
        self.intake.sender_answer = answer = Deferred()
        self.cut_off("MAIL FROM:<a@b.nl>")
        answer.callback(None)
        self.assertEqual(self.aborts(), [1])
        self.assertEqual(self.flushLoggedErrors(), [])

    @proves("M9")
    def test_a_flood_of_recipients(self) -> None:
        """What a transaction keeps is bounded by its recipients: each an address, and 500 octets of ORCPT."""
        wire = self.logged_in(session={"recipients": 1000})
        wire.say("MAIL FROM:<a@b.nl>")
        orcpt = "rfc822;" + "x" * 493
        for number in range(100):
            wire.say(
                *(f"RCPT TO:<r{number}-{each}@b.nl> NOTIFY=SUCCESS,DELAY ORCPT={orcpt}" for each in range(30))
            )
            wire.turn()
        answers = wire.read().splitlines()
        self.assertEqual(sum(line.startswith("250 2.1.5") for line in answers), 1000)
        self.assertEqual(sum(line == str(reply.TOO_MANY_RECIPIENTS) for line in answers), 2000)
        submission = wire.protocol._conversation._submission
        assert isinstance(submission, Submission)
        self.assertEqual(len(submission._recipient_parameters), 1000)
        self.assertLessEqual(
            max(len(kept.orcpt or "") for kept in submission._recipient_parameters.values()), 500
        )

    def test_a_line_with_everything(self) -> None:
        """Path, ENVID and ORCPT at their longest fit into a command line (RFC 3461 4)."""
        address = "l" * 64 + "@" + "d." * 126 + "nl"
        wire = self.logged_in()
        answers = wire.ask(
            f"MAIL FROM:<{address}> SIZE=1 BODY=8BITMIME SMTPUTF8 RET=FULL AUTH=<> ENVID={'e' * 100}",
            f"RCPT TO:<{address}> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{'x' * 493}",
        )
        self.assertEqual(answers.count("250 "), 2)
