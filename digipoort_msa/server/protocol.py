"""The thin adapter between a transport and a :class:`~digipoort_msa.smtp.session.Session`.

Octets go in, events go to the :class:`~digipoort_msa.server.conversation.Conversation`, replies go out
joined in one segment.  The session of the clear and that of TLS live in two protocol objects: STARTTLS
hands the transport to a TLS layer with a new protocol in it, and this one only passes octets on.

Reading stops while the client is ahead of us: a verdict is open and input has piled up, the spool asks
to wait, or the client does not read its replies.  So every buffer is bounded.
"""

from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.protocol import connectionDone as _connection_done
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.mechanism import Channel
from digipoort_msa.server.channel import channel_of
from digipoort_msa.server.client_certificate import Unusable, chain_of, client_certificate
from digipoort_msa.server.connection import Connection
from digipoort_msa.server.conversation import Conversation
from digipoort_msa.server.tls import describe_connection, describe_failure
from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.envelope import Trace
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.session import Session
from digipoort_msa.smtp.settings import SessionSettings
from digipoort_msa.smtp.states import Outcome, State, Verb, fire

#: Octets that may wait behind an open verdict before reading stops.
_PILED_UP = 65_536
#: Events handled in one turn of the reactor, so that one client's pipeline does not hold up the others.
_EVENTS_A_TURN = 100
#: Seconds a closing connection has to take its last reply and close its side.
_CLOSING = 10.0


@implementer(IHandshakeListener, IPushProducer)
@define(eq=False, slots=False)
class SubmissionProtocol(Protocol):
    """One connection, in clear or (``under_tls``) inside its TLS layer."""

    _connection: Connection
    under_tls: bool
    transport: Any = field(default=None, init=False)  # TCP, unix or the TLS layer
    session: Session = field(init=False)
    _conversation: Conversation = field(init=False)
    _tls: str | None = field(default=None, init=False)  # version and suite, once the handshake is done
    _channel: Channel | None = field(default=None, init=False)  # likewise
    _layer: TLSMemoryBIOProtocol | None = field(default=None, init=False)  # what took over at STARTTLS
    _timer: IDelayedCall | None = field(default=None, init=False)
    _running: bool = field(default=False, init=False)
    _scheduled: bool = field(default=False, init=False)  # the rest of the input is for the next turn
    _stopping: bool = field(default=False, init=False)
    _lost: bool = field(default=False, init=False)
    _spool_waits: bool = field(default=False, init=False)  # the spool asked to stop
    _output_waits: bool = field(default=False, init=False)  # the client does not read its replies
    _not_reading: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        server = self._connection.server
        start = fire(State.HANDSHAKE, Verb.HANDSHAKE_DONE, Outcome.YES) if self.under_tls else State.CLEAR
        self.session = Session(server.settings_for(None), start, self._current_settings)
        self._conversation = Conversation(server.realms, server.digest_hosts, self._trace, self._queued)

    # -- what the transport calls ---------------------------------------------------------------------

    def connectionMade(self) -> None:
        server = self._connection.server
        self._connection.opened(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if self.under_tls:
            self._set_timer(server.handshake_timeout)
            if not self._connection.admit(self.transport, heard=False):
                self._connection.closing_reason = str(reply.TOO_MANY_CONNECTIONS)
                self.transport.abortConnection()
        else:
            self._set_timer(server.idle_timeout)
            self._greet(heard=False)

    def handshakeCompleted(self) -> None:
        """TLS is fully up (T1): from here on the client is heard."""
        if self.session.state is State.CLOSED:
            return  # it took too long, or the server stops
        handle = self.transport.getHandle()
        self._tls = describe_connection(handle)
        self._connection.chain = chain_of(handle)
        if self._connection.chain is not None and not self._connection.server.tls.is_in_force(handle):
            # Who began before a list was replaced, and waited, would get past what is revoked by now.
            self._connection.identify(self.transport)
            self._connection.closing_reason = "the files of TLS changed during its handshake"
            self.transport.abortConnection()
            return
        certificate = self._certificate_of(handle)
        self._channel = channel_of(handle, certificate)
        self.session.settings = self._current_settings()
        self._set_timer(self._connection.server.idle_timeout)
        self._greet(heard=True)
        log.emit(log.TLS_STARTED, session=self._connection.id, peer=self._connection.peer, tls=self._tls)
        if certificate is not None:
            self._log_certificate(certificate)

    def dataReceived(self, data: bytes) -> None:
        if self._layer:
            self._layer.dataReceived(data)
            return
        if not self._connection.admit(self.transport, heard=True):
            self._say_and_close(reply.TOO_MANY_CONNECTIONS)
        commands = self.session.commands
        self.session.receive(data)
        self._run()
        # Only progress counts: a client that sends an octet of a command now and then is idle.
        if self.session.commands != commands or self.session.receiving_content:
            self._progress()

    def connectionLost(self, reason: Failure = _connection_done) -> None:
        self._lost = True
        self._set_timer(None)
        self._conversation.close()
        if self._layer:
            self._layer.connectionLost(reason)
            return
        connection = self._connection
        if self.under_tls and not self._tls and not connection.closing_reason:
            connection.identify(self.transport)
            cause = describe_failure(reason, self.transport.getHandle())
            log.emit(log.TLS_FAILED, session=connection.id, peer=connection.peer, reason=cause)
            connection.closing_reason = "TLS failed"
        log.emit(
            log.DISCONNECTED,
            session=connection.id,
            peer=connection.peer,
            reason=connection.closing_reason or "the client closed the connection",
            messages=connection.messages,
        )
        connection.lost()

    def pauseProducing(self) -> None:
        """The client does not read its replies."""
        self._output_waits = True
        self._flow()

    def resumeProducing(self) -> None:
        self._output_waits = False
        self._run()

    def stopProducing(self) -> None:
        """The connection is going; ``connectionLost`` follows."""

    def shut_down(self) -> None:
        """The server stops.  A verdict that is awaited is given first: a client that is told nothing of a
        stored message would send it again."""
        self._stopping = True
        if self.under_tls and not self._tls:
            self._connection.closing_reason = str(reply.SHUTTING_DOWN)  # there is nobody to tell yet
            self.transport.abortConnection()
        elif not self.session.awaits_verdict:
            self._say_and_close(reply.SHUTTING_DOWN)

    # -- the way of an event --------------------------------------------------------------------------

    def _current_settings(self) -> SessionSettings:
        """What can succeed here depends on what the connection turned out to be, and on the day."""
        self._forget_an_expired_certificate()
        settings = self._connection.server.settings_for(self._channel)
        if self._channel is not None:
            self._conversation.channel, self._conversation.mechanisms = self._channel, settings.mechanisms
        return settings

    def _forget_an_expired_certificate(self) -> None:
        """The handshake has looked at its dates, but that may be days ago."""
        chain, channel = self._connection.chain, self._channel
        if chain is None or channel is None or channel.certificate is None:
            return
        if chain.end.timestamp() <= self._connection.server.now():
            self._channel = evolve(channel, certificate=None)
            self._log_unusable(f"it, or an authority above it, has expired at {chain.end:%Y-%m-%d %H:%M} UTC")

    def _certificate_of(self, handle: Any) -> ClientCertificate | None:
        """One that names nobody proves nothing; TLS stands without it."""
        try:
            return client_certificate(handle)
        except Unusable as unusable:
            self._log_unusable(str(unusable))
            return None

    def _log_unusable(self, reason: str) -> None:
        connection = self._connection
        log.emit(log.CLIENT_CERTIFICATE_UNUSABLE, session=connection.id, peer=connection.peer, reason=reason)

    def _log_certificate(self, certificate: ClientCertificate) -> None:
        """Whoever sets a client up asks which certificate came through, and whether it is of use."""
        server = self._connection.server
        if "EXTERNAL" in self.session.settings.mechanisms:
            external = "is offered"
        elif server.mechanisms is not None and "EXTERNAL" not in server.mechanisms:
            external = "is not offered: the listener's mechanisms leave it out"
        else:
            external = f"is not offered: {server.realms.why_nobody(certificate)}"
        log.emit(
            log.CLIENT_CERTIFICATE,
            session=self._connection.id,
            peer=self._connection.peer,
            subject=certificate.subject,
            issuer=certificate.issuer,
            serial=f"{certificate.serial:x}",
            fingerprint=certificate.fingerprint,
            external=external,
        )

    def _greet(self, *, heard: bool) -> None:
        self.transport.registerProducer(self, True)
        if not self._connection.admit(self.transport, heard=heard):
            self._say_and_close(reply.TOO_MANY_CONNECTIONS)
        elif not self._connection.greeted:
            self._connection.greeted = True
            self.session.greet()
            self._flush()

    def _run(self) -> None:
        """Handle what the session has to say, until it waits for the client, a verdict or the spool."""
        if self._running or self._lost:
            return
        self._running = True
        try:
            for _ in range(_EVENTS_A_TURN):
                if self._spool_waits or self._output_waits:
                    break
                event = self.session.next_event()
                if event is events.Wait.SEND:
                    self._go_on_later()
                if isinstance(event, events.Wait):
                    break
                self._handle(event)
            else:
                self._go_on_later()
        finally:
            self._running = False
        self._flush()
        self._flow()

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.Content():
                waiting = self._conversation.write(event.octets)
                if waiting is not None:
                    self._spool_waits = True
                    waiting.addBoth(self._spool_is_ready)
            case events.Asks():
                verdict = self._conversation.answer(event)
                if isinstance(verdict, Deferred):
                    verdict.addCallback(self._answer)
                else:
                    self.session.answer(verdict)
            case events.Aborted():
                self._conversation.abort()
            case events.Cancelled():
                self._conversation.cancel()
            case events.Rejected():
                self._conversation.rejected(event)
            case events.StartTLS():
                self._start_tls()
            case events.Close():
                self._close(event.reason)

    def _answer(self, verdict: Reply) -> None:
        if self._lost or not self.session.awaits_verdict:
            return
        self.session.answer(verdict)
        self._progress()
        if self._stopping:
            self._say_and_close(reply.SHUTTING_DOWN)
        self._run()

    def _go_on_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._connection.server.reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        self._run()

    def _spool_is_ready(self, _: object) -> None:
        # A failure to write is told by the commit; here it only means that there is no need to wait.
        self._spool_waits = False
        self._progress()
        self._run()

    def _start_tls(self) -> None:
        """Hand the transport to a TLS layer around a new protocol, and forget the clear (T4)."""
        self._flush()
        self._set_timer(None)
        self.transport.unregisterProducer()
        self._layer = self._connection.server.wrap(SubmissionProtocol(self._connection, under_tls=True))
        self._layer.makeConnection(self.transport)

    # -- output, flow and time ------------------------------------------------------------------------

    def _flush(self) -> None:
        octets = self.session.octets_to_send()
        if octets:
            self.transport.write(octets)

    def _flow(self) -> None:
        """Read from the client, or stop reading."""
        if self._layer or self._lost:
            return
        stop = self._spool_waits or self._output_waits or self.session.buffered > _PILED_UP
        if stop != self._not_reading:
            self._not_reading = stop
            (self.transport.pauseProducing if stop else self.transport.resumeProducing)()

    def _say_and_close(self, last: Reply) -> None:
        self.session.say_and_close(last, str(last))
        self._spool_waits = self._output_waits = False
        self._run()

    def _close(self, reason: str) -> None:
        self._connection.closing_reason = self._connection.closing_reason or reason
        self._conversation.close()
        self._flush()
        self.transport.unregisterProducer()
        self._spool_waits = self._output_waits = False  # nobody resumes us now, and TLS reads for its own end
        self.transport.loseConnection()
        self._set_timer(_CLOSING)

    def _progress(self) -> None:
        if self._timer and self._timer.active() and self.session.state is not State.CLOSED:
            self._timer.reset(self._connection.server.idle_timeout)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = self._connection.server.reactor.callLater(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        if self.session.state is State.CLOSED or (self.under_tls and not self._tls):
            self._connection.closing_reason = self._connection.closing_reason or "the handshake took too long"
            self.transport.abortConnection()
        elif self.session.awaits_verdict or self._spool_waits:
            self._set_timer(self._connection.server.idle_timeout)  # it is we who are slow
        else:
            last = reply.IDLE_BARE_LINE_END if self.session.bare_line_end else reply.IDLE
            self._say_and_close(last)

    def _queued(self) -> None:
        self._connection.messages += 1

    def _trace(self) -> Trace:
        return Trace(
            session_id=self._connection.id,
            server_name=self._connection.server.session_settings.hostname,
            client_address=self._connection.peer,
            client_name=self.session.client_name if self.under_tls else None,
            tls=self._tls,
        )
