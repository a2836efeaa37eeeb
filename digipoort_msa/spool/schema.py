"""The spool's folder and its SQLite database: how they look, and how they are opened.

::

    <state-directory>/spool/          0700
        lock                          held by the process that works the queue
        underway                      0600, what it is delivering now
        importing                     held by the process that imports messages
        spool.sqlite3 (-wal, -shm)    0600
        bodies/                       0700
            <queue id>                0600, content too large for a row
            <queue id>.incoming       content on its way in; removed at the next start

A message's row and its recipients' rows are joined by the queue id.  ``next_attempt`` is set exactly while
some recipient is ``queued`` or ``deferred`` and nothing stands in the way of trying it (an operator's wish,
an earlier message of its sequence); the index on realm and it is the queue of a realm, and counts a realm's
messages without reading them.  Times are seconds since the epoch.
"""

import fcntl
import os
import sqlite3
import time
from pathlib import Path

MINIMUM_SQLITE = (3, 38)  # the operator ->> ; UPDATE ... FROM is older

DATABASE = "spool.sqlite3"
BODIES = "bodies"
LOCK = "lock"
UNDERWAY = "underway"
IMPORTING = "importing"

BUSY_TIMEOUT = 5.0  # seconds to wait for another process's short transaction

#: Each entry leads from the version that is its index to the next: a new spool goes through all of them, an
#: old one through the rest.  An entry that has been released is never changed.
_MIGRATIONS = (
    """
CREATE TABLE message (
    queue_id     TEXT PRIMARY KEY,
    realm        TEXT NOT NULL,
    account      TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    reverse_path TEXT NOT NULL,
    parameters   TEXT NOT NULL,               -- JSON: [size, body_8bitmime, smtputf8, auth, ret, envid]
    received_at  REAL NOT NULL,
    since        REAL NOT NULL,               -- where the time until giving up starts
    next_attempt REAL,
    size         INTEGER NOT NULL,
    eight_bit    INTEGER NOT NULL,
    removing     INTEGER NOT NULL DEFAULT 0,
    missing      INTEGER NOT NULL DEFAULT 0,
    content      BLOB                         -- NULL: in bodies/<queue id>
);
CREATE INDEX message_due ON message (next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX message_removing ON message (queue_id) WHERE removing = 1;
CREATE TABLE recipient (
    queue_id TEXT NOT NULL,
    path     TEXT NOT NULL,
    position INTEGER NOT NULL,                -- the order of the RCPT commands
    state    TEXT NOT NULL DEFAULT 'queued',  -- states.STORED
    attempts INTEGER NOT NULL DEFAULT 0,
    reply    TEXT,                            -- JSON: [code, enhanced, [line, ...]], the last one
    hop      TEXT,
    PRIMARY KEY (queue_id, path)
) WITHOUT ROWID;
""",
    """
ALTER TABLE message RENAME TO message_1;
DROP INDEX message_due;
DROP INDEX message_removing;
CREATE TABLE message (
    queue_id     TEXT PRIMARY KEY,
    realm        TEXT NOT NULL,
    account      TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    reverse_path TEXT NOT NULL,
    parameters   TEXT NOT NULL,  -- JSON: [size, body_8bitmime, smtputf8, auth, ret, envid]
    received_at  REAL NOT NULL,
    since        REAL NOT NULL,  -- where the time until giving up starts
    next_attempt REAL,
    sequence     TEXT,           -- messages of one sequence go one after the other
    next_hop     TEXT,           -- an operator's choice
    wish         TEXT,           -- an operator's: 'remove' or 'return', done when it is not active
    size         INTEGER NOT NULL,
    eight_bit    INTEGER NOT NULL,
    digest       BLOB,           -- SHA-256 of the content as it is stored; NULL: version 1's
    sealed_by    TEXT,           -- the name of the key that encrypts the content; NULL: none
    in_row       INTEGER NOT NULL  -- 1: its content is in the table below; 0: in bodies/<queue id>
);
-- Apart from its message, which is written anew with each attempt and read for each list.  Not WITHOUT ROWID:
-- rows of some KiB cost more than twice as much in an index.
CREATE TABLE content (
    queue_id TEXT PRIMARY KEY,
    octets   BLOB NOT NULL
);
INSERT INTO content (queue_id, octets) SELECT queue_id, content FROM message_1 WHERE content IS NOT NULL;
INSERT INTO message SELECT queue_id, realm, account, session_id, reverse_path, parameters, received_at, since,
    CASE WHEN missing = 0 THEN next_attempt END, NULL, NULL, CASE WHEN removing = 1 THEN 'remove' END, size,
    eight_bit, NULL, NULL, content IS NOT NULL FROM message_1;
-- JSON: [[notify, ...] or null, orcpt]; NULL: none
ALTER TABLE recipient ADD COLUMN parameters TEXT;
ALTER TABLE recipient ADD COLUMN told_of_delay INTEGER NOT NULL DEFAULT 0;
-- why it is held
ALTER TABLE recipient ADD COLUMN reason TEXT;
UPDATE recipient SET state = 'held', reason = 'it failed before there were notifications'
    WHERE state = 'failed';
UPDATE recipient SET state = 'held', reason = 'its body file was missing'
    WHERE state IN ('queued', 'deferred') AND queue_id IN (SELECT queue_id FROM message_1 WHERE missing = 1);
DROP TABLE message_1;
CREATE INDEX message_due ON message (realm, next_attempt);
CREATE INDEX message_wish ON message (sequence, queue_id) WHERE wish IS NOT NULL;
CREATE INDEX message_sequence ON message (sequence, queue_id) WHERE sequence IS NOT NULL;
CREATE INDEX message_head ON message (sequence) WHERE sequence IS NOT NULL AND next_attempt IS NOT NULL;
CREATE TABLE attempt (                         -- what the hops have said, newest last; for the operator
    number     INTEGER PRIMARY KEY,
    queue_id   TEXT NOT NULL,
    at         REAL NOT NULL,
    hop        TEXT NOT NULL,
    reply      TEXT NOT NULL,                  -- JSON as in recipient
    recipients TEXT NOT NULL                   -- JSON: the first few paths it concerned
);
CREATE INDEX attempt_message ON attempt (queue_id);
""",
)
VERSION = len(_MIGRATIONS)


class SpoolError(Exception):
    """The spool cannot be used; the text says what, where and how to mend it."""


def prepare(directory: Path) -> None:
    """Make the folder and the database file where they are missing, closed to everyone else.

    :raise SpoolError: it cannot be made or is not ours.
    """
    try:
        missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        for folder in (directory, directory / BODIES):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        database = os.open(directory / DATABASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(database, 0o600)
        os.close(database)
        for folder in dict.fromkeys((directory, directory.parent, *(folder.parent for folder in missing))):
            sync_directory(folder)
    except OSError as error:
        raise SpoolError(
            f"the spool in {directory} cannot be made: {error}; the MSA's user must own this folder"
        ) from error


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on stable storage."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(directory: Path, wait: float = 0.0) -> int | None:
    """Take the lock of the one process that works this spool.

    :param wait: seconds to try for; it blocks that long at most.
    :return: the open file that is the lock (close it to let go), or ``None`` where another has it.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def connect(directory: Path) -> sqlite3.Connection:
    """Open the database of a prepared spool, with its tables.

    Transactions are written out by the caller; the connection may pass from thread to thread, one at a time.

    :raise SpoolError: it is not a spool, or one of a later release.
    """
    database = directory / DATABASE
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise SpoolError(f"SQLite {sqlite3.sqlite_version} is too old for the spool: 3.38 or later is needed")
    connection: sqlite3.Connection | None = None
    version = VERSION
    try:
        connection = sqlite3.connect(
            database, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT
        )
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":  # the deletion of a rollback journal is not durable with FULL
            raise sqlite3.OperationalError("its file system does not bear write-ahead logging")
        connection.execute("PRAGMA synchronous = FULL")  # every commit is on stable storage
        connection.execute("PRAGMA wal_autocheckpoint = 2000")  # pages: 8 MiB
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for migration in _MIGRATIONS[version:]:
            for statement in migration.split(";\n"):
                connection.execute(statement)
        if version < VERSION:
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        hint = ""
        if version < VERSION and _is_full(error):
            hint = "; to bring an earlier release's up to date takes three times its size more"
        raise SpoolError(f"the spool's database {database} cannot be opened: {error}{hint}") from error
    if version > VERSION:
        connection.close()
        raise SpoolError(
            f"the spool's database {database} has schema version {version}, this release knows {VERSION}: "
            "it was used by a later release; install that one, or give this one an empty state directory"
        )
    return connection
