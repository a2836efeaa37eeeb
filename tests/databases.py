"""The same tests on SQLite, PostgreSQL and MariaDB: their class inherits one of these beside ``TestCase``."""

from typing import Any

import psycopg
import pymysql
from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url

from digipoort_msa.accounts.engine import open_engine
from digipoort_msa.accounts.tables import VERSION
from tests import mariadb, postgresql
from tests.database_server import STANDING, DatabaseServer


class OnSQLite:
    def fresh(self: Any) -> URL:
        """A new and empty database; a test has one at most."""
        return make_url(f"sqlite:///{self.mktemp()}")

    def without_accounts(self) -> URL:
        """A database whose tables may be there, but no account is."""
        return self.fresh()

    def without_tables(self) -> URL:
        """A database in which there are no tables of ours."""
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
        server = self.server()
        url = server.standing()
        try:
            server.execute("DELETE FROM account", STANDING)
            whole = server.execute("SELECT version FROM account_schema", STANDING) == [(VERSION,)]
        except (psycopg.Error, pymysql.Error):
            whole = False
        if not whole:  # a test has made away with something
            self.without_tables()
        return url

    def without_tables(self) -> URL:
        """A database in which there are no tables of ours."""
        server = self.server()
        url = server.standing()
        server.execute("DROP TABLE IF EXISTS account, account_schema", STANDING)
        return url


class OnPostgreSQL(OnServer):
    def server(self) -> DatabaseServer:
        return postgresql.running()


class OnMariaDB(OnServer):
    def server(self) -> DatabaseServer:
        return mariadb.running()
