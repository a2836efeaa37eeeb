"""Is everything in a spool what it was (D2)?  It is only read, and nothing keeps the MSA waiting.

A *finding* is damage, unless it is a *note*: something that mends itself, such as a file that a crash has
left over.  On a running MSA messages come and go meanwhile: what looks damaged is looked at again, and what
has ended by then was not.
"""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool import schema
from digipoort_msa.spool.content import check
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.rows import Stored
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.sealing import sealed_size
from digipoort_msa.spool.selection import is_queue_id
from digipoort_msa.spool.views import ATTEMPT, MORE, NO_SENSE, RECIPIENT, SUMMARY, Message, message

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.
_PAGE = 100  # messages that are read at once, with all their recipients
_STRAYS = 500  # of a table, that are told of
_YOUNG = 60.0  # seconds: a file that young may be about to have its row, or have just lost it
_LONGEST = 200  # characters of what SQLite says


@frozen
class Finding:
    """Something that is not as it should be."""

    where: str  # a queue id, a file, or "database"
    text: str
    damage: bool = True


class Verification:
    """One look at a spool.

    :param quick: without reading the contents, and without SQLite's comparison of its indexes.
    :param progress: told after each message how many of how many are done.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        quick: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.checked = 0  # messages
        self.without_digest = 0  # of them: the spool's first version kept none
        self._inspection = inspection
        self._quick = quick
        self._progress = progress

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong; blocks for as long as it takes to read the spool."""
        yield from self._modes()
        yield from self._database()
        try:
            yield from self._messages()
            yield from self._strays()
        except (SpoolError, sqlite3.Error) as error:
            yield Finding("database", f"cannot be read to its end: {error}")
        yield from self._files()

    # -- the database -------------------------------------------------------------------------------------

    def _database(self) -> Iterator[Finding]:
        pragma = "quick_check" if self._quick else "integrity_check"
        try:
            for (line,) in self._inspection.connection.execute(f"PRAGMA {pragma}"):
                if line != "ok":
                    yield from (Finding("database", each[:_LONGEST]) for each in str(line).splitlines())
        except sqlite3.Error as error:
            yield Finding("database", str(error))

    def _messages(self) -> Iterator[Finding]:
        total, page = self._total(), self._page(-(2**63))
        while page:
            for _, queue_id, found in page:
                self.checked += 1
                fault = found if isinstance(found, str) else self._fault(found)
                if fault is not None:
                    yield Finding(queue_id, fault)
                if self._progress is not None:
                    self._progress(self.checked, max(total, self.checked))
            page = self._page(page[-1][0])

    def _page(self, last: int) -> list[tuple[int, str, Message | str]]:
        """The messages after a row: its number, the queue id, and the message or what is wrong with its rows.

        All of it is of one moment: what makes no sense is no message that has just ended.
        """
        connection = self._inspection.connection
        page: list[tuple[int, str, Message | str]] = []
        with self._inspection.reading(), self._inspection.one_view():
            rows, summaries, more = (
                connection.execute(
                    f"SELECT {columns} FROM message AS m WHERE rowid > ? ORDER BY rowid LIMIT ?",
                    (last, _PAGE),
                ).fetchall()
                for columns in ("rowid, typeof(queue_id), queue_id", SUMMARY, MORE)
            )
            wanted = json.dumps([str(queue_id) for _, _, queue_id in rows])
            recipients = self._of_messages("recipient", RECIPIENT, wanted)
            attempts = self._of_messages("attempt", ATTEMPT, wanted)
        for (rowid, kind, queue_id), one, rest in zip(rows, summaries, more, strict=True):
            found: Message | str
            try:
                found = message(one, rest, recipients.get(queue_id, ()), attempts.get(queue_id, ()), None)
            except NO_SENSE as error:
                found = f"its rows in the database make no sense: {error}"
            if kind == "text":
                page.append((rowid, queue_id, found))
            else:
                text = f"a message's queue id is {kind} where a text should be"
                page.append((rowid, "database", text))
        return page

    def _of_messages(self, table: str, columns: str, wanted: str) -> dict[str, list[Sequence[Any]]]:
        """The rows of some messages in another table, by the queue id."""
        found: dict[str, list[Sequence[Any]]] = {}
        for queue_id, *row in self._inspection.connection.execute(
            f"SELECT queue_id, {columns} FROM {table} WHERE queue_id IN (SELECT value FROM json_each(?))",
            (wanted,),
        ):
            found.setdefault(queue_id, []).append(row)
        return found

    def _fault(self, message: Message) -> str | None:
        try:
            fault = self._content(message)
        except (Damaged, SpoolError) as error:
            fault = str(error)
        except OSError as error:
            fault = f"its content cannot be read: {error.strerror}"
        if fault is not None and self._inspection.unknown((message.summary.queue_id,)):
            return None  # it has ended meanwhile
        return fault

    def _content(self, message: Message) -> str | None:
        queue_id, size = message.summary.queue_id, message.summary.size
        self.without_digest += message.digest is None
        if not self._quick:
            check(self._stored(message), self._inspection.bodies)
        if message.in_row:
            return None
        with self._inspection.bodies.open(queue_id) as file:
            status = os.fstat(file.fileno())
        due = size if message.sealed_by is None else sealed_size(size)
        if status.st_size != due:
            return f"its body file has {status.st_size} octets where {due} were kept"
        return None

    def _stored(self, message: Message) -> Stored:
        """The message with its octets, where they are in the database."""
        row = None
        if message.in_row:
            with self._inspection.reading():
                row = self._inspection.connection.execute(
                    "SELECT octets FROM content WHERE queue_id = ?", (message.summary.queue_id,)
                ).fetchone()
        return Stored(
            message.envelope,
            message.summary.size,
            message.eight_bit,
            None if row is None else row[0],
            message.since,
            digest=None if message.digest is None else bytes.fromhex(message.digest),
            sealed_by=message.sealed_by,
        )

    def _strays(self) -> Iterator[Finding]:
        """Rows that belong to no message."""
        for table in ("content", "recipient", "attempt"):
            with self._inspection.reading():
                rows = self._inspection.connection.execute(
                    f"SELECT DISTINCT CAST(queue_id AS TEXT) FROM {table} AS t"
                    " WHERE NOT EXISTS (SELECT 1 FROM message AS m WHERE m.queue_id = t.queue_id) LIMIT ?",
                    (_STRAYS,),
                ).fetchall()
            for (queue_id,) in rows:
                yield Finding(queue_id, f"it has rows in the table {table}, and no message")

    def _total(self) -> int:
        with self._inspection.reading():
            (count,) = self._inspection.connection.execute("SELECT count(*) FROM message").fetchone()
        return int(count)

    # -- the folder ---------------------------------------------------------------------------------------

    def _modes(self) -> Iterator[Finding]:
        directory = self._inspection.directory
        due = {directory: 0o700, directory / schema.BODIES: 0o700, directory / schema.DATABASE: 0o600}
        for path, mode in due.items():
            try:
                yield from _mode(path, os.lstat(path), mode)
            except OSError as error:
                yield Finding(str(path), f"cannot be looked at: {error.strerror}")

    def _files(self) -> Iterator[Finding]:
        folder = self._inspection.directory / schema.BODIES
        running = self._inspection.running
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with _vanishing():
                        yield from self._file(Path(entry.path), entry.stat(follow_symlinks=False), running)
        except OSError as error:
            yield Finding(str(folder), f"cannot be read: {error.strerror}")

    def _file(self, path: Path, status: os.stat_result, running: bool) -> Iterator[Finding]:
        if not stat.S_ISREG(status.st_mode):
            yield Finding(str(path), "this is not a file: nothing of ours")
            return
        yield from _mode(path, status, 0o600)
        young = running and time.time() - status.st_mtime < _YOUNG
        if young or self._is_known(path.name):
            return
        if path.name.endswith(".incoming"):
            if not running:
                yield Finding(str(path), "half received: removed at the next start", damage=False)
        elif is_queue_id(path.name):
            yield Finding(str(path), "of no message in the spool: removed at the next start", damage=False)
        else:
            yield Finding(str(path), "this file is not ours: removed at the next start", damage=False)

    def _is_known(self, queue_id: str) -> bool:
        try:
            row = self._inspection.connection.execute(
                "SELECT 1 FROM message WHERE queue_id = ? AND in_row = 0",
                (os.fsencode(queue_id).decode("utf-8", "replace"),),
            ).fetchone()
        except sqlite3.Error:
            return True  # the database has been told of
        return row is not None


@contextmanager
def _vanishing() -> Iterator[None]:
    """What goes while it is looked at is not damage."""
    try:
        yield
    except FileNotFoundError:
        return


def _mode(path: Path, status: os.stat_result, due: int) -> Iterator[Finding]:
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~due:
        yield Finding(str(path), f"its mode is {mode:04o} where it should be {due:04o}: others can get at it")
    if status.st_uid != os.geteuid():
        yield Finding(str(path), f"it belongs to the user id {status.st_uid}, not to the MSA's")
