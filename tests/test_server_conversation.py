"""Events become verdicts: refusals their own reply, the unexpected a 451, and nothing left behind."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from digipoort_msa.interfaces import ISubmission, ISubmitter
from digipoort_msa.server.conversation import Conversation
from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.envelope import MailParameters, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused, Reply
from tests.msa import _Events
from tests.requirements import proves

TRACE = Trace("S1", "msa.example.nl", "192.0.2.1", "mijnbedrijf.nl", "TLSv1.3")
MAIL = events.Mail(Path("ik", "mijnbedrijf.nl"), MailParameters())
RCPT = events.Recipient(Path("jij", "overheid.nl"), RcptParameters())
REFUSED = Refused(reply.SENDER_NOT_YOURS, "the cause")


@implementer(ISubmitter, ISubmission)
class Double:
    """A submitter and its one submission: each method answers what ``answers`` says."""

    account, realm, queue_id = "piet", "one.nl", "Q1"

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.called: list[str] = []

    def _answer(self, name: str) -> Any:
        self.called.append(name)
        answer = self.answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def begin(self, reverse_path: Path, parameters: MailParameters, trace: Trace) -> Any:
        return self._answer("begin") or self

    def recipient(self, forward_path: Path, parameters: RcptParameters) -> Any:
        return self._answer("recipient")

    def open(self) -> Any:
        return self._answer("open")

    def write(self, octets: bytes) -> Any:
        return self._answer("write")

    def commit(self) -> Any:
        return self._answer("commit") or succeed("Q1")

    def abort(self) -> None:
        self._answer("abort")


class ConversationTests(_Events, SynchronousTestCase):
    def setUp(self) -> None:
        self.collect_events()
        self.messages = 0

    def conversation(self, **answers: Any) -> Conversation:
        self.double = Double(**answers)
        nobody: Any = None  # nothing here logs in
        conversation = Conversation(nobody, frozenset(), lambda: TRACE, self.count)
        conversation._submitter = self.double
        return conversation

    def count(self) -> None:
        self.messages += 1

    def result(self, verdict: Any) -> Reply:
        answer: Reply = self.successResultOf(verdict) if isinstance(verdict, Deferred) else verdict
        return answer

    def test_a_transaction(self) -> None:
        for later in (lambda value: None, succeed):
            conversation = self.conversation(
                **{name: later(None) for name in ("recipient", "open", "write")},
            )
            verdicts = [
                self.result(conversation.answer(event))
                for event in (MAIL, RCPT, events.ContentBegins(), events.ContentEnds())
            ]
            self.assertEqual(
                verdicts, [reply.SENDER_OK, reply.RECIPIENT_OK, reply.START_CONTENT, reply.queued("Q1")]
            )
            conversation.abort()
            self.assertEqual(self.double.called, ["begin", "recipient", "open", "commit"])
        self.assertEqual(self.messages, 2)

    def everywhere(self, make: Callable[[], Any], expected: Reply) -> None:
        """The same at each step, raised or as a failure."""
        for name, event in (
            ("begin", MAIL),
            ("recipient", RCPT),
            ("open", events.ContentBegins()),
            ("commit", events.ContentEnds()),
        ):
            conversation = self.conversation(**{name: make()})
            if name != "begin":
                conversation.answer(MAIL)
            self.assertEqual(self.result(conversation.answer(event)), expected, name)
        self.assertEqual(self.messages, 0)

    @proves("M7")
    def test_refused(self) -> None:
        self.everywhere(lambda: REFUSED, reply.SENDER_NOT_YOURS)
        self.everywhere(lambda: fail(REFUSED), reply.SENDER_NOT_YOURS)
        self.assertEqual({event["reason"] for event in self.events("refused")}, {"the cause"})
        self.assertEqual(
            [event["command"] for event in self.events("refused")],
            2 * ["MAIL", "RCPT", "DATA", "end of data"],  # the RFC's words, whoever refused
        )

    def test_the_unexpected(self) -> None:
        self.everywhere(lambda: ZeroDivisionError("a defect"), reply.LOCAL_ERROR)
        self.everywhere(lambda: fail(ZeroDivisionError("a defect")), reply.LOCAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 8)

    def test_a_write_that_raises(self) -> None:
        """The rest of the content goes nowhere, and its end is a 451."""
        conversation = self.conversation(write=ZeroDivisionError())
        conversation.answer(MAIL)
        self.assertIsNone(conversation.write(b"x"))
        self.assertIsNone(conversation.write(b"x"))
        self.assertEqual(self.double.called, ["begin", "write", "abort"])
        self.assertEqual(self.result(conversation.answer(events.ContentEnds())), reply.LOCAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors()), 2)

    def test_an_event_out_of_order(self) -> None:
        """The session never sends one; here it is a 451, and no transaction."""
        for event in (RCPT, events.ContentBegins(), events.ContentEnds(), events.Response(b"")):
            self.assertEqual(self.result(self.conversation().answer(event)), reply.LOCAL_ERROR)
        conversation = self.conversation()
        conversation._submitter = None
        self.assertEqual(self.result(conversation.answer(MAIL)), reply.LOCAL_ERROR)
        self.flushLoggedErrors(RuntimeError)

    def test_a_transaction_that_begins_too_late(self) -> None:
        """The connection is gone before there is a verdict: nothing stays open, and nothing is a defect."""
        begun: Deferred[Any] = Deferred(lambda waiting: waiting.callback(self.double))
        conversation = self.conversation(begin=begun)
        conversation.answer(MAIL)
        conversation.close()
        self.assertEqual(self.double.called, ["begin", "abort"])

        conversation = self.conversation(begin=Deferred())
        verdict = conversation.answer(MAIL)
        conversation.close()
        self.assertFalse(self.result(verdict).positive)
        self.assertEqual(self.events("defect"), [])

    def test_a_recipient_that_is_judged_too_late(self) -> None:
        given_up: list[Any] = []
        conversation = self.conversation(recipient=Deferred(given_up.append))
        conversation.answer(MAIL)
        conversation.answer(RCPT)
        self.assertEqual(given_up, [])
        conversation.close()
        self.assertEqual(len(given_up), 1)
        self.assertEqual(self.double.called, ["begin", "recipient", "abort"])
        self.assertEqual(self.events("defect"), [])

    def test_a_verdict_that_was_given_is_not_cancelled(self) -> None:
        judged: Deferred[None] = Deferred(lambda _: self.fail("cancelled"))
        conversation = self.conversation(recipient=judged)
        conversation.answer(MAIL)
        verdict = conversation.answer(RCPT)
        judged.callback(None)
        conversation.close()
        self.assertEqual(self.result(verdict), reply.RECIPIENT_OK)

    def test_a_cancelled_verdict_with_the_client_there_is_a_defect(self) -> None:
        conversation = self.conversation(recipient=fail(CancelledError()))
        conversation.answer(MAIL)
        self.assertEqual(self.result(conversation.answer(RCPT)), reply.LOCAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)

    @proves("M6")
    def test_what_is_committed_is_never_aborted(self) -> None:
        commit: Deferred[str] = Deferred()
        conversation = self.conversation(commit=commit)
        conversation.answer(MAIL)
        verdict = conversation.answer(events.ContentEnds())
        conversation.close()
        commit.callback("Q1")
        self.assertEqual(self.result(verdict), reply.queued("Q1"))
        self.assertEqual(self.double.called, ["begin", "commit"])
