"""What an operator sees of a message: values, and how they are read from rows whose sense nobody warrants."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from attrs import frozen

from digipoort_msa.smtp.envelope import Envelope, Path
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.rows import decode_parameters, decode_recipient_parameters, decode_reply
from digipoort_msa.spool.selection import is_queue_id
from digipoort_msa.spool.states import STORED, UNFINISHED, WAITING, State, rows_in

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.


@frozen
class Unreadable:
    """A message whose row, or a recipient's, makes no sense."""

    queue_id: str
    why: str


@frozen
class Summary:
    """One line of the list.  Times are seconds since the epoch."""

    queue_id: str
    realm: str
    account: str
    received_at: float
    size: int
    sender: Path
    states: Mapping[State, int]  # how many recipients are in each state that occurs
    next_attempt: float | None  # None: nothing left to try, or something stands in the way
    wish: str | None  # an operator's that the MSA has not carried out yet: "remove" or "return"
    next_hop: str | None  # an operator's choice
    sealed: bool  # its content is encrypted
    recipient: Path  # one of them: where the matter is not ended, if that is one
    reply: Reply | None  # the last one about that recipient
    reason: str | None  # why that one is held

    @property
    def waits(self) -> bool:
        """Is some recipient still to be tried?"""
        return any(state in self.states for state in WAITING)


@frozen
class Recipient:
    path: Path
    state: State
    attempts: int
    reply: Reply | None  # the last one
    hop: str | None
    told_of_delay: bool
    reason: str | None  # why it is held


@frozen
class Attempt:
    """What a hop has said at one attempt."""

    at: float
    hop: str
    reply: Reply
    recipients: tuple[str, ...]  # the first few it concerned


@frozen
class Message:
    """All that is known of one message."""

    summary: Summary
    envelope: Envelope
    since: float  # where the time until giving up starts
    eight_bit: bool
    in_row: bool
    digest: str | None  # SHA-256 of the content as it is stored; None: from before there were digests
    sealed_by: str | None  # the name of the key
    sequence: str | None
    waits_for: str | None  # the queue id of the message of its sequence that goes first
    recipients: tuple[Recipient, ...]
    attempts: tuple[Attempt, ...]  # the last ones, oldest first


#: Of ``message AS m``: how many recipients are in each state.  A value that is no text, which JSON might not
#: hold, must not end the whole query.
STATES = (
    "(SELECT json_group_object(state, n) FROM (SELECT CAST(state AS TEXT) AS state, count(*) AS n"
    " FROM recipient AS r WHERE r.queue_id = m.queue_id GROUP BY state))"
)
#: Columns of ``message AS m`` for :func:`summary`.
SUMMARY = (
    "m.queue_id, m.realm, m.account, m.received_at, m.size, m.reverse_path, m.next_attempt, m.wish,"
    f" m.next_hop, m.sealed_by IS NOT NULL, {STATES},"
    " (SELECT json_array(CAST(path AS TEXT), CAST(reply AS TEXT), CAST(reason AS TEXT)) FROM recipient AS r"
    f" WHERE r.queue_id = m.queue_id ORDER BY NOT {rows_in(UNFINISHED)}, position LIMIT 1)"
)
#: Columns that a :class:`Message` has besides.
MORE = "m.session_id, m.parameters, m.since, m.eight_bit, m.in_row, hex(m.digest), m.sealed_by, m.sequence"
#: Columns of ``recipient`` for a :class:`Recipient`, and of ``attempt`` for an :class:`Attempt`.
RECIPIENT = "path, state, attempts, reply, hop, parameters, told_of_delay, reason"
ATTEMPT = "at, hop, reply, recipients"

#: What the functions below raise where a row makes no sense.
NO_SENSE = (TypeError, ValueError, KeyError, AttributeError)


def _clean(text: object) -> str:
    """A text of a row.

    :raise ValueError: it is none, or no UTF-8.
    """
    if not isinstance(text, str):
        raise ValueError(f"{type(text).__name__} where a text should be")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text that is not UTF-8") from None
    return text


def _optional(text: object) -> str | None:
    return None if text is None else _clean(text)


# In a long list the same few values come again and again; each of them is taken apart once.
_REMEMBERED = 256


@lru_cache(_REMEMBERED)
def _path(text: object) -> Path:
    return Path.from_text(_clean(text))


_decoded = lru_cache(_REMEMBERED)(decode_reply)
_parameters = lru_cache(_REMEMBERED)(decode_parameters)
_recipient_parameters = lru_cache(_REMEMBERED)(decode_recipient_parameters)


def _reply(text: str | None) -> Reply | None:
    return None if text is None else _decoded(text)


@lru_cache(_REMEMBERED)
def _one_recipient(text: str) -> tuple[Path, Reply | None, str | None]:
    path, reply, reason = json.loads(text)
    return Path.from_text(_clean(path)), _reply(reply), _optional(reason)


@lru_cache(_REMEMBERED)
def states_of(text: str) -> Mapping[State, int]:
    """What :data:`STATES` selects, in the order of :data:`STORED`.

    :raise NO_SENSE: a state is none.
    """
    states = {State(state): count for state, count in json.loads(text).items()}
    return MappingProxyType({state: states[state] for state in STORED if state in states})


def summary(row: Sequence[Any]) -> Summary | Unreadable:
    try:
        return _summary_of(*row)
    except NO_SENSE as error:
        return Unreadable(row[0], str(error))


def _summary_of(
    queue_id: str,
    realm: str,
    account: str,
    received_at: float,
    size: int,
    reverse_path: str,
    next_attempt: float | None,
    wish: str | None,
    next_hop: str | None,
    sealed: int,
    states: str,
    recipient: str | None,
) -> Summary:
    if not is_queue_id(queue_id):
        raise ValueError("this is not a queue id")
    if recipient is None:
        raise ValueError("it has no recipients")
    path, reply, reason = _one_recipient(recipient)
    return Summary(
        queue_id=queue_id,
        realm=_clean(realm),
        account=_clean(account),
        received_at=float(received_at),
        size=int(size),
        sender=_path(reverse_path),
        states=states_of(states),
        next_attempt=None if next_attempt is None else float(next_attempt),
        wish=_optional(wish),
        next_hop=_optional(next_hop),
        sealed=bool(sealed),
        recipient=path,
        reply=reply,
        reason=reason,
    )


def message(
    row: Sequence[Any],
    more: Sequence[Any],
    recipients: Sequence[Any],
    attempts: Sequence[Any],
    waits_for: str | None,
) -> Message:
    """All of one message, from rows as the columns above select them.

    :raise NO_SENSE: some row does not.
    """
    summary = _summary_of(*row)
    session_id, parameters, since, eight_bit, in_row, digest, sealed_by, sequence = more
    shown = [_recipient(*each) for each in recipients]
    given = [_recipient_parameters(parameters) for *_, parameters, _, _ in recipients]
    envelope = Envelope(
        queue_id=summary.queue_id,
        realm=summary.realm,
        account=summary.account,
        session_id=_clean(session_id),
        reverse_path=summary.sender,
        recipients=tuple(recipient.path for recipient in shown),
        received_at=summary.received_at,
        parameters=_parameters(parameters),
        recipient_parameters={
            recipient.path: said for recipient, said in zip(shown, given, strict=True) if said is not None
        },
        next_hop=summary.next_hop,
    )
    return Message(
        summary=summary,
        envelope=envelope,
        since=float(since),
        eight_bit=bool(eight_bit),
        in_row=bool(in_row),
        digest=digest.lower() or None,
        sealed_by=_optional(sealed_by),
        sequence=_optional(sequence),
        waits_for=waits_for,
        recipients=tuple(shown),
        attempts=tuple(_attempt(*each) for each in attempts),
    )


def _recipient(
    path: str,
    state: str,
    attempts: int,
    reply: str | None,
    hop: str | None,
    parameters: str | None,
    told_of_delay: int,
    reason: str | None,
) -> Recipient:
    return Recipient(
        path=_path(path),
        state=State(state),
        attempts=int(attempts),
        reply=_reply(reply),
        hop=_optional(hop),
        told_of_delay=bool(told_of_delay),
        reason=_optional(reason),
    )


def _attempt(at: float, hop: str, reply: str, recipients: str) -> Attempt:
    return Attempt(float(at), _clean(hop), _decoded(reply), tuple(map(str, json.loads(recipients))))
