"""Answers a session's events: who the client is, what it submits.  Knows replies, but no socket.

A verdict is a reply, now or as a Deferred; whatever goes wrong on the way becomes one: a refusal its own
reply, the unexpected a 451 and a logged failure.
"""

import secrets
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.interfaces import IRealms, ISubmission, ISubmitter
from digipoort_msa.sasl.mechanism import NO_CHANNEL, Channel, Context
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.server.authentication import Authentication
from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.envelope import Trace
from digipoort_msa.smtp.reply import Refused, Reply

Verdict = Reply | Deferred[Reply]


@define(eq=False)
class Conversation:
    """One client under TLS: at first nobody, then an account with one transaction at a time."""

    _realms: IRealms
    _digest_hosts: frozenset[str]
    _trace: Callable[[], Trace]
    _queued: Callable[[], None]  # called for each message that got its 250
    channel: Channel = field(default=NO_CHANNEL, init=False)
    mechanisms: tuple[str, ...] = field(default=(), init=False)  # that EHLO shows here
    _authentication: Authentication | None = field(default=None, init=False)
    _submitter: ISubmitter | None = field(default=None, init=False)
    _submission: ISubmission | None = field(default=None, init=False)
    _awaited: Deferred[Reply] | None = field(default=None, init=False)  # the last verdict on MAIL or RCPT
    _closed: bool = field(default=False, init=False)

    def answer(self, event: events.Asks) -> Verdict:
        """The verdict on an event that asks."""
        try:
            verdict = self._verdict(event)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets a reply and the log a traceback
            return self._refused(Failure(), event)
        if isinstance(verdict, Deferred):
            verdict.addErrback(self._refused, event)
            if isinstance(event, events.Mail | events.Recipient):
                self._awaited = verdict
        return verdict

    def write(self, octets: bytes) -> "Deferred[None] | None":
        """A segment of content; a Deferred asks to stop reading until it fires."""
        if self._submission is None:
            return None  # it failed on an earlier segment; the end of data will be told
        try:
            waiting: Deferred[None] | None = self._submission.write(octets)
        except Exception:  # noqa: BLE001 - as in answer()
            log.failure(log.DEFECT, Failure(), where="writing content")
            self.abort()
            return None
        return waiting

    def abort(self) -> None:
        """The open transaction is over."""
        submission, self._submission = self._submission, None
        if submission:
            submission.abort()

    def cancel(self) -> None:
        """The open SASL exchange is over."""
        authentication, self._authentication = self._authentication, None
        if authentication:
            authentication.close()

    def close(self) -> None:
        """The connection is over.  A sender or recipient that is still being judged is given up at once: a
        next hop may be held for it.  Any other verdict that is open changes nothing any more."""
        self._closed = True
        if self._awaited:
            self._awaited.cancel()
        self.cancel()
        self.abort()

    def rejected(self, event: events.Rejected) -> None:
        """The protocol itself refused a command."""
        self._log_refusal(event.command, event.reply, "the protocol")

    def _verdict(self, event: events.Asks) -> Verdict:
        match event:
            case events.Recipient():
                return _then(
                    self._transaction().recipient(event.forward_path, event.parameters), reply.RECIPIENT_OK
                )
            case events.Mail():
                return self._mail(event)
            case events.ContentBegins():
                return _then(self._transaction().open(), reply.START_CONTENT)
            case events.ContentEnds():
                return self._commit()
            case events.Authenticate():
                return self._authenticate(event)
            case events.Response():
                if self._authentication is None:
                    raise RuntimeError("a response without a challenge")
                return self._authenticated(self._authentication.respond(event.octets))
            case _:
                raise TypeError(event)

    # -- authentication -------------------------------------------------------------------------------

    def _authenticate(self, event: events.Authenticate) -> Verdict:
        realms = self._realms.realms_offering(event.mechanism)
        if not realms:
            return reply.UNKNOWN_MECHANISM  # its time ended since EHLO showed it
        trace = self._trace()
        context = Context(
            realms=realms,
            hostnames=self._digest_hosts,
            nonce=secrets.token_urlsafe(24),
            channel=self.channel,
            mechanisms=self.mechanisms,
        )
        self._authentication = Authentication(
            MECHANISMS[event.mechanism], context, self._realms, trace.session_id, trace.client_address
        )
        return self._authenticated(self._authentication.start(event.initial_response))

    def _authenticated(self, verdict: Verdict) -> Verdict:
        if isinstance(verdict, Deferred):
            return verdict.addCallback(self._authenticated)
        if verdict.positive and verdict is not reply.AUTHENTICATED:
            return verdict  # a challenge
        if verdict is reply.AUTHENTICATED and self._authentication:
            self._submitter = self._authentication.submitter
        self.cancel()
        return verdict

    # -- the transaction ------------------------------------------------------------------------------

    def _mail(self, event: events.Mail) -> Verdict:
        if self._submitter is None:
            raise RuntimeError("MAIL without an account")
        begun = self._submitter.begin(event.reverse_path, event.parameters, self._trace())
        if isinstance(begun, Deferred):
            return begun.addCallback(self._begun)
        return self._begun(begun)

    def _begun(self, submission: ISubmission) -> Reply:
        self._submission = submission
        if self._closed:
            self.abort()
        return reply.SENDER_OK

    def _commit(self) -> Verdict:
        submission, self._submission = self._transaction(), None  # from here on it is the intake's
        return submission.commit().addCallback(self._committed)

    def _committed(self, queue_id: str) -> Reply:
        self._queued()
        if self._closed:
            log.emit(log.UNHEARD, session=self._trace().session_id, queue_id=queue_id)
        return reply.queued(queue_id)

    def _transaction(self) -> Any:
        if self._submission is None:
            raise RuntimeError("no transaction is open")
        return self._submission

    # -- refusals -------------------------------------------------------------------------------------

    def _refused(self, failure: Failure, event: events.Asks) -> Reply:
        command = event.verb.value
        if isinstance(failure.value, Refused):
            self._log_refusal(command, failure.value.reply, failure.value.cause)
            return failure.value.reply
        if self._closed and failure.check(CancelledError):
            return reply.LOCAL_ERROR  # said to nobody
        log.failure(log.DEFECT, failure, where=command)
        return reply.LOCAL_ERROR

    def _log_refusal(self, command: str, words: Reply, reason: str) -> None:
        trace = self._trace()
        log.emit(
            log.REFUSED,
            session=trace.session_id,
            peer=trace.client_address,
            command=command,
            reply=str(words),
            reason=reason,
        )


def _then(waiting: "Deferred[Any] | None", words: Reply) -> Verdict:
    if isinstance(waiting, Deferred):
        return waiting.addCallback(lambda _: words)
    return words
