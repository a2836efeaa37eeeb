"""From greeting to a hop that takes mail: EHLO, STARTTLS, AUTH."""

from base64 import b64encode

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials, Extensions
from digipoort_msa.delivery.tls import ClientTLS, Mode
from digipoort_msa.smtp.reply import reply
from tests.next_hop import EXTENSIONS, MESSAGE, Network, SimpleHop, envelope
from tests.requirements import proves

SECURE = (*EXTENSIONS, "STARTTLS")
CREDENTIALS = Credentials("relay", "sécret")
PLAIN = b64encode("\0relay\0sécret".encode())


class SessionTestCase(SynchronousTestCase):
    def deliver(
        self,
        server: SimpleHop,
        mode: Mode = "verify",
        credentials: Credentials | None = None,
        cut: int = 1 << 20,
    ) -> str:
        """The one recipient's reply, as text."""
        self.server = server
        self.network = Network(lambda name: server)
        relay = Relay(
            Clock(),
            [Hop("hop", 25)],
            "msa.example.nl",
            ClientTLS(mode),
            credentials=credentials,
            endpoint=self.network.endpoint,
        )
        delivery = relay.deliver(envelope(), MESSAGE)
        self.network.pump(cut)
        [outcome] = self.successResultOf(delivery).values()
        return str(outcome.reply)

    def verbs(self) -> list[str]:
        return [command.split(b" ")[0].decode() for command in self.server.commands]


class OpeningTests(SessionTestCase):
    def test_not_ready(self) -> None:
        """However permanent it sounds, no message is at fault."""
        for answers in ({"greeting": [b"554 5.7.1 Go away\r\n"]}, {"EHLO": [b"550 5.7.1 Who?\r\n"]}):
            self.assertIn("451 4.3.2", self.deliver(SimpleHop(SECURE, answers)))
            self.assertEqual(self.verbs()[-1], "QUIT")

    def test_helo_is_for_hops_in_clear(self) -> None:
        answers: dict[str, list[bytes | None]] = {"EHLO": [b"502 5.5.2 What?\r\n"]}
        self.assertIn("451 4.3.2", self.deliver(SimpleHop(SECURE, answers)))
        self.assertNotIn("HELO", self.verbs())
        self.assertIn("250 2.0.0", self.deliver(SimpleHop(SECURE, answers), "none"))
        self.assertIn("HELO", self.verbs())

    def test_helo_refused(self) -> None:
        answers: dict[str, list[bytes | None]] = {verb: [b"502 5.5.2 What?\r\n"] for verb in ("EHLO", "HELO")}
        self.assertIn("451 4.3.2", self.deliver(SimpleHop(answers=answers), "none"))

    def test_temporary_refusal_of_ehlo(self) -> None:
        answers: dict[str, list[bytes | None]] = {"EHLO": [b"450 4.3.2 Later\r\n"]}
        self.assertIn("450 4.3.2 Later", self.deliver(SimpleHop(answers=answers), "none"))
        self.assertNotIn("HELO", self.verbs())


@proves("D4")
class STARTTLSTests(SessionTestCase):
    def test_extensions_are_asked_anew(self) -> None:
        server = SimpleHop(SECURE)
        server.secure_extensions = ("8BITMIME",)
        self.assertIn("250 2.0.0", self.deliver(server))
        self.assertEqual(self.verbs()[:6], ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"])
        self.assertIn(b"MAIL FROM:<business@example.nl>", server.commands)  # SIZE was offered in clear only
        self.assertEqual(server.receptions[3][:4], b"MAIL")
        self.assertNotIn(b"RCPT", server.receptions[3])

    def test_one_octet_at_a_time(self) -> None:
        self.assertIn("250 2.0.0", self.deliver(SimpleHop(SECURE), cut=1))

    def test_not_offered(self) -> None:
        self.assertIn("451 4.7.4", self.deliver(SimpleHop()))
        self.assertEqual(self.verbs(), ["EHLO", "QUIT"])

    def test_refused(self) -> None:
        answers: dict[str, list[bytes | None]] = {"STARTTLS": [b"454 4.7.0 Not now\r\n"]}
        self.assertIn("454 4.7.0 Not now", self.deliver(SimpleHop(SECURE, answers)))
        self.assertEqual(self.verbs(), ["EHLO", "STARTTLS", "QUIT"])

    def test_text_behind_the_reply(self) -> None:
        answers: dict[str, list[bytes | None]] = {"STARTTLS": [b"220 Go\r\n250 injected\r\n"]}
        self.assertIn("451 4.5.0", self.deliver(SimpleHop(SECURE, answers)))
        self.assertEqual(self.verbs(), ["EHLO", "STARTTLS"])
        self.assertEqual(self.network.connections[0][1].started_tls, [])

    def test_implicit(self) -> None:
        self.assertIn("250 2.0.0", self.deliver(SimpleHop(), "implicit"))
        self.assertEqual(len(self.network.connections[0][1].started_tls), 1)
        self.assertNotIn("STARTTLS", self.verbs())


@proves("D4")
class AuthenticationTests(SessionTestCase):
    def hop(self, mechanisms: str, *replies: bytes) -> SimpleHop:
        server = SimpleHop((*SECURE, "AUTH PLAIN LOGIN in clear"), {"AUTH": list(replies)})
        server.secure_extensions = (*EXTENSIONS, f"AUTH {mechanisms}")
        return server

    def test_plain(self) -> None:
        self.assertIn("250", self.deliver(self.hop("LOGIN PLAIN", b"235 Ok\r\n"), credentials=CREDENTIALS))
        self.assertEqual(self.server.commands[3], b"AUTH PLAIN " + PLAIN)
        self.assertTrue(self.server.commands[4].endswith(b" AUTH=<>"))

    def test_login(self) -> None:
        server = self.hop("LOGIN", b"334 VXNlcm5hbWU6\r\n")
        server.answers[b64encode(b"relay").decode().upper()] = [b"334 UGFzc3dvcmQ6\r\n"]
        server.answers[b64encode("sécret".encode()).decode().upper()] = [b"235 2.7.0 Ok\r\n"]
        self.assertIn("250", self.deliver(server, credentials=CREDENTIALS))
        self.assertEqual(
            server.commands[3:6], [b"AUTH LOGIN", b64encode(b"relay"), b64encode("sécret".encode())]
        )

    def test_a_long_initial_response_waits_for_its_challenge(self) -> None:
        credentials = Credentials("relay", "x" * 400)
        response = b64encode(b"\0relay\0" + b"x" * 400)
        server = self.hop("PLAIN", b"334 \r\n")
        server.answers[response.decode().upper()] = [b"235 Ok\r\n"]
        self.assertIn("250", self.deliver(server, credentials=credentials))
        self.assertEqual(server.commands[3:5], [b"AUTH PLAIN", response])

    def test_refused(self) -> None:
        """An operator's mistake: the mail waits until it is mended."""
        reply = self.deliver(self.hop("PLAIN", b"535 5.7.8 No\r\n"), credentials=CREDENTIALS)
        for words in ("451 4.7.8", "535 5.7.8 No", "password-file"):
            self.assertIn(words, reply)
        self.assertEqual(self.verbs()[-1], "QUIT")

    def test_not_now(self) -> None:
        reply = self.deliver(self.hop("PLAIN", b"454 4.7.0 Later\r\n"), credentials=CREDENTIALS)
        self.assertIn("451 4.7.0", reply)
        self.assertNotIn("password-file", reply)

    def test_out_of_step(self) -> None:
        for answer in (b"334 more?\r\n", b"250 odd\r\n"):
            self.assertIn("451 4.7.8", self.deliver(self.hop("PLAIN", answer), credentials=CREDENTIALS))
            self.assertEqual(self.verbs()[-1], "AUTH")

    def test_no_common_mechanism(self) -> None:
        self.assertIn("451 4.7.8", self.deliver(self.hop("GSSAPI"), credentials=CREDENTIALS))
        self.assertNotIn("AUTH", self.verbs())

    def test_never_in_clear(self) -> None:
        self.assertRaises(ValueError, self.deliver, SimpleHop(), "none", CREDENTIALS)

    def test_no_credentials_no_parameter(self) -> None:
        self.assertIn("250", self.deliver(self.hop("PLAIN")))
        self.assertNotIn(b"AUTH=", b"".join(self.server.commands))

    def test_the_password_is_not_shown(self) -> None:
        self.assertNotIn("sécret", repr(CREDENTIALS))


class ExtensionsTests(SynchronousTestCase):
    def test_read(self) -> None:
        extensions = Extensions.from_reply(
            reply(250, None, "PIPELINING.example", "size 10", "Auth PLAIN login", "", "STARTTLS")
        )
        self.assertNotIn("PIPELINING", extensions)
        self.assertNotIn("PIPELINING.EXAMPLE", extensions)
        self.assertEqual(extensions.longest_message, 10)
        self.assertEqual(extensions.mechanisms, ("PLAIN", "LOGIN"))
        self.assertIn("STARTTLS", extensions)
        self.assertIsNone(Extensions().longest_message)
