"""What a client says and hears on a real socket: the interface description's example, and attacks."""

import ssl
import time

from tests.msa import MSATestCase
from tests.msa_client import ACCOUNT, HOSTNAME, MESSAGE, Client, plain, stuffed, transaction
from tests.requirements import proves

CLEAR_EHLO = (
    f"250-{HOSTNAME}\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-STARTTLS\r\n250-8BITMIME\r\n"
    "250-AUTH DIGEST-MD5\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250 DSN\r\n"
)


SECURE_EHLO = CLEAR_EHLO.replace("250-STARTTLS\r\n", "").replace("DIGEST-MD5", "DIGEST-MD5 PLAIN LOGIN")


MUST_STARTTLS = "530 5.7.0 Must issue a STARTTLS command first\r\n"


class DialogueTests(MSATestCase):
    """The interface description's example, to the letter."""

    def transact(self, client: Client) -> None:
        """From MAIL to the end, as the example has it."""
        self.assertEqual(client.ask("MAIL FROM:<ik@mijnbedrijf.nl>"), "250 2.1.0 Ok\r\n")
        self.assertEqual(client.ask("RCPT TO:<belastingdienst@overheid.nl>"), "250 2.1.5 Ok\r\n")
        self.assertEqual(client.ask("DATA"), "354 End data with <CR><LF>.<CR><LF>\r\n")
        client.send(stuffed(MESSAGE))
        self.assertEqual(client.reply(), f"250 2.0.0 Ok: queued as {self.spool.incoming[-1].queue_id}\r\n")
        self.assertEqual(client.ask("QUIT"), "221 2.0.0 Bye\r\n")
        self.assertEqual(client.rest(), b"")

    @proves("L1", "T2", "T4", "T5", "T7", "A2", "A3", "M6")
    async def test_the_example(self) -> None:
        port = self.serve()

        def script() -> None:
            with Client(port) as client:
                self.assertEqual(client.reply(), f"220 {HOSTNAME} ESMTP\r\n")
                self.assertEqual(client.ask("EHLO mijnbedrijf.nl"), CLEAR_EHLO)
                self.assertEqual(client.ask("STARTTLS"), "220 Ready to start TLS\r\n")
                client.handshake()
                challenge, rspauth, success = client.digest()
                self.assertTrue(challenge.startswith("334 "))
                self.assertTrue(rspauth.startswith("334 "))
                self.assertEqual(success, "235 2.7.0 Authentication successful\r\n")
                self.transact(client)

        await self.run_client(script)
        ((envelope, octets),) = self.spool.kept
        self.assertEqual(self.spool.contents, [MESSAGE])
        self.assertEqual(envelope.account, ACCOUNT)
        # No EHLO was said under TLS, and what was said in clear is forgotten.
        self.assertTrue(octets.startswith(b"Received: from [127.0.0.1] ([127.0.0.1])\r\n"))
        self.assertNotIn(b"mijnbedrijf", octets.split(b"\r\n\r\n")[0])

    @proves("L2", "T3", "A2")
    async def test_the_example_on_implicit_tls(self) -> None:
        port = self.serve(implicit=True)

        def script() -> None:
            with Client(port, implicit=True) as client:
                self.assertEqual(client.reply(), f"220 {HOSTNAME} ESMTP\r\n")
                self.assertEqual(client.ask("EHLO mijnbedrijf.nl"), SECURE_EHLO)
                self.assertEqual(client.digest()[-1], "235 2.7.0 Authentication successful\r\n")
                self.transact(client)

        await self.run_client(script)
        self.assertEqual(self.spool.contents, [MESSAGE])
        self.assertIn(b"Received: from mijnbedrijf.nl ([127.0.0.1])", self.spool.kept[0][1])

    @proves("T1", "T3", "T6")
    async def test_before_and_after_starttls(self) -> None:
        port = self.serve()

        def script() -> None:
            with Client(port) as client:
                client.reply()
                for line in (
                    "HELO x",
                    "RSET",
                    "HELP",
                    f"AUTH PLAIN {plain()}",
                    "MAIL FROM:<a@b.nl>",
                    "XYZZY",
                ):
                    self.assertEqual(client.ask(line), MUST_STARTTLS)
                self.assertEqual(client.ask("NOOP"), "250 2.0.0 Ok\r\n")
                self.assertEqual(client.ask("STARTTLS now")[:9], "501 5.5.4")
                client.ask("STARTTLS")
                client.handshake()
                self.assertEqual(client.ask("MAIL FROM:<a@b.nl>"), "530 5.7.0 Authentication required\r\n")
                self.assertEqual(client.ask("EHLO mijnbedrijf.nl"), SECURE_EHLO)
                self.assertEqual(client.ask("STARTTLS")[:9], "503 5.5.1")
                self.assertEqual(client.ask("STARTTLS now")[:9], "501 5.5.4")
                self.assertEqual(client.ask("QUIT")[:3], "221")

        await self.run_client(script)

    @proves("M2", "M4", "M6")
    async def test_all_of_a_large_message(self) -> None:
        """Every octet, in segments of every size, pipelined with a second message behind it."""
        port = self.serve(implicit=True)
        large = b"".join(bytes([n % 256 if n % 256 not in b"\r\n" else 46]) * (n % 7) for n in range(300_000))
        large = b"Subject: x\r\n\r\n" + b"\r\n".join(large[n : n + 900] for n in range(0, len(large), 900))
        large += b"\r\n"

        def script() -> None:
            with Client(port, implicit=True) as client:
                client.reply()
                client.login()
                client.send(transaction(large) + transaction() + b"QUIT\r\n")
                replies = [client.reply()[:3] for _ in range(9)]
                self.assertEqual(replies, ["250", "250", "354", "250"] * 2 + ["221"])

        await self.run_client(script)
        self.assertEqual(self.spool.contents, [large, MESSAGE])


class InjectionTests(MSATestCase):
    """CVE-2011-0411: commands in clear behind STARTTLS."""

    @proves("T4")
    async def test_commands_in_the_same_segment(self) -> None:
        port = self.serve()
        behind = b"EHLO injected.example\r\nNOOP\r\nXYZZY\r\n"

        def script() -> None:
            with Client(port) as client:
                client.reply()
                client.send(b"STARTTLS\r\n" + behind)
                # What is behind is no TLS record: the handshake fails or the octets are dropped, and in
                # neither case has one of them an answer.
                self.assertEqual(client.reply(), "220 Ready to start TLS\r\n")
                try:
                    client.handshake()
                except (ssl.SSLError, OSError):
                    return
                client.login()
                client.submit()

        await self.run_client(script)
        self.assertEqual(self.spool.contents, [MESSAGE])
        self.assertNotIn(b"injected", self.spool.kept[0][1])

    @proves("T4", "T6")
    async def test_every_split_point(self) -> None:
        """Cut anywhere, with the server's turn between: no command behind STARTTLS is ever answered, and
        nothing of it is known under TLS."""
        port = self.serve()
        behind = b"EHLO injected.example\r\nMAIL FROM:<a@injected.example>\r\n"
        whole = b"EHLO clear.example\r\nSTARTTLS\r\n" + behind
        secured = 0

        def script(cut: int) -> bool:
            with Client(port) as client:
                client.reply()
                client.send(whole[:cut])
                time.sleep(0.002)  # a moment for the other side to read; the test holds without it as well
                client.send(whole[cut:])
                self.assertEqual(client.reply(), CLEAR_EHLO)
                self.assertEqual(client.reply(), "220 Ready to start TLS\r\n")
                try:
                    client.handshake()
                    answer = client.ask("NOOP")
                except (ssl.SSLError, OSError, AssertionError):
                    return False  # closed: the octets came into the handshake
                self.assertEqual(answer, "250 2.0.0 Ok\r\n")
                client.login()
                self.assertTrue(client.submit().startswith("250"))
                return True

        for cut in range(len(whole)):
            secured += await self.run_client(script, cut)
        self.assertGreaterEqual(secured, 1)
        for _, octets in self.spool.kept:
            self.assertNotIn(b".example", octets)
        self.assertTrue(octets.startswith(b"Received: from [127.0.0.1] ([127.0.0.1])\r\n"))
        self.assertEqual([event for event in self.events("refused") if event["command"] == "MAIL"], [])


class CrossProtocolTests(MSATestCase):
    @proves("T6")
    async def test_a_plain_client_on_the_implicit_port(self) -> None:
        port = self.serve(implicit=True)

        def script() -> bytes:
            with Client(port) as client:
                client.send(b"EHLO mijnbedrijf.nl\r\n")
                return client.rest()

        answer = await self.run_client(script)
        self.assertNotIn(b"250", answer)  # at most a TLS alert
        self.assertNotIn(b"220", answer)
        await self.until(lambda: not self.factory.connections)
        (failed,) = self.events("tls-failed")
        self.assertIn("does it expect STARTTLS?", failed["reason"])
        self.assertEqual(failed["peer"], "127.0.0.1")

    async def test_a_tls_hello_on_the_clear_port(self) -> None:
        port = self.serve()

        def script() -> bytes:
            with Client(port) as client:
                client.reply()
                client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(80))
                return client.rest()

        self.assertEqual(await self.run_client(script), b"")
        (event,) = self.events("disconnected")
        self.assertIn("TLS handshake where SMTP was expected", event["reason"])

    async def test_http_on_either_port(self) -> None:
        clear, implicit = self.serve(), self.serve(implicit=True)
        request = b"POST /x HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b.nl>\r\n"

        def script(port: int, greeted: bool) -> bytes:
            with Client(port) as client:
                if greeted:
                    client.reply()
                client.send(request)
                return client.rest()

        self.assertEqual(await self.run_client(script, clear, True), b"")
        self.assertNotIn(b" ", await self.run_client(script, implicit, False))
        await self.until(lambda: len(self.events("disconnected")) == 2)
        self.assertIn("HTTP request", self.events("disconnected")[0]["reason"])
        self.assertIn("HTTP", self.events("tls-failed")[0]["reason"])
