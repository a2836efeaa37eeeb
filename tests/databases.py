"""The same tests on SQLite, PostgreSQL and MariaDB: their class inherits one of these beside ``TestCase``."""

from typing import Any

from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import URL, make_url

from digipoort_msa.accounts.engine import open_engine
from tests import mariadb, postgresql
from tests.database_server import DatabaseServer

TABLES = ("account", "account_schema")


class OnSQLite:
    def fresh(self: Any) -> URL:
        """A new and empty database; a test has one at most."""
        return make_url(f"sqlite:///{self.mktemp()}")

    def without_accounts(self) -> URL:
        """A database whose tables may be there, but no account is."""
        return self.fresh()

    def engine(self: Any, url: URL) -> Engine:
        """Let go of when the test has ended."""
        engine = open_engine(url)
        self.addCleanup(engine.dispose)
        return engine


class OnServer(OnSQLite):
    def server(self) -> DatabaseServer:
        raise NotImplementedError

    def fresh(self) -> URL:
        return self.server().fresh()

    def without_accounts(self) -> URL:
        """Much sooner there than a new one."""
        url = self.server().standing()
        engine = self.engine(url)
        with engine.begin() as connection:
            there = set(TABLES) & set(inspect(connection).get_table_names())
            if len(there) == len(TABLES):
                connection.execute(text("DELETE FROM account"))
            else:  # a test has made away with one
                for table in there:
                    connection.execute(text(f"DROP TABLE {table}"))
        engine.dispose()
        return url


class OnPostgreSQL(OnServer):
    def server(self) -> DatabaseServer:
        return postgresql.running()


class OnMariaDB(OnServer):
    def server(self) -> DatabaseServer:
        return mariadb.running()
