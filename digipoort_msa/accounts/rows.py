"""Accounts as rows of our own table, and back.

What must not be read in a stolen copy is sealed here, each field for its account and purpose.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy.engine import result_tuple

from digipoort_msa import log
from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.seal import SECRET
from digipoort_msa.sasl.scram_keys import ScramKeys

_COUNT = 4  # octets of the number of iterations
_HASH = 32


class Sealing(Protocol):
    """What :class:`~digipoort_msa.accounts.seal.Seal` and :class:`~digipoort_msa.accounts.keyring.Keyring`
    do."""

    def close(self, octets: bytes, *bound_to: str) -> bytes: ...
    def open(self, sealed: bytes, *bound_to: str) -> bytes: ...
    def is_current(self, sealed: bytes, *bound_to: str) -> bool: ...
    def refresh(self) -> bool: ...


#: For each sealed column, what its octets are bound to besides realm and name.  The first is of version 1.
SEALED: Mapping[str, tuple[str, ...]] = {"digest_secrets": (), "scram": ("SCRAM-SHA-256",)}


class Rows:
    """The rows of one realm."""

    def __init__(self, realm: str, seal: Sealing, now: Callable[[], datetime]) -> None:
        self.realm = realm
        self._seal = seal
        self._now = now
        nobodys = ScramKeys(secrets.token_bytes(16), 4096, bytes(_HASH), bytes(_HASH))
        columns = {
            "name": "",
            "status": Status.DISABLED.value,
            "password_hash": "",
            "created": 0,
            "changed": 0,
            "expires": None,
            "digest_until": None,
            "addresses": json.dumps(["*@example.nl"]),
            "member_of": None,
            **self._sealed("", digest_secrets=(secrets.token_bytes(SECRET),) * 2, scram=nobodys),
        }
        #: What an unknown name is read from, for the time that takes (A5); its values are no one's.  It is a
        #: row as the database's are: to read from one takes longer than from an object of our own.
        self.nobody = result_tuple(list(columns))(list(columns.values()))

    def account(self, row: Any) -> Account:
        """:raise ValueError: the row makes no sense."""
        expires = None if row.expires is None else datetime.fromtimestamp(row.expires, UTC)
        status = Status(row.status)
        if status is Status.ACTIVE and expires is not None and expires <= self._now():
            status = Status.EXPIRED
        digest = self._opened(row, "digest_secrets")
        scram = self._opened(row, "scram")
        return Account(
            name=row.name,
            realm=self.realm,
            status=status,
            password_hash=row.password_hash,
            digest_secrets=tuple(digest[at : at + SECRET] for at in range(0, len(digest), SECRET)),
            scram=_scram_keys(scram) if scram else None,
            expires=expires,
            digest_until=row.digest_until,
            addresses=tuple(_texts(row.addresses)),
            groups=frozenset(_texts(row.member_of)),
            created=datetime.fromtimestamp(row.created, UTC),
            changed=datetime.fromtimestamp(row.changed, UTC),
        )

    def values(self, name: str, **fields: Any) -> dict[str, object]:
        """The columns that these fields of an account become."""
        columns: dict[str, object] = self._sealed(
            name, **{key: fields.pop(key) for key in SEALED if key in fields}
        )
        for key, value in fields.items():
            match key:
                case "status":
                    columns["status"] = value.value
                case "created" | "changed" | "expires":
                    columns[key] = None if value is None else int(value.timestamp())
                case "addresses":
                    columns["addresses"] = json.dumps(list(value)) if value else None
                case "groups":
                    columns["member_of"] = json.dumps(sorted(value)) if value else None
                case "password_hash" | "digest_until":
                    columns[key] = value
                case _:
                    raise ValueError(f"{key} is not of a row")
        return columns

    def are_current(self, name: str, columns: Mapping[str, object]) -> bool:
        """Are the sealed ones among these columns of an account sealed with the first key?"""
        return all(
            self._seal.is_current(sealed, self.realm, name, *SEALED[column])
            for column, sealed in columns.items()
            if column in SEALED and isinstance(sealed, bytes)
        )

    def sealed_anew(self, row: Any) -> dict[str, object]:
        """The sealed columns that another key than the first seals, sealed with the first.

        :raise ValueError: no key opens one of them.
        """
        anew: dict[str, object] = {}
        for column, purpose in SEALED.items():
            sealed, bound_to = bytes(getattr(row, column) or b""), (self.realm, row.name, *purpose)
            if not self._seal.is_current(sealed, *bound_to):
                anew[column] = self._seal.close(self._seal.open(sealed, *bound_to), *bound_to)
        return anew

    def _sealed(self, name: str, **fields: Any) -> dict[str, object]:
        sealed: dict[str, object] = {}
        for column, value in fields.items():
            octets = b"".join(value) if column == "digest_secrets" else _as_octets(value)
            sealed[column] = self._seal.close(octets, self.realm, name, *SEALED[column])
        return sealed

    def _opened(self, row: Any, column: str) -> bytes:
        """The octets of a sealed column; none where it does not open, which is logged: passwords still do.

        Where nothing is sealed, something of nobody's is opened for the time that takes (A5).
        """
        sealed = bytes(getattr(row, column) or b"")
        whose = row if sealed else self.nobody
        try:
            octets = self._seal.open(bytes(getattr(whose, column)), self.realm, whose.name, *SEALED[column])
        except ValueError as error:
            event = log.SECRETS_UNREADABLE if column == "digest_secrets" else log.SCRAM_UNREADABLE
            log.emit(event, account=row.name, realm=self.realm, reason=str(error))
            return b""
        return octets if sealed else b""


def _as_octets(keys: ScramKeys | None) -> bytes:
    if keys is None:
        return b""
    return keys.iterations.to_bytes(_COUNT) + keys.stored_key + keys.server_key + keys.salt


def _scram_keys(octets: bytes) -> ScramKeys:
    stored, server, salt = _COUNT + _HASH, _COUNT + 2 * _HASH, octets[_COUNT + 2 * _HASH :]
    return ScramKeys(salt, int.from_bytes(octets[:_COUNT]), octets[_COUNT:stored], octets[stored:server])


def _texts(column: str | None) -> list[str]:
    if not column:
        return []
    texts = json.loads(column)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a column that should hold a JSON list of texts does not")
    return texts
