"""What ``check`` finds by opening stores."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config.settings import Settings
from digipoort_msa.service import stores
from digipoort_msa.service.checking import unusable
from tests.account_doubles import MemoryStore
from tests.configurations import document


class ForeignTableTests(SynchronousTestCase):
    """What is wrong with a query shows when the database is asked, and not at the first login."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("CREATE TABLE users (login TEXT, hash TEXT, off INTEGER)")

    def problems(self, query: str) -> list[str]:
        sql = {"url": f"sqlite:///{self.file}", "account-query": query}
        realm = {"name": "a", "sql": sql, "mechanisms": ["PLAIN"]}
        found = list(unusable(Settings.model_validate(document(realm=[realm]))))
        self.assertTrue(all(problem.warning for problem in found))
        return [str(problem) for problem in found]

    def test_right(self) -> None:
        query = "SELECT login AS name, hash AS password_hash, off AS disabled FROM users WHERE login = :name"
        self.assertEqual(self.problems(query), [])

    def test_wrong(self) -> None:
        for query, words in (
            ("SELECT name, disabled FROM nobody WHERE name = :name", "no such table: nobody"),
            ("SELECT login AS name, of AS disabled FROM users WHERE login = :name", "no such column: of"),
        ):
            (said,) = self.problems(query)
            self.assertIn("realm[0].sql.account-query: was tried, and the realm's logins", said)
            self.assertIn(words, said)

    def test_a_database_that_is_down(self) -> None:
        realm = {
            "name": "a",
            "mechanisms": ["PLAIN"],
            "sql": {
                "url": "postgresql://msa@127.0.0.1:1/x",
                "account-query": "SELECT name, disabled FROM users WHERE name = :name",
            },
        }
        (problem,) = unusable(Settings.model_validate(document(realm=[realm])))
        self.assertTrue(problem.warning)
        self.assertIn("454", str(problem))


class StoreTests(SynchronousTestCase):
    def problems(self, can: list[str], *mechanisms: str) -> list[str]:
        store: Any = MemoryStore(mechanisms=can)
        self.patch(stores, "open_store", lambda realm, facilities: store)
        realm = {"name": "a", "store": "elsewhere", "mechanisms": mechanisms}
        found = list(unusable(Settings.model_validate(document(realm=[realm]))))
        self.assertTrue(all(problem.warning for problem in found))
        return [str(problem) for problem in found]

    def test_a_mechanism_that_the_store_cannot_verify(self) -> None:
        """It is listed, and nobody will ever see it."""
        self.assertEqual(
            self.problems(["PLAIN"], "EXTERNAL", "DIGEST-MD5", "PLAIN"),
            ['realm[0].mechanisms[1] = "DIGEST-MD5": is not offered: the store elsewhere cannot verify it'],
        )
        self.assertEqual(self.problems(["PLAIN", "LOGIN"], "PLAIN"), [])
