"""A delivery back end: each message is two files in a folder, for a program that watches it.

``ID.eml`` is the message.  ``ID.json`` is its envelope; it comes last, so where it is, all is there.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from digipoort_msa.interfaces import IContent, IDelivery
from digipoort_msa.smtp.envelope import Envelope, Outcome, Path
from digipoort_msa.smtp.reply import reply

DELIVERED = reply(250, "2.0.0", "both files are there")


@implementer(IDelivery)
class Folder:
    """Delivers into one folder, which must exist."""

    def __init__(self, folder: FilePath, reactor: IReactorFromThreads, pool: ThreadPool) -> None:
        """:param pool: a started thread pool: a file is never written in the reactor's thread."""
        self._folder = folder
        self._reactor = reactor
        self._pool = pool

    def deliver(self, envelope: Envelope, content: IContent) -> "Deferred[Mapping[Path, Outcome]]":
        return Deferred.fromCoroutine(self._deliver(envelope, content))

    def stop(self) -> "Deferred[None]":
        return succeed(None)

    async def _deliver(self, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
        message = self._folder / f"{envelope.queue_id}.eml"
        reader = content.open()
        said = DELIVERED
        try:
            await self._in_thread(message.write_bytes, b"")  # a try that was cut short leaves nothing
            while segment := await reader.read():
                await self._in_thread(_append, message, segment)
            await self._in_thread(_finish, message, _document(envelope))
        except OSError as error:
            said = reply(451, "4.3.0", f"the folder cannot be written: {error.strerror}")  # tried again later
        finally:
            reader.close()
        return dict.fromkeys(envelope.recipients, Outcome(said, str(self._folder)))

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)


def _append(file: FilePath, octets: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(octets)


def _finish(message: FilePath, document: bytes) -> None:
    """Both files, and their names, survive a power cut before the queue forgets the message."""
    draft, final = message.with_suffix(".part"), message.with_suffix(".json")
    draft.write_bytes(document)
    for file in (message, draft):
        _sync(file)
    draft.rename(final)
    _sync(message.parent)


def _sync(path: FilePath) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _document(envelope: Envelope) -> bytes:
    document = {
        "id": envelope.queue_id,
        "account": envelope.account,
        "sender": str(envelope.reverse_path),
        "recipients": [str(path) for path in envelope.recipients],
    }
    return json.dumps(document, ensure_ascii=False).encode()
