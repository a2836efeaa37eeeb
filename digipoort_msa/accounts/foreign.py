"""Accounts in somebody else's tables: found by a query of the operator's, and otherwise left alone.

The query gives one row for a name, with columns that are known by their names:

============== =============================================================================================
name           text, exactly the name that was asked for; another, in case or accents say, is an unknown one
status         text: active, disabled, expired or locked
active         true or false
disabled       true or false
password_hash  text, as passlib reads it; NULL: no password is right
digest_ha1     text: H(user:realm:password) in hex, several apart by spaces or commas; NULL: none
scram          text: ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``, as PostgreSQL has it; NULL: none
groups         text apart by commas or spaces, a JSON list, or an array; NULL: none
addresses      patterns, likewise
expires        a moment or Unix time from which on, or the last day on which, it may log in; NULL: no end
digest_until   the last day of DIGEST-MD5; NULL: no end
============== =============================================================================================

There has to be a name, at least one of status, active and disabled, and something to verify with.  A column
that is misspelt must not go unnoticed, so there may be no others, and each has to be named in the query,
not to come by ``*``.  What is not as it should be, two rows among that, is
:class:`~digipoort_msa.interfaces.Unavailable`, with what is wrong where: it is never a yes, and never a
guess.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CursorResult, Engine, TextClause, text
from sqlalchemy.engine import Connection
from zope.interface import alsoProvides, implementer

from digipoort_msa import log
from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.engine import Database, answering
from digipoort_msa.accounts.foreign_columns import (
    as_date,
    as_hash,
    as_keys_text,
    as_moment,
    as_name,
    as_patterns,
    as_scram_keys,
    as_secrets,
    as_status,
    as_texts,
)
from digipoort_msa.accounts.sql import ThreadedStore, can_be_asked_for
from digipoort_msa.interfaces import IAccountStore, IUpgradableAccountStore, Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.statements import Statement
from digipoort_msa.threads import Threads

_PASSWORDS = {"PLAIN", "LOGIN"}
#: What each column makes possible.
_SERVES = {
    "password_hash": _PASSWORDS,
    "scram": {"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"},
    "digest_ha1": {"DIGEST-MD5"},
}
_STATES = {"status", "active", "disabled"}
COLUMNS = {"name", "groups", "addresses", "expires", "digest_until", *_STATES, *_SERVES}
_TOLD = 10_000  # accounts of which it is remembered that their fault is in the log


class ForeignAccounts:
    """The accounts of one realm, in somebody else's tables.  Blocking; threads may share it."""

    def __init__(
        self,
        engine: Engine,
        realm: str,
        query: Statement,
        *,
        upgrade: Statement | None = None,
        scram: Statement | None = None,
        readable: Callable[[str], bool],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        :param query: see :func:`digipoort_msa.statements.account_query`.
        :param upgrade: replaces an outdated hash; ``None`` leaves it.
        :param scram: keeps SCRAM's keys, made at a login by password; ``None`` keeps none.
        :param readable: can a password be verified with this hash?
        """
        self.realm = realm
        self.mechanisms = frozenset(
            name for column, names in _SERVES.items() if column in query.words for name in names
        )
        kept = {"password_hash": upgrade, "scram": scram}
        self.keeps = frozenset(name for name, statement in kept.items() if statement is not None)
        self._database = Database(engine)
        self._query = query
        self._find = _bindable(query)
        self._upgrade, self._scram = upgrade, scram
        self._readable = readable
        self._now = now
        self._told: set[tuple[str, str]] = set()

    def find(self, name: str) -> Account | None:
        """The account of exactly this name.

        :raise Unavailable: the database does not answer, or what it answers makes no sense.
        """
        if not can_be_asked_for(name):
            return None
        with answering():
            columns, rows = self._database.look_up(
                self._find, self._values(self._query, name=name), _first_two
            )
        self._check(columns)
        if len(rows) > 1:
            raise Unavailable(f"the account-query gives several rows for {name!r}: it has to be one or none")
        row = dict(zip(columns, rows[0], strict=True)) if rows else None
        try:
            known = row is not None and as_name(row["name"]) == name
            # An unknown name takes its time, too (A5).
            account = self._account(row if row is not None and known else _NOBODY)
        except ValueError as error:
            raise Unavailable(f"the account-query's row for {name!r} makes no sense: {error}") from error
        return account if known else None

    def upgrade(self, account: Account, password_hash: str | None, scram: ScramKeys | None) -> bool:
        """See :meth:`~digipoort_msa.interfaces.IUpgradableAccountStore.upgrade`."""
        old, done = account.password_hash, False
        with self._database.writing() as connection:
            if self._upgrade is not None and password_hash is not None:
                done = self._replace(connection, self._upgrade, account, old=old, new=password_hash)
                old = password_hash if done else old
            if self._scram is not None and scram is not None:
                kept = self._replace(connection, self._scram, account, old=old, scram=as_keys_text(scram))
                done = done or kept
        return done

    def for_reactor(self, threads: Threads) -> "ForeignAccountStore":
        """The same accounts as the logins see them; ``threads`` do the asking."""
        return ForeignAccountStore(self, threads)

    def close(self) -> None:
        """Let go of the connections; no other thread may be at work any more."""
        self._database.close()

    def _replace(self, connection: Connection, statement: Statement, account: Account, **values: str) -> bool:
        asked = self._values(statement, name=account.name, **values)
        count = connection.execute(_bindable(statement), asked).rowcount
        if count > 1:
            raise Unavailable(  # which undoes it
                f"for {account.name!r}, a query that should change one row would change {count}"
            )
        return count == 1

    def _values(self, statement: Statement, **values: str) -> Mapping[str, str]:
        known = {**values, "realm": self.realm}
        return {name: known[name] for name in statement.bound}

    def _check(self, columns: Sequence[str]) -> None:
        """:raise Unavailable: these are not the columns of an account."""
        found = set(columns)
        fault = None
        if len(found) < len(columns):
            fault = f"has two columns {next(each for each in columns if columns.count(each) > 1)}"
        elif unknown := found - COLUMNS:
            fault = f"has columns that are not known: {', '.join(sorted(unknown))}"
        elif unnamed := found - self._query.words:
            fault = f"has to name its columns itself: {', '.join(sorted(unnamed))}"
        elif "name" not in found:
            fault = "has no column name"
        elif not found & _STATES:
            fault = f"has none of the columns {', '.join(sorted(_STATES))}: 1 AS active lets everyone in"
        elif not found & set(_SERVES):
            fault = f"has nothing to verify with: {', '.join(sorted(_SERVES))}"
        if fault is not None:
            raise Unavailable(f"the account-query {fault}")

    def _account(self, row: Mapping[str, Any]) -> Account:
        """:raise ValueError: see :mod:`.foreign_columns`."""
        name = as_name(row["name"])
        expires = as_moment("expires", row.get("expires"))
        return Account(
            name=name,
            realm=self.realm,
            status=as_status(row, expires is not None and expires <= self._now()),
            password_hash=self._usable_hash(name, as_hash(row.get("password_hash"))),
            digest_secrets=as_secrets(row.get("digest_ha1")),
            scram=self._usable_keys(name, row.get("scram")),
            expires=expires,
            digest_until=as_date("digest_until", row.get("digest_until")),
            groups=frozenset(as_texts("groups", row.get("groups"))),
            addresses=as_patterns("addresses", row.get("addresses")),
        )

    def _usable_hash(self, name: str, password_hash: str) -> str:
        if password_hash and not self._readable(password_hash):
            self._tell(log.HASH_UNREADABLE, name, "its kind is not known here")
            return ""
        return password_hash

    def _usable_keys(self, name: str, value: Any) -> ScramKeys | None:
        try:
            return as_scram_keys(value)
        except ValueError as error:
            self._tell(log.SCRAM_UNREADABLE, name, str(error))
            return None

    def _tell(self, event: log.Event, name: str, reason: str) -> None:
        """Log a fault of an account once."""
        if (event.name, name) not in self._told:
            if len(self._told) >= _TOLD:
                self._told.clear()
            self._told.add((event.name, name))
            log.emit(event, account=name, realm=self.realm, reason=reason)


#: What an unknown name is read from, for the time that takes.
_NOBODY: Mapping[str, Any] = {
    "name": "",
    "disabled": 1,
    "digest_ha1": "00" * 16,
    "scram": as_keys_text(ScramKeys(bytes(16), 4096, bytes(32), bytes(32))),
}


@implementer(IAccountStore)
class ForeignAccountStore(ThreadedStore):
    """:class:`ForeignAccounts` for the reactor; one that can be upgraded where there is a query for it."""

    def __init__(self, accounts: ForeignAccounts, threads: Threads) -> None:
        super().__init__(accounts, threads)
        self.mechanisms = accounts.mechanisms
        self.keeps = accounts.keeps
        if self.keeps:
            alsoProvides(self, IUpgradableAccountStore)


def _bindable(statement: Statement) -> TextClause:
    clause = text(statement.text)
    # SQLAlchemy finds the parameters in its own way, which has to be ours.
    found = set(clause.compile().params)
    if found != statement.bound:
        raise ValueError(f"it is not clear what {statement.text!r} binds")
    return clause


def _first_two(result: CursorResult[Any]) -> tuple[Sequence[str], Sequence[Iterable[Any]]]:
    columns = result.keys()
    return [column.lower() for column in columns], result.fetchmany(2)
