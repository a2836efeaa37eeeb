"""The ``passwd`` store: accounts in Apache's files, ``htpasswd`` beside ``htdigest``, or one of the two.

Everything is in memory.  At a lookup, at most once a second, the files are looked at, and a new version is
taken up (:mod:`.watched_file`); until that is done the lookup waits, so that an account that was removed an
hour ago does not get in once more.  A look reads files, so it happens in a thread.

An account that is in one file only has only that file's mechanisms; one that is disabled in either may not
log in at all.
"""

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from time import monotonic

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.apache_files import Entries, Entry, read_htdigest, read_htpasswd
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.watched_file import WatchedFile
from digipoort_msa.interfaces import IAccountStore
from digipoort_msa.threads import Threads

#: Seconds between two looks at the files.
LOOK_EVERY = 1.0
_NAMED = 10  # accounts that one line of the log names


def open_passwd(
    *,
    realm: str,
    htpasswd: Path | None,
    htdigest: Path | None,
    hashing: PasswordHashing,
    threads: Threads,
    look_every: float = LOOK_EVERY,
) -> "PasswdAccountStore":
    """Read the files, and keep reading them.

    :param htpasswd: password hashes, for PLAIN and LOGIN.
    :param htdigest: for DIGEST-MD5.
    :param hashing: knows which hashes are sound.
    :raise OSError, ValueError: a file cannot be read or makes no sense; the text says where.
    """
    passwords = None if htpasswd is None else WatchedFile(htpasswd, partial(read_htpasswd, hashing=hashing))
    digests = None if htdigest is None else WatchedFile(htdigest, partial(read_htdigest, realm=realm))
    return PasswdAccountStore(realm, passwords, digests, threads, look_every=look_every)


@implementer(IAccountStore)
class PasswdAccountStore:
    """One realm's accounts."""

    def __init__(
        self,
        realm: str,
        passwords: WatchedFile[Entries] | None,
        digests: WatchedFile[Entries] | None,
        threads: Threads,
        *,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._realm = realm
        self._passwords = passwords
        self._digests = digests
        self._files = [file for file in (passwords, digests) if file is not None]
        self._threads = threads
        self._look_every = look_every
        self._looking = threading.Lock()
        self._looked = monotonic()
        self._accounts = self._merged()
        self.mechanisms = frozenset(
            (("PLAIN", "LOGIN") if passwords is not None else ())
            + (("DIGEST-MD5",) if digests is not None else ())
        )
        for file in self._files:
            self._tell_refused(file)

    @property
    def warnings(self) -> Iterator[str]:
        """What the operator should know of the files, and does not keep them from being used."""
        for file in self._files:
            for why, names in file.value.refused.items():
                yield (
                    f"{file.path}: no password of {_some(names)} is taken, for {why}; "
                    "set them anew with htpasswd -B"
                )
            if file.value.weak:
                yield (
                    f"{file.path}: {_some(file.value.weak)} should have a slow hash, not MD5 (apr1); "
                    "set their passwords anew with htpasswd -B"
                )
            if file.value.other_realms and not file.value.accounts:
                realms = ", ".join(sorted(file.value.other_realms))
                yield f"{file.path}: should have accounts of realm {self._realm}, not of {realms} alone"

    def account(self, username: str) -> "Deferred[Account | None]":
        if monotonic() - self._looked < self._look_every:
            return succeed(self._accounts.get(username))
        return self._threads.call(self._look_and_find, username)

    def stop(self) -> None:
        """There is nothing to let go of: no file is kept open."""

    def _look_and_find(self, username: str) -> Account | None:
        """In a thread.  Of many lookups at once the first one looks, and the others wait for it."""
        with self._looking:
            if monotonic() - self._looked >= self._look_every:
                self._look()
                self._looked = monotonic()
        return self._accounts.get(username)

    def _look(self) -> None:
        for file in self._files:
            try:
                if not file.refresh():
                    continue
            except (OSError, ValueError) as error:
                log.emit(log.ACCOUNTS_KEPT, realm=self._realm, file=str(file.path), reason=str(error))
                continue
            self._accounts = self._merged()
            count = len(file.value.accounts)
            log.emit(log.ACCOUNTS_LOADED, realm=self._realm, file=str(file.path), accounts=count)
            self._tell_refused(file)

    def _tell_refused(self, file: WatchedFile[Entries]) -> None:
        for why, names in file.value.refused.items():
            log.emit(
                log.HASHES_REFUSED,
                realm=self._realm,
                accounts=_some(names),
                reason=why,
                file=str(file.path),
            )

    def _merged(self) -> Mapping[str, Account]:
        hashes = {} if self._passwords is None else self._passwords.value.accounts
        digests = {} if self._digests is None else self._digests.value.accounts
        return {
            name: self._account(name, hashes.get(name), digests.get(name)) for name in {**hashes, **digests}
        }

    def _account(self, name: str, password: Entry | None, digest: Entry | None) -> Account:
        disabled = any(entry is not None and entry.disabled for entry in (password, digest))
        secret = bytes.fromhex(digest.verifier) if digest is not None else b""
        return Account(
            name=name,
            realm=self._realm,
            status=Status.DISABLED if disabled else Status.ACTIVE,
            password_hash=password.verifier if password is not None else "",
            digest_secrets=(secret,) if secret else (),
        )


def _some(names: tuple[str, ...]) -> str:
    """The names, or the first of them and how many more."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
