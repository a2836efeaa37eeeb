"""The adapter: over real TLS on loopback where TLS matters, else on a wire without sockets."""

import socket
import ssl
import time
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from digipoort_msa.smtp.input import MAX_LINE
from tests.msa import (
    ACCOUNT,
    HOSTNAME,
    MESSAGE,
    Client,
    ClockTestCase,
    MemorySpool,
    MSATestCase,
    b64,
    mail,
    memory,
    plain,
    stuffed,
    transaction,
)
from tests.requirements import proves

CLEAR_EHLO = (
    f"250-{HOSTNAME}\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-STARTTLS\r\n250-8BITMIME\r\n"
    "250-AUTH DIGEST-MD5\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n"
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


class LostConnectionTests(ClockTestCase):
    """M5: without the end of data there is no message."""

    @proves("M5")
    def test_at_every_point(self) -> None:
        whole = transaction(b"Subject: x\r\n\r\nx\r\n")
        for cut in range(len(whole)):
            wire = self.logged_in(session={})
            wire.send(whole[:cut])
            wire.lose()
            self.assertEqual(self.spool.kept, [], whole[:cut])
        self.assertTrue(all(incoming.aborted for incoming in self.spool.incoming))

    @proves("M5")
    def test_after_the_end_of_data_it_is_kept(self) -> None:
        self.spool.held = True
        wire = self.logged_in()
        wire.send(transaction())
        wire.lose()
        (incoming,) = self.spool.incoming
        assert incoming.committed is not None
        incoming.committed.callback("memory")
        self.assertEqual(self.spool.contents, [MESSAGE])
        self.assertEqual(self.flushLoggedErrors(), [])

    @proves("M5")
    def test_a_chunk(self) -> None:
        """BDAT: a message whose last chunk is not whole."""
        wire = self.logged_in()
        wire.say("MAIL FROM:<a@b.nl>", "RCPT TO:<a@b.nl>")
        wire.send(b"BDAT 5\r\nabc\r\nBDAT 10 LAST\r\nabc\r\nx")
        wire.lose()
        self.assertEqual(self.spool.kept, [])
        self.assertTrue(self.spool.incoming[0].aborted)


class LostTLSTests(MSATestCase):
    @proves("M5")
    async def test_over_tls(self) -> None:
        """The same over TLS: with and without its own goodbye, behind each octet of the end of data."""
        port = self.serve(implicit=True)
        head = transaction(b"Subject: x\r\n\r\nx\r\n")

        def script(cut: int, goodbye: bool) -> None:
            with Client(port, implicit=True) as client:
                client.reply()
                client.login()
                client.send(head[:-cut])
                for _ in range(3):
                    client.reply()
                if goodbye:
                    assert isinstance(client.socket, ssl.SSLSocket)
                    client.socket.unwrap()

        for cut in range(1, 6):
            for goodbye in (False, True):
                await self.run_client(script, cut, goodbye)
        await self.until(lambda: not self.factory.connections)
        self.assertEqual(self.spool.kept, [])
        self.assertTrue(all(incoming.aborted for incoming in self.spool.incoming))


class VerdictTests(ClockTestCase):
    """Order, and what a reply to the end of data promises."""

    @proves("M6")
    def test_250_waits_for_the_commit(self) -> None:
        self.spool.held = True
        wire = self.logged_in()
        self.assertEqual(wire.submit().split("\r\n")[3:], [""])
        wire.say("NOOP")
        self.clock.advance(10)
        self.assertEqual(wire.read(), "")  # the NOOP waits its turn
        (incoming,) = self.spool.incoming
        assert incoming.committed is not None
        incoming.committed.callback("memory")
        self.assertEqual(wire.read(), f"250 2.0.0 Ok: queued as {incoming.queue_id}\r\n250 2.0.0 Ok\r\n")

    @proves("M6", "D2")
    def test_a_commit_that_fails(self) -> None:
        self.spool.held = True
        wire = self.logged_in()
        wire.submit()
        incoming = self.spool.incoming[0]
        assert incoming.committed is not None
        incoming.committed.errback(OSError(28, "No space left on device"))
        self.assertEqual(wire.read()[:9], "451 4.3.0")
        self.assertEqual(self.spool.kept, [])
        (refused,) = self.events("refused")
        self.assertIn("No space left", refused["reason"])
        # The session goes on.
        self.spool.held = False
        self.assertIn("queued as", wire.submit())

    @proves("M9")
    def test_shutdown_waits_for_the_verdict(self) -> None:
        self.spool.held = True
        wire = self.logged_in()
        wire.send(transaction() + b"NOOP\r\n")
        wire.read()
        self.factory.close_connections()
        self.assertEqual((wire.read(), wire.closed), ("", False))
        incoming = self.spool.incoming[0]
        assert incoming.committed is not None
        incoming.committed.callback("memory")
        queued, last, _ = wire.read().split("\r\n")
        self.assertEqual(queued, f"250 2.0.0 Ok: queued as {incoming.queue_id}")
        self.assertEqual(last[:9], "421 4.3.2")
        self.assertTrue(wire.closed)

    @proves("M9")
    def test_shutdown_of_the_others(self) -> None:
        clear = self.connect(secure=False)
        idle = self.logged_in()
        busy = self.logged_in()
        busy.send(transaction()[:-3])
        for wire in (clear, idle, busy):
            wire.read()
        self.factory.close_connections()
        for wire in (clear, idle, busy):
            self.assertEqual(wire.read()[:9], "421 4.3.2")
            self.assertTrue(wire.closed)
        self.assertEqual(self.spool.kept, [])

    def test_shutdown_with_the_end_of_data_in_a_queue(self) -> None:
        """The spool asks to wait, the end of data is there already: 421, nothing behind it, nothing kept."""
        wire = self.logged_in()
        wire.send(mail())
        self.spool.room = Deferred()
        wire.send(stuffed(MESSAGE))
        wire.read()
        self.factory.close_connections()
        self.assertEqual(wire.read()[:9], "421 4.3.2")
        self.spool.room.callback(None)
        self.assertEqual(wire.read(), "")
        self.assertTrue(wire.closed)
        self.assertEqual(self.spool.kept, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_shutdown_in_a_handshake(self) -> None:
        wire = self.connect(handshake=False)
        self.factory.close_connections()
        self.assertTrue(wire.transport.aborted)
        self.assertEqual(wire.read(), "")
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TimeoutTests(ClockTestCase):
    IDLE = 300.0

    def assert_idle(self, wire: Any) -> None:
        self.assertEqual(wire.read()[:9], "421 4.4.2")
        self.assertTrue(wire.closed)

    @proves("M9")
    def test_idle(self) -> None:
        for secure in (False, True):
            wire = self.connect(secure=secure)
            wire.read()
            self.clock.advance(self.IDLE - 1)
            self.assertEqual(wire.ask("NOOP"), "250 2.0.0 Ok\r\n")
            self.clock.advance(self.IDLE - 1)
            self.assertFalse(wire.closed)
            self.clock.advance(1)
            self.assert_idle(wire)

    @proves("M9")
    def test_an_octet_now_and_then_is_idle(self) -> None:
        wire = self.connect()
        wire.read()
        for _ in range(30):
            wire.send(b"N")
            self.clock.advance(self.IDLE / 30)
        self.assert_idle(wire)

    @proves("M9")
    def test_content_is_progress(self) -> None:
        wire = self.logged_in()
        wire.send(transaction()[:-5])
        wire.read()
        for _ in range(3):
            self.clock.advance(self.IDLE - 1)
            wire.send(b"x")
        self.assertFalse(wire.closed)
        self.clock.advance(self.IDLE)
        self.assert_idle(wire)
        self.assertTrue(self.spool.incoming[0].aborted)

    def test_a_slow_spool_is_not_an_idle_client(self) -> None:
        wire = self.logged_in()
        self.spool.room = Deferred()
        wire.send(transaction())
        wire.read()
        for _ in range(3):
            self.clock.advance(self.IDLE)
        self.assertFalse(wire.closed)
        self.spool.room.callback(None)
        self.assertIn("250 2.0.0 Ok: queued as", wire.read())

    def test_a_client_that_ends_its_data_with_lf(self) -> None:
        wire = self.logged_in()
        wire.send(transaction()[:-5] + b"\n.\n")
        wire.read()
        self.clock.advance(self.IDLE)
        self.assertIn("not CR or LF alone", wire.read())

    @proves("M9", "M6")
    def test_a_slow_verdict_is_ours(self) -> None:
        self.spool.held = True
        wire = self.logged_in()
        wire.submit()
        self.clock.pump([self.IDLE] * 5)
        self.assertFalse(wire.closed)
        incoming = self.spool.incoming[0]
        assert incoming.committed is not None
        incoming.committed.callback("memory")
        self.assertIn("queued as", wire.read())
        self.clock.advance(self.IDLE)
        self.assert_idle(wire)

    def test_the_end_of_data_in_a_queue(self) -> None:
        """The server stops while the end of data waits for a spool without room: the 421 is the last word."""
        wire = self.logged_in()
        wire.send(mail())
        self.spool.room = Deferred()
        wire.send(stuffed(MESSAGE))
        wire.read()
        self.factory.close_connections()
        self.assertEqual(wire.read()[:9], "421 4.3.2")
        self.assertTrue(wire.closed)
        self.spool.room.callback(None)
        self.assertEqual(wire.read(), "")
        self.assertEqual(self.spool.kept, [])

    def test_a_handshake_that_never_ends(self) -> None:
        wire = self.connect(handshake=False)
        self.clock.advance(60)
        self.assertTrue(wire.transport.aborted)
        wire.lose()
        (event,) = self.events("disconnected")
        self.assertEqual(event["reason"], "the handshake took too long")

    def test_a_close_that_the_client_ignores(self) -> None:
        wire = self.connect()
        wire.say("QUIT")
        self.assertFalse(wire.transport.aborted)
        self.clock.advance(10)
        self.assertTrue(wire.transport.aborted)


class FlowTests(ClockTestCase):
    """Every buffer is bounded."""

    def test_pipelined_commands(self) -> None:
        wire = self.connect()
        wire.read()
        said = 0
        for _ in range(10):
            wire.send(b"NOOP\r\n" * 10_000)
            said += wire.read().count("250 2.0.0 Ok\r\n")
        self.clock.pump([0] * 1000)
        self.assertEqual(said + wire.read().count("250 2.0.0 Ok\r\n"), 100_000)

    def test_one_turn_is_short(self) -> None:
        """However much was pipelined, and however large the replies are, a turn makes few of them."""
        for line, least in (("NOOP", 1000), ("EHLO x", 50), ("HELP", 50)):
            wire = self.connect()
            wire.read()
            wire.send(f"{line}\r\n".encode() * (65536 // (len(line) + 2)))
            once = wire.read()
            self.assertLess(len(once), 20_000)
            self.assertGreater(once.count("\n2"), least)
            self.clock.pump([0] * 200)
            wire.read()

    def test_replies_that_are_not_read(self) -> None:
        wire = self.connect()
        wire.read()
        wire.protocol.pauseProducing()  # the transport: its buffer is full
        self.assertEqual(wire.transport.producerState, "paused")
        wire.protocol.dataReceived(b"EHLO x\r\n" * 4000)
        self.clock.pump([0] * 100)
        self.assertEqual(wire.read(), "")
        self.assertLess(wire.protocol.session.buffered, 65_536 + 1)
        wire.protocol.resumeProducing()
        self.clock.pump([0] * 1000)
        self.assertEqual(wire.read().count("250 CHUNKING"), 4000)
        self.assertEqual(wire.transport.producerState, "producing")

    def test_replies_that_are_never_read(self) -> None:
        wire = self.connect()
        wire.protocol.pauseProducing()
        self.clock.advance(300)
        self.assertTrue(wire.closed)
        self.clock.advance(10)
        self.assertTrue(wire.transport.aborted)

    def test_a_spool_that_asks_to_wait(self) -> None:
        wire = self.logged_in()
        wire.send(mail())
        self.spool.room = Deferred()
        wire.send(MESSAGE)
        self.assertEqual(wire.transport.producerState, "paused")
        taken = len(self.spool.incoming[0].octets)
        wire.protocol.dataReceived(b"x" * 32768)  # what TLS had already read
        self.assertEqual(len(self.spool.incoming[0].octets), taken)
        room, self.spool.room = self.spool.room, None
        room.callback(None)
        self.assertEqual(wire.transport.producerState, "producing")
        self.assertEqual(len(self.spool.incoming[0].octets), taken + 32768 + len("\r\n"))

    def test_room_that_is_there_already_and_room_that_fails(self) -> None:
        wire = self.logged_in()
        for outcome in (None, OSError("disk"), None):
            self.spool.room = None
            wire.send(mail())
            self.spool.room = fail(outcome) if outcome else succeed(None)
            wire.send(stuffed(MESSAGE))
            self.assertIn("queued as", wire.read())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_input_behind_a_verdict(self) -> None:
        self.spool.held = True
        wire = self.logged_in()
        wire.submit()
        wire.protocol.dataReceived(b"NOOP\r\n" * 10_000)
        self.assertEqual(wire.transport.producerState, "producing")
        wire.protocol.dataReceived(b"NOOP\r\n" * 10_000)
        self.assertEqual(wire.transport.producerState, "paused")
        incoming = self.spool.incoming[0]
        assert incoming.committed is not None
        incoming.committed.callback("memory")
        self.clock.pump([0] * 100)
        self.assertEqual(wire.read().count("250 2.0.0 Ok\r\n"), 20_000)
        self.assertEqual(wire.transport.producerState, "producing")

    def test_an_endless_line(self) -> None:
        wire = self.connect()
        wire.read()
        for _ in range(40):
            wire.protocol.dataReceived(b"x" * 32768)
            self.assertLessEqual(wire.protocol.session.buffered, MAX_LINE + 2)
        self.assertEqual(wire.read()[:9], "500 5.5.6")
        self.assertTrue(wire.closed)

    def test_after_the_last_word_nothing_is_kept(self) -> None:
        wire = self.connect()
        wire.say("QUIT")
        wire.read()
        for _ in range(100):
            wire.protocol.dataReceived(b"NOOP\r\n" * 10_000)
        self.assertEqual((wire.protocol.session.buffered, wire.read()), (0, ""))

    def test_quit_in_a_full_output_lets_tls_end(self) -> None:
        """A producer that is told to pause by the last write has nobody to resume it: reading goes on."""
        wire = self.connect()
        write = wire.transport.write

        def full(octets: bytes) -> None:
            write(octets)
            wire.protocol.pauseProducing()

        wire.transport.write = full  # type: ignore[method-assign]
        wire.say("QUIT")
        self.assertEqual(wire.transport.producerState, "producing")


class LoadTests(MSATestCase):
    """The same with real sockets."""

    async def test_a_client_that_never_reads(self) -> None:
        """It is told to wait: what it sends fills its own socket, not our memory."""
        port = self.serve(implicit=True)

        def script() -> int:
            with Client(port, implicit=True) as client:
                client.reply()
                client.socket.settimeout(0.5)
                sent = 0
                block = b"HELP\r\n" * 2000
                try:
                    for _ in range(10_000):
                        client.send(block)
                        sent += len(block)
                except (TimeoutError, ssl.SSLError):
                    pass
                (connection,) = self.factory.connections
                assert connection.protocol is not None
                transport = connection.protocol.transport
                outer = transport.transport
                waiting = sum(map(len, outer._tempDataBuffer)) + len(outer.dataBuffer)
                waiting += sum(map(len, transport._appSendBuffer)) + connection.protocol.session.buffered
                self.assertLess(waiting, 500_000)
                return sent

        before = memory()
        sent = await self.run_client(script)
        self.assertLess(sent, 10_000 * 12_000)  # it was stopped
        self.assertLess(memory() - before, 40_000_000)

    async def test_a_pipeline_does_not_starve_another_client(self) -> None:
        port = self.serve(implicit=True)
        flooding = [True]

        def flood() -> int:
            answered = 0
            with Client(port, implicit=True) as client:
                client.reply()
                client.socket.settimeout(0.2)
                while flooding:
                    try:
                        client.send(b"NOOP\r\n" * 5000)
                        while len(client.socket.recv(65536)) and flooding:
                            answered += 1
                    except (TimeoutError, ssl.SSLError):
                        pass
            return answered

        def script() -> float:
            with Client(port, implicit=True) as client:
                client.reply()
                longest = 0.0
                for _ in range(50):
                    start = time.monotonic()
                    client.ask("NOOP")
                    longest = max(longest, time.monotonic() - start)
                flooding.clear()
                return longest

        busy = self.run_client(flood)
        longest = await self.run_client(script)
        self.assertGreater(await busy, 0)
        self.assertLess(longest, 2.0)  # milliseconds, where the machine has nothing else to do

    async def test_a_thousand_half_open_connections(self) -> None:
        """Each costs a bounded amount, and all are dropped when their time is up."""
        clear, implicit = self.serve(), self.serve(implicit=True)

        def open_all() -> list[socket.socket]:
            sockets = []
            for number in range(500):
                for port in (clear, implicit):
                    one = socket.create_connection(("127.0.0.1", port), timeout=20)
                    one.sendall(b"EHL" if port == clear else b"\x16\x03\x01\x02\x00\x01"[: 1 + number % 6])
                    sockets.append(one)
            return sockets

        before = memory()
        sockets = await self.run_client(open_all)
        try:
            await self.until(lambda: len(self.events("connected")) == 1000)
            self.assertLess((memory() - before) / 1000, 100_000)
        finally:
            for one in sockets:
                one.close()
        await self.until(lambda: len(self.events("disconnected")) == 1000)
        self.assertEqual(self.factory.connections, set())


class CloseTests(ClockTestCase):
    def test_errors_are_counted(self) -> None:
        self.server(session={"errors": 5})
        wire = self.connect()
        wire.read()
        answer = wire.ask(*["XYZZY"] * 10)
        self.assertEqual(answer.count("500 5.5.2"), 5)
        self.assertTrue(answer.endswith("421 4.7.0 Too many errors; closing\r\n"))
        self.assertTrue(wire.closed)

    def test_every_timer_ends_with_its_connection(self) -> None:
        for secure in (False, True):
            wire = self.connect(secure=secure)
            wire.say("NOOP")
            wire.lose()
        wire = self.logged_in()
        wire.submit()
        wire.say("QUIT")
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.connections, set())

    def test_the_log_of_a_session(self) -> None:
        wire = self.logged_in()
        wire.submit()
        wire.say("QUIT")
        wire.lose()
        names = [event["event"] for event in self.logged if "event" in event]
        self.assertEqual(names, ["connected", "tls-started", "authenticated", "queued", "disconnected"])
        (disconnected,) = self.events("disconnected")
        self.assertEqual((disconnected["reason"], disconnected["messages"]), ("QUIT", 1))
        self.assertNotIn(b64(b"geheim"), str(self.logged))


class SpoolDoubleTests(ClockTestCase):
    def test_a_spool_that_raises(self) -> None:
        """The unexpected is a 451 and a logged failure; the session goes on."""

        class Broken(MemorySpool):
            def receive(self) -> Any:
                raise RuntimeError("a defect")

        self.spool = Broken()
        wire = self.logged_in()
        self.assertEqual(wire.ask("MAIL FROM:<a@b.nl>")[:9], "451 4.3.0")
        self.assertEqual(wire.ask("NOOP"), "250 2.0.0 Ok\r\n")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
