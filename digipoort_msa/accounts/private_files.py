"""Files that only the service's user may read: keys, and the embedded database."""

import os
from pathlib import Path


def create_private(path: Path, octets: bytes = b"") -> None:
    """Make a file that only the service's user can read; leave one that exists as it is.

    An operator may run a command as root before the service ever started: what is made then belongs to
    the owner of the directory, who is the one to use it.  The content is complete before the name is there.
    """
    if path.exists():
        return
    draft = _draft(path, octets, path.parent.stat())
    try:
        os.link(draft, path)
    except FileExistsError:
        return  # someone else was first
    finally:
        os.unlink(draft)


def replace_private(path: Path, octets: bytes) -> None:
    """Put another content in the place of a file's: who reads it finds the one or the other, whatever
    happens.

    It keeps its owner, and is on the disk when this returns.
    """
    draft = _draft(path, octets, path.stat())
    try:
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _draft(path: Path, octets: bytes, owner: os.stat_result) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    except OSError:
        os.unlink(draft)
        raise
    return draft
