"""The registry: names, order, and that every AUTH begins afresh."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl import MECHANISMS, Context
from tests.requirements import proves

CONTEXT = Context(("example.nl",), frozenset({"msa.example.nl"}), "nonce")


class RegistryTests(SynchronousTestCase):
    @proves("A2")
    def test_the_mechanisms_in_order(self) -> None:
        self.assertEqual(list(MECHANISMS), ["DIGEST-MD5", "PLAIN", "LOGIN"])
        self.assertEqual([mechanism.name for mechanism in MECHANISMS.values()], list(MECHANISMS))

    @proves("T2")
    def test_which_need_tls_to_be_shown(self) -> None:
        plaintext = [name for name, mechanism in MECHANISMS.items() if mechanism.plaintext]
        self.assertEqual(plaintext, ["PLAIN", "LOGIN"])

    def test_cve_2011_1720_every_exchange_is_a_fresh_one(self) -> None:
        for name, mechanism in MECHANISMS.items():
            with self.subTest(name):
                first, second = mechanism.start(CONTEXT, None), mechanism.start(CONTEXT, None)
                self.assertEqual(next(first), next(second))
                first.close()
                self.assertRaises(StopIteration, next, first)
                self.assertIsNotNone(second.gi_frame)
