"""Files become messages again (``archive`` says of what form), under the queue ids that they had.

A file is read to its end, and checked, before anything is kept: its line ends as those of a submission, its
size and SHA-256 against its envelope.  A message is on stable storage when ``read`` returns; its recipients
are queued, and the time until giving up begins anew.
"""

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from attrs import evolve, frozen

from digipoort_msa.smtp.envelope import Envelope
from digipoort_msa.smtp.line_ends import LineEnds
from digipoort_msa.spool import operations
from digipoort_msa.spool.archive import LONGEST, Archived, NotAMessage, from_document
from digipoort_msa.spool.bodies import BodyFile
from digipoort_msa.spool.content import in_row
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.rows import Stored
from digipoort_msa.spool.schema import IMPORTING, SpoolError
from digipoort_msa.spool.sealing import Sealing

_SEGMENT = 256 * 1024  # octets that are read at once


class NotImported(Exception):
    """A message is not imported; the text says which file, and why.  The others can be."""


class AlreadyHere(NotImported):
    """It is in the spool."""


@frozen
class Rules:
    """How this spool keeps messages."""

    small: int  # octets of content that are kept in the row; more goes to a file
    watermark: int  # octets of the disk that stay free
    sealing: Sealing | None  # encrypts what is kept
    sequences: Callable[[str, str], str | None]  # the sequence of a realm's account
    objection: Callable[[Envelope], str | None]  # what is wrong with an envelope in this configuration


def envelopes(paths: tuple[Path, ...]) -> Iterator[Path]:
    """The ``.json`` files that are meant: those of a folder, by name, or the file itself; an ``.eml`` has its
    ``.json`` beside it.

    :raise NotImported: there is no such file or folder.
    """
    for path in paths:
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                with os.scandir(path) as entries:
                    names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
                yield from (path / name for name in names if not name.startswith("."))
            else:
                yield path.with_suffix(".json")
        except OSError as error:
            raise NotImported(f"{path}: {error.strerror}") from error


class Import:
    """Keeps messages in a spool, whether the MSA runs or not.  A context manager: one import at a time."""

    def __init__(self, inspection: Inspection, rules: Rules, *, hold: str | None = None) -> None:
        """
        :param hold: why the messages are to be held; ``None``: they are tried at once.
        :raise SpoolError: another import is at work.
        """
        self._lock = _alone(inspection.directory / IMPORTING)
        self._inspection = inspection
        self._rules = rules
        self._hold = hold

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def read(self, path: Path) -> str:
        """Import one message; returns its queue id when it is on stable storage.

        :param path: the ``.json``.
        :raise NotImported: its files are not as they should be; or it is here already.
        :raise SpoolError: the spool cannot be changed now: nor can it for the others.
        """
        archived = self._envelope(path)
        queue_id = archived.envelope.queue_id
        if not self._inspection.unknown((queue_id,)):
            raise AlreadyHere(f"{path}: {queue_id} is in the spool already")
        body = path.with_suffix(".eml")
        with _opened(body) as file:
            eight_bit = _checked(body, file, archived)
            self._check_room(archived.size)
            now = time.time()
            stored = Stored(
                evolve(archived.envelope, recipients=archived.unfinished),
                archived.size,
                eight_bit,
                None,
                since=now,
                sequence=self._rules.sequences(archived.envelope.realm, archived.envelope.account),
                sealed_by=None if self._rules.sealing is None else self._rules.sealing.name,
            )
            file.seek(0)
            if archived.size <= self._rules.small:
                self._keep_in_row(stored, _again(body, file.read(archived.size), archived))
            else:
                self._keep_in_file(stored, body, file, archived)
        return queue_id

    def _envelope(self, path: Path) -> Archived:
        with _opened(path) as file:
            octets = file.read(LONGEST + 1)
        if len(octets) > LONGEST:
            raise NotImported(f"{path}: more than {LONGEST} octets, which no envelope has")
        try:
            archived = from_document(octets)
        except NotAMessage as error:
            raise NotImported(f"{path}: {error}") from error
        queue_id = archived.envelope.queue_id
        if path.stem != queue_id:
            raise NotImported(f"{path}: id = {queue_id}: should be the file's name")
        if not archived.unfinished:
            raise NotImported(
                f"{path}: recipients: every one is delivered or returned, nothing is left to do"
            )
        if objection := self._rules.objection(archived.envelope):
            raise NotImported(f"{path}: {objection}")
        return archived

    def _check_room(self, size: int) -> None:
        disk = os.statvfs(self._inspection.directory)
        free = disk.f_bavail * disk.f_frsize
        if free < size + self._rules.watermark:
            raise SpoolError(
                f"the spool's disk has {free} octets free, of which {self._rules.watermark} stay free"
                f" (spool.watermark): {size} more are too many"
            )

    def _keep_in_row(self, stored: Stored, octets: bytes) -> None:
        content = in_row(stored.envelope.queue_id, octets, self._rules.sealing)
        self._insert(evolve(stored, octets=content.octets, digest=content.digest))

    def _keep_in_file(self, stored: Stored, path: Path, file: BinaryIO, archived: Archived) -> None:
        queue_id = stored.envelope.queue_id
        sealing = self._rules.sealing
        self._inspection.bodies.remove_incoming(queue_id)  # left by an import that was killed
        body = BodyFile(
            self._inspection.bodies, queue_id, None if sealing is None else sealing.sealer(queue_id)
        )
        try:
            found, size = hashlib.sha256(), 0
            while segment := file.read(_SEGMENT):
                found.update(segment)
                size += len(segment)
                body.write(segment)
            if size != archived.size or found.hexdigest() != archived.digest:
                raise NotImported(f"{path}: it has changed while it was read")
            # A start sweeps out files that no row knows, so none may begin until the row is there.
            with self._inspection.alone():
                self._insert(stored, body)
        except OSError as error:
            _discarded(body)
            raise SpoolError(f"{queue_id} cannot be kept: {error}") from error
        except BaseException:
            _discarded(body)
            raise

    def _insert(self, stored: Stored, body: BodyFile | None = None) -> None:
        queue_id = stored.envelope.queue_id
        with self._inspection.changing() as connection:
            # Only now is it certain that the body file's name is free, too.
            if connection.execute("SELECT 1 FROM message WHERE queue_id = ?", (queue_id,)).fetchone():
                raise AlreadyHere(f"{queue_id} is in the spool already")
            if body is not None:
                self._inspection.bodies.remove(queue_id)  # of no message: left by an import that was killed
                stored = evolve(stored, digest=body.keep())
            for table in ("content", "recipient", "attempt"):  # left by damage: they are of another message
                connection.execute(f"DELETE FROM {table} WHERE queue_id = ?", (queue_id,))  # noqa: S608
            operations.insert(connection, [stored])
            if self._hold is not None:
                operations.hold(connection, [(queue_id, self._hold)])


def _alone(path: Path) -> int:
    """The lock of the one import that is at work: an open file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolError(f"{path} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SpoolError("another import is at work: wait until it is done") from None
    return descriptor


def _opened(path: Path) -> BinaryIO:
    """A file to be read; a link is not followed, and whatever is in its place is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise NotImported(f"{path}: cannot be read: {text}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotImported(f"{path}: is not a file")
    return open(descriptor, "rb")


def _checked(path: Path, file: BinaryIO, archived: Archived) -> bool:
    """Is the content what its envelope says?

    :return: whether some octet is above 127.
    :raise NotImported: it is not.
    """
    size, digest, ends, eight_bit = 0, hashlib.sha256(), LineEnds(), False
    last = b""
    try:
        while segment := file.read(_SEGMENT):
            size += len(segment)
            if size > archived.size:
                break
            digest.update(segment)
            eight_bit = eight_bit or not segment.isascii()
            if not ends.canonical(segment):
                raise NotImported(f"{path}: a CR or LF stands alone: every line should end with CRLF")
            last = segment[-1:]
    except OSError as error:
        raise NotImported(f"{path}: cannot be read: {error.strerror}") from error
    if last == b"\r":
        raise NotImported(f"{path}: a CR stands alone at its end: every line should end with CRLF")
    if size != archived.size:
        shown = f"more than {archived.size}" if size > archived.size else str(size)
        raise NotImported(f"{path}: it has {shown} octets where its envelope says {archived.size}")
    if digest.hexdigest() != archived.digest:
        raise NotImported(f"{path}: its SHA-256 is not the one that its envelope says: it has been changed")
    return eight_bit


def _again(path: Path, octets: bytes, archived: Archived) -> bytes:
    if hashlib.sha256(octets).hexdigest() != archived.digest:
        raise NotImported(f"{path}: it has changed while it was read")
    return octets


def _discarded(body: BodyFile) -> None:
    with suppress(OSError):
        body.discard()
