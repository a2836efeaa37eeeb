"""Messages become files (``archive`` says of what form): for a look, for another MSA, or to be kept.

Each file has its name only when it is whole and on stable storage; the envelope comes last, so that a
``.json`` always has its ``.eml``.  Nothing follows a symbolic link in the folder.
"""

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool.archive import Archived, as_document
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.states import STORED
from digipoort_msa.spool.views import Message


class NotExported(Exception):
    """A message is not exported; the text says why.  The others can be."""


class Gone(NotExported):
    """It is not in the spool, or is no more."""


class Export:
    """A folder that messages are exported to.

    :param folder: is made with mode 0700 where it is missing; the one that it is to be in has to be there.
    :param force: replace files that are there.
    :raise SpoolError: it cannot be used.
    """

    def __init__(
        self, inspection: Inspection, folder: Path, sealing: Sealing | None, *, force: bool = False
    ) -> None:
        if folder.resolve().is_relative_to(inspection.directory.resolve()):
            raise SpoolError(f"{folder} is inside the spool: choose another place")
        self.folder = folder
        self._inspection = inspection
        self._sealing = sealing
        self._force = force
        try:
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SpoolError(f"{folder} cannot be used: {error.strerror}") from error

    def __enter__(self) -> "Export":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def write(self, queue_id: str) -> None:
        """Export one message; its two files are on stable storage then.

        :raise NotExported: it is gone, or damaged, or its files are there already.
        :raise SpoolError: the folder cannot be written: so it will be with the others.
        """
        message = self._inspection.show(queue_id)
        if message is None:
            raise Gone("there is no such message")
        if not isinstance(message, Message):
            raise NotExported(f"its rows in the database make no sense: {message.why}")
        names = f"{queue_id}.eml", f"{queue_id}.json"
        if not self._force and any(map(self._exists, names)):
            raise NotExported(f"it is in {self.folder} already (--force replaces it)")
        try:
            self._write(message, *names)
        except Damaged as error:
            if self._inspection.unknown((queue_id,)):
                raise Gone("it has left the spool meanwhile") from error
            raise NotExported(str(error)) from error
        except OSError as error:
            raise SpoolError(f"{queue_id} cannot be written to {self.folder}: {error.strerror}") from error

    def _write(self, message: Message, content: str, envelope: str) -> None:
        queue_id = message.summary.queue_id
        stored = self._inspection.stored(queue_id, STORED)
        if stored is None:
            raise Damaged("it has no recipients")
        digest = hashlib.sha256()
        with _NewFile(self._descriptor, content) as file:
            for segment in self._inspection.content(stored, self._sealing):
                digest.update(segment)
                file.write(segment)
            archived = Archived(
                message.envelope,
                {recipient.path: recipient.state for recipient in message.recipients},
                stored.size,
                digest.hexdigest(),
            )
            with _NewFile(self._descriptor, envelope) as other:
                other.write(json.dumps(as_document(archived), indent=2, ensure_ascii=False).encode() + b"\n")
                if self._force:  # an old envelope must never stand beside a new content
                    with suppress(FileNotFoundError):
                        os.unlink(envelope, dir_fd=self._descriptor)
                file.keep()
                os.fsync(self._descriptor)
                other.keep()
        os.fsync(self._descriptor)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


class _NewFile:
    """A file of mode 0600 that has its name from ``keep`` on, and else is gone at the end."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self._name = name
        self._temporary = f".{name}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o600, dir_fd=folder)
        self._kept = False

    def __enter__(self) -> "_NewFile":
        return self

    def write(self, octets: bytes) -> None:
        view = memoryview(octets)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def keep(self) -> None:
        os.fsync(self._descriptor)
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._kept = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        if not self._kept:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
