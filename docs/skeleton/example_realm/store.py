"""An account store: the accounts of a realm in one JSON file that somebody else maintains.

The file, with hashes in passlib's formats; all but the hash may be left out::

    {
      "business": {
        "password-hash": "$argon2id$v=19$...",
        "status": "active",
        "groups": ["businesses"],
        "addresses": ["*@business.example.nl"]
      }
    }
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.interfaces import Facilities, IAccountStore, Unavailable
from digipoort_msa.threads import Threads


def open_store(realm: str, settings: Mapping[str, Any], facilities: Facilities) -> "JSONFile":
    """What the entry point names.  The service calls it once for each realm that has this store.

    It runs in the reactor's thread, at the start and in ``digipoort-msa check``: it looks at settings and
    files, and connects to nothing.

    :param realm: the realm's name.
    :param settings: the realm's table ``[realm.plugin]``, as TOML has it; nobody has looked at it yet.
    :raise ValueError, OSError: it cannot be used.  The operator reads the text: what, where, how to mend it.
    """
    unknown = set(settings) - {"file"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: this store has one setting, file")
    file = settings.get("file")
    if not isinstance(file, str) or not os.path.isabs(file):
        raise ValueError(
            'file: should be the path of a JSON file, such as "/etc/digipoort-msa/accounts.json"'
        )
    read(Path(file))  # a file that is wrong today is better told today
    return JSONFile(realm, Path(file), facilities.threads)


@implementer(IAccountStore)
class JSONFile:
    """One realm's accounts."""

    # What the store can verify.  Only hashes are kept here; with ``digest_secrets`` or ``scram`` in each
    # account it could be DIGEST-MD5 or SCRAM-SHA-256 as well.  Never say more than every account can.
    mechanisms = frozenset({"PLAIN", "LOGIN"})

    def __init__(self, realm: str, file: Path, threads: Threads) -> None:
        self._realm = realm
        self._file = file
        self._threads = threads

    def account(self, username: str) -> "Deferred[Account | None]":
        """Nothing here may block the reactor, and a file can: on a network's disk, for minutes."""
        return self._threads.call(self._find, username)

    def stop(self) -> None:
        """There is nothing to let go of: the threads are the service's."""

    def _find(self, username: str) -> Account | None:
        """In a thread.  The file is read each time, so that a change holds at once."""
        try:
            records = read(self._file)
        except (OSError, ValueError) as error:
            # No answer.  ``None`` would be "there is no such account": 535 to a client that is right.
            raise Unavailable(f"{self._file}: {error}") from error
        record = records.get(username)  # exactly this name: nothing is folded, trimmed or searched for
        return None if record is None else Account(name=username, realm=self._realm, **record)


def read(file: Path) -> dict[str, dict[str, Any]]:
    """What ``Account`` is made with, by name.

    Whoever maintains the file makes mistakes, so all of it is looked at, and nothing is guessed: a status
    that is misspelt must not be an active one.

    :raise ValueError: it is not as it should be.  The text says where, and shows no hash: it will be logged.
    """
    document = json.loads(file.read_bytes(), object_pairs_hook=_once_each)
    if not isinstance(document, dict):
        raise ValueError("it should be an object with accounts by name")
    return {name: _fields(name, record) for name, record in document.items()}


def _fields(name: str, record: Any) -> dict[str, Any]:
    keys = {"password-hash", "status", "groups", "addresses"}
    if not isinstance(record, dict) or not record.keys() <= keys:
        raise ValueError(f"{name!r} should have {', '.join(sorted(keys))}, and nothing else")
    password_hash = record.get("password-hash")
    if not isinstance(password_hash, str) or not password_hash:
        raise ValueError(f"{name!r} has no password-hash")
    try:
        status = Status(record.get("status", "active"))
    except ValueError:
        raise ValueError(
            f"the status of {name!r} should be {', '.join(each.value for each in Status)}"
        ) from None
    return {
        "password_hash": password_hash,
        "status": status,
        "groups": frozenset(_texts(name, record.get("groups", []))),
        "addresses": _texts(name, record.get("addresses", [])),
    }


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"groups and addresses of {name!r} should be lists of texts")
    return tuple(value)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON leaves open which of two accounts of the same name it is; an intruder would know."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a name stands there twice")
    return document
