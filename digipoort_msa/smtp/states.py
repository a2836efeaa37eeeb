"""The state machine of a submission session, as data (RFC 5321 4.1.4, RFC 3207 4.2, RFC 4954 4).

:data:`TABLE` is the whole of it: in which state which verb is honoured and where each outcome leads.
What a row leaves out changes nothing; a verb that a state does not list is refused with
:func:`refusal`.  :func:`fire` is the only code that moves a session, and the diagram in the
documentation is drawn from the same table.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Reply


class _Member(Enum):
    """Members are what the table is looked up by, many times a command: Enum's own hash is a function of
    Python's, this one is C's."""

    __hash__ = object.__hash__


class State(_Member):
    CLEAR = "before TLS"
    HANDSHAKE = "the TLS handshake runs; all input is TLS's own"
    SECURE = "under TLS, not authenticated"
    SASL = "a challenge awaits its response"
    READY = "authenticated, no transaction"
    SENDER = "MAIL was accepted"
    RECIPIENTS = "a recipient was accepted"
    CONTENT = "content, up to CRLF . CRLF"
    CHUNK = "the octets of a BDAT chunk"
    CHUNKS = "between BDAT chunks"
    CLOSED = "no more input is read"


class Verb(_Member):
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    HELP = "HELP"
    QUIT = "QUIT"
    # not commands, but they move a session all the same
    HANDSHAKE_DONE = "handshake done"
    RESPONSE = "SASL response"
    END_OF_DATA = "end of data"
    END_OF_CHUNK = "end of chunk"


class Outcome(_Member):
    YES = "positive"
    MORE = "intermediate"  # a 334 challenge, or the end of a chunk that is not the last
    NO = "negative"


YES, MORE, NO = Outcome.YES, Outcome.MORE, Outcome.NO
S, V = State, Verb

_STAY: Mapping[Outcome, State] = MappingProxyType({})
_ANY_TIME = {V.NOOP: _STAY, V.VRFY: _STAY, V.HELP: _STAY, V.QUIT: {YES: S.CLOSED}}
_NEW_START = {V.EHLO: {YES: S.READY}, V.HELO: {YES: S.READY}, V.RSET: {YES: S.READY}}

TABLE: Mapping[State, Mapping[Verb, Mapping[Outcome, State]]] = MappingProxyType(
    {
        S.CLEAR: {
            V.EHLO: _STAY,
            V.NOOP: _STAY,
            V.STARTTLS: {YES: S.HANDSHAKE},
            V.QUIT: {YES: S.CLOSED},
        },
        S.HANDSHAKE: {V.HANDSHAKE_DONE: {YES: S.SECURE, NO: S.CLOSED}},
        S.SECURE: {
            V.EHLO: _STAY,
            V.HELO: _STAY,
            V.RSET: _STAY,
            V.AUTH: {YES: S.READY, MORE: S.SASL},
            **_ANY_TIME,
        },
        S.SASL: {V.RESPONSE: {YES: S.READY, NO: S.SECURE}},
        S.READY: {V.MAIL: {YES: S.SENDER}, **_NEW_START, **_ANY_TIME},
        S.SENDER: {V.RCPT: {YES: S.RECIPIENTS}, **_NEW_START, **_ANY_TIME},
        S.RECIPIENTS: {
            V.RCPT: _STAY,
            V.DATA: {YES: S.CONTENT},
            V.BDAT: {YES: S.CHUNK, NO: S.READY},
            **_NEW_START,
            **_ANY_TIME,
        },
        S.CONTENT: {V.END_OF_DATA: {YES: S.READY, NO: S.READY}},
        S.CHUNK: {V.END_OF_CHUNK: {YES: S.READY, MORE: S.CHUNKS, NO: S.READY}},
        S.CHUNKS: {V.BDAT: {YES: S.CHUNK}, **_NEW_START, **_ANY_TIME},
        S.CLOSED: {},
    }
)

#: What a verb is told in a state that does not list it, where it is not simply out of sequence.
_REFUSALS: Mapping[tuple[State, Verb], Reply] = MappingProxyType(
    {
        **{(S.SECURE, verb): reply.AUTHENTICATION_REQUIRED for verb in (V.MAIL, V.RCPT, V.DATA, V.BDAT)},
        **{(state, V.STARTTLS): reply.ALREADY_SECURE for state in S},
        **{(state, V.AUTH): reply.ALREADY_AUTHENTICATED for state in S},
        **{(S.READY, verb): reply.NEED_MAIL for verb in (V.RCPT, V.DATA, V.BDAT)},
        **{(S.SENDER, verb): reply.NEED_RCPT for verb in (V.DATA, V.BDAT)},
        **{(state, V.MAIL): reply.NESTED_MAIL for state in (S.SENDER, S.RECIPIENTS)},
        **{(S.CHUNKS, verb): reply.CHUNKS_OPEN for verb in (V.MAIL, V.RCPT, V.DATA)},
    }
)


def fire(state: State, verb: Verb, outcome: Outcome) -> State:
    """The next state.  ``verb`` must be one that ``state`` lists."""
    return TABLE[state][verb].get(outcome, state)


def refusal(state: State, verb: Verb | None) -> Reply | None:
    """Why ``state`` does not honour ``verb`` (``None``: an unknown one); ``None`` where it does."""
    if verb is not None and verb in TABLE[state]:
        return None
    if state is State.CLEAR:
        return reply.MUST_STARTTLS  # T1: known and unknown verbs alike
    if verb is None:
        return reply.UNKNOWN_COMMAND
    return _REFUSALS.get((state, verb), reply.BAD_SEQUENCE)


def in_transaction(state: State) -> bool:
    """Is a mail transaction open, so that leaving this state for READY forgets it?"""
    return state in (State.SENDER, State.RECIPIENTS, State.CONTENT, State.CHUNK, State.CHUNKS)
