"""Bringing a database to the version of the account tables that this release knows.

It happens when the accounts are first asked for, so that an upgrade needs no step of its own.  One process
does it at a time; the others wait for that.  Every step looks at what is there, so a migration that was
killed goes on where it stopped: SQLite and PostgreSQL undo an unfinished one anyway, MariaDB commits each
change to a table at once.  Columns are only added, and may be NULL, so the former release goes on working
beside this one until it is restarted.

A database of a later version is left alone.  Where the service's role may not change tables, the error says
so, and ``digipoort-msa account migrate --sql`` prints what somebody else can run.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, insert, inspect, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateTable
from sqlalchemy.sql.elements import ClauseElement

from digipoort_msa.accounts.engine import SECONDS, cause
from digipoort_msa.accounts.tables import ACCOUNTS, SCHEMA, VERSION
from digipoort_msa.interfaces import Unavailable

_LOCK = 0x4D53415F61636374  # of PostgreSQL's advisory ones: anything that nobody else takes
_NO_RIGHT = {"42501", 1044, 1142, 1143, 1227, 1370}  # SQLSTATE, and MariaDB's numbers


class NoRight(Unavailable):
    """The role may not make or change the tables."""


def bring_up_to_date(engine: Engine) -> int | None:
    """Make the tables, or add what the former versions had not.

    :return: the version that it was of; ``None`` where there were no tables.
    :raise Unavailable: the database is of a later version, or the role may not do it; the text says what to
        do.
    :raise SQLAlchemyError: it does not answer.
    """
    with engine.connect() as connection:
        found = version(connection)
    if found == VERSION:
        return found
    try:
        with _alone(engine) as connection:
            found = version(connection)  # another may have done it meanwhile
            for step in steps(connection):
                connection.execute(step)  # type: ignore[call-overload]
    except DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None) or (error.orig.args[:1] if error.orig else None)
        if code in _NO_RIGHT or (isinstance(code, tuple) and code and code[0] in _NO_RIGHT):
            what = "are missing" if found is None else f"are of version {found}, not {VERSION}"
            raise NoRight(
                f"the account tables {what}, and the role of the URL may not mend that ({cause(error)}); "
                "have what digipoort-msa account migrate --sql prints run by a role that may"
            ) from error
        raise
    return found


def version(connection: Connection) -> int | None:
    """The version of the tables; ``None`` where they are missing, or were not finished.

    :raise Unavailable: it is a later one than this release knows.
    """
    if not inspect(connection).has_table(SCHEMA.name):
        return None
    found: int | None = connection.scalar(select(SCHEMA.c.version))
    if found is not None and found > VERSION:
        raise Unavailable(
            f"the account tables are of version {found}, and this release knows version {VERSION}: "
            "run the release that made them, or a later one"
        )
    return found


def steps(connection: Connection) -> Iterator[ClauseElement]:
    """What is left to do."""
    found = version(connection)
    there = inspect(connection)
    tables = {table.name for table in (SCHEMA, ACCOUNTS) if there.has_table(table.name)}
    columns = set()
    if ACCOUNTS.name in tables:
        columns = {each["name"] for each in there.get_columns(ACCOUNTS.name)}
    for table in (SCHEMA, ACCOUNTS):
        if table.name not in tables:
            yield CreateTable(table)
    if ACCOUNTS.name in tables:
        for column in ACCOUNTS.columns:
            if column.name not in columns:
                clause = CreateColumn(column).compile(dialect=connection.dialect)
                yield text(f"ALTER TABLE {ACCOUNTS.name} ADD COLUMN {clause}")
    if found is None:
        yield insert(SCHEMA).values(id=1, version=VERSION)
    elif found != VERSION:
        yield update(SCHEMA).where(SCHEMA.c.version == found).values(version=VERSION)


def as_sql(connection: Connection) -> Iterator[str]:
    """The same, as text for another program."""
    for step in steps(connection):
        compiled = step.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        yield " ".join(str(compiled).split()) + ";"


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction, in which no other process migrates this database."""
    match engine.dialect.name:
        case "sqlite":
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                # Python's driver would begin no transaction before a change to a table.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    if not connection.invalidated:
                        connection.exec_driver_sql("ROLLBACK")
                    raise
                connection.exec_driver_sql("COMMIT")
        case "postgresql":
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                yield connection
        case _:
            with engine.connect() as connection:
                name = "CONCAT('digipoort-msa ', MD5(DATABASE()))"  # of the whole server
                if connection.scalar(text(f"SELECT GET_LOCK({name}, {SECONDS - 2})")) != 1:
                    raise Unavailable("another process is changing the account tables")
                try:
                    yield connection
                    connection.commit()
                finally:
                    if not connection.invalidated:
                        connection.rollback()
                        connection.execute(text(f"SELECT RELEASE_LOCK({name})"))
