"""Next hops as the settings write them."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.hop import Hop


class HopTests(SynchronousTestCase):
    def test_read_and_shown(self) -> None:
        for text, host, port in (
            ("core.example.nl:25", "core.example.nl", 25),
            ("192.0.2.1:2525", "192.0.2.1", 2525),
            ("[2001:db8::1]:25", "2001:db8::1", 25),
        ):
            hop = Hop.from_text(text)
            self.assertEqual((hop.host, hop.port, str(hop)), (host, port, text))

    def test_mistakes_are_explained(self) -> None:
        for text in (
            "",
            "core",
            "core:",
            ":25",
            "core:0",
            "core:65536",
            "::1:25",
            "[::1]",
            "a b:25",
            "core:٢",
        ):
            error = self.assertRaises(ValueError, Hop.from_text, text)
            self.assertIn("write host:port", str(error))
