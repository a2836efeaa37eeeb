"""Conversations as they are told: ``C:`` and ``S:`` lines, run against a session with a scripted owner.

::

    C: NOOP                 a line of the client's; CRLF is added
    c: body\\r\\n.\\r\\n         octets of the client's, with escapes, and nothing added
    S: 250 2.0.0 Ok         a line of the server's
    TLS:                    the 220 was said: the session in clear ends, and that under TLS begins
    X:                      the session has closed

:func:`converse` runs one in turn, whole (all that the client says in one segment), cut at every octet, and
octet by octet: each way the server must say the same.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from attrs import define, evolve, field

from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.events import Asks, Event, Wait
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.session import Session
from digipoort_msa.smtp.settings import SessionSettings
from digipoort_msa.smtp.states import State

SETTINGS = SessionSettings(
    "msa.example.nl",
    mechanisms=("DIGEST-MD5", "PLAIN", "LOGIN"),
)
IN_CLEAR = evolve(SETTINGS, mechanisms=("DIGEST-MD5",))  # what is shown there
LOGIN = b"AUTH PLAIN AGEAYg==\r\n"
ENVELOPE = b"MAIL FROM:<a@example.nl>\r\nRCPT TO:<b@example.nl>\r\n"
LOGGED_IN = reply.AUTHENTICATED.octets
SENDER_AND_RECIPIENT = reply.SENDER_OK.octets + reply.RECIPIENT_OK.octets

Verdicts = Mapping[type[Asks], Sequence[Reply]]

_YES: Mapping[type[Asks], Reply] = {
    events.Mail: reply.SENDER_OK,
    events.Recipient: reply.RECIPIENT_OK,
    events.ContentBegins: reply.START_CONTENT,
    events.Authenticate: reply.AUTHENTICATED,
    events.Response: reply.AUTHENTICATED,
}


class Broken(AssertionError):
    """The session broke a promise to its owner."""


@define(eq=False)
class Owner:
    """Answers a session's events, and holds it to its promises.

    ``verdicts`` are used up in their order; behind them every answer is yes.
    """

    verdicts: Verdicts = field(factory=dict)
    settings: SessionSettings = SETTINGS
    start: State = State.SECURE
    patient: bool = False  # verdicts are given only by answer_next()
    session: Session = field(init=False)
    events: list[Event] = field(factory=list)
    output: bytes = b""
    messages: list[bytes] = field(factory=list)  # one for each 250 to ContentEnds
    most_unsent: int = 0  # the largest piece of output at once
    closed: bool = False
    authenticated: bool = False
    _scripts: dict[type[Asks], list[Reply]] = field(factory=dict)
    _transaction: bool = False
    _content: list[bytes] | None = None
    _asked: Asks | None = None

    def __attrs_post_init__(self) -> None:
        self.script(self.verdicts)
        in_clear = (
            IN_CLEAR if self.settings is SETTINGS else evolve(self.settings, mechanisms=("DIGEST-MD5",))
        )
        self.session = Session(in_clear if self.start is State.CLEAR else self.settings, self.start)

    def script(self, verdicts: Verdicts) -> None:
        """Have these verdicts ready from here on."""
        self._scripts.update({kind: list(replies) for kind, replies in verdicts.items()})

    @property
    def secured(self) -> bool:
        return self.session.state is State.HANDSHAKE

    def finish_handshake(self) -> None:
        if not self.secured:
            raise Broken("no handshake is under way")
        self.session = Session(self.settings, State.SECURE)

    def feed(self, octets: bytes) -> None:
        self.session.receive(octets)
        self.run()

    def run(self) -> None:
        while True:
            event = self.session.next_event()
            if isinstance(event, Wait):
                said = self.session.octets_to_send()
                self.most_unsent = max(self.most_unsent, len(said))
                self.output += said
                if event is Wait.SEND and said:
                    continue
                return
            if self.closed:
                raise Broken(f"{event} after Close")
            self.events.append(event)
            self._take(event)

    def answer_next(self, verdict: Reply | None = None) -> None:
        """Give the open verdict, if ``patient``; go on."""
        event, self._asked = self._asked, None
        if event is None:
            raise Broken("no event asked")
        self._answer(event, verdict or self._verdict(event))
        self.run()

    def of(self, kind: type) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def _take(self, event: Event) -> None:
        match event:
            case Asks():
                if self.patient:
                    self._asked = event
                else:
                    self._answer(event, self._verdict(event))
            case events.Content():
                if self._content is None:
                    raise Broken("content outside a transaction")
                self._content.append(event.octets)
            case events.Aborted():
                if not self._transaction:
                    raise Broken("nothing to abort")
                self._transaction, self._content = False, None
            case events.Close():
                self.closed = True

    def _verdict(self, event: Asks) -> Reply:
        script = self._scripts.get(type(event))
        if script:
            return script.pop(0)
        if isinstance(event, events.ContentEnds):
            return reply.queued(str(len(self.messages) + 1))
        return _YES[type(event)]

    def _answer(self, event: Asks, verdict: Reply) -> None:
        match event:
            case events.Authenticate() | events.Response():
                if self.authenticated or self.session.state is State.CLEAR:
                    raise Broken("AUTH at a wrong time")
                self.authenticated = verdict.code == 235
            case events.Mail():
                if not self.authenticated or self._transaction:
                    raise Broken("MAIL at a wrong time")
                self._transaction = verdict.positive
            case events.Recipient():
                if not self._transaction or self._content is not None:
                    raise Broken("RCPT at a wrong time")
            case events.ContentBegins():
                if not self._transaction or self._content is not None:
                    raise Broken("content at a wrong time")
                if verdict.positive:
                    self._content = []
            case events.ContentEnds():
                if self._content is None:
                    raise Broken("the end of no content")
                if verdict.positive:
                    self.messages.append(b"".join(self._content))
                self._transaction, self._content = False, None
        self.session.answer(verdict)


def logged_in(verdicts: Verdicts | None = None, settings: SessionSettings = SETTINGS) -> Owner:
    """An owner whose client has authenticated; its output is empty."""
    owner = Owner(verdicts or {}, settings)
    owner.feed(LOGIN)
    owner.output = b""
    return owner


@define
class _Act:
    """What the client says, and what the server says to it."""

    said: bytes = b""
    expected: bytes = b""
    tls: bool = False  # the handshake comes behind it
    closes: bool = False


_LINE = re.compile(r"(C|c|S|TLS|X):(?: (.*))?", re.DOTALL)


def _acts(transcript: str) -> list[_Act]:
    acts = [_Act()]
    for line in filter(None, (line.strip("\t\n ") for line in transcript.splitlines())):
        match = _LINE.fullmatch(line)
        if not match:
            raise ValueError(line)
        text = match[2] or ""
        if match[1] in "Cc" and (acts[-1].expected or acts[-1].tls):
            acts.append(_Act())
        act = acts[-1]
        match match[1]:
            case "C":
                act.said += text.encode() + b"\r\n"
            case "c":
                act.said += text.encode("latin-1").decode("unicode_escape").encode("latin-1")
            case "S":
                # An empty challenge ends in a space, which editors like to take away: written as "334 ~".
                act.expected += text.replace("334 ~", "334 ").encode() + b"\r\n"
            case "TLS":
                act.tls = True
            case _:
                act.closes = True
    return acts


def _cuts(length: int) -> Iterable[tuple[int, ...]]:
    yield ()
    for cut in range(1, length):
        yield (cut,)
    yield tuple(range(1, length))


def pieces(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``octets`` cut at these places."""
    places = [0, *sorted(cuts), len(octets)]
    return [octets[start:end] for start, end in pairwise(places)]


def converse(transcript: str, make: Callable[[], Owner] = Owner) -> Owner:
    """Run a transcript in all the ways; return the owner of the last run.

    :raise AssertionError: the server said something else.
    """
    acts = _acts(transcript)
    owner = make()
    for act in acts:  # in turn
        owner.feed(act.said)
        _compare(owner, act.expected, act)
    # The phases: what is said in clear, and what under TLS.
    phases = [_Act()]
    for act in acts:
        phase = phases[-1]
        phase.said += act.said
        phase.expected += act.expected
        phase.tls, phase.closes = act.tls, act.closes
        if act.tls:
            phases.append(_Act())
    for cuts in _cuts(max(len(phase.said) for phase in phases)):
        owner = make()
        for phase in phases:
            for piece in pieces(phase.said, (cut for cut in cuts if cut < len(phase.said))):
                owner.feed(piece)
            _compare(owner, phase.expected, phase)
    return owner


def _compare(owner: Owner, expected: bytes, act: _Act) -> None:
    said, owner.output = owner.output, b""
    if said != expected:
        raise AssertionError(f"to {act.said!r}\n  expected {expected!r}\n  but was  {said!r}")
    if owner.closed != act.closes:
        raise AssertionError(f"after {act.said!r} the session is {'' if owner.closed else 'not '}closed")
    if act.tls:
        owner.finish_handshake()
