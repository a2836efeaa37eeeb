"""Another key for what is sealed, while the MSA runs.

The MSA's own file, ``accounts.key``, goes through three states, and each survives a kill: the former key
alone; a new key first and the former below it, from which moment everyone seals with the new one; and, when
every row has been sealed anew, the new key alone.  A file that has several keys is in the middle of that,
so it is finished and no further key is made.

A key file of the operator's (``key-file``, perhaps a systemd credential) is never written: the operator
puts the new key first, restarts what cannot see the change, has the rows sealed anew, and takes the former
one out.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from attrs import frozen

from digipoort_msa.accounts.keyring import new_key, read_keys, write_keys
from digipoort_msa.accounts.private_files import create_private
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.interfaces import Unavailable


@frozen
class Rekeyed:
    """What became of it."""

    sealed: int  # rows that were sealed anew
    unreadable: tuple[tuple[str, str], ...]  # realm and name of those that no key opens
    resumed: bool  # a rotation that had been begun before was finished
    former: int  # keys that are still in the file beside the first


def rekey(
    key_file: Path,
    everyone: Iterable[SQLAccounts],
    *,
    own: bool,
    whole: bool = True,
    progress: Callable[[int], None] = lambda rows: None,
) -> Rekeyed:
    """Seal every row with the first key of a file.

    :param everyone: every realm whose accounts are sealed with the keys of this file.
    :param own: the file is the MSA's: a new key is made, and the former ones go in the end.
    :param whole: ``everyone`` is all there are; else the former keys stay.
    :param progress: is told how many rows have been looked at anew.
    :raise OSError, ValueError: the file cannot be read or written, or another is at it; everything stays
        readable.
    :raise Unavailable: a database does not answer; it can be run again.
    """
    with _alone(key_file) if own else nullcontext():
        keys = read_keys(key_file)
        resumed = own and len(keys) > 1
        if own and not resumed:
            keys = (new_key(), *keys)
            write_keys(key_file, keys)
        sealed, unreadable = 0, []
        for accounts in everyone:
            try:
                for count, lost in accounts.reseal():
                    sealed += count
                    unreadable += [(accounts.realm, name) for name in lost]
                    progress(sealed)
            except Unavailable as error:
                raise Unavailable(f"those of realm {accounts.realm}: {error}") from error
        if own and whole:
            keys = keys[:1]
            write_keys(key_file, keys)
    return Rekeyed(sealed, tuple(unreadable), resumed, len(keys) - 1)


@contextmanager
def _alone(key_file: Path) -> Iterator[None]:
    """Two at once would each make a key, and only one of the two would be in the file in the end."""
    lock = key_file.with_name(f"{key_file.name}.lock")
    create_private(lock)
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError("account rekey runs already; wait until it is done") from None
    else:
        yield
    finally:
        os.close(descriptor)
