"""The contract suite for policies: right ones pass it, and each way to be wrong fails a test."""

import unittest
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.testing import MessageDescription, PolicyContract


class NoWord(Rule):
    """Refuses a sender, a recipient and a content that hold the word ``stop``."""

    class Begun(Judgement):
        def __init__(self) -> None:
            self.seen = b""

        def sender(self, path: Any, parameters: Any) -> None:
            if "stop" in str(path):
                raise Refused(reply.SENDER_NOT_YOURS, "it says stop")

        def recipient(self, envelope: Any, path: Any, parameters: Any) -> None:
            if "stop" in str(path):
                raise Refused(reply.RECIPIENT_NOT_ALLOWED, "it says stop")

        def write(self, octets: bytes) -> None:
            self.seen += octets

        def complete(self) -> None:
            if b"stop" in self.seen:
                raise Refused(reply.FILTER_REJECTS, "it says stop")

    def begin(self, identity: Any, trace: Any) -> Any:
        return self.Begun()


class NoWordContract(PolicyContract):
    kind: type[Rule] = NoWord

    def make_policy(self) -> Rule:
        return self.kind()

    def messages(self) -> list[MessageDescription]:
        return [
            MessageDescription(),
            MessageDescription(sender=""),
            MessageDescription(sender="stop@one.nl", refused="MAIL"),
            MessageDescription(recipients=["a@two.nl", "stop@two.nl"], refused="RCPT"),
            MessageDescription(recipients=["stop@two.nl"], refused="RCPT"),
            MessageDescription(content=b"Subject: x\r\n\r\nstop\r\n", refused="end of data"),
        ]


class NoWordTests(NoWordContract, TestCase):
    pass


class Shared(NoWord):
    """One judgement for all."""

    def __init__(self) -> None:
        self.only = self.Begun()

    def begin(self, identity: Any, trace: Any) -> Any:
        return self.only


class PerPiece(NoWord):
    """Looks for the word in each piece alone."""

    class Begun(NoWord.Begun):
        def write(self, octets: bytes) -> None:
            self.seen = self.seen if b"stop" in self.seen else octets


class Silent(NoWord):
    class Begun(NoWord.Begun):
        def sender(self, path: Any, parameters: Any) -> None:
            if "stop" in str(path):
                raise Refused(reply.SENDER_NOT_YOURS)


class Agreeing(Rule):
    pass


class Bare(NoWord):
    class Begun:  # type: ignore[assignment]
        def abort(self) -> None:
            pass


class Unabortable(NoWord):
    class Begun(NoWord.Begun):
        def abort(self) -> None:
            assert self.seen


WRONG: dict[type[Rule], str] = {
    Shared: "judgements_are_apart",
    PerPiece: "verdicts",
    Silent: "verdicts",
    Agreeing: "verdicts",
    Bare: "interfaces",
    Unabortable: "cut_off",
}


class WrongPolicyTests(SynchronousTestCase):
    def test_each_is_found(self) -> None:
        for kind, test in WRONG.items():
            case = type(kind.__name__, (NoWordContract, TestCase), {"kind": kind})
            result = unittest.TestResult()
            case(f"test_{test}").run(result)
            self.assertEqual((result.testsRun, result.skipped), (1, []))
            self.assertFalse(result.wasSuccessful(), f"{kind.__name__}: {test} passed")
