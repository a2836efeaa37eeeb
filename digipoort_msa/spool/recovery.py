"""A start: the spool's rows and files are brought into agreement again, whatever a crash has left."""

import sqlite3
import time
from pathlib import Path

from attrs import frozen

from digipoort_msa.spool import upkeep
from digipoort_msa.spool.bodies import Bodies
from digipoort_msa.spool.schema import DATABASE, UNDERWAY, SpoolError
from digipoort_msa.spool.underway import left_underway


@frozen
class Recovery:
    """What a start found."""

    messages: int  # in the spool
    half_received: int  # files of messages that were never acknowledged, removed
    orphans: int  # body files of messages that had been delivered, removed
    missing: tuple[str, ...]  # queue ids whose body file is not there: held
    underway: tuple[str, ...]  # queue ids that were being delivered: due again, or removed now
    removed: tuple[str, ...]  # queue ids that an operator wanted removed


def recover(connection: sqlite3.Connection, bodies: Bodies, directory: Path) -> Recovery:
    """Bring rows and files into agreement again, and drop what was to be removed.

    Nothing needs doing for a message that was being delivered: that it was is known to the process alone,
    so its row says that it is due.

    :raise SpoolError: the database is damaged.
    :raise sqlite3.Error: (or OSError) it cannot be done now; the connection is closed then.
    """
    try:
        damage = upkeep.damage(connection)
        if damage is not None:
            raise SpoolError(
                f"the spool's database {directory / DATABASE} is damaged: {damage}; keep a copy of the "
                "folder, and put what `digipoort-msa queue backup` has made last in its place"
            )
        return _recover(connection, bodies, directory)
    except BaseException:
        connection.close()
        raise


def _recover(connection: sqlite3.Connection, bodies: Bodies, directory: Path) -> Recovery:
    half_received = bodies.sweep()
    connection.execute("BEGIN IMMEDIATE")
    underway = upkeep.unfinished(connection, left_underway(directory / UNDERWAY))
    removed: list[str] = []
    while piece := upkeep.purge(connection, [frozenset()])[0]:
        removed += piece
    missing = upkeep.hold_missing(connection, bodies.exists)
    upkeep.mend(connection, time.time())
    connection.execute("COMMIT")
    orphans = 0
    for queue_id in bodies.names():
        if not upkeep.has_file(connection, queue_id):
            bodies.remove(queue_id)
            orphans += 1
    (messages,) = connection.execute("SELECT count(*) FROM message").fetchone()
    return Recovery(messages, half_received, orphans, tuple(missing), tuple(underway), tuple(removed))
