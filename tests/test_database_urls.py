from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.engine import open_engine
from digipoort_msa.config.checks import _url_fault
from digipoort_msa.database_urls import database_url


class DatabaseURLTests(SynchronousTestCase):
    def test_what_is_no_database(self) -> None:
        for url in ("", "nothing", "oracle://x", "sqlite://", "sqlite:///:memory:", "postgresql+none://x/y"):
            with self.assertRaises(ValueError):
                open_engine(url)
            self.assertIn("should be", str(_url_fault(url)), url)

    def test_drivers(self) -> None:
        """As they are on the page, without one, too."""
        for url, driver in (
            ("sqlite:////a", "pysqlite"),
            ("postgresql://u@h/d", "psycopg"),
            ("mariadb://u@h/d", "pymysql"),
            ("mysql+pymysql://u@h/d", "pymysql"),
        ):
            self.assertEqual(database_url(url).get_driver_name(), driver)
            self.assertIsNone(_url_fault(url))
        for other in ("postgresql+psycopg2://u@h/d", "postgresql+psycopg_async://u@h/d"):
            with self.assertRaisesRegex(ValueError, "by psycopg;"):
                database_url(other)

    def test_an_error_has_nothing_of_the_url(self) -> None:
        for url in ("postgresql://msa:pa@ss:geheim@host/db", "postgresql://msa@host:geheim/db", "geheim"):
            error = self.assertRaises(ValueError, database_url, url)
            self.assertNotIn("geheim", str(error))
            self.assertIsNone(error.__cause__)

    def test_what_would_be_dropped_in_silence(self) -> None:
        with self.assertRaisesRegex(ValueError, "init_command"):
            database_url("mariadb://u@h/d?init_command=SET%20NAMES%20utf8mb4")
