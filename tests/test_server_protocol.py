"""The adapter: over real TLS on loopback where TLS matters, else on a wire without sockets."""

import ssl
from typing import Any

from twisted.internet.defer import Deferred

from tests.msa import ClockTestCase, MSATestCase
from tests.msa_client import MESSAGE, Client, b64, mail, stuffed, transaction
from tests.requirements import proves


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
