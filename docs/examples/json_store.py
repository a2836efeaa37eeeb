"""An account store: the accounts of a realm in one JSON file that somebody else maintains.

The file, with passlib hashes::

    {"business": {"password-hash": "$argon2id$...", "active": true}}
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from twisted.internet.defer import Deferred
from zope.interface import implementer

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.interfaces import IAccountStore, Unavailable
from digipoort_msa.threads import Threads


@implementer(IAccountStore)
class JSONStore:
    """It keeps no DIGEST-MD5 secrets, so it does not say that it can verify them."""

    mechanisms = frozenset({"PLAIN", "LOGIN"})

    def __init__(self, realm: str, file: Path, threads: Threads) -> None:
        self._realm = realm
        self._file = file
        self._threads = threads

    def account(self, username: str) -> "Deferred[Account | None]":
        return self._threads.call(self._find, username)

    def _find(self, username: str) -> Account | None:
        """Runs in a thread: reading a file blocks.  It is read each time, so a change holds at once."""
        try:
            facts = json.loads(self._file.read_bytes()).get(username)
            changed = datetime.fromtimestamp(int(self._file.stat().st_mtime), UTC)
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self._file}: {error}") from error
        if facts is None:
            return None
        return Account(
            name=username,
            realm=self._realm,
            status=Status.ACTIVE if facts["active"] else Status.DISABLED,
            password_hash=facts["password-hash"],
            created=changed,
            changed=changed,
        )
