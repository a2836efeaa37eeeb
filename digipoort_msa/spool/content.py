"""Stored content, to be read by a delivery: from memory, or from a body file without blocking the reactor."""

from pathlib import Path
from typing import BinaryIO

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from digipoort_msa.interfaces import IContent, IContentReader
from digipoort_msa.spool.bodies import InThread

SEGMENT = 256 * 1024  # octets of one read


@implementer(IContent)
class SmallContent:
    """Content that is in memory: it came with its row, or has just been received."""

    def __init__(self, octets: bytes, eight_bit: bool) -> None:
        self._octets = octets
        self.size = len(octets)
        self.eight_bit = eight_bit

    def open(self) -> "SmallReader":
        return SmallReader(self._octets)


@implementer(IContentReader)
class SmallReader:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0

    def read(self) -> "Deferred[bytes]":
        segment = self._octets[self._position : self._position + SEGMENT]
        self._position += len(segment)
        return succeed(segment)

    def close(self) -> None:
        self._octets = b""


@implementer(IContent)
class FileContent:
    """Content in a body file."""

    def __init__(self, path: Path, size: int, eight_bit: bool, in_thread: InThread) -> None:
        self._path = path
        self._in_thread = in_thread
        self.size = size
        self.eight_bit = eight_bit

    def open(self) -> "FileReader":
        return FileReader(self._path, self._in_thread)


@implementer(IContentReader)
class FileReader:
    """One reading of a body file, opened at the first ``read``; one ``read`` at a time."""

    def __init__(self, path: Path, in_thread: InThread) -> None:
        self._path = path
        self._in_thread = in_thread
        self._file: BinaryIO | None = None
        self._reading = False
        self._closed = False

    def read(self) -> "Deferred[bytes]":
        if self._closed or self._reading:
            return fail(ValueError("a closed or busy reader cannot be read"))
        self._reading = True
        segment: Deferred[bytes] = Deferred()  # of its own: who cancels it must not make the thread seem done
        self._in_thread(self._segment).addBoth(self._done).chainDeferred(segment)
        return segment

    def close(self) -> None:
        self._closed = True
        if not self._reading and self._file is not None:
            file, self._file = self._file, None
            file.close()  # nothing was written: this does not wait for the disk

    def _segment(self) -> bytes:
        if self._file is None:
            self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115 -- close() does
        return self._file.read(SEGMENT)

    def _done(self, segment: bytes) -> bytes:
        self._reading = False
        if self._closed:
            self.close()
        return segment
