"""Next hops as the settings write them."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.hop import MX, SRV, Hop, Limits, NextHop, target


class HopTests(SynchronousTestCase):
    def test_read_and_shown(self) -> None:
        for text, host, port in (
            ("core.example.nl:25", "core.example.nl", 25),
            ("192.0.2.1:2525", "192.0.2.1", 2525),
            ("[2001:db8::1]:25", "2001:db8::1", 25),
        ):
            hop = Hop.from_text(text)
            self.assertEqual((hop.host, hop.port, hop.socket, str(hop)), (host, port, None, text))

    def test_sockets(self) -> None:
        hop = Hop.from_text("unix:/run/dovecot/lmtp")
        self.assertEqual((hop.socket, str(hop)), ("/run/dovecot/lmtp", "unix:/run/dovecot/lmtp"))
        self.assertNotEqual(hop, Hop.from_text("unix:/run/other"))

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
            "unix:run/lmtp",
            "unix:/run\0",
        ):
            error = self.assertRaises(ValueError, Hop.from_text, text)
            self.assertIn("write host:port", str(error))

    def test_a_path_that_no_socket_can_have(self) -> None:
        Hop.from_text("unix:/" + "x" * 106)
        for path in ("x" * 107, "é" * 54):
            error = self.assertRaises(ValueError, Hop.from_text, "unix:/" + path)
            self.assertIn("107 octets", str(error))


class TargetTests(SynchronousTestCase):
    def test_read_and_shown(self) -> None:
        for text, expected in (
            ("core.example.nl:25", Hop("core.example.nl", 25)),
            ("unix:/run/lmtp", Hop("localhost", 0, "/run/lmtp")),
            ("mx:example.nl", MX("example.nl")),
            ("mx:example.nl:2525", MX("example.nl", 2525)),
            ("srv:_submission._tcp.example.nl", SRV("_submission._tcp.example.nl")),
            ("mx:25", Hop("mx", 25)),  # a host of that name
        ):
            self.assertEqual((target(text), str(target(text))), (expected, text))

    def test_mistakes(self) -> None:
        for text in ("mx:", "mx:example.nl:0", "srv:example.nl", "srv:_submission._udp.example.nl", "a:b:c"):
            self.assertRaises(ValueError, target, text)


class NextHopTests(SynchronousTestCase):
    def test_its_own_limits_and_the_usual(self) -> None:
        usual = Limits(10, 100, 30.0)
        self.assertEqual(NextHop("core:25").limits(usual), usual)
        own = NextHop("core:25", connections=2, messages_per_connection=3, idle_timeout=4.0)
        self.assertEqual(own.limits(usual), Limits(2, 3, 4.0))

    def test_its_text_is_read(self) -> None:
        self.assertEqual(NextHop("mx:example.nl").hop, MX("example.nl"))
        self.assertRaises(ValueError, NextHop, "nonsense")
