"""Content encrypted at rest, by libsodium's secretstream through PyNaCl (the extra ``encryption``).

A sealed content is

::

    header      24 octets, random: with the key it starts the stream
    chunk ...   65,536 octets of content and 17 more each, all but the last
    last chunk  0 to 65,536 octets of content and 17 more, tagged FINAL

Each chunk is XChaCha20-Poly1305 with the queue id as associated data, and the stream binds it to all that
came before it.  So a chunk that was altered, moved, left out or taken from another message does not open,
and neither does a stream that ends early.  How long the whole has to be follows from the content's size.
It looks the same in a row and in a file.

A key is known by its name, 16 hex digits which reveal nothing of it; a message's row has the name of the key
that seals it.  The first key seals, every key opens: an old key is kept as long as messages bear its name.
"""

from __future__ import annotations

import hashlib
from typing import Any

from digipoort_msa.interfaces import Damaged

KEY = 32  # octets
HEADER = 24
CHUNK = 64 * 1024  # octets of content in a chunk
_MORE = 17  # octets that sealing adds to a chunk: its tag, encrypted, and the authenticator


class KeyMissing(Damaged):
    """The content is sealed with a key that is not configured; the text has the key's name."""


def sealed_size(size: int) -> int:
    """The octets that a content of ``size`` octets has when it is sealed."""
    return HEADER + size + max(1, -(-size // CHUNK)) * _MORE


def key_name(key: bytes) -> str:
    """What a key is called in rows, in the log and to the operator."""
    inner = hashlib.sha256(b"digipoort-msa: the name of a key that seals content\0" + key)
    return hashlib.sha256(inner.digest()).hexdigest()[:16]


class Sealing:
    """The keys of a spool.

    :param key: 32 octets; seals what is new.
    :param former: keys that only open.
    :ivar name: of the key that seals.
    :raise ValueError: a key is not of 32 octets, or PyNaCl is not installed.
    """

    def __init__(self, key: bytes, *former: bytes) -> None:
        try:
            from nacl import bindings
        except ImportError as error:
            raise ValueError(
                "content is to be encrypted, but PyNaCl is not installed: install digipoort-msa[encryption]"
            ) from error
        if any(len(each) != KEY for each in (key, *former)):
            raise ValueError(f"a key that encrypts content has {KEY} octets")
        self.name = key_name(key)
        self._key = key
        self._keys = {key_name(each): each for each in (key, *former)}
        self._sodium = bindings

    def sealer(self, queue_id: str) -> Sealer:
        """Seals the content of one message, once."""
        return Sealer(self._sodium, self._key, queue_id)

    def sealed(self, queue_id: str, octets: bytes) -> bytes:
        """Seal a content that is in memory."""
        sealer = self.sealer(queue_id)
        return sealer.seal(octets) + sealer.end()

    def opener(self, queue_id: str, name: str) -> Opener:
        """Opens the content of one message, once.

        :param name: of the key that sealed it.
        :raise KeyMissing: we do not have that.
        """
        key = self._keys.get(name)
        if key is None:
            raise missing(name)
        return Opener(self._sodium, key, queue_id)


def missing(name: str) -> KeyMissing:
    return KeyMissing(f"its content is encrypted with the key {name}, which is not configured")


class Sealer:
    """Seals one content as it comes in; it may be used from any thread, one at a time."""

    def __init__(self, sodium: Any, key: bytes, queue_id: str) -> None:
        self._sodium = sodium
        self._state = sodium.crypto_secretstream_xchacha20poly1305_state()
        self._begun = sodium.crypto_secretstream_xchacha20poly1305_init_push(self._state, key)
        self._queue_id = queue_id.encode()
        self._pending = b""  # a chunk at most: whether it is the last is not known yet

    def seal(self, octets: bytes | bytearray) -> bytes:
        """Add to the content; returns what can be stored by now."""
        sealed = [self._begun]
        self._begun = b""
        pending = memoryview(self._pending + octets)
        while len(pending) > CHUNK:
            sealed.append(self._push(pending[:CHUNK], last=False))
            pending = pending[CHUNK:]
        self._pending = bytes(pending)
        return b"".join(sealed)

    def end(self) -> bytes:
        """The content is complete; returns the rest."""
        return self._begun + self._push(self._pending, last=True)

    def _push(self, chunk: bytes | memoryview, *, last: bool) -> bytes:
        sodium = self._sodium
        tag = (
            sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL
            if last
            else sodium.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
        )
        sealed: bytes = sodium.crypto_secretstream_xchacha20poly1305_push(
            self._state, bytes(chunk), self._queue_id, tag
        )
        return sealed


class Opener:
    """Opens one content from its first octet on; it may be used from any thread, one at a time."""

    def __init__(self, sodium: Any, key: bytes, queue_id: str) -> None:
        self._sodium = sodium
        self._key = key
        self._state: Any = None
        self._queue_id = queue_id.encode()

    def wanted(self, chunks: int) -> int:
        """How many stored octets make the next so many chunks."""
        return chunks * (CHUNK + _MORE) + (HEADER if self._state is None else 0)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        """The content of the next chunks, which are whole; the header is in front of the first.

        :param last: the last of them has to be the content's last, otherwise none may be.
        :raise Damaged: they are not what was sealed, by this key and for this message.
        """
        position = 0
        content = []
        try:
            if self._state is None:
                self._begin(sealed[:HEADER])
                position = HEADER
            while position < len(sealed):
                chunk = sealed[position : position + CHUNK + _MORE]
                position += len(chunk)
                content.append(self._pull(chunk, last=last and position == len(sealed)))
            if last and not content:
                raise ValueError("the stream does not end")
        except (ValueError, RuntimeError) as error:
            raise Damaged("its encrypted content has been altered, or is another message's") from error
        return b"".join(content)

    def _begin(self, header: bytes) -> None:
        state = self._sodium.crypto_secretstream_xchacha20poly1305_state()
        self._sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, header, self._key)
        self._state = state

    def _pull(self, chunk: bytes, *, last: bool) -> bytes:
        sodium = self._sodium
        content: bytes
        content, tag = sodium.crypto_secretstream_xchacha20poly1305_pull(self._state, chunk, self._queue_id)
        if (tag == sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL) is not last:
            raise ValueError("the stream ends elsewhere")
        return content
