"""How an operator's tool opens a spool: as its owner, and never with a migration under a running MSA."""

import os
import pwd
import sqlite3
from contextlib import closing
from pathlib import Path

from digipoort_msa.spool import schema
from digipoort_msa.spool.schema import SpoolError


def open_spool(directory: Path) -> sqlite3.Connection:
    """The database of the spool in a folder.

    :raise SpoolError: there is none, or it cannot be read, or it is another user's.
    """
    _check_owner(directory)
    database = directory / schema.DATABASE
    try:
        present = database.stat().st_size > 0
    except FileNotFoundError:
        present = False
    except OSError as error:
        raise SpoolError(f"the spool's database {database} cannot be read: {error.strerror}") from error
    if not present:
        raise SpoolError(f"there is no spool in {directory}: the MSA has not run with it yet")
    connection = _connected(directory)
    connection.text_factory = _text
    return connection


def _check_owner(directory: Path) -> None:
    """Files that another user made here would lock the MSA out of its own spool."""
    owner = _owner(directory)
    if owner is None or owner == os.geteuid():
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    raise SpoolError(
        f"the spool in {directory} belongs to the user {name}: run this as that user, "
        f"sudo -u '{name}' digipoort-msa ..."
    )


def _owner(directory: Path) -> int | None:
    """The user id of a folder, or of the one above it that keeps us out; ``None`` where there is none."""
    for folder in (directory, *directory.parents):
        try:
            return folder.stat().st_uid
        except PermissionError:
            continue
        except OSError:
            return None
    return None


def _connected(directory: Path) -> sqlite3.Connection:
    """As :func:`schema.connect`, but never with a migration under the feet of an MSA that runs."""
    database = directory / schema.DATABASE
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise SpoolError(f"the spool's database {database} cannot be opened: {error}") from error
    if version >= schema.VERSION:
        return schema.connect(directory)
    lock = schema.lock(directory)
    if lock is None:
        raise SpoolError(f"the spool in {directory} is worked by an earlier release: restart the MSA first")
    try:
        return schema.connect(directory)
    finally:
        os.close(lock)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")  # what is no UTF-8 must not end a whole page
