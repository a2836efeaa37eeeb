"""The key file of the accounts, and the seal that follows it.

A file is 32 octets, as the MSA made it in former releases, or text: a key a line, in hex or base64, the
first of which seals.  ``account rekey`` changes it while the MSA runs.  So the file is looked at again
before something is sealed, after that was stored, and when something does not open: looking costs a
``stat``.  Keys that were once read go on opening until the process ends.

Several servers on one database share the keys.
"""

import os
import threading
from pathlib import Path

from digipoort_msa import log
from digipoort_msa.accounts.private_files import create_private, replace_private
from digipoort_msa.accounts.seal import KEY, Seal
from digipoort_msa.secret_files import encryption_keys


class Keyring:
    """A :class:`~digipoort_msa.accounts.seal.Seal` with the keys in a file.  Threads may share it."""

    def __init__(self, path: Path, *, make: bool = False) -> None:
        """
        :param make: make a file with a key where there is none.
        :raise OSError: the file cannot be read or made.
        :raise ValueError: it holds no keys.
        """
        self.path = path
        if make:
            create_private(path, _as_text((new_key(),)))
        self._looking = threading.Lock()
        self._seen = _signature(path)
        self._keys = self._former = read_keys(path)
        self._seal = Seal(*self._keys)

    def close(self, octets: bytes, *bound_to: str) -> bytes:
        """See :meth:`.Seal.close`."""
        self.refresh()
        return self._seal.close(octets, *bound_to)

    def open(self, sealed: bytes, *bound_to: str) -> bytes:
        """See :meth:`.Seal.open`."""
        try:
            return self._seal.open(sealed, *bound_to)
        except ValueError:
            if not self.refresh():
                raise
            return self._seal.open(sealed, *bound_to)

    def is_current(self, sealed: bytes, *bound_to: str) -> bool:
        """See :meth:`.Seal.is_current`."""
        return self._seal.is_current(sealed, *bound_to)

    def refresh(self) -> bool:
        """Read the file again where it is another; says whether the keys are others now.

        A file that cannot be read leaves things as they are, and that is logged once.
        """
        with self._looking:
            try:
                signature = _signature(self.path)
                if signature == self._seen:
                    return False
                keys = read_keys(self.path)
            except (OSError, ValueError) as error:
                if self._seen is not None:
                    log.emit(log.ACCOUNT_KEYS_UNREADABLE, file=str(self.path), reason=str(error))
                self._seen = None
                return False
            self._seen = signature
            if keys == self._keys:
                return False
            self._keys = keys
            self._former = tuple(dict.fromkeys((*keys, *self._former)))
            self._seal = Seal(*self._former)
            return True


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in a file.

    :raise OSError: it cannot be read.
    :raise ValueError: it holds no keys.
    """
    octets = path.read_bytes()
    if len(octets) == KEY:
        return (octets,)
    try:
        return encryption_keys(octets)
    except ValueError as error:
        raise ValueError(
            f"{path} should hold keys of 32 octets, in hex or base64, one a line: {error}; "
            "put back the file that the accounts were made with"
        ) from None


def write_keys(path: Path, keys: tuple[bytes, ...]) -> None:
    """Put keys in the place of those that are in a file; whoever reads it finds the former ones or these.

    :raise OSError: it cannot be written.
    """
    replace_private(path, _as_text(keys))


def new_key() -> bytes:
    return os.urandom(KEY)


def _as_text(keys: tuple[bytes, ...]) -> bytes:
    return b"".join(key.hex().encode() + b"\n" for key in keys)


def _signature(path: Path) -> tuple[int, int, int] | None:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_ino, facts.st_size
