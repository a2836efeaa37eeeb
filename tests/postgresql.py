"""A real PostgreSQL for the tests; see :mod:`tests.database_server`."""

import atexit
import signal
import subprocess
from functools import cache
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL

from tests.database_server import CONNECTIONS, DatabaseServer

_SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": str(CONNECTIONS),
    "max_wal_senders": "0",
    "shared_buffers": "2MB",
    "superuser_reserved_connections": "0",
    "wal_level": "minimal",
}


def program(name: str) -> str:
    """Where Debian keeps it, which is not on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        raise AssertionError(f"{name} is missing: apt-get install postgresql")
    return str(found[-1])


class PostgreSQL(DatabaseServer):
    """Everyone on this machine who can reach the folder may log in."""

    crash = signal.SIGQUIT  # of SIGKILL its children would hear too late
    forced = " WITH (FORCE)"

    @property
    def socket(self) -> Path:
        return self.directory / ".s.PGSQL.5432"

    def lay_out(self) -> None:
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=msa"]
        made = subprocess.run(
            self.as_nobody(program("initdb"), *options, f"--pgdata={self.directory}/data"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            timeout=60,
        )
        if made.returncode:
            raise AssertionError(made.stdout.decode(errors="replace"))

    def command(self) -> list[str]:
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return [program("postgres"), "-D", f"{self.directory}/data", "-k", str(self.directory), *settings]

    def url(self, database: str) -> URL:
        return URL.create("postgresql", "msa", database=database, query={"host": str(self.directory)})

    def execute(self, statement: str, database: str | None = None) -> list[tuple[object, ...]]:
        facts = f"host={self.directory} user=msa dbname={database or 'postgres'} connect_timeout=10"
        with psycopg.connect(facts, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return list(cursor) if cursor.description else []


@cache
def running() -> PostgreSQL:
    """The one of this process."""
    server = PostgreSQL()
    atexit.register(server.remove)
    server.start()
    return server
