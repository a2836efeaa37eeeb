"""A copy of a spool, made while the MSA runs: a folder that is a spool itself.

The database is copied first, as it is at one moment, and then the body files, which never change once they
are there.  A message that ends in between takes its file with it; then its rows are dropped from the copy,
which so holds together.  The folder has its name only when everything in it is on stable storage.

A file is linked where the copy is on the same file system, and costs nothing there.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from errno import EMLINK, ENOTSUP, EPERM, EXDEV
from itertools import count
from pathlib import Path

from attrs import frozen

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool import operations, schema, sequences
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.schema import SpoolError, sync_directory
from digipoort_msa.spool.selection import is_queue_id

_PAGES = 500  # of the database, that are copied at once
_FLUSH = 8  # such pieces (16 MiB) that are put on stable storage together
_AT_ONCE = 1000  # messages
_SEGMENT = 1024 * 1024  # octets
_NO_LINKS = (EXDEV, EPERM, EMLINK, ENOTSUP)

#: Told how much of how much is done: pages of the database, and then messages with a file.
Progress = Callable[[int, int], None]


@frozen
class Backup:
    """What was made."""

    folder: Path
    messages: int
    files: int
    ended: int  # messages that ended while the copy was made, and are not in it
    missing: tuple[str, ...]  # queue ids whose body file is missing in the spool itself


def back_up(
    inspection: Inspection,
    folder: Path,
    *,
    watermark: int = 0,
    progress: Progress = lambda done, total: None,
) -> Backup:
    """Copy a spool.

    :param folder: is made, with mode 0700; the one that it is to be in has to be there.
    :param watermark: octets that stay free where the copy is on the spool's own file system.
    :raise SpoolError: it cannot be done; nothing is left behind.
    """
    folder = Path(os.path.abspath(folder))
    spool = inspection.directory.resolve()
    if folder.parent.resolve().is_relative_to(spool):
        raise SpoolError(f"{folder} is inside the spool: choose another place")
    if os.path.lexists(folder):
        raise SpoolError(f"{folder} is there already: a backup is a new folder")
    _check_room(inspection, folder.parent, watermark)
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise SpoolError(f"no folder can be made in {folder.parent}: {error.strerror}") from error
    try:
        backup = _filled(inspection, made, folder, progress)
        for directory in (made / schema.BODIES, made):
            sync_directory(directory)
        made.rename(folder)  # fails where there is a folder by now that is not empty
        sync_directory(folder.parent)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError | sqlite3.Error | UnicodeError):
            raise SpoolError(f"the backup cannot be made: {error}") from error
        raise
    return backup


def _check_room(inspection: Inspection, parent: Path, watermark: int) -> None:
    try:
        ours, theirs = os.stat(inspection.directory), os.stat(parent)
    except OSError as error:
        raise SpoolError(f"{parent} cannot be used: {error.strerror}") from error
    with inspection.reading():
        (pages,) = inspection.connection.execute("PRAGMA page_count").fetchone()
        (page,) = inspection.connection.execute("PRAGMA page_size").fetchone()
        (bodies,) = inspection.connection.execute(
            "SELECT coalesce(sum(size), 0) FROM message WHERE in_row = 0"
        ).fetchone()
    same = ours.st_dev == theirs.st_dev
    needed = pages * page + (watermark if same else bodies)
    disk = os.statvfs(parent)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise SpoolError(
            f"{parent} has {free} octets free, and the backup needs {needed}"
            + (" with those that the MSA leaves free (spool.watermark)" if same else "")
        )


def _filled(inspection: Inspection, made: Path, folder: Path, progress: Progress) -> Backup:
    (made / schema.BODIES).mkdir(mode=0o700)
    target = made / schema.DATABASE
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _flushing(target) as flush, closing(sqlite3.connect(target, isolation_level=None)) as copy:

        def copied(status: int, left: int, total: int) -> None:
            flush()
            progress(total - left, total)

        # One view all the while: otherwise every change by the MSA would have it begin anew.
        with inspection.reading(), inspection.one_view():
            inspection.connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            inspection.connection.backup(copy, pages=_PAGES, progress=copied)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file
        linked, ended, missing = 0, 0, []
        (total,) = copy.execute("SELECT count(*) FROM message WHERE in_row = 0").fetchone()
        for queue_ids in _with_files(copy):
            lost = [queue_id for queue_id in queue_ids if not _copied(inspection, queue_id, made)]
            still_here = set(lost) - set(inspection.unknown(tuple(lost)))
            gone = [queue_id for queue_id in lost if queue_id not in still_here]
            _forget(copy, gone)
            linked, ended = linked + len(queue_ids) - len(lost), ended + len(gone)
            missing += sorted(still_here)
            progress(linked + ended + len(missing), total)
        (messages,) = copy.execute("SELECT count(*) FROM message").fetchone()
    _sync(target)
    return Backup(folder, messages, linked, ended, tuple(missing))


def _with_files(copy: sqlite3.Connection) -> Iterator[list[str]]:
    last = ""
    while True:
        rows = copy.execute(
            "SELECT queue_id FROM message WHERE in_row = 0 AND queue_id > ?"
            " AND typeof(queue_id) = 'text' ORDER BY queue_id LIMIT ?",
            (last, _AT_ONCE),
        ).fetchall()
        if not rows:
            return
        yield [queue_id for (queue_id,) in rows]
        last = rows[-1][0]


def _copied(inspection: Inspection, queue_id: str, made: Path) -> bool:
    """Link or copy a body file; ``False`` where there is none."""
    if not is_queue_id(queue_id):
        return False
    source, target = inspection.bodies.path(queue_id), made / schema.BODIES / queue_id
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        if target.is_file() and not target.is_symlink():
            return True
        target.unlink()
        return False
    try:
        file = inspection.bodies.open(queue_id)
    except Damaged:
        return False
    with file, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as to:
        shutil.copyfileobj(file, to, _SEGMENT)
        to.flush()
        os.fsync(to.fileno())
    return True


def _forget(copy: sqlite3.Connection, queue_ids: list[str]) -> None:
    if queue_ids:
        copy.execute("BEGIN")
        in_sequence = sequences.of(copy, queue_ids)
        operations.delete(copy, queue_ids)
        sequences.promote(copy, in_sequence)
        copy.execute("COMMIT")


@contextmanager
def _flushing(path: Path) -> Iterator[Callable[[], None]]:
    """Gives what puts a file on stable storage as far as it is written, now and then.

    A gigabyte at once, at the end, would keep the disk from the MSA for as long as it takes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    calls = count(1)

    def flush() -> None:
        if next(calls) % _FLUSH == 0:
            os.fdatasync(descriptor)

    try:
        yield flush
    finally:  # not before SQLite is done with the file: its locks would go
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
