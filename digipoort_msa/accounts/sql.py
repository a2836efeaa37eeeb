"""The ``sql`` store: accounts in a database, through SQLAlchemy Core.

:class:`SQLAccounts` is the blocking side, for the operator's commands; :class:`SQLAccountStore` puts it
behind threads for the reactor.  All values are bound parameters (CVE-2022-24407).

The embedded database is SQLite: WAL lets a login read while a command writes, ``synchronous=FULL`` keeps
what a command said is done, and the file is for the service's user alone.  A lookup is on the way of
each login, so it is one cached statement on a pooled connection, in autocommit.
"""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Engine, Row, and_, bindparam, create_engine, event, insert, select
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnection
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.seal import SECRET, Seal, create_private
from digipoort_msa.accounts.tables import ACCOUNTS, METADATA, NAME_LENGTH, SCHEMA, VERSION
from digipoort_msa.interfaces import IUpgradableAccountStore, Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.threads import Threads

_TRIES = 3  # to make the tables: each of two steps can be taken by another process
_SECONDS = 5  # that a database may take to connect, or to answer

_ONE = (ACCOUNTS.c.realm == bindparam("of_realm"), ACCOUNTS.c.name == bindparam("of_name"))
# One row whether there is such an account or not: to fetch a row takes longer than to fetch none (A5).
_FIND = select(ACCOUNTS).select_from(SCHEMA.outerjoin(ACCOUNTS, and_(*_ONE)))
_ALL = select(ACCOUNTS).where(ACCOUNTS.c.realm == bindparam("of_realm")).order_by(ACCOUNTS.c.name)
_REPLACE_HASH = (
    ACCOUNTS.update()
    .where(*_ONE, ACCOUNTS.c.password_hash == bindparam("old"))
    .values(password_hash=bindparam("new"))
)


class AccountExists(Exception):
    """The name is taken in this realm."""


class NoSuchAccount(Exception):
    """The realm has no account of this name."""


class SQLAccounts:
    """The accounts of one realm.  Blocking; threads may share it.

    Every method raises :class:`~digipoort_msa.interfaces.Unavailable` where the database does not answer.
    """

    def __init__(self, engine: Engine, realm: str, seal: Seal) -> None:
        self.realm = realm
        self._engine = engine
        self._seal = seal
        self._nobody = _nobodys_row(seal, realm)
        self._thread = threading.local()  # each thread's open connection for lookups
        self._open: list[Connection] = []
        self._prepared = False
        self._preparing = threading.Lock()

    def find(self, name: str) -> Account | None:
        """The account of exactly this name.  Takes as long where there is none (A5)."""
        if len(name) > NAME_LENGTH or "\0" in name:
            return None  # which no database need be asked
        values = {"of_realm": self.realm, "of_name": name}
        with _answering():
            self._prepare()
            try:
                row = self._look_up(values)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                row = self._look_up(values)  # the database was restarted since the last one
        known = row is not None and row.name == name
        account = self._account(row if known else self._nobody)
        return account if known else None

    def for_reactor(self, threads: Threads) -> "SQLAccountStore":
        """The same accounts as the logins see them; ``threads`` do the asking."""
        return SQLAccountStore(self, threads)

    def all(self) -> list[Account]:
        """Every account, by name."""
        with _answering():
            self._prepare()
            with self._engine.connect() as connection:
                rows = connection.execute(_ALL, {"of_realm": self.realm}).all()
        return [self._account(row) for row in rows]

    def insert(self, account: Account) -> None:
        """Add an account.

        :raise AccountExists: see there.
        """
        values = {
            "realm": self.realm,
            "name": account.name,
            "status": account.status.value,
            "password_hash": account.password_hash,
            "digest_secrets": self._seal.close(account.digest_secrets, self.realm, account.name),
            "created": _seconds(account.created),
            "changed": _seconds(account.changed),
        }
        with self._writing() as connection:
            try:
                connection.execute(insert(ACCOUNTS), values)
            except IntegrityError:
                raise AccountExists(account.name) from None

    def set_status(self, name: str, status: Status, changed: datetime) -> None:
        """:raise NoSuchAccount: see there."""
        self._update(name, status=status.value, changed=int(changed.timestamp()))

    def set_password(
        self, name: str, password_hash: str, digest_secrets: tuple[bytes, ...], changed: datetime
    ) -> None:
        """Replace all that a password is verified with, in one step.

        :raise NoSuchAccount: see there.
        """
        self._update(
            name,
            password_hash=password_hash,
            digest_secrets=self._seal.close(digest_secrets, self.realm, name),
            changed=int(changed.timestamp()),
        )

    def replace_hash(self, name: str, old: str, new: str) -> bool:
        """See :meth:`~digipoort_msa.interfaces.IUpgradableAccountStore.upgrade`."""
        values = {"of_realm": self.realm, "of_name": name, "old": old, "new": new}
        with self._writing() as connection:
            return connection.execute(_REPLACE_HASH, values).rowcount == 1

    def delete(self, name: str) -> None:
        """:raise NoSuchAccount: see there."""
        with self._writing() as connection:
            key = {"of_realm": self.realm, "of_name": name}
            if connection.execute(ACCOUNTS.delete().where(*_ONE), key).rowcount != 1:
                raise NoSuchAccount(name)

    def close(self) -> None:
        """Let go of the connections; no other thread may be at work any more."""
        while self._open:
            self._open.pop().close()
        self._thread = threading.local()
        self._engine.dispose()

    def _update(self, name: str, **values: object) -> None:
        with self._writing() as connection:
            key = {"of_realm": self.realm, "of_name": name}
            if connection.execute(ACCOUNTS.update().where(*_ONE).values(**values), key).rowcount != 1:
                raise NoSuchAccount(name)

    def _account(self, row: Any) -> Account:
        try:
            digest_secrets = self._seal.open(row.digest_secrets, self.realm, row.name)
        except ValueError as error:
            log.emit(log.SECRETS_UNREADABLE, account=row.name, realm=self.realm, reason=str(error))
            digest_secrets = ()
        return Account(
            name=row.name,
            realm=self.realm,
            status=Status(row.status),
            password_hash=row.password_hash,
            digest_secrets=digest_secrets,
            created=datetime.fromtimestamp(row.created, UTC),
            changed=datetime.fromtimestamp(row.changed, UTC),
        )

    def _look_up(self, values: dict[str, str]) -> Row[Any] | None:
        """On this thread's own connection, in autocommit: no transaction outlives its statement.

        Taking one from the pool, and giving it back, costs more than a lookup does.
        """
        connection: Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._thread.connection = connection
            self._open.append(connection)
        try:
            return connection.execute(_FIND, values).first()
        except SQLAlchemyError:
            self._thread.connection = None
            self._open.remove(connection)
            connection.close()
            raise

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _answering():
            self._prepare()
            with self._engine.begin() as connection:
                yield connection

    def _prepare(self) -> None:
        """Make the tables where they are missing, and check that they are ours."""
        if self._prepared:
            return
        with self._preparing:
            if self._prepared:
                return
            began = monotonic()
            for tries_left in reversed(range(_TRIES)):
                try:
                    version = self._schema_version()
                    break
                except IntegrityError:
                    version = self._schema_version()  # another has just made them: they are there to be read
                    break
                except OperationalError:
                    # Another process makes them at this very moment, perhaps; one that keeps them locked,
                    # or a server that does not answer, has taken long enough.
                    if not tries_left or monotonic() - began > _SECONDS / 2:
                        raise
            if version != VERSION:
                raise Unavailable(
                    f"the account tables are of version {version}, and this release knows version {VERSION}"
                )
            self._prepared = True

    def _schema_version(self) -> int:
        with self._engine.begin() as connection:
            METADATA.create_all(connection)
            version: int | None = connection.scalar(select(SCHEMA.c.version))
            if version is None:
                connection.execute(insert(SCHEMA), {"id": 1, "version": VERSION})
                return VERSION
            return version


@implementer(IUpgradableAccountStore)
class SQLAccountStore:
    """:class:`SQLAccounts` for the reactor."""

    mechanisms = frozenset({"DIGEST-MD5", "PLAIN", "LOGIN"})

    def __init__(self, accounts: SQLAccounts, threads: Threads) -> None:
        self._accounts = accounts
        self._threads = threads

    def account(self, username: str) -> "Deferred[Account | None]":
        return self._threads.call(self._accounts.find, username)

    def upgrade(
        self, account: Account, password_hash: str | None, scram: ScramKeys | None
    ) -> "Deferred[bool]":
        if password_hash is None:
            return succeed(False)
        return self._threads.call(
            self._accounts.replace_hash, account.name, account.password_hash, password_hash
        )

    def stop(self) -> "Deferred[None]":
        return self._threads.call(self._accounts.close)


def _seconds(moment: datetime | None) -> int:
    return int((moment or datetime.now(UTC)).timestamp())


def _nobodys_row(seal: Seal, realm: str) -> SimpleNamespace:
    """What an unknown name is read from, for the time that takes; its values are no one's."""
    sealed = seal.close((secrets.token_bytes(SECRET), secrets.token_bytes(SECRET)), realm, "")
    return SimpleNamespace(
        name="",
        status=Status.DISABLED.value,
        password_hash="",
        digest_secrets=sealed,
        created=0,
        changed=0,
    )


@contextmanager
def _answering() -> Iterator[None]:
    """The database's own errors, which may quote a statement's values, stay here."""
    try:
        yield
    except NoConnection as error:
        raise Unavailable("no connection to the database is free") from error
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise Unavailable(f"{type(cause).__name__}: {' '.join(str(cause).split())}") from error


def open_engine(url: str | URL) -> Engine:
    """An engine for a database, with what each kind needs set.

    Nothing is connected to yet.

    :raise ValueError: not a URL, or one of a database that is not installed.
    """
    try:
        parsed = _with_driver(make_url(url))
        engine = create_engine(parsed, hide_parameters=True, **_OPTIONS[parsed.get_backend_name()](parsed))
    except ArgumentError as error:
        raise ValueError("not a SQLAlchemy URL, such as postgresql+psycopg://user@host/database") from error
    except (KeyError, NoSuchModuleError) as error:
        raise ValueError("the database has to be SQLite, PostgreSQL or MariaDB") from error
    except ModuleNotFoundError as error:
        raise ValueError(f"the database's library {error.name} is not installed") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _with_driver(url: URL) -> URL:
    """The driver that this package installs, where the URL names none."""
    drivers = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
    if url.drivername in drivers:
        return url.set(drivername=f"{url.drivername}+{drivers[url.drivername]}")
    return url


def _sqlite_options(url: URL) -> dict[str, Any]:
    if not url.database or url.database == ":memory:":
        raise ValueError(
            "an SQLite database has to be a file, such as sqlite:////var/lib/digipoort-msa/a.sqlite"
        )
    create_private(Path(url.database))
    return {"connect_args": {"timeout": _SECONDS}}


def _postgresql_options(url: URL) -> dict[str, Any]:
    return {
        "pool_pre_ping": True,
        "pool_timeout": _SECONDS,
        "connect_args": {
            "connect_timeout": _SECONDS,
            "tcp_user_timeout": 2000 * _SECONDS,  # milliseconds, on a connection that went dead
            "options": f"-c statement_timeout={1000 * _SECONDS}",
        },
    }


def _mariadb_options(url: URL) -> dict[str, Any]:
    arguments = {"connect_timeout": _SECONDS, "read_timeout": _SECONDS, "write_timeout": _SECONDS}
    return {"pool_pre_ping": True, "pool_timeout": _SECONDS, "connect_args": arguments}


_OPTIONS: dict[str, Callable[[URL], dict[str, Any]]] = {
    "sqlite": _sqlite_options,
    "postgresql": _postgresql_options,
    "mysql": _mariadb_options,
    "mariadb": _mariadb_options,
}


def _set_up_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={1000 * _SECONDS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
