"""Content too large for a row: a file for each message, beside the database.

The file gets its final name only when all of it is on stable storage, and the directory too, *before* the
row that points to it is committed.  So a row has its file, whatever happens, and a file without a row is
rubbish of a crash, swept out at the next start.

Its SHA-256 is computed while it is written, of what is written: where content is encrypted (``sealing``) that
is done on the way, and nothing of it is ever on the disk in clear.

A file of which any step has failed is never kept, whatever a later step says: after an fsync that failed, the
kernel may have dropped what it could not write, and the next fsync says nothing of it.

All file work is done by a small thread pool, in order for each file.  What is in memory is bounded:
``write`` asks the caller to wait while more than ``IN_FLIGHT`` octets are on their way to the disk.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, DeferredLock

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool.schema import sync_directory
from digipoort_msa.spool.sealing import Sealer

IN_FLIGHT = 256 * 1024  # octets
_CHUNK = 128 * 1024  # octets worth a trip to another thread
_INCOMING = ".incoming"
#: Nothing, no folder where one should be, a link, a socket, no name that a file can have.
_NOT_THERE = (ENOENT, ENOTDIR, ELOOP, ENXIO, ENAMETOOLONG)

InThread = Callable[..., "Deferred[Any]"]  # (function, *arguments): run it in the I/O pool


class Bodies:
    """The folder of body files.  The methods without an underscore that take no Deferred block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, queue_id: str) -> Path:
        return self.directory / queue_id

    def exists(self, queue_id: str) -> bool:
        return self.path(queue_id).is_file()

    def open(self, queue_id: str) -> BinaryIO:
        """Open a file for reading; a link is not followed, and whatever is in its place is not waited for.

        :raise Damaged: there is no file of this name.
        :raise OSError: it cannot be opened now.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path(queue_id), flags)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if isinstance(error, OSError) and error.errno not in _NOT_THERE:
                raise
            raise Damaged("its body file is missing") from error
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return open(descriptor, "rb")
        os.close(descriptor)
        raise Damaged("its body file is not a file")

    def remove(self, queue_id: str) -> None:
        self.path(queue_id).unlink(missing_ok=True)

    def remove_incoming(self, queue_id: str) -> None:
        """Remove what is half received; the caller knows that nobody receives it any more."""
        self.path(queue_id + _INCOMING).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """The queue ids of the complete files; a folder (``lost+found``, say) is none of ours."""
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if not (entry.name.endswith(_INCOMING) or entry.is_dir(follow_symlinks=False)):
                    yield entry.name

    def sweep(self) -> int:
        """Remove what was half received when the process ended; returns how many files."""
        with os.scandir(self.directory) as entries:
            half_received = [entry.path for entry in entries if entry.name.endswith(_INCOMING)]
        for path in half_received:
            os.unlink(path)
        return len(half_received)


class BodyFile:
    """A body file being made; every method blocks, and is called by one thread at a time.

    After a method has failed, or ``keep`` was called, only ``discard`` may follow.

    :param sealer: encrypts the content; ``None``: it is kept in clear.
    """

    def __init__(self, bodies: Bodies, queue_id: str, sealer: Sealer | None = None) -> None:
        self._final = bodies.path(queue_id)
        self._incoming = self._final.with_name(queue_id + _INCOMING)
        self._sealer = sealer
        self._digest = hashlib.sha256()
        self._descriptor: int | None = None
        self._made: list[Path] = []  # every name it may have
        self._good = True

    def write(self, octets: bytes | bytearray) -> None:
        with self._step():
            if self._descriptor is None:
                self._create()
            self._append(octets if self._sealer is None else self._sealer.seal(octets))

    def keep(self) -> bytes:
        """Make it durable under its final name; returns the SHA-256 of what is in it."""
        with self._step():
            if self._descriptor is None:
                raise ValueError("nothing was written that could be kept")
            if self._sealer is not None:
                self._append(self._sealer.end())
            os.fsync(self._descriptor)
            self._close()
            self._made.append(self._final)
            self._incoming.rename(self._final)
            sync_directory(self._final.parent)
        self._good = False
        return self._digest.digest()

    def discard(self) -> None:
        """Remove it, however far it has come; what cannot be removed now is at the next start."""
        self._good = False
        with ExitStack() as undoing:  # every step, whichever of them fails
            for path in self._made:
                undoing.callback(path.unlink, missing_ok=True)
            undoing.callback(self._close)

    @contextmanager
    def _step(self) -> Iterator[None]:
        if not self._good:
            raise ValueError("this file has failed, or is complete")
        self._good = False
        yield
        self._good = True

    def _create(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._incoming, flags, 0o600)
        self._made.append(self._incoming)
        os.fchmod(self._descriptor, 0o600)  # whatever the umask is

    def _append(self, octets: bytes | bytearray) -> None:
        assert self._descriptor is not None  # noqa: S101 -- write() opened it
        self._digest.update(octets)
        view = memoryview(octets)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class IncomingBody:
    """The reactor's side of a :class:`BodyFile`: writes behind, a bounded distance."""

    def __init__(self, file: BodyFile, in_thread: InThread) -> None:
        self._file = file
        self._in_thread = in_thread
        self._turn = DeferredLock()
        self._pending = bytearray()
        self._in_flight = 0
        self._waiting: list[Deferred[None]] = []
        self._error: Exception | None = None

    def write(self, octets: bytes) -> "Deferred[None] | None":
        """Append; returns a Deferred to wait for when more than ``IN_FLIGHT`` octets are under way.

        After a failure the octets are dropped: ``keep`` tells.
        """
        if self._error is not None:
            return None
        self._pending += octets
        self._in_flight += len(octets)
        if len(self._pending) >= _CHUNK and not self._turn.locked:
            self._turn.run(self._flush)
        if self._in_flight <= IN_FLIGHT:
            return None
        room: Deferred[None] = Deferred()
        self._waiting.append(room)
        return room

    def keep(self) -> "Deferred[bytes]":
        """Fires with its SHA-256 when all of it is on stable storage; fails with the first error, and nothing
        is left."""
        return self._turn.run(self._keep)

    def discard(self) -> "Deferred[None]":
        """Forget it; fires when nothing is left."""
        self._pending.clear()
        self._in_flight = 0
        self._make_room()
        return self._turn.run(self._in_thread, self._file.discard)

    def _flush(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._write_pending())

    def _keep(self) -> "Deferred[bytes]":
        return Deferred.fromCoroutine(self._write_and_keep())

    async def _write_pending(self, least: int = _CHUNK) -> None:
        while self._pending and len(self._pending) >= least:
            octets, self._pending = self._pending, bytearray()
            try:
                await self._in_thread(self._file.write, octets)
            except Exception as error:  # noqa: BLE001 -- keep() raises it
                self._error = error
                self._pending.clear()
                self._in_flight = 0
            else:
                self._in_flight = max(0, self._in_flight - len(octets))
            self._make_room()

    def _make_room(self) -> None:
        if self._in_flight <= IN_FLIGHT:
            waiting, self._waiting = self._waiting, []
            for room in waiting:
                room.callback(None)

    async def _write_and_keep(self) -> bytes:
        await self._write_pending(least=0)
        try:
            if self._error is not None:
                raise self._error
            digest: bytes = await self._in_thread(self._file.keep)
        except BaseException:
            with suppress(OSError):  # it is told once; what stays behind is swept out at the next start
                await self._in_thread(self._file.discard)
            raise
        return digest
