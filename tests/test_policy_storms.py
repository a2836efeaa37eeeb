"""Whatever rules answer and clients do, each judgement has one end, and it is the message's."""

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from digipoort_msa.policy.applied import Applied, WouldRefuse
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase, Wire

_STORMS = 300
_ENDS = {"accepted", "abort"}


class Whims(Rule):
    """Answers as chance has it; the Deferreds that it owes are fired by the storm."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.judgements: list[WhimsicalJudgement] = []

    def begin(self, identity: Any, trace: Any) -> Judgement:
        self.judgements.append(WhimsicalJudgement(self))
        return self.judgements[-1]

    def answer(self) -> Any:
        """A refusal is rare, or no message would come far."""
        chance = self.random.random()
        if chance < 0.04:
            raise Refused(reply.SENDER_NOT_YOURS, "at once")
        if chance < 0.06:
            raise ZeroDivisionError
        if chance < 0.1:
            return fail(Refused(reply.SENDER_NOT_YOURS, "a failure"))
        if chance < 0.3:
            return succeed(None)
        return Deferred() if chance < 0.6 else None


class WhimsicalJudgement(Judgement):
    def __init__(self, whims: Whims) -> None:
        self.whims = whims
        self.asked: list[str] = []
        self.against = False  # it has refused the message, or failed
        self.owed: Deferred[None] | None = None

    def __getattribute__(self, name: str) -> Any:
        if name not in {"sender", "recipient", "open", "write", "complete"} | _ENDS:
            return super().__getattribute__(name)
        return lambda *_: self.ask(name)

    def ask(self, moment: str) -> Any:
        assert not _ENDS & set(self.asked), f"{moment} after {self.asked}"
        assert moment in _ENDS or self.owed is None or self.owed.called, f"{moment} while an answer is due"
        self.asked.append(moment)
        if moment in _ENDS:
            assert moment == "abort" or not self.against, "accepted, although it has refused"
            return None
        of_the_message = moment in {"sender", "write", "complete"}
        try:
            answer = self.whims.answer()
        except Exception:
            self.against = self.against or of_the_message
            raise
        if isinstance(answer, Deferred):
            if of_the_message:
                answer.addErrback(self.note)
            self.owed = None if answer.called else answer
        return answer

    def note(self, failure: Failure) -> Failure:
        self.against = True
        return failure

    def pay(self) -> bool:
        """Give the answer that is due."""
        owed, self.owed = self.owed, None
        if owed is None or owed.called:
            return False
        if self.whims.random.random() < 0.1:
            owed.errback(Refused(reply.SENDER_NOT_YOURS, "late"))
        else:
            owed.callback(None)
        return True


class StormTests(ClockTestCase):
    def test_each_judgement_has_one_end(self) -> None:
        passed = 0
        for seed in range(_STORMS):
            self.spool.kept.clear()
            with self.subTest(seed=seed):
                passed += self.storm(Random(seed))
        self.assertGreater(passed, _STORMS // 10)
        self.flushLoggedErrors(ZeroDivisionError)

    def storm(self, random: Random) -> int:
        """
        :return: how many messages went through.
        """
        in_force, on_trial = Whims(random), Whims(random)
        rules = (
            Applied("in force", in_force, lambda _: True),
            Applied("on trial", on_trial, lambda _: True, self),
        )
        wire = self.logged_in(policies=rules)
        for step in self.script(random):
            if wire.closed:
                break
            wire.protocol.dataReceived(step)
            while random.random() < 0.9 and self.pay(in_force, on_trial):
                wire.turn()
        stays = random.random() < 0.5
        if stays:
            self.settle(wire, in_force, on_trial)
        wire.lose()
        self.settle(wire, in_force, on_trial)
        ends = [[each for each in one.asked if each in _ENDS] for one in in_force.judgements]
        self.assertEqual([len(each) for each in ends], [1] * len(ends))
        self.assertEqual(ends.count(["accepted"]), len(self.spool.kept))
        for one in on_trial.judgements:
            self.assertEqual(len(_ENDS & set(one.asked)), 1, one.asked)
        if stays:
            self.assertEqual(wire.read().count("queued as"), len(self.spool.kept))
        return len(self.spool.kept)

    def script(self, random: Random) -> list[bytes]:
        steps = []
        for _ in range(random.randint(1, 4)):
            steps += [b"MAIL FROM:<a@b.nl>\r\n", *[b"RCPT TO:<c@d.nl>\r\n"] * random.randint(1, 3)]
            if random.random() < 0.5:
                steps += [b"DATA\r\n", *[b"A: b\r\n"] * random.randint(1, 3), b"\r\n.\r\n"]
            else:
                steps += [b"BDAT 6\r\nA: b\r\n", b"BDAT 4\r\n\r\nx\r", b"BDAT 1 LAST\r\n\n"]
            if random.random() < 0.3:
                steps.insert(random.randrange(len(steps)), b"RSET\r\n")
        return steps[: random.randint(1, 12)] if random.random() < 0.4 else steps

    def settle(self, wire: Wire, *whims: Whims) -> None:
        wire.turn()
        while self.pay(*whims):
            wire.turn()

    def pay(self, *whims: Whims) -> bool:
        paid = [one.pay() for each in whims for one in each.judgements]
        return any(paid)

    # -- the report of rules on trial -------------------------------------------------------------------

    def begun(self, realm: str, rule: str) -> None:
        """Not looked at."""

    def would_refuse(self, would: WouldRefuse) -> None:
        """Not looked at."""
