"""A real MariaDB for the tests; see :mod:`tests.database_server`.

It has no tables of its own, which take long to make: everyone who can reach the folder is its superuser.
"""

import atexit
from functools import cache
from pathlib import Path

import pymysql
from sqlalchemy.engine import URL

from tests.database_server import CONNECTIONS, DatabaseServer

MARIADBD = "/usr/sbin/mariadbd"
_SETTINGS = (
    "--skip-grant-tables",
    "--skip-networking",
    "--skip-log-bin",
    # What installations have that were never told otherwise: ours must not depend on the database's own.
    "--character-set-server=latin1",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=2",  # what was said to be done outlives the process, if not the machine
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=8M",
    "--innodb-log-file-size=4M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-temp-data-file-path=ibtmp1:4M:autoextend",
    "--aria-pagecache-buffer-size=1M",
    "--key-buffer-size=64K",
    f"--max-connections={CONNECTIONS}",
)


class MariaDB(DatabaseServer):
    @property
    def socket(self) -> Path:
        return self.directory / "socket"

    def lay_out(self) -> None:
        data = self.directory / "data"
        data.mkdir()
        data.chmod(0o777)  # within a folder of mode 0700

    def command(self) -> list[str]:
        return [
            MARIADBD,
            "--no-defaults",
            f"--datadir={self.directory}/data",
            f"--socket={self.socket}",
            *_SETTINGS,
        ]

    def url(self, database: str) -> URL:
        return URL.create("mariadb", "root", database=database, query={"unix_socket": str(self.socket)})

    def execute(self, statement: str, database: str | None = None) -> list[tuple[object, ...]]:
        connection = pymysql.connect(
            unix_socket=str(self.socket),
            user="root",
            ssl_disabled=True,
            database=database,
            autocommit=True,
            connect_timeout=10,
            read_timeout=10,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())


@cache
def running() -> MariaDB:
    """The one of this process."""
    server = MariaDB()
    atexit.register(server.remove)
    server.start()
    return server
