"""A configured policy: in force or on trial."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.policy.applied import Applied, WouldRefuse
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import MailParameters, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase
from tests.spooling import envelope
from tests.test_submission import trace

PIET = Identity(name="piet", realm="one.nl")
PATH = Path("a", "example.nl")
NO = Refused(reply.RECIPIENT_NOT_ALLOWED, "no")


class Answers(Rule, Judgement):
    """Answers as it is told, and notes what it is asked."""

    def __init__(self, answer: Any = None, *, end: Exception | None = None) -> None:
        """:param end: what goes wrong when it is told of the end."""
        self.answer = answer
        self.end = end
        self.asked: list[str] = []
        self.stopped = False

    def begin(self, identity: Any, trace: Any) -> Judgement:
        return self

    def stop(self) -> None:
        self.stopped = True

    def __getattribute__(self, name: str) -> Any:
        if name not in {"sender", "recipient", "open", "write", "complete", "accepted", "abort"}:
            return super().__getattribute__(name)

        def ask(*_: object) -> Any:
            self.asked.append(name)
            answer = self.end if name in {"accepted", "abort"} else self.answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


class AppliedTests(ClockTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.told: list[WouldRefuse] = []
        self.transactions: list[tuple[str, str]] = []

    def begun(self, realm: str, rule: str) -> None:
        self.transactions.append((realm, rule))

    def would_refuse(self, would: WouldRefuse) -> None:
        self.told.append(would)

    def applied(self, rule: Answers, *, audit: bool = False, concerns: bool = True) -> IJudgement:
        policy = Applied("strict", rule, lambda _: concerns, self if audit else None)
        verifyObject(IPolicy, policy)
        judgement = policy.begin(PIET, trace())
        verifyObject(IJudgement, judgement)
        return judgement

    def moments(self, judgement: Any) -> dict[str, Any]:
        return {
            "MAIL": lambda: judgement.sender(PATH, MailParameters()),
            "RCPT": lambda: judgement.recipient(envelope(), PATH, RcptParameters()),
            "DATA": lambda: judgement.open(envelope()),
            "end of data": judgement.complete,
        }

    def test_in_force(self) -> None:
        for moment, ask in self.moments(self.applied(Answers(NO))).items():
            refused = self.assertRaises(Refused, ask)
            self.assertEqual((refused.reply, refused.cause), (NO.reply, "rule strict: no"), moment)
        for ask in self.moments(self.applied(Answers(fail(NO)))).values():
            self.assertEqual(self.failureResultOf(ask(), Refused).value.cause, "rule strict: no")
            break
        self.assertRaises(ZeroDivisionError, self.applied(Answers(ZeroDivisionError())).complete)
        self.assertEqual(self.told, [])

    def test_on_trial(self) -> None:
        """What it would refuse passes, and is told."""
        for moment in ("MAIL", "RCPT", "DATA", "end of data"):
            self.assertIsNone(self.moments(self.applied(Answers(NO), audit=True))[moment]())
            would = self.told.pop()
            self.assertEqual(
                (would.rule, would.identity, would.moment, would.refused), ("strict", PIET, moment, NO)
            )
        late: Deferred[None] = Deferred()
        answer: Any = self.applied(Answers(late), audit=True).complete()
        late.errback(NO)
        self.successResultOf(answer)
        self.assertEqual(len(self.told), 1)
        self.assertEqual(self.transactions, [("one.nl", "strict")] * 5)

    def test_on_trial_a_refusal_is_the_end_as_it_is_in_force(self) -> None:
        """One message that would be refused is one refusal, and is none that was taken."""
        rule = Answers(NO)
        judgement = self.applied(rule, audit=True)
        for ask in self.moments(judgement).values():
            self.assertIsNone(ask())
        judgement.accepted()
        self.assertEqual((rule.asked, len(self.told)), (["sender", "abort"], 1))
        rule, late = Answers(NO), Answers(fail(NO))
        judgement = self.applied(rule, audit=True)
        for _ in range(2):  # recipients: each by itself
            judgement.recipient(envelope(), PATH, RcptParameters())
        for _ in range(2):
            judgement.write(b"x")
        self.assertEqual(rule.asked, ["recipient", "recipient", "write", "abort"])
        judgement = self.applied(late, audit=True)
        self.successResultOf(judgement.write(b"x"))
        judgement.abort()
        self.assertEqual(late.asked, ["write", "abort"])

    def test_a_rule_that_cannot_begin(self) -> None:
        class Broken(Answers):
            def begin(self, identity: Any, trace: Any) -> Judgement:
                raise ZeroDivisionError("x")

        for ask in self.moments(self.applied(Broken(), audit=True)).values():
            self.assertIsNone(ask())
        self.assertRaises(ZeroDivisionError, self.applied, Broken())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_rule_on_trial_that_fails(self) -> None:
        for answer in (ZeroDivisionError("x"), fail(ZeroDivisionError("x"))):
            waiting = self.applied(Answers(answer), audit=True).complete()
            if waiting is not None:
                self.successResultOf(waiting)
        self.assertEqual(len(self.events("defect")), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_client_that_leaves_meanwhile(self) -> None:
        for audit in (False, True):
            waiting: Any = self.applied(Answers(Deferred()), audit=audit).complete()
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)

    def test_whom_it_is_not_about(self) -> None:
        rule = Answers(NO)
        for ask in self.moments(self.applied(rule, concerns=False)).values():
            self.assertIsNone(ask())
        self.assertEqual(rule.asked, [])

    def test_one_end(self) -> None:
        """It is told once, and what goes wrong in it changes nothing."""
        for first, second in (("accepted", "abort"), ("abort", "abort")):
            rule = Answers(end=ZeroDivisionError("x"))
            judgement = self.applied(rule)
            getattr(judgement, first)()
            getattr(judgement, second)()
            self.assertEqual(rule.asked, [first])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_agreeing(self) -> None:
        for answer in (None, succeed(None)):
            for ask in self.moments(self.applied(Answers(answer))).values():
                waiting = ask()
                if waiting is not None:
                    self.successResultOf(waiting)

    def test_stop(self) -> None:
        rule = Answers()
        Applied("strict", rule, lambda _: True).stop()
        self.assertTrue(rule.stopped)
