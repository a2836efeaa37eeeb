"""The operator's view of a spool, from another process, while the MSA runs or when it does not.

Everything is read in pages, each of them a short transaction: the list of a great backlog neither grows in
memory nor keeps SQLite from emptying its write-ahead log.  A row that makes no sense is told of as such and
stops nothing.  What changes a spool is in ``orders`` and ``archive``; what counts, checks and copies it in
``statistics``, ``integrity`` and ``backup``.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool import schema
from digipoort_msa.spool.bodies import Bodies
from digipoort_msa.spool.content import begin_reading
from digipoort_msa.spool.opening import open_spool
from digipoort_msa.spool.rows import Stored, columns, stored
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.selection import EVERY, Selection, is_queue_id
from digipoort_msa.spool.states import UNFINISHED, WAITING, State, rows_in
from digipoort_msa.spool.views import (
    ATTEMPT,
    MORE,
    NO_SENSE,
    RECIPIENT,
    SUMMARY,
    Message,
    Summary,
    Unreadable,
    message,
    summary,
)

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.
_PAGE = 500  # messages that are read at once


class Inspection:
    """A spool seen from outside.  Every method blocks, for a page at most.

    :param directory: the spool's folder.
    :raise SpoolError: there is no spool in it, or it cannot be read, or it is another user's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.bodies = Bodies(self.directory / schema.BODIES)
        self.connection = open_spool(self.directory)

    def close(self) -> None:
        self.connection.close()

    @property
    def running(self) -> bool:
        """Does a process work this spool?"""
        lock = schema.lock(self.directory)
        if lock is None:
            return True
        os.close(lock)
        return False

    def queue_ids(self, selection: Selection = EVERY) -> list[str]:
        """The ids of the messages that fit, oldest first."""
        condition, values = selection.condition()
        sql = f"SELECT m.queue_id FROM message AS m WHERE {condition} ORDER BY m.queue_id"
        with self.reading():
            return [queue_id for (queue_id,) in self.connection.execute(sql, values)]

    def summaries(
        self, selection: Selection = EVERY, limit: int | None = None
    ) -> Iterator[Summary | Unreadable]:
        """The messages that fit, oldest first.  Between two pages no transaction is open."""
        condition, values = selection.condition()
        sql = (
            f"SELECT {SUMMARY} FROM message AS m WHERE {condition} AND m.queue_id > CAST(:last AS TEXT)"
            " ORDER BY m.queue_id LIMIT :page"
        )
        last, left = b"", limit
        while left is None or left > 0:
            page = _PAGE if left is None else min(left, _PAGE)
            with self.reading():
                rows = self.connection.execute(sql, {**values, "last": last, "page": page}).fetchall()
            yield from map(summary, rows)
            if len(rows) < page:
                return
            last = rows[-1][0].encode("utf-8", "surrogateescape")
            left = None if left is None else left - page

    def unknown(self, queue_ids: tuple[str, ...]) -> list[str]:
        """Those of some ids that are not here."""
        known = set(self.queue_ids(Selection(queue_ids=queue_ids)))
        return [queue_id for queue_id in dict.fromkeys(queue_ids) if queue_id not in known]

    def show(self, queue_id: str) -> Message | Unreadable | None:
        """One message, or ``None`` where there is none of this id."""
        one = {"queue_id": json.dumps([queue_id])}
        where = "queue_id IN (SELECT value FROM json_each(:queue_id))"
        with self.reading(), self.one_view():
            row = self.connection.execute(
                f"SELECT {SUMMARY} FROM message AS m WHERE m.{where}", one
            ).fetchone()
            more = self.connection.execute(f"SELECT {MORE} FROM message AS m WHERE m.{where}", one).fetchone()
            recipients = self.connection.execute(
                f"SELECT {RECIPIENT} FROM recipient WHERE {where} ORDER BY position",
                one,
            ).fetchall()
            attempts = self.connection.execute(
                f"SELECT {ATTEMPT} FROM attempt WHERE {where} ORDER BY number", one
            ).fetchall()
            waits_for = self.connection.execute(
                "SELECT min(o.queue_id) FROM message AS m JOIN message AS o ON o.sequence = m.sequence"
                f" WHERE m.{where} AND o.queue_id < m.queue_id AND EXISTS (SELECT 1 FROM recipient AS r"
                f" WHERE r.queue_id = o.queue_id AND {rows_in(WAITING)})",
                one,
            ).fetchone()
        if row is None:
            return None
        try:
            return message(row, more, recipients, attempts, waits_for[0])
        except NO_SENSE as error:
            return Unreadable(queue_id, str(error))

    def location(self, message: Message) -> Path:
        """The file that holds a message's content."""
        queue_id = message.summary.queue_id
        return self.directory / schema.DATABASE if message.in_row else self.bodies.path(queue_id)

    def stored(self, queue_id: str, states: tuple[State, ...] = UNFINISHED) -> Stored | None:
        """A message with its recipients in some states, and with its octets where they are in the row.

        :return: ``None`` where there is none, or none of its recipients is in such a state.
        :raise Damaged: its rows make no sense.
        """
        with self.reading():
            row = self.connection.execute(
                f"SELECT {columns(states)} FROM message AS m"
                " WHERE queue_id IN (SELECT value FROM json_each(?))",
                (json.dumps([queue_id]),),
            ).fetchone()
        try:
            if row is None or not json.loads(row[-2]):
                return None
            if not is_queue_id(queue_id):
                raise ValueError("this is not a queue id")
            return stored(*row)
        except NO_SENSE as error:
            raise Damaged(f"its rows in the database make no sense: {error}") from error

    def content(self, stored: Stored, sealing: Sealing | None) -> Iterator[bytes]:
        """A message's content, as it was received, by the segment.

        :raise Damaged: it is not what was received, or encrypted with a key that we do not have; the last
            segment is not given out then.
        :raise OSError: it cannot be read now.
        """
        with closing(begin_reading(stored, self.bodies, sealing)) as reading:
            while segment := reading.segment():
                yield segment

    # -- for this room's other modules --------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What SQLite cannot do becomes a :class:`SpoolError`."""
        try:
            yield
        except sqlite3.Error as error:
            raise SpoolError(f"the spool in {self.directory} cannot be read: {error}") from error

    @contextmanager
    def one_view(self) -> Iterator[None]:
        """All that is read in here is of one moment."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("ROLLBACK")  # nothing was written

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One short transaction, which is on stable storage at its end.

        :raise SpoolError: the spool cannot be changed now.
        """
        try:
            with self.connection as connection:  # commits, or rolls back
                connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.Error as error:
            raise SpoolError(f"the spool in {self.directory} cannot be changed now: {error}") from error

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """``True`` where no process works the spool; none can start meanwhile."""
        lock = schema.lock(self.directory)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)
