"""The ``sql`` store: accounts in our own tables in a database, through SQLAlchemy Core.

:class:`SQLAccounts` is the blocking side, for the operator's commands; :class:`SQLAccountStore` puts it
behind threads for the reactor.  All values are bound parameters (CVE-2022-24407).  How databases are
connected to, and what happens when one is down, is in :mod:`.engine`; somebody else's table is read by
:mod:`.foreign`.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import Engine, and_, bindparam, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError
from twisted.internet.defer import Deferred
from zope.interface import implementer

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.engine import SECONDS, Database, answering
from digipoort_msa.accounts.migrations import as_sql, bring_up_to_date
from digipoort_msa.accounts.rows import Rows, Sealing
from digipoort_msa.accounts.tables import ACCOUNTS, NAME_LENGTH, SCHEMA
from digipoort_msa.interfaces import IEvenStore, IUpgradableAccountStore, Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.threads import Threads

_ONE = (ACCOUNTS.c.realm == bindparam("of_realm"), ACCOUNTS.c.name == bindparam("of_name"))
# One row whether there is such an account or not: to fetch a row takes longer than to fetch none (A5).
_FIND = select(ACCOUNTS).select_from(SCHEMA.outerjoin(ACCOUNTS, and_(*_ONE)))
_ALL = select(ACCOUNTS).where(ACCOUNTS.c.realm == bindparam("of_realm")).order_by(ACCOUNTS.c.name)
_UNCHANGED = ACCOUNTS.c.password_hash == bindparam("old")
_AFTER = (
    select(ACCOUNTS)
    .where(ACCOUNTS.c.realm == bindparam("of_realm"), ACCOUNTS.c.name > bindparam("after"))
    .order_by(ACCOUNTS.c.name)
    .limit(bindparam("count"))
)
_REALMS = select(ACCOUNTS.c.realm).distinct().order_by(ACCOUNTS.c.realm)


class AccountExists(Exception):
    """The name is taken in this realm."""


class NoSuchAccount(Exception):
    """The realm has no account of this name."""


class SQLAccounts:
    """The accounts of one realm.  Blocking; threads may share it.

    Every method raises :class:`~digipoort_msa.interfaces.Unavailable` where the database does not answer.
    """

    def __init__(
        self,
        engine: Engine,
        realm: str,
        seal: Sealing,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.realm = realm
        self._database = Database(engine)
        self._seal = seal
        self._rows = Rows(realm, seal, now)
        self._prepared = False
        self._preparing = threading.Lock()

    def find(self, name: str) -> Account | None:
        """The account of exactly this name.  Takes as long where there is none (A5)."""
        if not can_be_asked_for(name):
            return None
        with answering():
            self._prepare()
            row = self._database.look_up(_FIND, self._key(name), lambda result: result.first())
        known = row is not None and row.name == name
        account = self._account(row if known else self._rows.nobody)
        return account if known else None

    def all(self) -> list[Account]:
        """Every account, by name."""
        self.prepare()
        with self._database.reading() as connection:
            rows = connection.execute(_ALL, {"of_realm": self.realm}).all()
        return [self._account(row) for row in rows]

    def insert(self, account: Account) -> None:
        """Add an account; its times are set by whoever makes it.

        :raise AccountExists: see there.
        """
        values = self._rows.values(
            account.name,
            status=account.status,
            password_hash=account.password_hash,
            digest_secrets=account.digest_secrets,
            scram=account.scram,
            expires=account.expires,
            digest_until=account.digest_until,
            addresses=account.addresses,
            groups=account.groups,
            created=account.created or datetime.now(UTC),
            changed=account.changed or datetime.now(UTC),
        )
        self.prepare()
        with self._database.writing() as connection:
            try:
                connection.execute(insert(ACCOUNTS), {"realm": self.realm, "name": account.name, **values})
            except IntegrityError:
                raise AccountExists(account.name) from None
        self._seal_again(account.name, values)

    def change(self, name: str, **fields: Any) -> None:
        """Change an account, all in one step.

        :param fields: by their names in :class:`~digipoort_msa.accounts.account.Account`.
        :raise NoSuchAccount: see there.
        """
        self.prepare()
        values = self._rows.values(name, **fields)
        with self._database.writing() as connection:
            statement = ACCOUNTS.update().where(*_ONE).values(**values)
            if connection.execute(statement, self._key(name)).rowcount != 1:
                raise NoSuchAccount(name)
        self._seal_again(name, values)

    def upgrade(self, account: Account, password_hash: str | None, scram: ScramKeys | None) -> bool:
        """See :meth:`~digipoort_msa.interfaces.IUpgradableAccountStore.upgrade`."""
        fields: dict[str, Any] = {}
        if password_hash is not None:
            fields["password_hash"] = password_hash
        if scram is not None:
            fields["scram"] = scram
        if not fields:
            return False
        self.prepare()
        values = self._rows.values(account.name, **fields)
        with self._database.writing() as connection:
            statement = ACCOUNTS.update().where(*_ONE, _UNCHANGED).values(**values)
            key = {**self._key(account.name), "old": account.password_hash}
            replaced = connection.execute(statement, key).rowcount == 1
        self._seal_again(account.name, values)
        return replaced

    def delete(self, name: str) -> None:
        """:raise NoSuchAccount: see there."""
        self.prepare()
        with self._database.writing() as connection:
            if connection.execute(ACCOUNTS.delete().where(*_ONE), self._key(name)).rowcount != 1:
                raise NoSuchAccount(name)

    def reseal(self, count: int = 100) -> Iterator[tuple[int, list[str]]]:
        """Seal with the seal's first key what another has sealed, so many rows in a transaction.

        It can be left at any moment and begun again.  What changes meanwhile is left as it is: whoever
        changed it sealed it with the first key.

        :return: for each turn, how many rows were sealed anew, and the names of those that no key opens.
        """
        self.prepare()
        after = ""
        self._seal.refresh()
        while True:
            with self._database.writing() as connection:
                asked = {"of_realm": self.realm, "after": after, "count": count}
                rows = connection.execute(_AFTER, asked).all()
                sealed, unreadable = 0, []
                for row in rows:
                    try:
                        sealed += self._reseal(connection, row)
                    except ValueError:
                        unreadable.append(row.name)
            if rows:
                after = rows[-1].name
                yield sealed, unreadable
            if len(rows) < count:
                return

    def realms(self) -> list[str]:
        """Every realm that has accounts in this database."""
        self.prepare()
        with self._database.reading() as connection:
            return list(connection.scalars(_REALMS))

    def prepare(self) -> int | None:
        """Make or migrate the tables, if that has to be; see :func:`.migrations.bring_up_to_date`."""
        with answering():
            return self._prepare()

    def migration(self) -> list[str]:
        """What :meth:`prepare` would tell the database, as SQL."""
        with self._database.reading() as connection:
            return list(as_sql(connection))

    def for_reactor(self, threads: Threads) -> "SQLAccountStore":
        """The same accounts as the logins see them; ``threads`` do the asking."""
        return SQLAccountStore(self, threads)

    def close(self) -> None:
        """Let go of the connections; no other thread may be at work any more."""
        self._database.close()

    def _key(self, name: str) -> dict[str, object]:
        return {"of_realm": self.realm, "of_name": name}

    def _account(self, row: Any) -> Account:
        try:
            return self._rows.account(row)
        except (ValueError, TypeError, OverflowError, OSError) as error:  # the last of a time beyond C's
            raise Unavailable(f"the row of account {row.name!r} makes no sense: {error}") from error

    def _seal_again(self, name: str, written: Mapping[str, object]) -> None:
        """After a write: where another key seals by now, ``account rekey`` may have passed this row
        already."""
        self._seal.refresh()
        if self._rows.are_current(name, written):
            return
        with self._database.writing() as connection:
            row = connection.execute(select(ACCOUNTS).where(*_ONE), self._key(name)).first()
            if row is not None:
                self._reseal(connection, row)

    def _reseal(self, connection: Connection, row: Any) -> bool:
        """:raise ValueError: no key opens it."""
        anew = self._rows.sealed_anew(row)
        if not anew:
            return False
        was = [ACCOUNTS.c[column] == getattr(row, column) for column in anew]
        statement = ACCOUNTS.update().where(*_ONE, *was).values(**anew)
        return connection.execute(statement, self._key(row.name)).rowcount == 1

    def _prepare(self) -> int | None:
        if self._prepared:
            return None
        if not self._preparing.acquire(timeout=SECONDS):
            raise Unavailable("the database has been asked for its version, and does not answer")
        try:
            if self._prepared:
                return None
            found = bring_up_to_date(self._database.engine)
            self._prepared = True
            return found
        finally:
            self._preparing.release()


class Blocking(Protocol):
    """Accounts that are read and written by calls that block."""

    def find(self, name: str) -> Account | None: ...

    def upgrade(self, account: Account, password_hash: str | None, scram: ScramKeys | None) -> bool: ...

    def close(self) -> None: ...


class ThreadedStore:
    """What an account store asks of them, in threads."""

    def __init__(self, accounts: Blocking, threads: Threads) -> None:
        self._accounts = accounts
        self._threads = threads

    def account(self, username: str) -> "Deferred[Account | None]":
        return self._threads.call(self._accounts.find, username)

    def upgrade(
        self, account: Account, password_hash: str | None, scram: ScramKeys | None
    ) -> "Deferred[bool]":
        return self._threads.call(self._accounts.upgrade, account, password_hash, scram)

    def stop(self) -> "Deferred[None]":
        return self._threads.call(self._accounts.close)


@implementer(IUpgradableAccountStore, IEvenStore)
class SQLAccountStore(ThreadedStore):
    """:class:`SQLAccounts` for the reactor."""

    mechanisms = frozenset({"DIGEST-MD5", "PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"})
    keeps = frozenset({"password_hash", "scram"})


def can_be_asked_for(name: str) -> bool:
    """Could a database have this name at all?"""
    if len(name) > NAME_LENGTH or "\0" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
