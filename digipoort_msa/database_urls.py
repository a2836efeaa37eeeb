"""The URL of a database that accounts are in: which databases there are, by which libraries.

``digipoort-msa check`` and the store go by the same.  An error has nothing of the URL, in which a password
may be.
"""

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

#: The libraries that are known to give a server up that does not answer, by their database.
_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}


def database_url(url: str | URL) -> URL:
    """
    :param url: with or without a driver; ``postgresql://`` is ``postgresql+psycopg://``.
    :return: with its driver.
    :raise ValueError: it is none, or not of a database that can be used; the text goes behind "should be".
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(
            "a SQLAlchemy URL such as postgresql://user@host/database; in a password, @ is %40, : is %3A and "
            "/ is %2F"
        ) from None
    database, _, named = parsed.drivername.partition("+")
    driver = _DRIVERS.get(database)
    if driver is None:
        raise ValueError("of SQLite, PostgreSQL or MariaDB")
    if named not in ("", driver):
        raise ValueError(f"{database}://, which is by {driver}; other libraries may wait for ever")
    parsed = parsed.set(drivername=f"{database}+{driver}")
    if database == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ValueError("a file, such as sqlite:////var/lib/digipoort-msa/a.sqlite")
    if "init_command" in parsed.query:
        raise ValueError("without init_command: the MSA has its own")
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        raise ValueError(f"of a database whose library is installed: {error}") from error
    return parsed
