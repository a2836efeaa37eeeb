"""The state machine enumerated: every state, verb and verdict, and every sequence of commands up to a depth,
against a second writing of the table that shares nothing with the first."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import product

from attrs import define, evolve, field, frozen
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.events import Asks
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.states import TABLE, Outcome, State, Verb, fire, in_transaction, refusal
from tests.requirements import proves
from tests.transcript import ENVELOPE, LOGIN, SETTINGS, Owner

YES, MORE, NO = Outcome.YES, Outcome.MORE, Outcome.NO
NEW_START = "EHLO HELO RSET"
ALWAYS = "NOOP VRFY HELP"

#: state: "verbs -> state, ..." for a yes, as the architecture draws it; what stays where it is has no arrow.
DRAWN = {
    State.CLEAR: {"EHLO NOOP": State.CLEAR, "STARTTLS": State.HANDSHAKE, "QUIT": State.CLOSED},
    State.HANDSHAKE: {"HANDSHAKE_DONE": State.SECURE},
    State.SECURE: {f"{NEW_START} {ALWAYS}": State.SECURE, "AUTH": State.READY, "QUIT": State.CLOSED},
    State.SASL: {"RESPONSE": State.READY},
    State.READY: {f"{NEW_START} {ALWAYS}": State.READY, "MAIL": State.SENDER, "QUIT": State.CLOSED},
    State.SENDER: {
        NEW_START: State.READY,
        ALWAYS: State.SENDER,
        "RCPT": State.RECIPIENTS,
        "QUIT": State.CLOSED,
    },
    State.RECIPIENTS: {
        NEW_START: State.READY,
        f"RCPT {ALWAYS}": State.RECIPIENTS,
        "DATA": State.CONTENT,
        "BDAT": State.CHUNK,
        "QUIT": State.CLOSED,
    },
    State.CONTENT: {"END_OF_DATA": State.READY},
    State.CHUNK: {"END_OF_CHUNK": State.READY},
    State.CHUNKS: {NEW_START: State.READY, ALWAYS: State.CHUNKS, "BDAT": State.CHUNK, "QUIT": State.CLOSED},
    State.CLOSED: {},
}
OTHERWISE = {
    (State.HANDSHAKE, Verb.HANDSHAKE_DONE, NO): State.CLOSED,
    (State.SECURE, Verb.AUTH, MORE): State.SASL,
    (State.SASL, Verb.RESPONSE, NO): State.SECURE,
    (State.RECIPIENTS, Verb.BDAT, NO): State.READY,
    (State.CONTENT, Verb.END_OF_DATA, NO): State.READY,
    (State.CHUNK, Verb.END_OF_CHUNK, NO): State.READY,
    (State.CHUNK, Verb.END_OF_CHUNK, MORE): State.CHUNKS,
}


class TableTests(SynchronousTestCase):
    def test_every_state_verb_and_outcome(self) -> None:
        for state in State:
            drawn = {Verb[name]: to for names, to in DRAWN[state].items() for name in names.split()}
            self.assertEqual(set(TABLE[state]), set(drawn), state)
            for verb, to in drawn.items():
                self.assertEqual(fire(state, verb, YES), to, (state, verb))
                for outcome in (MORE, NO):
                    expected = OTHERWISE.get((state, verb, outcome), state)
                    self.assertEqual(fire(state, verb, outcome), expected, (state, verb, outcome))

    def test_every_other_verb_is_refused(self) -> None:
        for state, verb in product(State, (*Verb, None)):
            words = refusal(state, verb)
            if verb in TABLE[state]:
                self.assertIsNone(words)
            else:
                self.assertIsNotNone(words)
                self.assertIn(words and words.code, (500, 503, 530))

    @proves("T1")
    def test_all_but_four_are_530_in_clear(self) -> None:
        honoured = {verb for verb in (*Verb, None) if refusal(State.CLEAR, verb) is None}
        self.assertEqual(honoured, {Verb.NOOP, Verb.EHLO, Verb.QUIT, Verb.STARTTLS})
        for verb in {*Verb, None} - honoured:
            self.assertIs(refusal(State.CLEAR, verb), reply.MUST_STARTTLS)

    @proves("A1")
    def test_no_way_to_mail_but_through_tls_and_authentication(self) -> None:
        """Without the rows of AUTH and of the handshake, MAIL is out of reach."""
        for closed in (Verb.HANDSHAKE_DONE, Verb.AUTH):
            reached = {State.CLEAR, State.SECURE} if closed is Verb.AUTH else {State.CLEAR}
            while True:
                more = {
                    fire(state, verb, outcome)
                    for state in reached
                    for verb in TABLE[state]
                    for outcome in Outcome
                    if verb is not closed
                }
                if more <= reached:
                    break
                reached |= more
            self.assertFalse([state for state in reached if Verb.MAIL in TABLE[state]])

    def test_transactions(self) -> None:
        self.assertEqual(
            {state for state in State if in_transaction(state)},
            {State.SENDER, State.RECIPIENTS, State.CONTENT, State.CHUNK, State.CHUNKS},
        )


# -- the same on the session -----------------------------------------------------------------------------

#: How a session gets to each state in which commands are read.
WAYS = {
    State.CLEAR: b"",
    State.SECURE: b"",
    State.READY: LOGIN,
    State.SENDER: LOGIN + b"MAIL FROM:<a@b.nl>\r\n",
    State.RECIPIENTS: LOGIN + ENVELOPE,
    State.CHUNKS: LOGIN + ENVELOPE + b"BDAT 2\r\n\r\n",
}
#: A good line for each verb, and the event that asks about it.
LINES: dict[Verb, tuple[bytes, type[Asks] | None]] = {
    Verb.EHLO: (b"EHLO c.nl\r\n", None),
    Verb.HELO: (b"HELO c.nl\r\n", None),
    Verb.STARTTLS: (b"STARTTLS\r\n", None),
    Verb.AUTH: (LOGIN, events.Authenticate),
    Verb.MAIL: (b"MAIL FROM:<a@b.nl>\r\n", events.Mail),
    Verb.RCPT: (b"RCPT TO:<a@b.nl>\r\n", events.Recipient),
    Verb.DATA: (b"DATA\r\n", events.ContentBegins),
    Verb.BDAT: (b"BDAT 2\r\n\r\n", events.ContentBegins),
    Verb.RSET: (b"RSET\r\n", None),
    Verb.NOOP: (b"NOOP\r\n", None),
    Verb.VRFY: (b"VRFY a\r\n", None),
    Verb.HELP: (b"HELP\r\n", None),
    Verb.QUIT: (b"QUIT\r\n", None),
}
VERDICTS = (None, reply.LOCAL_ERROR, reply.RECIPIENT_NOT_ALLOWED, reply.TOO_MANY_FAILURES)  # None: yes


def at(state: State) -> Owner:
    owner = Owner(start=State.CLEAR if state is State.CLEAR else State.SECURE)
    owner.feed(WAYS[state])
    owner.output = b""
    if owner.session.state is not state:
        raise AssertionError(state)
    return owner


def replies(octets: bytes) -> list[int]:
    """The codes of the replies, the last line of each."""
    return [int(line[:3]) for line in octets.split(b"\r\n") if line[3:4] == b" "]


class SessionTests(SynchronousTestCase):
    @proves("T1", "A1", "A6", "M8")
    def test_every_state_verb_and_verdict(self) -> None:
        for state, (verb, (line, question)), verdict in product(WAYS, LINES.items(), VERDICTS):
            owner = at(state)
            if question and verdict:
                owner.script({question: [verdict]})
            asked = len(owner.events)
            owner.feed(line)
            codes = replies(owner.output)
            case = (state, verb, verdict)
            listed = verb in TABLE[state]
            asks = question is not None and not (verb is Verb.BDAT and state is State.CHUNKS)
            if not listed:
                words = refusal(state, verb)
                self.assertEqual(owner.output, words and words.octets, case)
                self.assertEqual(owner.session.state, state, case)
                self.assertEqual(owner.events[asked:], [events.Rejected(verb.value, words or reply.OK)], case)
            elif verdict and asks:
                self.assertEqual(owner.output, verdict.octets, case)
                if verdict.code == 421:
                    self.assertTrue(owner.closed, case)
                else:
                    # A negative verdict changes nothing but at BDAT, whose transaction is over.
                    self.assertEqual(owner.session.state, fire(state, verb, NO), case)
                    self.assertEqual(fire(state, verb, NO) is state, verb is not Verb.BDAT, case)
            else:
                self.assertEqual(len(codes), 1, case)
                self.assertLess(codes[0], 400, case)
                reached = fire(state, verb, YES)
                self.assertEqual(
                    owner.session.state, State.CHUNKS if reached is State.CHUNK else reached, case
                )

    def test_every_bad_line_changes_nothing(self) -> None:
        lines = [b"EHLO\r\n", b"MAIL\r\n", b"MAIL FROM:a\r\n", b"RCPT TO:<>\r\n", b"RCPT\r\n", b"DATA x\r\n"]
        lines += (
            b"RSET x\r\n",
            b"VRFY\r\n",
            b"AUTH\r\n",
            b"AUTH X\r\n",
            b"AUTH PLAIN x\r\n",
            b"\r\n",
            b"\0\r\n",
        )
        lines += [b"STARTTLS x\r\n", b"EXPN a\r\n", b"x" * 20_000 + b"\r\n", b"MAIL FROM:<a> X=1\r\n"]
        for state, line in product(WAYS, lines):
            owner = at(state)
            owner.feed(line)
            self.assertEqual(owner.session.state, state, (state, line))
            self.assertEqual(len(replies(owner.output)), 1)
            self.assertGreaterEqual(replies(owner.output)[0], 500)
            self.assertFalse(owner.closed)

    def test_421_closes_wherever_it_is_the_verdict(self) -> None:
        busy = Reply(421, "4.3.2", ("Closing",))
        for way, question in (
            (b"", events.Authenticate),
            (LOGIN, events.Mail),
            (LOGIN, events.Recipient),
            (LOGIN, events.ContentBegins),
            (LOGIN, events.ContentEnds),
        ):
            for content in (b"DATA\r\nx\r\n.\r\n", b"BDAT 3 LAST\r\nx\r\n"):
                owner = Owner({question: [busy]})
                owner.feed((way or LOGIN) + ENVELOPE + content + b"NOOP\r\n")
                self.assertTrue(owner.output.endswith(busy.octets), owner.output)
                self.assertTrue(owner.closed)
                self.assertEqual(owner.messages, [])


@frozen
class Command:
    """One thing to say: the line, and what it leads to from each state: the code and the next state, which is
    the same where none is named.  ``"*"`` stands for every other state."""

    line: bytes
    answers: Mapping[str, tuple[int, str]]
    asks: type[Asks] | None = None
    verdict: Reply = reply.OK  # on what it asks
    stored: bool = True  # the verdict on the content, where it ends one


OUT_OF_PLACE = (503, 530)
CONTENT = b"x\r\n"
_MAIL, _RCPT = b"MAIL FROM:<a@b.nl>\r\n", b"RCPT TO:<a@b.nl>\r\n"
_BEGINS = events.ContentBegins


def _under_tls(*, secure: int = 530, **answers: tuple[int, str]) -> Mapping[str, tuple[int, str]]:
    return {"secure": (secure, ""), **answers, "*": (503, "")}


UNDER_TLS = {
    "EHLO": Command(b"EHLO a\r\n", {"secure": (250, ""), "*": (250, "ready")}),
    "RSET": Command(b"RSET\r\n", {"secure": (250, ""), "*": (250, "ready")}),
    "NOOP": Command(b"NOOP\r\n", {"*": (250, "")}),
    "QUIT": Command(b"QUIT\r\n", {"*": (221, "closed")}),
    "STARTTLS": Command(b"STARTTLS\r\n", {"*": (503, "")}),
    "AUTH": Command(
        LOGIN, {"secure": (235, "ready"), "*": (503, "")}, events.Authenticate, reply.AUTHENTICATED
    ),
    "AUTH no": Command(LOGIN, _under_tls(secure=535), events.Authenticate, reply.INVALID_CREDENTIALS),
    "MAIL": Command(_MAIL, _under_tls(ready=(250, "sender")), events.Mail),
    "MAIL no": Command(_MAIL, _under_tls(ready=(550, "")), events.Mail, reply.SENDER_NOT_YOURS),
    "RCPT": Command(_RCPT, _under_tls(sender=(250, "recipients"), recipients=(250, "")), events.Recipient),
    "RCPT no": Command(
        _RCPT,
        _under_tls(sender=(550, ""), recipients=(550, "")),
        events.Recipient,
        reply.RECIPIENT_NOT_ALLOWED,
    ),
    "DATA": Command(b"DATA\r\n", _under_tls(recipients=(354, "content")), _BEGINS, reply.START_CONTENT),
    "DATA lost": Command(
        b"DATA\r\n", _under_tls(recipients=(354, "content")), _BEGINS, reply.START_CONTENT, stored=False
    ),
    "BDAT": Command(b"BDAT 3\r\nx\r\n", _under_tls(recipients=(250, "chunks"), chunks=(250, "")), _BEGINS),
    "BDAT no": Command(
        b"BDAT 3\r\nx\r\n",
        _under_tls(recipients=(451, "ready"), chunks=(250, "")),
        _BEGINS,
        reply.LOCAL_ERROR,
    ),
    "BDAT LAST": Command(
        b"BDAT 3 LAST\r\nx\r\n", _under_tls(recipients=(250, "stored"), chunks=(250, "stored")), _BEGINS
    ),
}
IN_CLEAR = {
    "EHLO": Command(b"EHLO a\r\n", {"*": (250, "")}),
    "NOOP": Command(b"NOOP\r\n", {"*": (250, "")}),
    "QUIT": Command(b"QUIT\r\n", {"*": (221, "closed")}),
    "STARTTLS": Command(b"STARTTLS\r\n", {"*": (220, "handshake")}),
    "STARTTLS x": Command(b"STARTTLS x\r\n", {"*": (501, "")}),
    **{
        line.decode().strip(): Command(line, {"*": (530, "")})
        for line in (LOGIN, b"HELO a\r\n", _MAIL, b"BDAT 2\r\n\r\n", b"DATA\r\n", b"X\r\n")
    },
}


@define
class Expected:
    """What a sequence of commands says, and what it has to lead to."""

    state: str
    said: bytes = b""
    codes: list[int] = field(factory=list)
    stored: int = 0
    verdicts: dict[type[Asks], list[Reply]] = field(factory=lambda: defaultdict(list))

    def add(self, command: Command) -> None:
        self.said += command.line
        if self.state in ("closed", "handshake"):
            return
        code, to = command.answers.get(self.state, command.answers["*"])
        self.codes.append(code)
        begun = command.asks is _BEGINS and self.state == "chunks"
        if command.asks and code not in OUT_OF_PLACE and not begun:
            self.verdicts[command.asks].append(command.verdict)
        if to == "content":
            self.said += CONTENT + b".\r\n"
            self.codes.append(250 if command.stored else 451)
        if to in ("content", "stored"):
            self.stored += command.stored
            self.verdicts[events.ContentEnds].append(
                reply.queued(str(self.stored)) if command.stored else reply.NOT_STORED
            )
            to = "ready"
        self.state = to or self.state


class SequenceTests(SynchronousTestCase):
    """All that can be said in so many commands: one reply to each, in order, and one 250 a message."""

    settings = evolve(SETTINGS, authentication_failures=100)  # nor do errors close a session on the way

    def check(self, alphabet: Mapping[str, Command], start: str, before: bytes, depth: int) -> None:
        for names in product(alphabet, repeat=depth):
            expected = Expected(start)
            for name in names:
                expected.add(alphabet[name])
            owner = Owner({}, self.settings, State.CLEAR if start == "clear" else State.SECURE)
            owner.feed(before)
            owner.output = b""
            owner.script(expected.verdicts)
            owner.feed(expected.said)
            self.assertEqual(replies(owner.output), expected.codes, names)
            self.assertEqual(owner.session.state.name.lower(), expected.state, names)
            self.assertEqual(len(owner.messages), expected.stored, names)
            self.assertEqual(owner.output.count(b"queued as"), expected.stored, names)
            self.assertEqual(owner.closed, expected.state == "closed", names)

    @proves("T1", "T6")
    def test_in_clear(self) -> None:
        self.check(IN_CLEAR, "clear", b"", 3)

    @proves("A1", "A6", "M8")
    def test_under_tls(self) -> None:
        self.check(UNDER_TLS, "secure", b"", 3)

    @proves("M6", "M8")
    def test_authenticated(self) -> None:
        self.check(UNDER_TLS, "ready", LOGIN, 2)

    @proves("M6", "M8")
    def test_in_a_transaction(self) -> None:
        self.check(UNDER_TLS, "recipients", LOGIN + ENVELOPE, 3)

    @proves("M6")
    def test_a_whole_transaction_in_every_order(self) -> None:
        few = {name: UNDER_TLS[name] for name in ("MAIL", "RCPT", "DATA", "BDAT", "BDAT LAST")}
        self.check(few, "ready", LOGIN, 5)
