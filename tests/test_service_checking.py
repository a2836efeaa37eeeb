"""What ``check`` finds by opening stores."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config.settings import Settings
from digipoort_msa.service import stores
from digipoort_msa.service.checking import unusable
from tests.account_doubles import MemoryStore
from tests.configurations import document


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
