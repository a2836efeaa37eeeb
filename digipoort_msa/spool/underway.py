"""Which messages are being delivered now: a line for each in a file beside the database.

The rows of the spool say only that a message is due, so that a crash leads to another try and never to a
loss.  That try may be a duplicate, where the hop had the whole message already.  This file is what names
those messages: whatever is still in it at a start was under way when the process ended.

A line is written without waiting for the disk, since nothing depends on it but what the log can tell.  It
outlives a killed process; after a power cut the file may be some seconds older than the spool.
"""

import os
from pathlib import Path

from twisted.python.failure import Failure

from digipoort_msa import log

_LENGTH = 17  # octets of a line: a queue id and LF
_FREE = b" " * (_LENGTH - 1) + b"\n"


class Underway:
    """The running process's side of the file.

    Where it cannot be written, deliveries go on without being named, and the log says so once.
    """

    def __init__(self, path: Path) -> None:
        """Begin with an empty file; what the one before held is read first, with :func:`left_underway`.

        :raise OSError: it cannot be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._failed = False

    def begin(self, queue_id: str) -> None:
        """A delivery of this message begins."""
        slot = self._free.pop() if self._free else len(self._slots)
        self._slots[queue_id] = slot
        self._write(slot, queue_id.encode("ascii", "replace").ljust(_LENGTH - 1)[: _LENGTH - 1] + b"\n")

    def end(self, queue_id: str) -> None:
        """Its outcome has been recorded."""
        slot = self._slots.pop(queue_id)
        self._free.append(slot)
        self._write(slot, _FREE)

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, slot: int, line: bytes) -> None:
        try:
            os.pwrite(self._descriptor, line, slot * _LENGTH)
        except OSError:
            if not self._failed:
                log.failure(log.DEFECT, Failure(), where="naming what is being delivered")
            self._failed = True
        else:
            self._failed = False


def left_underway(path: Path) -> tuple[str, ...]:
    """The queue ids in the file, in order; none where there is no file or nothing of ours in it."""
    try:
        with open(path, "rb") as file:
            lines = file.read(2**24).split(b"\n")
    except OSError:
        return ()
    names = (line.strip() for line in lines)
    return tuple(sorted({name.decode("ascii") for name in names if name.isalnum() and name.isascii()}))
