"""Messages that go one after the other: of a sequence only one, its head, is ever due.

The head is the one message of its sequence that has a ``next_attempt``; it was the one with the lowest queue
id among those that had something to try when it became the head.  (Of two messages that came in at the same
time, the one that is committed first goes first: neither was before the other.)  When it ends, the next one
becomes the head in the same transaction.  A message that an operator wants removed or returned still stands
in the way, until that is done: it may be under way.  One that is held does not.
"""

import sqlite3
from collections.abc import Iterable

from digipoort_msa.spool.rows import encode
from digipoort_msa.spool.states import WAITING, rows_in

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.
_WAITS = f"EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = m.queue_id AND {rows_in(WAITING)})"
_PROMOTE = (
    "UPDATE message SET next_attempt = received_at WHERE queue_id IN (SELECT"
    " (SELECT m.queue_id FROM message AS m WHERE m.sequence = wanted.value AND m.wish IS NULL"
    f" AND {_WAITS} ORDER BY m.queue_id LIMIT 1)"
    # Two questions, each with an index of its own: a sequence may be long.
    " FROM json_each(?) AS wanted WHERE NOT EXISTS (SELECT 1 FROM message AS m"
    " WHERE m.sequence = wanted.value AND m.next_attempt IS NOT NULL)"
    " AND NOT EXISTS (SELECT 1 FROM message AS m INDEXED BY message_wish"
    f" WHERE m.sequence = wanted.value AND m.wish IS NOT NULL AND {_WAITS}))"
)


def promote(connection: sqlite3.Connection, sequences: Iterable[str | None]) -> None:
    """See to it that these sequences have their heads, where anything of them is left to try."""
    wanted = {sequence for sequence in sequences if sequence is not None}
    if wanted:
        connection.execute(_PROMOTE, (encode(sorted(wanted)),))


def of(connection: sqlite3.Connection, queue_ids: Iterable[str]) -> list[str]:
    """The sequences of some messages: for :func:`promote`, once those are changed or gone."""
    rows = connection.execute(
        "SELECT DISTINCT sequence FROM message WHERE sequence IS NOT NULL"
        " AND queue_id IN (SELECT value FROM json_each(?))",
        (encode(list(queue_ids)),),
    )
    return [sequence for (sequence,) in rows.fetchall()]


def mend(connection: sqlite3.Connection) -> None:
    """See to it that every sequence has its one head, whatever has happened."""
    connection.execute(
        "UPDATE message SET next_attempt = NULL WHERE sequence IS NOT NULL AND next_attempt IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM message AS m WHERE m.sequence = message.sequence"
        " AND m.next_attempt IS NOT NULL AND m.queue_id < message.queue_id)"
    )
    last = ""
    while True:
        rows = connection.execute(
            "SELECT DISTINCT sequence FROM message WHERE sequence > ? ORDER BY sequence LIMIT 1000", (last,)
        ).fetchall()
        if not rows:
            return
        promote(connection, (sequence for (sequence,) in rows))
        last = rows[-1][0]
