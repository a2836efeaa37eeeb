"""The operator's view of a spool, from another process, while the MSA runs or when it does not.

Every method works in short transactions, between which the MSA has its turn, and blocks.  The running queue
sees what was changed here within a second (``PRAGMA data_version``).  Removing only asks: the process that
works the queue drops the message when it is not being delivered; where no such process holds the spool's
lock, it is dropped here.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from digipoort_msa.smtp.envelope import MailParameters
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import operations, schema
from digipoort_msa.spool.bodies import Bodies
from digipoort_msa.spool.schema import SpoolError, State

_AT_ONCE = 1000  # messages that are changed in one transaction
_PAUSE = 0.02  # seconds between two of them: whoever waits for the database looks a few times a second


@frozen
class Summary:
    """One line of the list.  Times are seconds since the epoch."""

    queue_id: str
    received_at: float
    size: int
    sender: str
    account: str
    recipients: dict[State, int]  # how many are in each state that occurs
    next_attempt: float | None  # None: nothing left to try
    missing: bool  # its body file is gone


@frozen
class Recipient:
    path: MailPath
    state: State
    attempts: int
    reply: Reply | None  # the last one
    hop: str | None


@frozen
class Message:
    """All that is known of one message."""

    summary: Summary
    realm: str
    session_id: str
    parameters: MailParameters
    eight_bit: bool
    location: str  # the file that holds its content
    recipients: tuple[Recipient, ...]


_SUMMARY = (
    "SELECT queue_id, received_at, size, reverse_path, account,"
    " (SELECT json_group_object(state, n) FROM (SELECT state, count(*) AS n FROM recipient AS r"
    " WHERE r.queue_id = m.queue_id GROUP BY state)), next_attempt, missing"
    " FROM message AS m WHERE removing = 0"
)


class Inspection:
    """A spool seen from outside.

    :param directory: the spool's folder.
    :raise SpoolError: there is no spool in it, or it cannot be read; from a method, it cannot be changed now.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory)
        database = self._directory / schema.DATABASE
        try:
            present = database.stat().st_size > 0
        except FileNotFoundError:
            present = False
        except OSError as error:
            raise SpoolError(f"the spool's database {database} cannot be read: {error}") from error
        if not present:
            raise SpoolError(f"there is no spool in {self._directory}: the MSA has not run with it yet")
        self._bodies = Bodies(self._directory / schema.BODIES)
        self._connection = schema.connect(self._directory)

    def close(self) -> None:
        self._connection.close()

    def messages(self) -> Iterator[Summary]:
        """Every message, oldest first."""
        for row in self._connection.execute(f"{_SUMMARY} ORDER BY queue_id"):
            yield _summary(*row)

    def show(self, queue_id: str) -> Message | None:
        """One message, or ``None`` where there is none of this id."""
        self._connection.execute("BEGIN")  # one view for all three
        row = self._connection.execute(f"{_SUMMARY} AND queue_id = ?", (queue_id,)).fetchone()
        more = self._connection.execute(
            "SELECT realm, session_id, parameters, eight_bit, content IS NOT NULL"
            " FROM message WHERE queue_id = ?",
            (queue_id,),
        ).fetchone()
        recipients = self._connection.execute(
            "SELECT path, state, attempts, reply, hop FROM recipient WHERE queue_id = ? ORDER BY position",
            (queue_id,),
        ).fetchall()
        self._connection.execute("COMMIT")
        if row is None:
            return None
        realm, session_id, parameters, eight_bit, in_row = more
        return Message(
            summary=_summary(*row),
            realm=realm,
            session_id=session_id,
            parameters=operations.decode_parameters(parameters),
            eight_bit=bool(eight_bit),
            location=str(self._directory / schema.DATABASE if in_row else self._bodies.path(queue_id)),
            recipients=tuple(_recipient(*row) for row in recipients),
        )

    def retry(self, queue_ids: Sequence[str] | None = None) -> list[str]:
        """Have messages tried again now, their failed recipients too, with a new time until giving up.

        :param queue_ids: which; ``None`` is all of them.
        :return: the ids of those that will be tried.  One that is not here, has nothing left to try, or
            has lost its body file is not among them.
        """
        now = time.time()
        with self._transaction() as connection:
            operations.unmark_found(connection, self._bodies.exists, now)
            if queue_ids is None:
                queue_ids = [queue_id for (queue_id,) in connection.execute("SELECT queue_id FROM message")]
        tried = []
        for start in range(0, len(queue_ids), _AT_ONCE):
            if start:
                time.sleep(_PAUSE)
            with self._transaction() as connection:
                tried += operations.retry(connection, queue_ids[start : start + _AT_ONCE], now)
        return sorted(tried)

    def remove(self, queue_ids: Sequence[str]) -> list[str]:
        """Remove messages for good; nobody is told.  One that is being delivered goes after this attempt.

        :return: the ids that were here.
        """
        with self._transaction() as connection:
            rows = connection.execute(
                "UPDATE message SET removing = 1, next_attempt = NULL"
                " WHERE removing = 0 AND queue_id IN (SELECT value FROM json_each(?)) RETURNING queue_id",
                (json.dumps(list(queue_ids)),),
            )
            removed = sorted(queue_id for (queue_id,) in rows.fetchall())
        self._purge_unless_running()
        return removed

    def _purge_unless_running(self) -> None:
        lock = schema.lock(self._directory)
        if lock is None:
            return
        try:
            with self._transaction() as connection:
                (gone,) = operations.purge(connection, [frozenset()])
            for queue_id in gone:
                self._bodies.remove(queue_id)
        finally:
            os.close(lock)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection as connection:  # commits, or rolls back
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.Error as error:
            raise SpoolError(f"the spool in {self._directory} cannot be changed now: {error}") from error


def _summary(
    queue_id: str,
    received_at: float,
    size: int,
    reverse_path: str,
    account: str,
    states: str,
    next_attempt: float | None,
    missing: int,
) -> Summary:
    recipients = {State(state): count for state, count in json.loads(states).items()}
    return Summary(
        queue_id, received_at, size, f"<{reverse_path}>", account, recipients, next_attempt, bool(missing)
    )


def _recipient(path: str, state: str, attempts: int, reply: str | None, hop: str | None) -> Recipient:
    last = None if reply is None else operations.decode_reply(reply)
    return Recipient(MailPath.from_text(path), State(state), attempts, last, hop)
