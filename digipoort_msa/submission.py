"""What an authenticated account can do: submit messages.

:class:`Submitter` is the avatar that ``twisted.cred`` hands out; each mail transaction is one
:class:`Submission`: policy first, then the intake, be it the spool or a next hop.  A submission answers at
once where these do, so an ordinary MAIL or RCPT costs no Deferred.
"""

import re
from collections.abc import Callable, Iterable
from typing import NoReturn

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IIncoming, IIntake, IJudgement, IPolicy, ISubmission, ISubmitter
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import NO_PARAMETERS, Envelope, MailParameters, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.smtp.trace import received, rfc5322_date

#: Octets at the front of a message in which a header that lacks fields has to end to be given them.
HEAD = 65_536

_END_OF_HEADER = b"\r\n\r\n"
_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)


@implementer(ISubmitter)
@define(eq=False)
class Submitter:
    """One account's right to submit, for one session."""

    identity: Identity
    _intake: IIntake
    _now: Callable[[], float]  # seconds since the epoch
    _policies: tuple[IPolicy, ...] = ()
    _add_missing_headers: bool = False  # RFC 6409 8; off by default (M2)

    @property
    def account(self) -> str:
        return self.identity.name

    @property
    def realm(self) -> str:
        return self.identity.realm

    def begin(
        self, reverse_path: Path, parameters: MailParameters, trace: Trace
    ) -> "Submission | Deferred[Submission]":
        if not self._policies:
            return self._receive((), reverse_path, parameters, trace)
        begun: list[IJudgement] = []
        try:
            begun.extend(policy.begin(self.identity, trace) for policy in self._policies)
            waiting = _each(judgement.sender(reverse_path, parameters) for judgement in begun)
        except Exception:
            _abort(begun)
            raise
        judgements = tuple(begun)
        if waiting is None:
            return self._receive(judgements, reverse_path, parameters, trace)

        def refused(failure: Failure) -> Failure:
            _abort(judgements)
            return failure

        return waiting.addCallbacks(
            lambda _: self._receive(judgements, reverse_path, parameters, trace), refused
        )

    def _receive(
        self, judgements: tuple[IJudgement, ...], reverse_path: Path, parameters: MailParameters, trace: Trace
    ) -> "Submission | Deferred[Submission]":
        """The policies have nothing against the sender: the intake decides."""
        try:
            incoming = self._intake.receive(self.realm)
        except Exception:
            _abort(judgements)
            raise
        envelope = Envelope(
            queue_id=incoming.queue_id,
            realm=self.realm,
            account=self.account,
            session_id=trace.session_id,
            reverse_path=reverse_path,
            recipients=(),
            received_at=self._now(),
            parameters=parameters,
        )
        submission = Submission(envelope, trace, incoming, judgements, self._add_missing_headers)
        try:
            waiting = incoming.sender(envelope)
        except Exception:
            submission.abort()
            raise
        if waiting is None:
            return submission
        return waiting.addCallbacks(lambda _: submission, submission.give_up)


@implementer(ISubmission)
@define(eq=False)
class Submission:
    """One mail transaction on its way into the intake.

    Who cuts it off while a verdict is open cancels that Deferred, then calls :meth:`abort`; where ``begin``'s
    Deferred is cancelled, the abort is done already.
    """

    _envelope: Envelope
    _trace: Trace
    _incoming: IIncoming
    _judgements: tuple[IJudgement, ...]
    _add_missing_headers: bool
    _recipients: list[Path] = field(factory=list, init=False)
    _recipient_parameters: dict[Path, RcptParameters] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)
    _head: bytes = field(default=b"", init=False)  # kept until the header is whole
    _header_is_whole: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)  # committed or aborted
    #: What a judgement has refused the content with before it was complete; the end of data tells it.
    _refused: Failure | None = field(default=None, init=False)

    @property
    def queue_id(self) -> str:
        return self._envelope.queue_id

    def recipient(self, forward_path: Path, parameters: RcptParameters) -> "Deferred[None] | None":
        if not self._judgements:
            return self._offer(forward_path, parameters)
        so_far = evolve(self._envelope, recipients=tuple(self._recipients))
        waiting = _each(
            judgement.recipient(so_far, forward_path, parameters) for judgement in self._judgements
        )
        if waiting is None:
            return self._offer(forward_path, parameters)
        return waiting.addCallback(lambda _: self._offer(forward_path, parameters))

    def open(self) -> "Deferred[None] | None":
        self._envelope = evolve(
            self._envelope,
            recipients=tuple(dict.fromkeys(self._recipients)),  # once each, whatever was said how often
            recipient_parameters=self._recipient_parameters,
        )
        self._header_is_whole = not self._add_missing_headers
        if not self._judgements:
            return self._begin_content(None)
        waiting = _each(judgement.open(self._envelope) for judgement in self._judgements)
        return self._begin_content(None) if waiting is None else waiting.addCallback(self._begin_content)

    def write(self, octets: bytes) -> "Deferred[None] | None":
        if self._header_is_whole:
            return self._take(octets)
        # Nothing is stored until it is known which fields are missing.
        self._head += octets
        if len(self._head) < HEAD and _END_OF_HEADER not in b"\r\n" + self._head:
            return None
        return self._take(self._complete_header())

    def commit(self) -> "Deferred[str]":
        try:
            waiting = None if self._header_is_whole else self._take(self._complete_header())
            if waiting is None:
                waiting = self._judge(None)
            else:
                waiting.addCallback(self._judge)
        except Exception:
            self.abort()
            raise
        if waiting is None:
            return self._commit(None)
        return waiting.addCallbacks(self._commit, self.give_up)

    def abort(self) -> None:
        if not self._over:
            self._over = True
            _abort(self._judgements)
            self._incoming.abort()

    def give_up(self, failure: Failure) -> Failure:
        """An errback: nothing is kept, and the failure goes on."""
        self.abort()
        return failure

    def _offer(self, path: Path, parameters: RcptParameters) -> "Deferred[None] | None":
        """The policies have nothing against a recipient: the intake decides."""
        if self._over:
            return None  # nobody waits for this verdict any more
        waiting = self._incoming.recipient(path, parameters)
        if waiting is None:
            self._accepted(path, parameters)
            return None
        return waiting.addCallback(lambda _: self._accepted(path, parameters))

    def _accepted(self, path: Path, parameters: RcptParameters) -> None:
        self._recipients.append(path)
        if parameters == NO_PARAMETERS:
            self._recipient_parameters.pop(path, None)  # of one that is given again, the last words count
        else:
            self._recipient_parameters[path] = parameters

    def _begin_content(self, _: object) -> "Deferred[None] | None":
        return None if self._over else self._store(received(self._trace, self._envelope))

    def _take(self, octets: bytes) -> "Deferred[None] | None":
        """Content goes to those who judge it, and to the intake; whoever is slow slows the client down."""
        if not self._judgements:
            return self._store(octets)
        waiting = [answer for judgement in self._judgements if (answer := self._show(judgement, octets))]
        stored = self._store(octets)
        if stored is not None:
            waiting.append(stored)
        if len(waiting) < 2:
            return waiting[0] if waiting else None
        return Deferred.fromCoroutine(_await_all(waiting))

    def _show(self, judgement: IJudgement, octets: bytes) -> "Deferred[None] | None":
        """A refusal, or a failure, is kept for the end of data: before it there is nobody to tell."""
        if self._refused:
            return None
        try:
            answer: Deferred[None] | None = judgement.write(octets)
        except Exception:  # noqa: BLE001 (whatever it is, commit() raises it)
            self._refused = Failure()
            return None
        return None if answer is None else answer.addErrback(self._keep_refusal)

    def _keep_refusal(self, failure: Failure) -> None:
        if self._refused is None and not failure.check(CancelledError):
            self._refused = failure

    def _judge(self, _: object) -> "Deferred[None] | None":
        """The content is complete: what do the policies say?"""
        if self._refused:
            self._refused.raiseException()
        return _each(judgement.complete() for judgement in self._judgements)

    def _commit(self, _: object) -> "Deferred[str]":
        self._over = True
        stored = maybeDeferred(self._incoming.commit, self._envelope)
        return stored.addCallbacks(self._committed, self._not_stored)

    def _committed(self, location: str) -> str:
        for judgement in self._judgements:
            judgement.accepted()
        log.emit(
            log.QUEUED,
            session=self._envelope.session_id,
            queue_id=self.queue_id,
            size=self._size,
            account=self._envelope.account,
            realm=self._envelope.realm,
            sender=f"<{self._envelope.reverse_path}>",
            recipients=", ".join(f"<{path}>" for path in self._envelope.recipients),
            location=location,
        )
        return self.queue_id

    def _not_stored(self, failure: Failure) -> NoReturn:
        _abort(self._judgements)
        if isinstance(failure.value, Refused):
            raise failure.value
        raise Refused(reply.NOT_STORED, failure.getErrorMessage())

    def _store(self, octets: bytes) -> "Deferred[None] | None":
        self._size += len(octets)
        return self._incoming.write(octets)

    def _complete_header(self) -> bytes:
        """The head so far behind the fields that it lacks (RFC 6409 8.1 and 8.2)."""
        self._header_is_whole = True
        header = (b"\r\n" + self._head).split(_END_OF_HEADER, 1)[0]
        added = b""
        if not _DATE.search(header):
            added += f"Date: {rfc5322_date(self._envelope.received_at)}\r\n".encode()
        if not _MESSAGE_ID.search(header):
            added += f"Message-ID: <{self.queue_id}@{self._trace.server_name}>\r\n".encode()
        return added + self._head


def _each(results: "Iterable[Deferred[None] | None]") -> "Deferred[None] | None":
    """Take the policies' answers in turn: ``None`` if all came at once, else a Deferred for the rest."""
    answers = iter(results)
    for answer in answers:
        if isinstance(answer, Deferred):
            return Deferred.fromCoroutine(_await_each(answer, answers))
    return None


async def _await_all(waiting: "list[Deferred[None]]") -> None:
    for answer in waiting:
        await answer


def _abort(judgements: Iterable[IJudgement]) -> None:
    for judgement in judgements:
        judgement.abort()


async def _await_each(first: "Deferred[None]", rest: "Iterable[Deferred[None] | None]") -> None:
    await first
    for answer in rest:
        if isinstance(answer, Deferred):
            await answer
