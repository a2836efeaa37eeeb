"""The policy: a milter judges each message, and a failure of the milter is refused or passed.

What becomes of a message is always said to its sender (D2): a milter that discards or quarantines it has it
refused, since nothing here would keep it.  Where the milter fails, ``refuse`` is 451, and ``pass`` lets the
message through and says so in the log.

Two things are never let through, since a client could bring them about at will: a header section that a
milter cannot be told, and a milter that went away while it was waiting for the client.
"""

from collections.abc import Coroutine, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.policy.header_section import HeaderFault, Malformed
from digipoort_msa.policy.milter import packets, told
from digipoort_msa.policy.milter.content import Content
from digipoort_msa.policy.milter.content import told as told_field
from digipoort_msa.policy.milter.milter import NO_MACROS, Dialogue, Milter
from digipoort_msa.policy.milter.packets import Answer, Kind, MilterError, MilterLost, Step
from digipoort_msa.policy.rule import Judgement, Rule, Waiting
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused

#: Answers that refuse what was asked about; at RCPT, that is the recipient alone.
_REFUSALS = frozenset({Kind.REJECT, Kind.TEMPFAIL, Kind.SAYS})


@implementer(IPolicy)
@frozen
class MilterRule(Rule):
    """Asks one milter about every message."""

    milter: Milter
    passes_on_failure: bool
    maximum_size: int | None = None  # octets; a larger message cannot be asked about

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return _Judgement(self, identity, trace)

    def stop(self) -> Waiting:
        return self.milter.stop()


class _Settled(Exception):
    """The milter has decided about the whole message; ``refused`` is ``None`` where it may pass."""

    def __init__(self, refused: Refused | None) -> None:
        super().__init__()
        self.refused = refused


@implementer(IJudgement)
@define(eq=False)
class _Judgement(Judgement):
    _rule: MilterRule
    _identity: Identity
    _trace: Trace
    _dialogue: Dialogue | None = field(default=None, init=False)
    _content: Content = field(factory=Content, init=False)
    _waiting: "Deferred[None] | None" = field(default=None, init=False)  # an answer
    _settled: bool = field(default=False, init=False)  # nothing more is asked
    _refused: Refused | None = field(default=None, init=False)  # the whole message, from then on
    _queue_id: str = field(default="", init=False)

    # -- the moments --------------------------------------------------------------------------------

    def sender(self, path: Path, parameters: MailParameters) -> Waiting:
        return self._ask(self._begin(path, parameters), decides=True)

    def recipient(self, envelope: Envelope, path: Path, parameters: RcptParameters) -> Waiting:
        return self._ask(self._tell_recipient(envelope, path), decides=True)

    def open(self, envelope: Envelope) -> Waiting:
        self._queue_id = envelope.queue_id
        return self._ask(self._tell(packets.DATA, b"", {"i": envelope.queue_id}), decides=False)

    def write(self, octets: bytes) -> Waiting:
        if self._settled:
            return None
        headless = self._content.fields is None
        try:
            self._content.push(octets)
        except HeaderFault as fault:
            self._settle(_faulty(fault))
            return None
        if self._too_big(self._content.size):
            return None
        if headless and self._content.fields is not None:
            return self._ask(self._tell_header(), decides=False)
        return self._ask(self._tell_body(), decides=False) if self._content.has_part else None

    def complete(self) -> Waiting:
        return self._ask(self._end(), decides=True)

    def accepted(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Also while an answer is waited for: its Deferred then fires with ``None``."""
        self._settled = True
        dialogue, self._dialogue = self._dialogue, None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        if dialogue is not None:
            dialogue.drop()

    # -- the dialogue -------------------------------------------------------------------------------

    async def _begin(self, path: Path, parameters: MailParameters) -> None:
        # Where a large message passes, a small one that says it is large is asked about.
        declared = 0 if self._rule.passes_on_failure else parameters.size or 0
        if self._too_big(declared):
            return
        self._dialogue = await self._rule.milter.open()
        await self._tell(packets.CONNECT, *told.connection(self._trace))
        if self._trace.client_name is not None:
            await self._tell(packets.HELO, packets.strings([self._trace.client_name.encode()]))
        await self._tell(packets.MAIL, *told.sender(self._identity, path, parameters))

    async def _tell_recipient(self, envelope: Envelope, path: Path) -> None:
        answer = await self._begun().tell(packets.RCPT, *told.recipient(envelope.queue_id, path))
        if answer is not None:
            refused = _refusal(answer, packets.RCPT.name)
            if answer.kind in _REFUSALS and refused is not None:
                raise refused
            raise _Settled(refused)

    async def _tell_header(self) -> None:
        dialogue, fields = self._begun(), self._content.fields or ()
        header = [told_field(one, leading_space=dialogue.leading_space) for one in fields]
        answer = await dialogue.tell_header(header, {"i": self._queue_id})
        if answer is not None:
            raise _Settled(_refusal(answer, "the header"))
        await self._tell_body()

    async def _tell_body(self) -> None:
        for part in self._content.parts():
            await self._tell(packets.BODY, part)

    async def _end(self) -> None:
        headless = self._content.fields is None
        self._content.close()
        if headless:
            await self._tell_header()
        if rest := self._content.rest():
            await self._tell(packets.BODY, rest)
        await self._tell(packets.END_OF_MESSAGE, b"", {"i": self._queue_id})
        raise _Settled(None)

    async def _tell(self, step: Step, data: bytes = b"", macros: Mapping[str, str] = NO_MACROS) -> None:
        """
        :raise _Settled: the milter has decided.
        """
        answer = await self._begun().tell(step, data, macros)
        if answer is not None:
            raise _Settled(_refusal(answer, step.name))

    def _begun(self) -> Dialogue:
        if self._dialogue is None:
            raise MilterError("the transaction is over")  # aborted, while a coroutine of its was under way
        return self._dialogue

    # -- what comes of it ---------------------------------------------------------------------------

    def _ask(self, telling: Coroutine[Any, Any, None], *, decides: bool) -> Waiting:
        """
        :param decides: a refusal of the message is raised here; else at the next moment that decides.
        """
        if self._settled:
            telling.close()
            if decides and self._refused is not None:
                raise self._refused
            return None
        waiting = Deferred.fromCoroutine(self._asked(telling, decides))
        if not waiting.called:
            self._waiting = waiting
        return waiting

    async def _asked(self, telling: Coroutine[Any, Any, None], decides: bool) -> None:
        try:
            await telling
        except _Settled as settled:
            self._rule.milter.health.worked()
            self._settle(settled.refused)
        except HeaderFault as fault:
            self._settle(_faulty(fault))
        except MilterError as error:
            self._failed(error)
        except CancelledError:
            if not self._settled:  # else it is an abort
                self._waiting = None
                self.abort()
                raise
        finally:
            self._waiting = None
        if decides and self._refused is not None:
            raise self._refused

    def _settle(self, refused: Refused | None) -> None:
        self._settled = True
        self._refused = refused
        dialogue, self._dialogue = self._dialogue, None
        if dialogue is not None:
            dialogue.leave()

    def _failed(self, error: MilterError) -> None:
        milter = self._rule.milter
        refused = Refused(reply.FILTER_UNAVAILABLE, f"milter {milter.name}: {error}")
        if isinstance(error, MilterLost):
            self._settle(refused)
            return
        if self._dialogue is not None:  # else it did not come to a transaction
            milter.health.broke(str(error))
        self._unasked(refused, str(error))

    def _too_big(self, size: int) -> bool:
        most = self._rule.maximum_size
        if most is None or size <= most:
            return False
        reason = f"the message has over {most} octets, the maximum-size of this rule"
        self._unasked(Refused(reply.FILTER_TOO_BIG, reason), reason)
        return True

    def _unasked(self, refused: Refused, reason: str) -> None:
        """There is no verdict on this message."""
        if not self._rule.passes_on_failure:
            self._settle(refused)
            return
        log.emit(
            log.MILTER_PASSED_OVER,
            session=self._trace.session_id,
            account=self._identity.name,
            milter=self._rule.milter.name,
            reason=reason,
        )
        self._settle(None)


def _refusal(answer: Answer, step: str) -> Refused | None:
    """What the client is told of an answer that decides; ``None`` where it lets the message pass."""
    cause = f"the milter's answer to {step}: {answer.kind.value}"
    match answer.kind:
        case Kind.ACCEPT:
            return None
        case Kind.SAYS if answer.reply is not None:
            return Refused(reply.passed_on(answer.reply, "The content filter"), f"{cause}: {answer.reply}")
        case Kind.TEMPFAIL:
            return Refused(reply.FILTER_DEFERS, cause)
        case _:  # reject; and discard and quarantine, since a message is never lost in silence (D2)
            return Refused(reply.FILTER_REJECTS, cause)


def _faulty(fault: HeaderFault) -> Refused:
    said = reply.HEADER_MALFORMED if isinstance(fault, Malformed) else reply.HEADER_TOO_BIG
    return Refused(said, f"the header section: {fault}")
