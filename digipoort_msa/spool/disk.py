"""Is there room on the spool's disk, and can it be written?  What does not fit or cannot be kept is refused.

- With less than the watermark free no message is begun (452 4.3.1), and with less than half of it none is
  kept: what is left is for recording what becomes of the old ones.  On a full disk nothing could be recorded,
  so that no message would ever go, and each restart would deliver some of them again.
- A write or an fsync that fails makes the spool count as unwritable: no message is begun until a probe, a
  small durable write to the database and one beside the body files, has come through.
"""

import errno
import os
import sqlite3
from pathlib import Path

from digipoort_msa import log
from digipoort_msa.smtp.reply import INSUFFICIENT_STORAGE, NOT_STORED, Refused, Reply
from digipoort_msa.spool.schema import BODIES, sync_directory

_PROBE = "probe.incoming"  # what a crash leaves of it goes at the next start
#: Errors of SQLite that say nothing of the disk: a defect of ours, or one argument's.
_OURS = (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.NotSupportedError)


def reply_to(error: BaseException | None) -> Reply | None:
    """What a client is told of a failure to store its message; ``None`` where it was not the disk's."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    elif isinstance(error, sqlite3.DatabaseError) and not isinstance(error, _OURS):
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    else:
        return None
    return INSUFFICIENT_STORAGE if full else NOT_STORED


class Disk:
    """What is known of the disk of one spool.  The methods that block say so, and any thread may call them;
    the others are the reactor's.

    :param directory: the spool's folder.
    :param watermark: octets.
    """

    def __init__(self, directory: Path, watermark: int) -> None:
        self._directory = directory
        self._watermark = watermark
        self._free = watermark
        self._low = False
        self._unwritable: Refused | None = None

    @property
    def writable(self) -> bool:
        return self._unwritable is None

    def measure(self) -> int:
        """Look how many octets are free; blocks."""
        disk = os.statvfs(self._directory)
        self._free = disk.f_bavail * disk.f_frsize
        return self._free

    def require(self, octets: int) -> None:
        """Is there room to keep so many octets more?  Blocks.

        :raise Refused: there is not.
        """
        free = self.measure()
        if free - octets < self._watermark // 2:
            raise Refused(INSUFFICIENT_STORAGE, f"{free} octets are free on the disk of {self._directory}")

    def probe(self) -> None:
        """Write a small file beside the bodies and have it on stable storage; blocks.

        :raise OSError: that cannot be done.
        """
        path = self._directory / BODIES / _PROBE
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            os.write(descriptor, b"x" * 4096)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink()
        sync_directory(path.parent)

    def check(self) -> None:
        """May a message be begun?  From what is known; does not look.

        :raise Refused: not now.
        """
        if self._unwritable is not None:
            raise Refused(self._unwritable.reply, self._unwritable.cause)
        if self._free < self._watermark:
            raise Refused(
                INSUFFICIENT_STORAGE,
                f"{self._free} octets are free on the disk of {self._directory}, fewer than spool.watermark",
            )

    def failed(self, error: BaseException | None) -> Refused | None:
        """Something could not be written; returns what to tell the client, ``None`` where it was not the
        disk's fault."""
        reply = reply_to(error)
        if reply is None:
            return None
        refused = Refused(reply, str(error))
        if self._unwritable is None:
            log.emit(log.SPOOL_UNWRITABLE, directory=str(self._directory), reason=str(error))
        self._unwritable = refused
        return refused

    def came_back(self) -> None:
        """A probe has come through."""
        self._unwritable = None
        log.emit(log.SPOOL_WRITABLE, directory=str(self._directory))

    def tell(self) -> None:
        """Say so where the watermark has been crossed."""
        low = self._free < self._watermark
        if low is not self._low:
            self._low = low
            event = log.DISK_LOW if low else log.DISK_ENOUGH
            log.emit(event, directory=str(self._directory), free=self._free, watermark=self._watermark)
