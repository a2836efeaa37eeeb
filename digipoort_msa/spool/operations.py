"""What is done to the spool's database, each operation on any number of messages at once.

An operation is a plain function of a connection, inside a transaction, and a list of arguments; it
returns one result for each.  A hundred messages must not cost a hundred statements: Python gives up its
global lock at each and, beside a busy reactor, may wait a switch interval (5 ms) to have it back.  So new
rows go in by the power of two, and everything else passes as one JSON text that SQLite takes apart.

An operation leaves no trace but in the database: a failed batch is run again, one argument at a time.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain

from attrs import frozen

from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.schema import State

# ruff: noqa: S608 -- SQL is put together from these constants alone; every value is bound.
_HAS = "EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = message.queue_id"  # ... AND ...)
_OPEN = f"state IN ('{State.QUEUED}', '{State.DEFERRED}')"


@frozen
class Stored:
    """A message in the spool, as far as it is still to be delivered."""

    envelope: Envelope  # its recipients are the queued and deferred ones
    size: int
    eight_bit: bool
    octets: bytes | None  # None: in a body file
    since: float  # where the time until giving up starts
    attempts: int = 0  # made for those recipients so far: the largest number of any
    sole: bool = True  # no other recipient keeps the message here (a failed one does)


@frozen
class Result:
    """What one attempt did for one recipient."""

    path: Path
    state: State
    reply: Reply
    hop: str


@frozen
class Attempt:
    """What one attempt did for a message."""

    queue_id: str
    results: tuple[Result, ...]
    now: float
    next_attempt: float  # for the deferred ones


@frozen
class DueQuery:
    now: float
    limit: int
    held: frozenset[str]  # queue ids that are not wanted: the queue has them already


@frozen
class DueMessages:
    messages: tuple[Stored, ...]
    next_due: float | None  # when the next message that is not due yet will be
    unreadable: tuple[str, ...] = ()  # queue ids of due messages whose rows make no sense


def insert(connection: sqlite3.Connection, messages: Sequence[Stored]) -> list[None]:
    """Keep new messages, due at once."""
    rows: list[tuple[object, ...]] = []
    recipients: list[tuple[object, ...]] = []
    for message in messages:
        envelope = message.envelope
        queue_id = envelope.queue_id
        rows.append(
            (
                queue_id,
                envelope.realm,
                envelope.account,
                envelope.session_id,
                str(envelope.reverse_path),
                encode_parameters(envelope.parameters),
                envelope.received_at,
                message.since,
                envelope.received_at,
                message.size,
                message.eight_bit,
                message.octets,
            )
        )
        recipients += [(queue_id, str(path), position) for position, path in enumerate(envelope.recipients)]
    _insert_rows(
        connection,
        "INTO message (queue_id, realm, account, session_id, reverse_path, parameters, received_at, since,"
        " next_attempt, size, eight_bit, content)",
        rows,
    )
    _insert_rows(connection, "OR IGNORE INTO recipient (queue_id, path, position)", recipients)
    return [None] * len(messages)


def _insert_rows(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    # Few different statements, which SQLite has to compile only once: 64 rows, 32, 16, ...
    start, count = 0, 64
    while start < len(rows):
        while count > len(rows) - start:
            count //= 2
        row = f"({','.join('?' * len(rows[start]))})"
        connection.execute(
            f"INSERT {into} VALUES {','.join([row] * count)}",
            tuple(chain.from_iterable(rows[start : start + count])),
        )
        start += count


def forget(connection: sqlite3.Connection, queue_ids: Sequence[str]) -> list[None]:
    """Drop messages of which every recipient has been served."""
    wanted = (_json(queue_ids),)
    connection.execute("DELETE FROM message WHERE queue_id IN (SELECT value FROM json_each(?))", wanted)
    connection.execute("DELETE FROM recipient WHERE queue_id IN (SELECT value FROM json_each(?))", wanted)
    return [None] * len(queue_ids)


def record(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> list[bool]:
    """Record attempts per recipient; a message goes when its last recipient has been delivered, or when an
    operator asked for its removal meanwhile.

    :return: for each attempt, whether the message is gone.
    """
    results = [
        (attempt.queue_id, str(result.path), result.state, encode_reply(result.reply), result.hop)
        for attempt in attempts
        for result in attempt.results
    ]
    connection.execute(
        "UPDATE recipient SET state = result.state, attempts = attempts + 1, reply = result.reply,"
        " hop = result.hop FROM (SELECT value->>0 AS queue_id, value->>1 AS path, value->>2 AS state,"
        " value->>3 AS reply, value->>4 AS hop FROM json_each(?)) AS result"
        " WHERE recipient.queue_id = result.queue_id AND recipient.path = result.path",
        (_json(results),),
    )
    # A recipient that an operator queued again during the attempt is due now, not at next_attempt.
    connection.execute(
        "UPDATE message SET next_attempt ="
        f" CASE WHEN {_HAS} AND r.state = '{State.QUEUED}') THEN attempt.now"
        f" WHEN {_HAS} AND r.state = '{State.DEFERRED}') THEN attempt.next_attempt END"
        " FROM (SELECT value->>0 AS queue_id, value->>1 AS now, value->>2 AS next_attempt FROM json_each(?))"
        " AS attempt WHERE message.queue_id = attempt.queue_id",
        (_json([(attempt.queue_id, attempt.now, attempt.next_attempt) for attempt in attempts]),),
    )
    wanted = (_json([attempt.queue_id for attempt in attempts]),)
    connection.execute(
        "DELETE FROM message WHERE queue_id IN (SELECT value FROM json_each(?))"
        f" AND (removing = 1 OR NOT {_HAS} AND r.state <> '{State.DELIVERED}'))",
        wanted,
    )
    rows = connection.execute(
        "SELECT queue_id FROM message WHERE queue_id IN (SELECT value FROM json_each(?))", wanted
    )
    kept = {queue_id for (queue_id,) in rows}
    gone = [attempt.queue_id not in kept for attempt in attempts]
    if any(gone):
        connection.execute(
            "DELETE FROM recipient WHERE queue_id IN (SELECT value FROM json_each(?))",
            (_json([attempt.queue_id for attempt in attempts if attempt.queue_id not in kept]),),
        )
    return gone


def due(connection: sqlite3.Connection, queries: Sequence[DueQuery]) -> list[DueMessages]:
    """The messages that have been due longest, with the octets of the small ones."""
    return [_due(connection, query) for query in queries]


def _due(connection: sqlite3.Connection, query: DueQuery) -> DueMessages:
    rows = connection.execute(
        "SELECT queue_id, realm, account, session_id, reverse_path, parameters, received_at, since, size,"
        " eight_bit, content,"
        " (SELECT json_group_array(path) FROM (SELECT path FROM recipient AS r"
        f" WHERE r.queue_id = m.queue_id AND {_OPEN} ORDER BY position)),"
        f" (SELECT max(attempts) FROM recipient AS r WHERE r.queue_id = m.queue_id AND {_OPEN}),"
        " NOT EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = m.queue_id"
        f" AND r.state = '{State.FAILED}')"
        " FROM message AS m WHERE next_attempt <= ? AND queue_id NOT IN (SELECT value FROM json_each(?))"
        " ORDER BY next_attempt LIMIT ?",
        (query.now, _json(sorted(query.held)), query.limit),
    )
    messages, unreadable = [], []
    for row in rows:
        try:
            messages.append(_stored(*row))
        except (TypeError, ValueError):  # one such row must not stop all that come after it
            unreadable.append(row[0])
    return DueMessages(tuple(messages), _next_due(connection, query.now), tuple(unreadable))


def _stored(
    queue_id: str,
    realm: str,
    account: str,
    session_id: str,
    reverse_path: str,
    parameters: str,
    received_at: float,
    since: float,
    size: int,
    eight_bit: int,
    content: bytes | None,
    paths: str,
    attempts: int,
    sole: int,
) -> Stored:
    envelope = Envelope(
        queue_id=queue_id,
        realm=realm,
        account=account,
        session_id=session_id,
        reverse_path=Path.from_text(reverse_path),
        recipients=tuple(Path.from_text(path) for path in json.loads(paths)),
        received_at=received_at,
        parameters=decode_parameters(parameters),
    )
    return Stored(envelope, size, bool(eight_bit), content, since, attempts, bool(sole))


def _next_due(connection: sqlite3.Connection, now: float) -> float | None:
    row = connection.execute("SELECT min(next_attempt) FROM message WHERE next_attempt > ?", (now,))
    next_due: float | None = row.fetchone()[0]
    return next_due


def purge(connection: sqlite3.Connection, held: Sequence[frozenset[str]]) -> list[list[str]]:
    """Drop the messages that an operator wants removed, but for those that are being delivered (``record``
    drops them).

    :return: their queue ids.
    """
    return [_purge(connection, queue_ids) for queue_ids in held]


def _purge(connection: sqlite3.Connection, held: frozenset[str]) -> list[str]:
    rows = connection.execute(
        "DELETE FROM message WHERE removing = 1 AND queue_id NOT IN (SELECT value FROM json_each(?))"
        " RETURNING queue_id",
        (_json(sorted(held)),),
    )
    removed = [queue_id for (queue_id,) in rows.fetchall()]
    connection.execute(
        "DELETE FROM recipient WHERE queue_id IN (SELECT value FROM json_each(?))", (_json(removed),)
    )
    return removed


def mark_missing(connection: sqlite3.Connection, exists: Callable[[str], bool]) -> None:
    """Mark the messages whose body file is not there: they are kept, and not tried.

    :param exists: is there a body file for this queue id?
    """
    rows = connection.execute("SELECT queue_id FROM message WHERE content IS NULL AND missing = 0")
    missing = [queue_id for (queue_id,) in rows if not exists(queue_id)]
    connection.execute(
        "UPDATE message SET missing = 1, next_attempt = NULL"
        " WHERE queue_id IN (SELECT value FROM json_each(?))",
        (_json(missing),),
    )


def unmark_found(connection: sqlite3.Connection, exists: Callable[[str], bool], now: float) -> None:
    """Take the mark of ``mark_missing`` off the messages whose file has been put back: they are due."""
    rows = connection.execute("SELECT queue_id FROM message WHERE missing = 1").fetchall()
    found = [queue_id for (queue_id,) in rows if exists(queue_id)]
    connection.execute(
        "UPDATE message SET missing = 0,"
        f" next_attempt = CASE WHEN removing = 0 AND {_HAS} AND {_OPEN}) THEN ? END"
        " WHERE queue_id IN (SELECT value FROM json_each(?))",
        (now, _json(found)),
    )


def retry(connection: sqlite3.Connection, queue_ids: Sequence[str], now: float) -> list[str]:
    """Make messages due now, their failed recipients too.

    :return: the queue ids of those that are due now, in order.
    """
    values = {"wanted": _json(queue_ids), "now": now}
    which = (
        "queue_id IN (SELECT queue_id FROM message WHERE removing = 0 AND missing = 0"
        " AND queue_id IN (SELECT value FROM json_each(:wanted)))"
    )
    connection.execute(
        f"UPDATE recipient SET state = '{State.QUEUED}' WHERE state = '{State.FAILED}' AND {which}", values
    )
    rows = connection.execute(
        f"UPDATE message SET next_attempt = :now, since = max(since, :now) WHERE {which}"
        f" AND {_HAS} AND {_OPEN})"
        " RETURNING queue_id",
        values,
    )
    return sorted(queue_id for (queue_id,) in rows.fetchall())


def has_file(connection: sqlite3.Connection, queue_id: str) -> bool:
    """Is there a message whose content is in a body file of this name?"""
    row = connection.execute(
        "SELECT 1 FROM message WHERE queue_id = ? AND content IS NULL", (queue_id,)
    ).fetchone()
    return row is not None


def data_version(connection: sqlite3.Connection, asked: Sequence[None]) -> list[int]:
    """A number that changes when another connection has changed the database."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return [version] * len(asked)


def encode_parameters(parameters: MailParameters) -> str:
    return _json([parameters.size, parameters.body_8bitmime, parameters.smtputf8, parameters.auth])


def decode_parameters(text: str) -> MailParameters:
    return MailParameters(*json.loads(text))


def encode_reply(reply: Reply) -> str:
    return json.dumps([reply.code, reply.enhanced, reply.lines])  # ASCII, whatever a peer has said


def decode_reply(text: str) -> Reply:
    code, enhanced, lines = json.loads(text)
    return Reply(code, enhanced, tuple(lines))


def _json(value: object) -> str:
    # Not escaped: a lone surrogate then fails here, instead of becoming a row that nobody can read.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
