"""A configured policy: a rule, whom it is about, and whether it is in force or on trial.

On trial (``audit``), what the rule would refuse passes, and is told to the log and to the report instead; so
does whatever goes wrong in the rule.  What would have ended the transaction is the end of it for the rule, so
that it counts what it would count in force.  In force, its refusals are the client's, with the rule's name in
the log.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.policy.rule import Judgement, Waiting
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused


@frozen
class WouldRefuse:
    """One refusal of a rule that is on trial."""

    rule: str  # its name
    identity: Identity
    trace: Trace
    moment: str  # "MAIL", "RCPT", "DATA" or "end of data"
    refused: Refused


class Report(Protocol):
    """Where rules on trial are told of."""

    def begun(self, realm: str, rule: str) -> None:
        """A transaction that a rule on trial is asked about."""

    def would_refuse(self, would: WouldRefuse) -> None:
        """What would have been a refusal."""


@implementer(IPolicy)
@define
class Applied:
    """See the module."""

    name: str
    policy: IPolicy
    concerns: Callable[[Identity], bool]  # is the rule about this account?
    report: Report | None = None  # where a rule on trial is told of; None: it is in force

    def begin(self, identity: Identity, trace: Trace) -> IJudgement:
        if not self.concerns(identity):
            return _AGREES
        if self.report is not None:
            self.report.begun(identity.realm, self.name)
        try:
            judgement = self.policy.begin(identity, trace)
        except Exception:
            if self.report is None:
                raise
            log.failure(log.DEFECT, Failure(), where=f"the rule {self.name}, which is on trial")
            return _AGREES
        return _Judged(judgement, self, identity, trace)

    def stop(self) -> Waiting:
        waiting: Waiting = self.policy.stop()
        return waiting


@implementer(IJudgement)
@define(eq=False)
class _Judged:
    _judgement: IJudgement
    _applied: Applied
    _identity: Identity
    _trace: Trace
    _over: bool = field(default=False, init=False)

    def sender(self, path: Path, parameters: MailParameters) -> Waiting:
        return self._ask("MAIL", self._judgement.sender, path, parameters)

    def recipient(self, envelope: Envelope, path: Path, parameters: RcptParameters) -> Waiting:
        return self._ask("RCPT", self._judgement.recipient, envelope, path, parameters)

    def open(self, envelope: Envelope) -> Waiting:
        return self._ask("DATA", self._judgement.open, envelope)

    def write(self, octets: bytes) -> Waiting:
        return self._ask("end of data", self._judgement.write, octets)

    def complete(self) -> Waiting:
        return self._ask("end of data", self._judgement.complete)

    def accepted(self) -> None:
        self._end(self._judgement.accepted)

    def abort(self) -> None:
        self._end(self._judgement.abort)

    def _ask(self, moment: str, ask: Callable[..., Waiting], *arguments: object) -> Waiting:
        if self._over:
            return None  # on trial, it has refused the transaction
        try:
            answer = ask(*arguments)
        except Exception:  # noqa: BLE001 (on trial, nothing that a rule does may stop a message)
            self._failed(Failure(), moment)
            return None
        return answer.addErrback(self._failed, moment) if isinstance(answer, Deferred) else None

    def _failed(self, failure: Failure, moment: str) -> None:
        """Pass on, or tell of, what the rule said."""
        report, refused = self._applied.report, failure.value
        if report is None:
            if isinstance(refused, Refused):
                raise Refused(refused.reply, f"rule {self._applied.name}: {refused.cause}") from refused
            failure.raiseException()
        if isinstance(refused, Refused):
            report.would_refuse(WouldRefuse(self._applied.name, self._identity, self._trace, moment, refused))
        elif failure.check(CancelledError):
            failure.raiseException()
        else:
            log.failure(log.DEFECT, failure, where=f"the rule {self._applied.name}, which is on trial")
        if moment != "RCPT":  # a refusal there is of that recipient alone
            self.abort()

    def _end(self, end: Callable[[], None]) -> None:
        """What goes wrong here changes nothing for the message any more."""
        if self._over:
            return
        self._over = True
        try:
            end()
        except Exception:  # noqa: BLE001 (see above)
            log.failure(log.DEFECT, Failure(), where=f"the rule {self._applied.name}")


_AGREES = Judgement()
