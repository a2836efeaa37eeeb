"""``[realm.sql]``."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import ConfigError, settings_from
from digipoort_msa.config.checks import across
from digipoort_msa.config.settings import Settings
from tests.configurations import document

QUERY = "SELECT n AS name, 1 AS active, h AS password_hash FROM t WHERE n = :name"
UPGRADE = "UPDATE t SET h = :new WHERE n = :name AND h = :old"
SCRAM = "UPDATE t SET s = :scram WHERE n = :name AND h = :old"
URL = "sqlite:////tmp/x.sqlite"


def problems(**sql: Any) -> list[str]:
    tables = document(realm=[{"name": "x.nl", "sql": {key.replace("_", "-"): sql[key] for key in sql}}])
    try:
        parsed = Settings.model_validate(tables)
    except ValueError:
        try:
            settings_from(tables)
        except ConfigError as error:
            return [str(problem) for problem in error.problems if ".sql" in str(problem)]
        raise
    return [str(problem) for problem in across(parsed) if ".sql" in str(problem)]


class SqlTests(SynchronousTestCase):
    def test_right(self) -> None:
        for sql in (
            {},
            {"url": URL},
            {"url": URL, "key_file": "/k", "password_file": "credential:database"},
            {"url": URL, "account_query": QUERY},
            {"url": URL, "account_query": QUERY, "upgrade_query": UPGRADE},
            {"url": URL, "account_query": QUERY.replace("h AS", "scram, h AS"), "scram_query": SCRAM},
        ):
            self.assertEqual(problems(**sql), [], sql)

    def test_what_does_not_go_together(self) -> None:
        for sql, key, words in (
            ({"account_query": QUERY}, "url", "missing"),
            ({"url": URL, "account_query": QUERY, "key_file": "/k"}, "key-file", "take one of them out"),
            ({"url": URL, "upgrade_query": UPGRADE}, "upgrade-query", "account-query is missing"),
            ({"url": URL, "scram_query": SCRAM}, "scram-query", "account-query is missing"),
            ({"url": URL, "account_query": QUERY, "scram_query": SCRAM}, "scram-query", "a column scram"),
            ({"password_file": "/p"}, "password-file", "of a url, which is missing"),
        ):
            (line,) = problems(**sql)
            self.assertIn(f"realm[0].sql.{key}", line)
            self.assertIn(words, line)

    def test_queries_in_which_a_value_could_become_code(self) -> None:
        """What is refused is in test_statements; here, that it is, and how that is said."""
        for sql in (
            {"account_query": QUERY.replace(":name", "':name'")},
            {"account_query": QUERY.replace(":name", "%s")},
            {"account_query": QUERY + " AND p = :password"},
            {"upgrade_query": UPGRADE.replace(" AND h = :old", "")},
            {"scram_query": SCRAM + "; DROP TABLE t"},
        ):
            ((key, _),) = sql.items()
            (line,) = problems(url=URL, **sql)
            self.assertIn(f"realm[0].sql.{key.replace('_', '-')}", line)
            self.assertIn("should be one statement with bound parameters, but ", line)
