"""A file that somebody else writes, and of which the newest whole version counts.

Whoever looks never waits for a writer, and never sees half of what is being written:

- ``htpasswd`` writes its file in place, and so do editors and copies over a network.  Half a file of lines is
  a file of lines too, with fewer accounts.  So a version is taken up once it has been left alone for a
  moment: its time of change is that long ago, or it was seen that long ago and is still the same (for clocks
  that differ).
- A version that is missing, cannot be read or makes no sense leaves the one before in force.  It is told
  once, not at every look.

Blocking, and for one thread at a time.
"""

import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import monotonic, time
from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")

#: Octets: some fifty thousand accounts, which take some five seconds to read.  More belong in a database.
LIMIT = 4 * 1024 * 1024
#: Seconds that a version has to have been left alone.
SETTLING = 2.0


@frozen
class _Version:
    """What tells one state of a file from the next.  Its permissions are part of that (by ``ctime``): a file
    that could not be read is looked at again when they change."""

    changed: int  # nanoseconds
    status_changed: int
    size: int
    inode: int
    device: int
    missing: str = ""  # why there is no file

    @classmethod
    def of(cls, found: os.stat_result) -> "_Version":
        return cls(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)


class WatchedFile(Generic[T]):
    """One file, and what its version in force says."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], T],
        *,
        now: Callable[[], float] = time,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Reads the file as it is.

        :param parse: what the octets say; raises :class:`ValueError` with what is wrong where.
        :param now: the time of day, as files have it.
        :param clock: seconds that only go forward.
        :raise OSError, ValueError: it cannot be read, or makes no sense.
        """
        self.path = path
        self._parse = parse
        self._now = now
        self._clock = clock
        version, octets, whole = self._read()
        self.value: T = self._parsed(octets)
        self._digest = sha256(octets).digest()
        # One that may still be written to is read again; that is no change if it was whole.
        self._looked_at = version if whole and self._is_old(version) else None
        self._told = False
        self._candidate: tuple[_Version, float] | None = None

    def refresh(self) -> bool:
        """Take up the file's newest version, where it is complete.

        :return: whether it is another than before, or one after a version that was told to be unusable.
        :raise OSError, ValueError: it cannot be used, and the old one stays in force; once for each version.
        """
        version = self._version()
        if version == self._looked_at or not self._has_settled(version):
            return False
        if version.missing:
            self._looked_at, self._told = version, True
            raise FileNotFoundError(version.missing)
        try:
            found, octets, whole = self._read()
            if found != version or not whole:
                return False  # it has been written to meanwhile: the next look sees that
            digest = sha256(octets).digest()
            changed = digest != self._digest or self._told
            if changed:
                self.value, self._digest = self._parsed(octets), digest
        except (OSError, ValueError):
            self._looked_at, self._told = version, True
            raise
        self._looked_at, self._told = version, False
        return changed

    def _version(self) -> _Version:
        try:
            return _Version.of(os.stat(self.path))
        except OSError as error:
            return _Version(0, 0, 0, 0, 0, missing=str(error))

    def _has_settled(self, version: _Version) -> bool:
        if self._is_old(version):
            return True
        if self._candidate is None or self._candidate[0] != version:
            self._candidate = version, self._clock()
        return self._clock() - self._candidate[1] >= SETTLING

    def _is_old(self, version: _Version) -> bool:
        return not version.missing and self._now() - version.changed / 1e9 >= SETTLING

    def _read(self) -> tuple[_Version, bytes, bool]:
        """
        :return: the version as it was before it was read, its octets, and whether it stayed as it was.
        """
        # What is no file is not waited for: opening a FIFO would.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise ValueError(f"{self.path} should be a file")
            octets = file.read(LIMIT + 1)
            if len(octets) > LIMIT:
                raise ValueError(f"{self.path} should have {LIMIT} octets at the most")
            after = os.fstat(descriptor)
        return _Version.of(before), octets, _Version.of(before) == _Version.of(after)

    def _parsed(self, octets: bytes) -> T:
        try:
            return self._parse(octets)
        except ValueError as error:
            raise ValueError(f"{self.path}, {error}") from error
