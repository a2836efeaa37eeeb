"""A message as the spool's database has it: the values that go in and out, and their form in rows."""

import json

from attrs import field, frozen

from digipoort_msa.smtp.envelope import Envelope, MailParameters, Notify, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.states import State, rows_in


@frozen
class Stored:
    """A message in the spool, as far as it is still to be delivered."""

    envelope: Envelope  # its recipients are the queued and deferred ones
    size: int
    eight_bit: bool
    octets: bytes | None  # None: in a body file
    since: float  # where the time until giving up starts
    attempts: int = 0  # made for those recipients so far: the largest number of any
    sole: bool = True  # no other recipient keeps the message here (a held one does)
    told_of_delay: frozenset[Path] = frozenset()  # of those recipients: of whose delay the sender knows
    sequence: str | None = None  # messages of one sequence go one after the other
    digest: bytes | None = field(default=None, repr=False)  # SHA-256 of the content as it is stored
    sealed_by: str | None = None  # the name of the key that encrypts the content; None: it is not encrypted


@frozen
class Result:
    """What one attempt did for one recipient."""

    path: Path
    state: State  # DELIVERED, DEFERRED, RETURNED or HELD
    reply: Reply
    hop: str
    reason: str | None = None  # why it is held


@frozen
class Attempt:
    """What one attempt did for a message, and what its sender is told of it."""

    queue_id: str
    results: tuple[Result, ...]
    now: float
    next_attempt: float  # for the deferred ones
    told_of_delay: tuple[Path, ...] = ()  # of whose delay the notification tells
    notification: Stored | None = None  # a message of its own, kept with the results or not at all


@frozen
class DueQuery:
    realm: str | None  # None: every realm (slow: the index is of no use)
    now: float
    limit: int
    held: frozenset[str]  # queue ids that are not wanted: the queue has them already


@frozen
class DueMessages:
    messages: tuple[Stored, ...]
    next_due: float | None  # when the next message that is not due yet will be
    unreadable: tuple[str, ...] = ()  # queue ids of due messages whose rows made no sense; they are held now


# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.
#: Columns of ``message AS m`` for :func:`stored`; the recipients are the ones whose state is in ``{states}``.
_COLUMNS = (
    "queue_id, realm, account, session_id, reverse_path, parameters, received_at, since, sequence, next_hop,"
    " size, eight_bit, digest, sealed_by,"
    " (SELECT octets FROM content AS c WHERE c.queue_id = m.queue_id AND in_row),"
    " (SELECT json_group_array(json_array(path, parameters, told_of_delay, attempts)) FROM"
    " (SELECT path, r.parameters, told_of_delay, attempts FROM recipient AS r"
    " WHERE r.queue_id = m.queue_id AND {states} ORDER BY position)),"
    f" NOT EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = m.queue_id AND state = '{State.HELD}')"
)


def columns(states: tuple[State, ...]) -> str:
    """What to select from ``message AS m`` for :func:`stored`, with the recipients in those states."""
    return _COLUMNS.format(states=rows_in(states))


def stored(
    queue_id: str,
    realm: str,
    account: str,
    session_id: str,
    reverse_path: str,
    mail_parameters: str,
    received_at: float,
    since: float,
    sequence: str | None,
    next_hop: str | None,
    size: int,
    eight_bit: int,
    digest: bytes | None,
    sealed_by: str | None,
    content: bytes | None,
    recipients: str,
    sole: int,
) -> Stored:
    """A row as :func:`columns` selects it.

    :raise ValueError: (or TypeError, KeyError) it makes no sense.
    """
    rows = [(Path.from_text(path), *rest) for path, *rest in json.loads(recipients)]
    if not rows:
        raise ValueError("it has no recipients")
    envelope = Envelope(
        queue_id=queue_id,
        realm=realm,
        account=account,
        session_id=session_id,
        reverse_path=Path.from_text(reverse_path),
        recipients=tuple(path for path, *_ in rows),
        received_at=received_at,
        parameters=decode_parameters(mail_parameters),
        recipient_parameters={
            path: parameters
            for path, text, _, _ in rows
            if (parameters := decode_recipient_parameters(text)) is not None
        },
        next_hop=next_hop,
    )
    return Stored(
        envelope,
        size,
        bool(eight_bit),
        content,
        since,
        attempts=max(attempts for *_, attempts in rows),
        sole=bool(sole),
        told_of_delay=frozenset(path for path, _, told, _ in rows if told),
        sequence=sequence,
        digest=digest,
        sealed_by=sealed_by,
    )


def encode_parameters(parameters: MailParameters) -> str:
    return encode(
        [
            parameters.size,
            parameters.body_8bitmime,
            parameters.smtputf8,
            parameters.auth,
            parameters.ret,
            parameters.envid,
        ]
    )


def decode_parameters(text: str) -> MailParameters:
    return MailParameters(*json.loads(text))  # version 1 knew the first four


def encode_recipient_parameters(parameters: RcptParameters) -> str | None:
    if parameters.notify is None and parameters.orcpt is None:
        return None
    notify = None if parameters.notify is None else sorted(parameters.notify)
    return encode([notify, parameters.orcpt])


def decode_recipient_parameters(text: str | None) -> RcptParameters | None:
    if text is None:
        return None
    notify, orcpt = json.loads(text)
    return RcptParameters(None if notify is None else frozenset(map(Notify, notify)), orcpt)


def encode_reply(reply: Reply) -> str:
    return json.dumps([reply.code, reply.enhanced, reply.lines])  # ASCII, whatever a peer has said


def decode_reply(text: str) -> Reply:
    code, enhanced, lines = json.loads(text)
    return Reply(code, enhanced, tuple(lines))


# Not escaped: a lone surrogate then fails here, instead of becoming a row that nobody can read.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(value: object) -> str:
    return _ENCODER.encode(value)
