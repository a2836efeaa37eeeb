from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.networks import Place, contains, network_of, place_of


class NetworksTests(SynchronousTestCase):
    def test_places(self) -> None:
        for address, source, network in (
            ("192.0.2.17", "192.0.2.17", "192.0.2.0/24"),
            ("::ffff:192.0.2.17", "192.0.2.17", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
            ("local", "local", None),
            ("x" * 100, "x" * 45, None),
        ):
            self.assertEqual(place_of(address), Place(source, network))

    def test_what_an_operator_writes(self) -> None:
        self.assertEqual(network_of("2001:DB8:0::/32"), "2001:db8::/32")
        self.assertEqual(network_of("192.0.2.0/24"), "192.0.2.0/24")
        for wrong in ("192.0.2.17/24", "192.0.2.0/33", "a/b"):
            with self.assertRaisesRegex(ValueError, "is not an address such as"):
                network_of(wrong)

    def test_contains(self) -> None:
        for outer, inner in (
            ("192.0.0.0/16", "192.0.2.17"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8:1:2::/64"),
        ):
            self.assertTrue(contains(outer, inner), (outer, inner))
        for outer, inner in (
            ("192.0.2.17", "192.0.2.0/24"),
            ("192.0.2.0/24", "2001:db8::/64"),
            ("2001:db8:1:2::/64", "192.0.2.17"),
            ("local", "192.0.2.17"),
            ("192.0.2.0/24", "local"),
        ):
            self.assertFalse(contains(outer, inner), (outer, inner))
