from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.names import local_name, realm_of


class NamesTests(SynchronousTestCase):
    def test_local_name(self):
        for username, expected in {
            "piet": "piet",
            "piet@one.nl": "piet",
            "piet@ONE.NL": "piet",
            "piet@two.nl": "piet@two.nl",
            "info@piet.nl@one.nl": "info@piet.nl",
            "@one.nl": "",
            "one.nl": "one.nl",
            "piet@": "piet@",
            "piet@sub.one.nl": "piet@sub.one.nl",
        }.items():
            self.assertEqual(local_name(username, "one.nl"), expected, username)

    def test_realm_of(self):
        realms = ["One.nl", "two.nl"]
        self.assertEqual(realm_of("piet@one.NL", realms), "One.nl")
        self.assertEqual(realm_of("piet@two.nl", realms), "two.nl")
        for username in ("piet", "piet@three.nl", "two.nl", "piet@", ""):
            self.assertIsNone(realm_of(username, realms))
