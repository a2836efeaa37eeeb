"""Databases as the ``sql`` store uses them: SQLite, PostgreSQL and MariaDB, through SQLAlchemy.

A database that is down, slow, locked or unreachable is ``Unavailable`` within :data:`SECONDS` a step, and is
asked again the next time: nothing has to be restarted.  Each kind needs its own limits for that.  The server
gives a statement up after a little less than the client, so that a lock costs an answer and not a connection;
the client gives up a server that does not answer at all (a cut cable, a stopped virtual machine), and closes
that connection, so that the thread is free again.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

from digipoort_msa.accounts.private_files import create_private
from digipoort_msa.database_urls import database_url
from digipoort_msa.interfaces import Unavailable

T = TypeVar("T")

SECONDS = 5  # that a database may take to connect, or to answer
_SERVERS_SECONDS = SECONDS - 1
_IDLE = 60  # seconds after which an unused connection is not trusted: a firewall forgets it, and tells nobody


class Database:
    """An engine, and each thread's own connection for lookups.  Blocking; threads may share it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._thread = threading.local()
        self._open: list[Connection] = []
        self._looking_up = 0
        self._closing = False
        self._changed = threading.Condition()  # of the two above

    def look_up(
        self, statement: Executable, values: Mapping[str, object], read: Callable[[CursorResult[Any]], T]
    ) -> T:
        """Run a statement that changes nothing, and ``read`` its result.

        It is on the way of each login: one statement in autocommit, on this thread's own connection.
        Taking one from the pool, and giving it back, costs more than a lookup does.  Where the database was
        restarted since the last one, it is run again on a new connection.

        :raise SQLAlchemyError: for :func:`answering`.
        :raise Unavailable: :meth:`close` has begun.
        """
        began = monotonic()
        with self._before_closing():
            try:
                return self._look_up(statement, values, read)
            except DBAPIError as error:
                if not error.connection_invalidated or monotonic() - began > SECONDS / 2:
                    raise
                return self._look_up(statement, values, read)

    @contextmanager
    def _before_closing(self) -> Iterator[None]:
        with self._changed:
            if self._closing:
                raise Unavailable("the database is being let go of")
            self._looking_up += 1
        try:
            yield
        finally:
            with self._changed:
                self._looking_up -= 1
                self._changed.notify_all()

    def _look_up(
        self, statement: Executable, values: Mapping[str, object], read: Callable[[CursorResult[Any]], T]
    ) -> T:
        connection: Connection | None = getattr(self._thread, "connection", None)
        if connection is not None and monotonic() - self._thread.used > _IDLE:
            self._let_go(connection)
            connection = None
        if connection is None:
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._thread.connection = connection
            self._open.append(connection)
        try:
            result = read(connection.execute(statement, values))
        except SQLAlchemyError:
            # Whatever it was (a plan that a changed table has spoilt, say), it ends with this connection.
            self._let_go(connection)
            raise
        self._thread.used = monotonic()
        return result

    def _let_go(self, connection: Connection) -> None:
        """Of this thread's connection, which the pool is not to have again."""
        self._thread.connection = None
        self._open.remove(connection)
        if not connection.invalidated:
            connection.invalidate()
        connection.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction; what goes wrong is ``Unavailable``."""
        with answering(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection from the pool, for more than a lookup."""
        with answering(), self.engine.connect() as connection:
            yield connection

    def close(self) -> None:
        """Let go of the connections, when the lookups that are under way have ended: to close a connection
        that another thread reads from is an error in its driver.  One that outlasts the time limits of its
        database keeps its connection, which ends with the process."""
        with self._changed:
            self._closing = True
            idle = self._changed.wait_for(lambda: not self._looking_up, timeout=SECONDS)
        try:
            while idle and self._open:
                self._open.pop().close()
            self._thread = threading.local()
            self.engine.dispose()
        finally:
            self._closing = False


@contextmanager
def answering() -> Iterator[None]:
    """The database's own errors, which may quote a statement's values, stay here.

    :raise Unavailable: in their place.
    """
    try:
        yield
    except NoConnection as error:
        raise Unavailable("no connection to the database is free") from error
    except SQLAlchemyError as error:
        raise Unavailable(cause(error)) from error
    except UnicodeEncodeError as error:  # the driver's, of a charset in the URL
        raise Unavailable(f"what was asked for cannot be written in {error.encoding}") from None


def cause(error: SQLAlchemyError) -> str:
    """What the database said, in a line, without the statement."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {' '.join(str(original).split())}"


def open_engine(url: str | URL) -> Engine:
    """An engine for a database, with what each kind needs set.

    Nothing is connected to yet.

    :raise ValueError: see :func:`digipoort_msa.database_urls.database_url`.
    :raise OSError: the SQLite file cannot be made.
    """
    parsed = database_url(url)
    options = _OPTIONS[parsed.get_backend_name()](parsed)
    engine = create_engine(parsed, hide_parameters=True, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    elif engine.driver == "psycopg":
        event.listen(engine, "do_connect", _connect_impatiently)
    return engine


def _sqlite_options(url: URL) -> dict[str, Any]:
    create_private(Path(url.database or ""))
    return {"connect_args": {"timeout": SECONDS}}


def _postgresql_options(url: URL) -> dict[str, Any]:
    milliseconds = int(1000 * _SERVERS_SECONDS)
    limits = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    return {
        "pool_pre_ping": True,
        "pool_timeout": SECONDS,
        "pool_recycle": _IDLE,
        "connect_args": {
            "connect_timeout": max(2, int(SECONDS)),  # libpq knows no less
            "client_encoding": "utf8",  # the server's own may be none, or not have every name
            "options": " ".join((limits, *url.normalized_query.get("options", ()))),  # the URL's own count
        },
    }


def _mariadb_options(url: URL) -> dict[str, Any]:
    whole = max(1, int(_SERVERS_SECONDS))
    # A TIMESTAMP comes without its zone, which has to be UTC therefore.
    limits = f"time_zone='+00:00', lock_wait_timeout={whole}, innodb_lock_wait_timeout={whole}"
    return {
        "pool_pre_ping": True,
        "pool_timeout": SECONDS,
        "pool_recycle": _IDLE,
        "connect_args": {
            "connect_timeout": SECONDS,
            "read_timeout": SECONDS,
            "write_timeout": SECONDS,
            # On a socket of this machine TLS adds nothing, and reading the authorities takes long.
            **({"ssl_disabled": True} if "unix_socket" in url.query else {}),
            # What MariaDB alone knows is in a comment that it alone reads.
            "init_command": f"SET SESSION {limits} /*M!100101 , max_statement_time={_SERVERS_SECONDS} */",
        },
    }


_OPTIONS: dict[str, Callable[[URL], dict[str, Any]]] = {
    "sqlite": _sqlite_options,
    "postgresql": _postgresql_options,
    "mysql": _mariadb_options,
    "mariadb": _mariadb_options,
}


def _set_up_sqlite(connection: Any, record: object) -> None:
    """WAL lets a login read while a command writes; FULL keeps what a command said is done."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(1000 * SECONDS)}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _connect_impatiently(
    dialect: Any, record: object, arguments: list[Any], parameters: dict[str, Any]
) -> Any:
    return _impatient().connect(*arguments, **parameters)


@cache
def _impatient() -> Any:
    """psycopg's connection, which else waits for an answer as long as TCP has no complaint: for ever,
    perhaps."""
    import psycopg
    from psycopg.pq import TransactionStatus

    def in_time(work: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        end = monotonic() + SECONDS
        try:
            wanted = next(work)
            while True:
                ready = yield wanted
                if not ready and monotonic() > end:
                    raise psycopg.OperationalError(f"no answer from the server in {SECONDS} s")
                wanted = work.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **parameters: Any) -> T:
            try:
                return super().wait(in_time(gen), *arguments, **parameters)
            finally:
                if self.info.transaction_status == TransactionStatus.ACTIVE:
                    self.close()  # its answer would be taken for the next one's

    return Impatient
