"""What is done to many messages of a spool at a time: at a start, at an operator's word, when a hop is back.

Everything is done in pieces of :data:`AT_ONCE` messages, so that new messages have their turn in between and
memory does not grow with the backlog.
"""

import sqlite3
from collections.abc import Callable, Sequence

from digipoort_msa.spool import sequences
from digipoort_msa.spool.operations import delete, hold, read
from digipoort_msa.spool.rows import Stored, columns, encode
from digipoort_msa.spool.states import UNFINISHED, WAITING, Event, State, rows_before, rows_in

AT_ONCE = 250  # with 4 KiB of content each, some 20 ms of work
_RETURNS = 20  # messages that are read at once to be returned, with their octets

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.
_LISTED = "queue_id IN (SELECT value FROM json_each(?))"
_WAITS = f"EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = message.queue_id AND {rows_in(WAITING)})"
_UNREADABLE = "its rows in the database make no sense"
MISSING = "its body file is missing"


def flush(connection: sqlite3.Connection, asked: Sequence[tuple[str, float]]) -> list[int]:
    """Make the deferred messages of a realm (each argument a realm and now) due now, a piece of them.

    :return: how many; fewer than :data:`AT_ONCE` were the last.
    """
    return [_flush(connection, realm, now) for realm, now in asked]


def _flush(connection: sqlite3.Connection, realm: str, now: float) -> int:
    rows = connection.execute(
        "SELECT queue_id FROM message WHERE realm = ? AND next_attempt > ? ORDER BY next_attempt LIMIT ?",
        (realm, now, AT_ONCE),
    )
    queue_ids = [queue_id for (queue_id,) in rows.fetchall()]
    if queue_ids:
        wanted = encode(queue_ids)
        connection.execute(
            f"UPDATE recipient SET state = '{State.QUEUED}' WHERE {_LISTED} AND {rows_before(Event.RETRY)}",
            (wanted,),
        )
        connection.execute(f"UPDATE message SET next_attempt = ? WHERE {_LISTED}", (now, wanted))
    return len(queue_ids)


def hold_realm(connection: sqlite3.Connection, asked: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """Hold what waits of a realm (each argument a realm, a reason and the queue id to begin after), a piece
    of it.  What is held already keeps its reason.

    :return: the queue ids, in order; fewer than :data:`AT_ONCE` were the last.
    """
    return [_hold_realm(connection, realm, reason, after) for realm, reason, after in asked]


def _hold_realm(connection: sqlite3.Connection, realm: str, reason: str, after: str) -> list[str]:
    # The "+" has it go by the queue ids, all of them once: an index of realms would be sorted for each piece.
    rows = connection.execute(
        f"SELECT queue_id FROM message WHERE queue_id > ? AND +realm = ? AND {_WAITS}"
        " ORDER BY queue_id LIMIT ?",
        (after, realm, AT_ONCE),
    )
    queue_ids = [queue_id for (queue_id,) in rows.fetchall()]
    if queue_ids:
        wanted = encode(queue_ids)
        connection.execute(
            f"UPDATE recipient SET state = '{State.HELD}', reason = ? WHERE {_LISTED} AND {rows_in(WAITING)}",
            (reason, wanted),
        )
        connection.execute(f"UPDATE message SET next_attempt = NULL WHERE {_LISTED}", (wanted,))
        sequences.promote(connection, sequences.of(connection, queue_ids))
    return queue_ids


def purge(connection: sqlite3.Connection, held: Sequence[frozenset[str]]) -> list[list[str]]:
    """Drop messages that an operator wants removed, a piece of them, but for those in ``held``, which are
    being delivered (``record`` drops them).

    :return: their queue ids; fewer than :data:`AT_ONCE` were the last.
    """
    return [_purge(connection, queue_ids) for queue_ids in held]


def _purge(connection: sqlite3.Connection, held: frozenset[str]) -> list[str]:
    rows = connection.execute(
        "SELECT queue_id FROM message WHERE wish = 'remove'"
        " AND queue_id NOT IN (SELECT value FROM json_each(?)) LIMIT ?",
        (encode(sorted(held)), AT_ONCE),
    )
    removed = [queue_id for (queue_id,) in rows.fetchall()]
    if removed:
        in_sequence = sequences.of(connection, removed)
        delete(connection, removed)
        sequences.promote(connection, in_sequence)
    return removed


def returns(connection: sqlite3.Connection, held: Sequence[frozenset[str]]) -> list[tuple[Stored, ...]]:
    """Some of the messages that an operator wants returned, but for those in ``held``, with all of their
    recipients that are not finished.  They stay until ``record`` has their end."""
    return [_returns(connection, queue_ids) for queue_ids in held]


def _returns(connection: sqlite3.Connection, held: frozenset[str]) -> tuple[Stored, ...]:
    rows = connection.execute(
        f"SELECT {columns(UNFINISHED)} FROM message AS m WHERE wish = 'return'"
        " AND queue_id NOT IN (SELECT value FROM json_each(?)) LIMIT ?",
        (encode(sorted(held)), _RETURNS),
    ).fetchall()
    messages, unreadable = read(rows)
    for queue_id in unreadable:
        hold(connection, [(queue_id, _UNREADABLE)])
        connection.execute("UPDATE message SET wish = NULL WHERE queue_id = ?", (queue_id,))
    return tuple(messages)


def realms(connection: sqlite3.Connection, asked: Sequence[None]) -> list[dict[str, int]]:
    """How many messages each realm has in the spool."""
    rows = connection.execute("SELECT realm, count(*) FROM message GROUP BY realm").fetchall()
    return [dict(rows)] * len(asked)


def data_version(connection: sqlite3.Connection, asked: Sequence[None]) -> list[int]:
    """A number that changes when another connection has changed the database."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return [version] * len(asked)


# -- at a start, when nobody else works the spool -------------------------------------------------------


def damage(connection: sqlite3.Connection) -> str | None:
    """What SQLite itself finds wrong with the database; reads all of it."""
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else " ".join(str(found).replace("*** in database main ***", "").split())


def hold_missing(connection: sqlite3.Connection, exists: Callable[[str], bool]) -> list[str]:
    """Hold the messages whose body file is not there; an operator can release them when it is back.

    :param exists: is there a body file for this queue id?
    :return: their queue ids.
    """
    missing: list[str] = []
    last = ""
    while True:
        rows = connection.execute(
            "SELECT queue_id FROM message WHERE in_row = 0 AND queue_id > ? ORDER BY queue_id LIMIT ?",
            (last, AT_ONCE),
        )
        queue_ids = [queue_id for (queue_id,) in rows.fetchall()]
        lost = [queue_id for queue_id in queue_ids if not exists(queue_id)]
        hold(connection, [(queue_id, MISSING) for queue_id in lost])
        missing += lost
        if len(queue_ids) < AT_ONCE:
            return missing
        last = queue_ids[-1]


def mend(connection: sqlite3.Connection, now: float) -> None:
    """See to it that whatever can be tried will be: nothing waits for a time that a clock which was wrong
    has set, or for nothing at all."""
    connection.execute(
        "UPDATE message SET next_attempt = received_at WHERE next_attempt IS NULL AND wish IS NULL"
        f" AND sequence IS NULL AND {_WAITS}"
    )
    connection.execute(
        "UPDATE message SET next_attempt = :now WHERE next_attempt > :now AND EXISTS (SELECT 1 FROM"
        f" recipient AS r WHERE r.queue_id = message.queue_id AND r.state = '{State.QUEUED}')",
        {"now": now},
    )
    sequences.mend(connection)


def unfinished(connection: sqlite3.Connection, queue_ids: Sequence[str]) -> list[str]:
    """Those of these messages that have not ended, in order; what is held may be delivered later, too."""
    rows = connection.execute(
        f"SELECT queue_id FROM message WHERE {_LISTED} ORDER BY queue_id", (encode(queue_ids),)
    )
    return [queue_id for (queue_id,) in rows]


def has_file(connection: sqlite3.Connection, queue_id: str) -> bool:
    """Is there a message whose content is in a body file of this name?"""
    row = connection.execute(
        "SELECT 1 FROM message WHERE queue_id = ? AND in_row = 0", (queue_id,)
    ).fetchone()
    return row is not None
