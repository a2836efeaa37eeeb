"""The bases of our policies: what has nothing to say at a moment says nothing."""

from typing import TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import implementer

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters, Trace

Waiting: TypeAlias = "Deferred[None] | None"


@implementer(IJudgement)
class Judgement:
    """Agrees to everything; one that inherits overrides the moments it is about."""

    def sender(self, path: Path, parameters: MailParameters) -> Waiting:
        return None

    def recipient(self, envelope: Envelope, path: Path, parameters: RcptParameters) -> Waiting:
        return None

    def open(self, envelope: Envelope) -> Waiting:
        return None

    def write(self, octets: bytes) -> Waiting:
        return None

    def complete(self) -> Waiting:
        return None

    def accepted(self) -> None:
        return None

    def abort(self) -> None:
        return None


@implementer(IPolicy)
class Rule:
    """A policy with nothing to let go of; one that inherits overrides ``begin``."""

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return Judgement()

    def stop(self) -> Waiting:
        return None
