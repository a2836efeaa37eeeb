"""What the running queue does to the spool's database, each operation on any number of messages at once.

An operation is a plain function of a connection, inside a transaction, and a list of arguments; it
returns one result for each.  A hundred messages must not cost a hundred statements: Python gives up its
global lock at each and, beside a busy reactor, may wait a switch interval (5 ms) to have it back.  So new
rows go in by the power of two, and everything else passes as one JSON text that SQLite takes apart.

An operation leaves no trace but in the database: a failed batch is run again, one argument at a time.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain

from attrs import frozen

from digipoort_msa.spool import sequences
from digipoort_msa.spool.rows import (
    Attempt,
    DueMessages,
    DueQuery,
    Result,
    Stored,
    columns,
    decode_parameters,
    decode_recipient_parameters,
    decode_reply,
    encode,
    encode_parameters,
    encode_recipient_parameters,
    encode_reply,
    stored,
)
from digipoort_msa.spool.states import UNFINISHED, WAITING, Event, State, rows_before, rows_in

__all__ = [
    "Attempt",
    "DueMessages",
    "DueQuery",
    "Recorded",
    "Result",
    "Stored",
    "decode_parameters",
    "decode_recipient_parameters",
    "decode_reply",
    "due",
    "forget",
    "hold",
    "insert",
    "record",
]

HISTORY = 50  # rows of it that a message keeps
#: The tables that a message has rows in, each under its ``queue_id``.
TABLES = ("message", "content", "recipient", "attempt")
_PATHS = 5  # recipients that a row of it names

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.
_HAS = "EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = message.queue_id AND"  # ... state)
_LISTED = "queue_id IN (SELECT value FROM json_each(?))"
_UNREADABLE = "its rows in the database make no sense"


def insert(connection: sqlite3.Connection, messages: Sequence[Stored]) -> list[bool]:
    """Keep new messages, due at once unless an earlier one of their sequence is in the way.

    :return: for each, whether it is due.
    """
    rows: list[tuple[object, ...]] = []
    recipients: list[tuple[object, ...]] = []
    contents: list[tuple[object, ...]] = []
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
                envelope.received_at if message.sequence is None else None,
                message.sequence,
                envelope.next_hop,
                message.size,
                message.eight_bit,
                message.digest,
                message.sealed_by,
                message.octets is not None,
            )
        )
        if message.octets is not None:
            contents.append((queue_id, message.octets))
        given = envelope.recipient_parameters
        recipients += [
            (
                queue_id,
                str(path),
                position,
                encode_recipient_parameters(given[path]) if path in given else None,
            )
            for position, path in enumerate(envelope.recipients)
        ]
    _insert_rows(
        connection,
        "INTO message (queue_id, realm, account, session_id, reverse_path, parameters, received_at, since,"
        " next_attempt, sequence, next_hop, size, eight_bit, digest, sealed_by, in_row)",
        rows,
    )
    _insert_rows(connection, "INTO content (queue_id, octets)", contents)
    _insert_rows(connection, "OR IGNORE INTO recipient (queue_id, path, position, parameters)", recipients)
    in_sequence = [message for message in messages if message.sequence is not None]
    if not in_sequence:
        return [True] * len(messages)
    sequences.promote(connection, (message.sequence for message in in_sequence))
    heads = connection.execute(
        f"SELECT queue_id FROM message WHERE {_LISTED} AND next_attempt IS NOT NULL",
        (encode([message.envelope.queue_id for message in in_sequence]),),
    )
    due_now = {queue_id for (queue_id,) in heads}
    return [m.sequence is None or m.envelope.queue_id in due_now for m in messages]


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


def forget(connection: sqlite3.Connection, messages: Sequence[Stored]) -> list[None]:
    """Drop messages of which every recipient has been delivered."""
    delete(connection, [message.envelope.queue_id for message in messages])
    sequences.promote(connection, (message.sequence for message in messages))
    return [None] * len(messages)


def delete(connection: sqlite3.Connection, queue_ids: Iterable[str]) -> None:
    """Drop messages and all that belongs to them; their sequences are the caller's to promote."""
    wanted = (encode(list(queue_ids)),)
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE {_LISTED}", wanted)


@frozen
class Recorded:
    """What has come of recording an attempt."""

    gone: bool  # the message: no recipient is unfinished, or an operator wanted it removed
    notified: bool  # the attempt's notification is in the spool now


def record(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> list[Recorded]:
    """Record attempts per recipient, and keep their notifications; all of it or nothing.

    Where an operator has held a recipient meanwhile, it stays held unless it has been delivered or returned.
    A recipient that has ended changes no more, and an attempt that ends none and tells of no delay for the
    first time brings no notification: so one that is recorded again does no harm.
    """
    queue_ids = [attempt.queue_id for attempt in attempts]
    in_sequence = sequences.of(connection, queue_ids)
    changed, news = _record_results(connection, attempts)
    news |= _record_delays(connection, attempts)
    for attempt in attempts:
        if any(result.state is State.HELD for result in attempt.results):
            _returned_as_far_as_can_be(connection, attempt)
    gone = _end(connection, attempts, queue_ids)
    _remember(connection, [attempt for attempt in attempts if attempt.queue_id in changed - gone])
    told = {
        attempt.queue_id: attempt.notification
        for attempt in attempts
        if attempt.notification is not None and attempt.queue_id in news
    }
    insert(connection, list(told.values()))
    sequences.promote(connection, in_sequence)
    return [Recorded(queue_id in gone, queue_id in told) for queue_id in queue_ids]


def _record_results(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> tuple[set[str], set[str]]:
    """Returns the messages of which a recipient has changed, and of which one has ended."""
    results = [
        (
            attempt.queue_id,
            str(result.path),
            result.state,
            encode_reply(result.reply),
            result.hop,
            result.reason if result.state is State.HELD else None,
        )
        for attempt in attempts
        for result in attempt.results
    ]
    stays_held = f"recipient.state = '{State.HELD}' AND result.state = '{State.DEFERRED}'"
    rows = connection.execute(
        f"UPDATE recipient SET state = CASE WHEN {stays_held} THEN recipient.state ELSE result.state END,"
        f" reason = CASE WHEN {stays_held} THEN recipient.reason ELSE result.reason END,"
        " attempts = attempts + 1, reply = result.reply, hop = result.hop"
        " FROM (SELECT value->>0 AS queue_id, value->>1 AS path, value->>2 AS state, value->>3 AS reply,"
        " value->>4 AS hop, value->>5 AS reason FROM json_each(?)) AS result"
        " WHERE recipient.queue_id = result.queue_id AND recipient.path = result.path"
        f" AND recipient.{rows_before(Event.DELIVER)} RETURNING recipient.queue_id, recipient.state",
        (encode(results),),
    ).fetchall()
    ended = {queue_id for queue_id, state in rows if state not in UNFINISHED}
    return {queue_id for queue_id, _ in rows}, ended


def _record_delays(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> set[str]:
    """Returns the messages of which a delay is told for the first time."""
    told = [(attempt.queue_id, str(path)) for attempt in attempts for path in attempt.told_of_delay]
    if not told:
        return set()
    rows = connection.execute(
        "UPDATE recipient SET told_of_delay = 1 FROM (SELECT value->>0 AS queue_id, value->>1 AS path"
        " FROM json_each(?)) AS told WHERE recipient.queue_id = told.queue_id AND recipient.path = told.path"
        " AND told_of_delay = 0 RETURNING recipient.queue_id",
        (encode(told),),
    )
    return {queue_id for (queue_id,) in rows.fetchall()}


def _returned_as_far_as_can_be(connection: sqlite3.Connection, attempt: Attempt) -> None:
    # A wish to return what cannot be returned is done, too: otherwise it would come back for ever.
    rows = connection.execute(
        f"SELECT path FROM recipient WHERE queue_id = ? AND {rows_in(UNFINISHED)}", (attempt.queue_id,)
    )
    held = {str(result.path) for result in attempt.results if result.state is State.HELD}
    if {path for (path,) in rows} <= held:
        connection.execute(
            "UPDATE message SET wish = NULL WHERE queue_id = ? AND wish = 'return'", (attempt.queue_id,)
        )


def _end(connection: sqlite3.Connection, attempts: Sequence[Attempt], queue_ids: list[str]) -> set[str]:
    """Drop the messages that have ended and find the others' next attempt; returns who has gone."""
    # A recipient that an operator queued again during the attempt is due now, not at next_attempt.  And in
    # a sequence another message may be the head by now.
    connection.execute(
        "UPDATE message SET next_attempt = CASE WHEN wish IS NOT NULL THEN NULL"
        " WHEN sequence IS NOT NULL AND message.next_attempt IS NULL THEN NULL"
        f" WHEN {_HAS} r.state = '{State.QUEUED}') THEN attempt.now"
        f" WHEN {_HAS} r.state = '{State.DEFERRED}') THEN attempt.next_attempt END"
        " FROM (SELECT value->>0 AS queue_id, value->>1 AS now, value->>2 AS next_attempt FROM json_each(?))"
        " AS attempt WHERE message.queue_id = attempt.queue_id",
        (encode([(attempt.queue_id, attempt.now, attempt.next_attempt) for attempt in attempts]),),
    )
    rows = connection.execute(
        f"SELECT queue_id FROM message WHERE {_LISTED}"
        f" AND wish IS NOT 'remove' AND {_HAS} {rows_in(UNFINISHED)})",
        (encode(queue_ids),),
    )
    gone = set(queue_ids) - {queue_id for (queue_id,) in rows.fetchall()}
    if gone:
        delete(connection, gone)
    return gone


def _remember(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> None:
    """Write the history: a row for each different thing that a hop has said."""
    rows: list[tuple[object, ...]] = []
    for attempt in attempts:
        said: dict[tuple[str, str], list[str]] = {}
        for result in attempt.results:
            said.setdefault((result.hop, encode_reply(result.reply)), []).append(str(result.path))
        rows += [
            (attempt.queue_id, attempt.now, hop, reply, encode(paths[:_PATHS]))
            for (hop, reply), paths in list(said.items())[:HISTORY]
        ]
    if rows:
        _insert_rows(connection, "INTO attempt (queue_id, at, hop, reply, recipients)", rows)
        connection.execute(
            f"DELETE FROM attempt WHERE {_LISTED} AND number <= (SELECT number FROM attempt AS newer"
            f" WHERE newer.queue_id = attempt.queue_id ORDER BY number DESC LIMIT 1 OFFSET {HISTORY})",
            (encode([attempt.queue_id for attempt in attempts]),),
        )


def due(connection: sqlite3.Connection, queries: Sequence[DueQuery]) -> list[DueMessages]:
    """The messages that have been due longest, with the octets of the small ones."""
    return [_due(connection, query) for query in queries]


def _due(connection: sqlite3.Connection, query: DueQuery) -> DueMessages:
    of_realm = "" if query.realm is None else "realm = :realm AND "
    values = {
        "realm": query.realm,
        "now": query.now,
        "held": encode(sorted(query.held)),
        "limit": query.limit,
    }
    rows = connection.execute(
        f"SELECT {columns(WAITING)} FROM message AS m WHERE {of_realm}next_attempt <= :now"
        " AND queue_id NOT IN (SELECT value FROM json_each(:held)) ORDER BY next_attempt LIMIT :limit",
        values,
    ).fetchall()
    messages, unreadable = read(rows)
    for queue_id in unreadable:  # one such row must not stop all that come after it
        hold(connection, [(queue_id, _UNREADABLE)])
    (next_due,) = connection.execute(
        f"SELECT min(next_attempt) FROM message WHERE {of_realm}next_attempt > :now", values
    ).fetchone()
    return DueMessages(tuple(messages), next_due, tuple(unreadable))


def read(rows: Iterable[Sequence[object]]) -> tuple[list[Stored], list[str]]:
    """Rows as ``columns`` selects them: the messages, and the queue ids of those that make no sense."""
    messages: list[Stored] = []
    unreadable: list[str] = []
    for row in rows:
        try:
            messages.append(stored(*row))  # type: ignore[arg-type]
        except (TypeError, ValueError, KeyError, AttributeError):
            unreadable.append(row[0])  # type: ignore[arg-type]
    return messages, unreadable


def hold(connection: sqlite3.Connection, held: Sequence[tuple[str, str]]) -> list[None]:
    """Hold messages (each a queue id and a reason): nothing of them is tried until an operator says so."""
    for queue_id, reason in held:
        in_sequence = sequences.of(connection, [queue_id])
        connection.execute(
            f"UPDATE recipient SET state = '{State.HELD}', reason = ? WHERE queue_id = ?"
            f" AND {rows_before(Event.HOLD)}",
            (reason, queue_id),
        )
        connection.execute("UPDATE message SET next_attempt = NULL WHERE queue_id = ?", (queue_id,))
        sequences.promote(connection, in_sequence)
    return [None] * len(held)
