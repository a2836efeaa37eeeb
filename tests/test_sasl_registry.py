"""The registry: names, order, and that every AUTH begins afresh."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl import MECHANISMS, Context
from tests.requirements import proves

CONTEXT = Context(("example.nl",), frozenset({"msa.example.nl"}), "nonce")


class RegistryTests(SynchronousTestCase):
    @proves("A2")
    def test_the_mechanisms_in_order(self) -> None:
        strongest_first = ["EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "DIGEST-MD5", "PLAIN", "LOGIN"]
        self.assertEqual(list(MECHANISMS), strongest_first)
        self.assertEqual([mechanism.name for mechanism in MECHANISMS.values()], list(MECHANISMS))

    @proves("T2")
    def test_which_need_tls_to_be_shown(self) -> None:
        """EHLO in clear shows DIGEST-MD5 and nothing else, whatever else there is."""
        self.assertEqual(
            [name for name, mechanism in MECHANISMS.items() if mechanism.in_clear], ["DIGEST-MD5"]
        )

    def test_cve_2011_1720_every_exchange_is_a_fresh_one(self) -> None:
        for name, mechanism in MECHANISMS.items():
            with self.subTest(name):
                first, second = mechanism.start(CONTEXT, None), mechanism.start(CONTEXT, None)
                self.assertEqual(next(first), next(second))
                first.close()
                self.assertRaises(StopIteration, next, first)
                self.assertIsNotNone(second.gi_frame)
