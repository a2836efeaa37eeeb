"""One client's session, sans I/O: octets in, events out, replies into an output buffer.

The owner feeds :meth:`Session.receive`, takes :meth:`Session.next_event` until it says to wait, answers
each event that asks, and sends :meth:`Session.octets_to_send`, at the latest when it is told that replies
have piled up: whatever a client does, a session keeps a bounded amount (M9).  While a verdict is open the
session is paused and reads no further command, so replies come in the order of the commands (RFC 2920 3.2).

A session before TLS and the one after it are different objects: nothing said in clear, read or unread,
can reach the second one (RFC 3207 4.2, CVE-2011-0411).
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import define, field

from digipoort_msa.smtp import events, grammar, reply
from digipoort_msa.smtp.content import ChunkReceiver, ContentCheck, DataReceiver
from digipoort_msa.smtp.events import Asks, Event, Wait
from digipoort_msa.smtp.input import Fault, Input
from digipoort_msa.smtp.reply import Refused, Reply
from digipoort_msa.smtp.settings import SessionSettings
from digipoort_msa.smtp.states import Outcome, State, Verb, fire, in_transaction, refusal

#: Octets of replies that may wait for the owner to send them: a small command can have a large reply.
_MAX_UNSENT = 16_384

_HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|TRACE|PATCH|PRI) |.* HTTP/[0-9]", re.DOTALL)
_TLS_HANDSHAKE_RECORD = b"\x16"


@define(eq=False)
class Session:
    """The protocol of one connection, in clear (``State.CLEAR``) or under TLS (``State.SECURE``)."""

    settings: SessionSettings  # may be changed as long as nothing has been said
    state: State = State.CLEAR
    #: Asked at EHLO and AUTH for the settings of that moment: a mechanism's time may be over by then.
    current_settings: Callable[[], SessionSettings] | None = None
    client_name: str | None = field(default=None, init=False)  # EHLO's or HELO's argument
    commands: int = field(default=0, init=False)  # command and response lines read so far
    _input: Input = field(factory=Input, init=False)
    _output: list[bytes] = field(factory=list, init=False)
    _unsent: int = field(default=0, init=False)  # octets in _output
    _events: deque[Event] = field(factory=deque, init=False)
    _asking: Verb = field(default=Verb.NOOP, init=False)  # what the event that asks is about
    _paused: bool = field(default=False, init=False)  # a verdict is awaited
    _errors: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)  # of authentication
    # The open transaction's:
    _recipients: int = field(default=0, init=False)
    _smtputf8: bool = field(default=False, init=False)
    _check: ContentCheck | None = field(default=None, init=False)
    _receiver: DataReceiver | ChunkReceiver | None = field(default=None, init=False)
    _last_chunk: bool = field(default=False, init=False)

    # -- what the owner calls -------------------------------------------------------------------------

    def greet(self) -> None:
        """The server speaks first (L1)."""
        self._send(self.settings.greeting)

    def receive(self, octets: bytes) -> None:
        """Take octets from the client; :meth:`next_event` acts upon them."""
        if self.state not in (State.HANDSHAKE, State.CLOSED):
            self._input.receive(octets)

    @property
    def buffered(self) -> int:
        """Octets received and not yet acted upon: the owner stops reading when they pile up."""
        return len(self._input)

    @property
    def awaits_verdict(self) -> bool:
        """An event asked and has no answer yet."""
        return self._paused

    @property
    def receiving_content(self) -> bool:
        """Content is on its way, be it of a chunk that was refused."""
        return self._receiver is not None or self._input.skipping

    @property
    def bare_line_end(self) -> bool:
        """The content being received holds a bare CR or LF: why its end may never be seen."""
        return self._check is not None and self._check.bare_line_end

    def octets_to_send(self) -> bytes:
        """All replies since the last call, joined."""
        octets = b"".join(self._output)
        self._output.clear()
        self._unsent = 0
        return octets

    def next_event(self) -> Event | Wait:
        """The next thing the client did that its owner has to know."""
        if self._paused:
            return Wait.PAUSED
        while not self._events:
            if self._unsent > _MAX_UNSENT:
                return Wait.SEND
            if not self._proceed():
                self._input.compact()
                return Wait.NEED_DATA
        event = self._events.popleft()
        self._paused = isinstance(event, Asks)
        return event

    def answer(self, verdict: Reply) -> None:
        """Give the verdict on the event that asked: a final reply or, for AUTH and DATA, a 3yz one."""
        if not self._paused:
            raise RuntimeError("no event awaits an answer")
        self._paused = False
        verb = self._asking
        if verb is not Verb.BDAT or not verdict.positive:
            self._send(verdict)
        if verdict.code == 421:
            self._close(str(verdict))
            return
        _ANSWERED.get(verb, Session._answered)(self, verb, verdict)

    def say_and_close(self, last: Reply, reason: str) -> None:
        """End the session from our side: idle, abuse, shutdown.  What the client did and its owner has not
        taken yet is dropped: after these last words there is no other reply."""
        if self.state is not State.CLOSED:
            self._paused = False
            self._events.clear()
            self._send(last)
            self._close(reason)

    # -- the input, one piece at a time -----------------------------------------------------------------

    def _proceed(self) -> bool:
        """Act on the next piece of the input; False where there is none."""
        if self.state in (State.HANDSHAKE, State.CLOSED):
            return False
        if self._receiver:
            return self._read_content(self._receiver)
        return self._read_line()

    def _read_line(self) -> bool:
        if not self.commands and self._input.startswith(_TLS_HANDSHAKE_RECORD):
            self._close("a TLS handshake where SMTP was expected: this port is not for implicit TLS")
            return True
        line = self._input.line()
        if line is None:
            return False
        if line.fault is Fault.TOO_LONG:
            self._refuse_line(line.octets, reply.LINE_TOO_LONG)
        elif line.fault:
            self._send(reply.BARE_LINE_END if line.fault is Fault.BARE_LF else reply.LINE_TOO_LONG)
            self._close(line.fault.value)
        elif not self.commands and _HTTP.match(line.octets):
            self._close("an HTTP request where SMTP was expected")
        else:
            self.commands += 1
            (self._response if self.state is State.SASL else self._command)(line.octets)
        return True

    def _refuse_line(self, line: bytes, verdict: Reply) -> None:
        """Refuse a line that cannot be read as a command."""
        if self.state is State.SASL:
            self._end_exchange(verdict)
        else:
            self._refuse(None, refusal(self.state, None) if self.state is State.CLEAR else verdict)
            if line[:4].upper() == b"BDAT":
                self._lose_track()

    # -- commands -------------------------------------------------------------------------------------

    def _command(self, line: bytes) -> None:
        try:
            verb, argument = grammar.command(line)
        except Refused as refused:
            self._refuse_line(line, refused.reply)
            return
        # A parameter behind STARTTLS is a fault of syntax wherever it is given (RFC 3207 4, T6).
        if verb is Verb.STARTTLS and argument:
            self._refuse(verb, reply.NO_PARAMETERS)
            return
        if verb is Verb.BDAT:
            self._bdat(argument)
            return
        refused_here = refusal(self.state, verb)
        if verb is None or refused_here:
            self._refuse(verb, refused_here)
            return
        try:
            _COMMANDS[verb](self, argument)
        except Refused as refused:
            self._refuse(verb, refused.reply)

    def _look_again(self) -> None:
        """What can succeed changes with the day."""
        if self.current_settings is not None:
            self.settings = self.current_settings()

    def _ehlo(self, argument: str) -> None:
        self.client_name = grammar.hostname(argument)
        self._look_again()
        self._send(self.settings.clear_ehlo if self.state is State.CLEAR else self.settings.secure_ehlo)
        self._move(Verb.EHLO, Outcome.YES)

    def _helo(self, argument: str) -> None:
        self.client_name = grammar.hostname(argument)
        self._send(self.settings.hello)
        self._move(Verb.HELO, Outcome.YES)

    def _starttls(self, argument: str) -> None:
        self._send(reply.READY_TO_START_TLS)
        self._move(Verb.STARTTLS, Outcome.YES)
        self._input.clear()  # T4
        self._events.append(events.StartTLS())

    def _auth(self, argument: str) -> None:
        mechanism, initial_response = grammar.auth(argument)
        self._look_again()
        if mechanism not in self.settings.mechanisms:
            over = mechanism in self.settings.retired
            raise Refused(reply.MECHANISM_SWITCHED_OFF if over else reply.UNKNOWN_MECHANISM)
        self._ask(Verb.AUTH, events.Authenticate(mechanism, initial_response))

    def _mail(self, argument: str) -> None:
        reverse_path, parameters = grammar.mail(argument, self.settings.mail_parsers)
        if parameters.size is not None and parameters.size > self.settings.message_size:
            raise Refused(reply.TOO_BIG)
        self._recipients = 0
        self._smtputf8 = parameters.smtputf8
        self._ask(Verb.MAIL, events.Mail(reverse_path, parameters))

    def _rcpt(self, argument: str) -> None:
        parsers = self.settings.rcpt_parsers
        forward_path, parameters = grammar.rcpt(argument, parsers, smtputf8=self._smtputf8)
        if self._recipients >= self.settings.recipients:
            raise Refused(reply.TOO_MANY_RECIPIENTS)
        self._ask(Verb.RCPT, events.Recipient(forward_path, parameters))

    def _data(self, argument: str) -> None:
        if argument:
            raise Refused(reply.NO_PARAMETERS)
        self._ask(Verb.DATA, events.ContentBegins())

    def _bdat(self, argument: str) -> None:
        """A chunk follows its command whatever the reply: where it is refused it is read past, so that
        content never runs as commands (RFC 3030 2)."""
        refused_here = refusal(self.state, Verb.BDAT)
        try:
            octets, self._last_chunk = grammar.chunk(argument)
        except Refused as refused:
            self._refuse(Verb.BDAT, refused_here or refused.reply)
            self._lose_track()
            return
        if refused_here:
            self._input.skip(octets)
            self._refuse(Verb.BDAT, refused_here)
            return
        self._receiver = ChunkReceiver(octets)
        if self.state is State.RECIPIENTS:
            self._ask(Verb.BDAT, events.ContentBegins())
        else:
            self._move(Verb.BDAT, Outcome.YES)

    def _rset(self, argument: str) -> None:
        if argument:
            raise Refused(reply.NO_PARAMETERS)
        self._send(reply.OK)
        self._move(Verb.RSET, Outcome.YES)

    def _noop(self, argument: str) -> None:
        self._send(reply.OK)

    def _vrfy(self, argument: str) -> None:
        if not argument:
            raise Refused(reply.VRFY_SYNTAX)
        self._send(reply.CANNOT_VERIFY)

    def _help(self, argument: str) -> None:
        self._send(reply.HELP)

    def _quit(self, argument: str) -> None:
        self._send(reply.BYE)
        self._close("QUIT")

    # -- SASL -----------------------------------------------------------------------------------------

    def _response(self, line: bytes) -> None:
        if line == b"*":
            self._end_exchange(reply.AUTHENTICATION_CANCELLED)
            return
        try:
            octets = grammar.base64(line)
        except Refused as refused:
            self._end_exchange(refused.reply)
            return
        self._ask(Verb.RESPONSE, events.Response(octets))

    def _end_exchange(self, verdict: Reply) -> None:
        self._events.append(events.Cancelled())
        self._move(Verb.RESPONSE, Outcome.NO)
        self._refuse(Verb.AUTH, verdict)

    def _authentication_answered(self, verb: Verb, verdict: Reply) -> None:
        self._answered(verb, verdict)
        if verdict.permanent:
            self._failures += 1
            if self._failures >= self.settings.authentication_failures:
                self._send(reply.TOO_MANY_FAILURES)
                self._close("too many failed authentications")

    # -- content --------------------------------------------------------------------------------------

    def _content_begins(self, verb: Verb, verdict: Reply) -> None:
        if verdict.positive:
            self._check = ContentCheck(self.settings.message_size)
            self._receiver = self._receiver or DataReceiver()
        elif isinstance(self._receiver, ChunkReceiver):
            self._input.skip(self._receiver.left)
            self._receiver = None
            self._events.append(events.Aborted())
        self._answered(verb, verdict)

    def _read_content(self, receiver: DataReceiver | ChunkReceiver) -> bool:
        """Take what is there of the content; False where nothing came of it."""
        # No more than the receiver may want: a copy of all that is there, for each of many small chunks,
        # would be quadratic.
        piece = self._input.piece(receiver.left)
        octets, rest = receiver.receive(piece)
        self._input.take(len(piece) - len(rest or b""))
        if octets and self._check and not self._check.refusal:
            self._check.take(octets)
            self._events.append(events.Aborted() if self._check.refusal else events.Content(octets))
        if rest is not None:
            self._end_of_framing()
        return bool(octets) or rest is not None

    def _end_of_framing(self) -> None:
        """End of data, or of a chunk."""
        verb = Verb.END_OF_CHUNK if self.state is State.CHUNK else Verb.END_OF_DATA
        last = verb is Verb.END_OF_DATA or self._last_chunk
        check, self._receiver = self._check, None
        if check is None:
            raise RuntimeError("content without a transaction")
        refused = check.final_refusal if last else check.refusal
        if refused:
            if not check.refusal:
                self._events.append(events.Aborted())
            self._move(verb, Outcome.NO)
            self._refuse(verb, refused)
        elif last:
            self._ask(verb, events.ContentEnds())
        else:
            self._send(reply.CHUNK_OK)
            self._move(verb, Outcome.MORE)

    def _lose_track(self) -> None:
        """A BDAT came without the size of its chunk: what follows cannot be told from commands."""
        if self.state is not State.CLOSED:
            self._close("BDAT without the size of its chunk")

    # -- the one way to speak, to ask and to move -------------------------------------------------------

    def _send(self, words: Reply) -> None:
        self._output.append(words.octets)
        self._unsent += len(words.octets)

    def _ask(self, verb: Verb, event: Event) -> None:
        self._asking = verb
        self._events.append(event)

    def _refuse(self, verb: Verb | None, words: Reply | None) -> None:
        words = words or reply.BAD_SEQUENCE
        self._send(words)
        self._events.append(events.Rejected(verb.value if verb else "an unknown command", words))
        self._errors += words.permanent
        if self._errors >= self.settings.errors:
            self._send(reply.TOO_MANY_ERRORS)
            self._close("too many errors")

    def _answered(self, verb: Verb, verdict: Reply) -> None:
        more = verdict.code == 334
        self._move(verb, Outcome.MORE if more else Outcome.YES if verdict.positive else Outcome.NO)
        if verb is Verb.RCPT:
            self._recipients += verdict.positive

    def _move(self, verb: Verb, outcome: Outcome) -> None:
        before, self.state = self.state, fire(self.state, verb, outcome)
        if self.state is State.READY and in_transaction(before):
            if verb in _FORGETS:
                self._events.append(events.Aborted())
            elif outcome is Outcome.YES:
                self._errors = 0  # a message went through: the client knows its trade
            self._check = None

    def _close(self, reason: str) -> None:
        self.state = State.CLOSED
        self._input.clear()
        self._receiver = None
        self._events.append(events.Close(reason))


_COMMANDS: Mapping[Verb, Callable[[Session, str], None]] = MappingProxyType(
    {
        Verb.EHLO: Session._ehlo,
        Verb.HELO: Session._helo,
        Verb.STARTTLS: Session._starttls,
        Verb.AUTH: Session._auth,
        Verb.MAIL: Session._mail,
        Verb.RCPT: Session._rcpt,
        Verb.DATA: Session._data,
        Verb.RSET: Session._rset,
        Verb.NOOP: Session._noop,
        Verb.VRFY: Session._vrfy,
        Verb.HELP: Session._help,
        Verb.QUIT: Session._quit,
    }
)

#: Where an answer does more than move the session.
_ANSWERED: Mapping[Verb, Callable[[Session, Verb, Reply], None]] = MappingProxyType(
    {
        Verb.AUTH: Session._authentication_answered,
        Verb.RESPONSE: Session._authentication_answered,
        Verb.DATA: Session._content_begins,
        Verb.BDAT: Session._content_begins,
    }
)

#: The verbs that end a transaction without a message.
_FORGETS = frozenset({Verb.EHLO, Verb.HELO, Verb.RSET})
