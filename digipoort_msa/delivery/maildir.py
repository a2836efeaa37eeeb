"""Delivery into a Maildir: the sandbox's stand-in for the core, and the second real way out (D1).

A message is written to ``tmp``, made durable, renamed into ``new``, and the rename made durable; only then is
it delivered (D2).  One file holds it for all of its recipients, with exactly the octets of the spool: no
field is put in front.

Its name is the queue id.  A delivery that is repeated, because we died before its outcome was kept, finds the
file and makes no second one, in ``cur`` too, where a reader moves it and adds flags.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from digipoort_msa.delivery import failures
from digipoort_msa.interfaces import IContent, IContentReader, IDelivery
from digipoort_msa.smtp.envelope import Envelope, Outcome, Path
from digipoort_msa.smtp.reply import Reply, reply

T = TypeVar("T")

_FOLDERS = ("tmp", "new", "cur")
_TICK = 2_000_000_000  # nanoseconds, the longest that a file system's time may stand still
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@implementer(IDelivery)
class Maildir:
    """Delivers into one folder.  Files are made for their owner alone (0600, folders 0700)."""

    def __init__(self, folder: FilePath, reactor: IReactorFromThreads, pool: ThreadPool) -> None:
        """
        :param folder: is made at the first delivery where it does not exist.
        :param pool: a started thread pool: files are written there, never in the reactor.
        """
        self._folder = folder
        self._read = _Read(folder / "cur")
        self._reactor = reactor
        self._pool = pool

    def deliver(self, envelope: Envelope, content: IContent) -> "Deferred[Mapping[Path, Outcome]]":
        """See :class:`~digipoort_msa.interfaces.IDelivery`; an outcome's ``hop`` is the file's path."""
        return Deferred.fromCoroutine(self._deliver(envelope, content))

    def stop(self) -> "Deferred[None]":
        """Nothing is held between deliveries; the pool is its owner's."""
        return succeed(None)

    async def _deliver(self, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
        if not _NAME.fullmatch(envelope.queue_id):
            raise ValueError(f"a queue id that cannot be a file's name: {envelope.queue_id!r}")
        file = _File(self._folder, envelope.queue_id, self._read)
        reader = content.open()
        try:
            verdict = await self._store(file, reader, content.size)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            verdict = failures.DISK_FULL if full else failures.not_stored(error.strerror or str(error))
        finally:
            reader.close()
        return dict.fromkeys(envelope.recipients, Outcome(verdict, str(file.path)))

    async def _store(self, file: "_File", reader: IContentReader, size: int) -> Reply:
        """Write the file; a small message takes one turn in a thread."""
        segment: bytes = await reader.read()
        stored = 0
        try:
            while segment and stored + len(segment) < size:
                if not stored and await self._in_thread(file.exists):
                    return _stored(file)
                await self._in_thread(file.write, segment)
                stored += len(segment)
                segment = await reader.read()
            if stored + len(segment) != size:
                return failures.UNREADABLE
            await self._in_thread(file.finish, segment)
        finally:
            if file.unfinished:
                await self._in_thread(file.discard)
        return _stored(file)

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> "Deferred[T]":
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)


def _stored(file: "_File") -> Reply:
    return reply(250, "2.0.0", f"delivered into {file.path.parent.parent}")


class _Read:
    """The names in ``cur``, without their flags; listed anew only when the folder has changed."""

    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        self._known: tuple[int, frozenset[str]] = (-1, frozenset())  # as of which change of the folder

    def holds(self, name: str) -> bool:
        """:raise OSError: it cannot be told."""
        try:
            changed = self.folder.stat().st_mtime_ns
            known, names = self._known  # one value: several threads are here
            if changed != known:
                names = frozenset(entry.partition(":")[0] for entry in os.listdir(self.folder))
                # A change within the tick of the file system's clock would leave no trace.
                settled = time.time_ns() - changed > _TICK
                self._known = (changed if settled else -1, names if settled else frozenset())
        except FileNotFoundError:
            return False
        return name in names


class _File:
    """One message's file; every method blocks and raises ``OSError``."""

    def __init__(self, folder: FilePath, name: str, read: "_Read") -> None:
        self._folder = folder
        self._read = read
        self._draft = folder / "tmp" / name
        self.path = folder / "new" / name
        self._descriptor: int | None = None
        self.unfinished = False  # there is a draft

    def exists(self) -> bool:
        """An earlier delivery has made it, and may have died before that was durable: now it is."""
        if self.path.exists():
            _sync(self.path.parent)
            return True
        if self._read.holds(self.path.name):
            _sync(self._read.folder)
            return True
        return False

    def write(self, octets: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = self._create()
        left = memoryview(octets)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def finish(self, octets: bytes) -> None:
        """Write the last octets, then put the file into ``new`` durably; nothing where it exists."""
        if self._descriptor is None and self.exists():
            return
        self.write(octets)
        assert self._descriptor is not None  # noqa: S101 - write() opened it
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None
        os.rename(self._draft, self.path)
        self.unfinished = False
        _sync(self.path.parent)

    def discard(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._draft.unlink(missing_ok=True)
        self.unfinished = False

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        for _ in range(3):
            try:
                descriptor = os.open(self._draft, flags, 0o600)
            except FileExistsError:  # left behind when we died
                self._draft.unlink()
            except FileNotFoundError:
                self._make_folders()
            else:
                self.unfinished = True
                return descriptor
        raise FileExistsError(errno.EEXIST, "another delivery writes the same file")

    def _make_folders(self) -> None:
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        for folder in (self._folder, *(self._folder / name for name in _FOLDERS)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._folder, *(folder.parent for folder in missing)):
            _sync(folder)


def _sync(folder: FilePath) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
