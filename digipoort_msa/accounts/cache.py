"""Which password was right a moment ago, without keeping any password.

A client that logs in again and again is spared the slow hash.  The theory:

- An entry's key is realm, name and mechanism, framed by length, so that users and realms never mix
  (CVE-2025-30189).
- Its value is an HMAC, under a key that lives and dies with this process, over realm, name, mechanism,
  *the stored hash* and the password; where a store yields no hash, its revision of the account stands for it,
  and an account with neither is never remembered.  The caller has just read the account and looked at its
  status; a new password means a new hash, and the tag no longer fits.  So any change of an account voids its
  entry at once, and no one has to remember to empty the cache.
- Entries expire, and the least recently used go first when there are too many.
"""

import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.framing import framed


class VerifiedPasswords:
    """The cache; any thread may use it."""

    def __init__(self, now: Callable[[], float], *, seconds: float = 300.0, entries: int = 10_000) -> None:
        """
        :param now: the clock, in seconds; such as ``reactor.seconds``.
        :param seconds: how long an entry holds; 0 switches the cache off.
        :param entries: how many accounts are remembered.
        """
        self._now = now
        self._seconds = seconds
        self._entries = entries
        self._key = secrets.token_bytes(32)
        self._tags: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, account: Account, mechanism: str, password: str, password_hash: str) -> None:
        """``password`` was right for ``account``, whose hash or revision is ``password_hash`` from now on."""
        if self._seconds <= 0 or not password_hash:
            return
        key = framed(account.realm, account.name, mechanism)
        entry = self._tag(account, mechanism, password, password_hash), self._now() + self._seconds
        with self._lock:
            self._tags[key] = entry
            self._tags.move_to_end(key)
            if len(self._tags) > self._entries:
                self._tags.popitem(last=False)

    def knows(self, account: Account, mechanism: str, password: str) -> bool:
        """Was this password right for this account, exactly as it is now?

        The work is the same whether there is an entry or not (A5).

        :param account: just read from its store.
        """
        version = account.password_hash or account.revision
        found = self._tag(account, mechanism, password, version)
        remembered = self._remembered(framed(account.realm, account.name, mechanism))
        return hmac.compare_digest(remembered or bytes(len(found)), found) and bool(remembered and version)

    def _remembered(self, key: bytes) -> bytes:
        """An entry's tag, which counts as used."""
        with self._lock:
            tag, expires = self._tags.get(key, (b"", 0.0))
            if tag and expires <= self._now():
                del self._tags[key]
                return b""
            if tag:
                self._tags.move_to_end(key)
            return tag

    def _tag(self, account: Account, mechanism: str, password: str, password_hash: str) -> bytes:
        text = framed(account.realm, account.name, mechanism, password_hash, password)
        return hmac.digest(self._key, text, "sha256")

    def __len__(self) -> int:
        return len(self._tags)
