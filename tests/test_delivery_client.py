"""One connection: replies in step, waits timed, content streamed."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.client import ClientConnection, Timeouts
from digipoort_msa.delivery.content_stream import send_content
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.tls import Unverified
from digipoort_msa.smtp.dot_stuffing import NotCanonical
from tests.next_hop import Content, MemoryTransport


class ConnectionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.connection = ClientConnection(self.clock, "hop:25", Timeouts())
        self.transport = MemoryTransport(self.connection)
        self.connection.makeConnection(self.transport)

    def run_(self, coroutine: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(coroutine)

    def came(self, octets: bytes) -> None:
        self.connection.dataReceived(octets)

    def failed(self, deferred: Deferred[Any], *words: str) -> None:
        failure = self.failureResultOf(deferred, HopFailure)
        for word in words:
            self.assertIn(word, str(failure.value.reply))
        self.assertTrue(self.transport.lost)
        self.assertFalse(self.connection.usable)

    def greeted(self) -> None:
        self.came(b"220 hop\r\n")
        self.successResultOf(self.run_(self.connection.reply(1)))


class ReplyTests(ConnectionTestCase):
    def test_greeting_is_awaited(self) -> None:
        greeting = self.run_(self.connection.reply(1))
        self.assertNoResult(greeting)
        for octet in b"220 hop\r\n":
            self.came(bytes([octet]))
        self.assertEqual(self.successResultOf(greeting).code, 220)

    def test_replies_in_order(self) -> None:
        self.greeted()
        self.connection.send(b"A\r\nB\r\n", 2)
        self.came(b"250 a\r\n250 b\r\n")
        for text in "ab":
            self.assertEqual(self.successResultOf(self.run_(self.connection.reply(1))).lines, (text,))

    def test_unasked_reply(self) -> None:
        self.greeted()
        self.came(b"250 surprise\r\n")
        self.failed(self.run_(self.connection.command(b"NOOP", 1)), "4.5.0", "surprise")

    def test_reply_ahead_of_its_command(self) -> None:
        """A hop that answers what it has not seen could make any of its words the reply to anything."""
        greeting = self.run_(self.connection.reply(1))
        self.came(b"220 hop\r\n250 to the EHLO to come\r\n")
        self.successResultOf(greeting)
        self.failed(self.run_(self.connection.command(b"EHLO me", 1)), "4.5.0")

    def test_half_a_reply_ahead_of_its_command(self) -> None:
        self.came(b"220 hop\r\n250 to the EH")
        self.successResultOf(self.run_(self.connection.reply(1)))
        self.failed(self.run_(self.connection.command(b"EHLO me", 1)), "before its command")
        self.assertEqual(self.transport.value(), b"")

    def test_421(self) -> None:
        self.greeted()
        reply = self.run_(self.connection.command(b"NOOP", 1))
        self.came(b"421 4.3.2 down\r\n")
        self.failed(reply, "421 4.3.2 down")

    def test_421_unasked(self) -> None:
        self.greeted()
        self.came(b"421 4.4.2 idle\r\n")
        self.failed(self.run_(self.connection.command(b"NOOP", 1)), "421 4.4.2 idle")

    def test_garbage(self) -> None:
        greeting = self.run_(self.connection.reply(1))
        self.came(b"SSH-2.0-OpenSSH\r\n")
        self.failed(greeting, "4.5.0", "SSH-2.0")

    def test_endless_line(self) -> None:
        greeting = self.run_(self.connection.reply(1))
        for _ in range(100):
            self.came(b"2" * 100)
        self.failed(greeting, "octets")

    def test_lost(self) -> None:
        greeting = self.run_(self.connection.reply(1))
        self.transport.lose(ConnectionLost())
        self.failed(greeting, "4.4.2", "lost")
        self.assertIsNone(self.successResultOf(self.connection.closed))

    def test_replies_before_the_end_count(self) -> None:
        self.greeted()
        self.connection.send(b"A\r\nB\r\n", 2)
        self.came(b"250 a\r\n")
        self.transport.lose(ConnectionDone())
        self.successResultOf(self.run_(self.connection.reply(1)))
        self.failed(self.run_(self.connection.reply(1)), "the hop closed it")


class TimeTests(ConnectionTestCase):
    def test_each_wait_is_timed(self) -> None:
        greeting = self.run_(self.connection.reply(300))
        self.clock.advance(299)
        self.assertNoResult(greeting)
        self.clock.advance(1)
        self.failed(greeting, "4.4.2", "300 seconds")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_octets_do_not_extend_a_wait(self) -> None:
        greeting = self.run_(self.connection.reply(10))
        for _ in range(5):
            self.came(b"220-still there\r\n")
            self.clock.advance(2)
        self.failed(greeting, "10 seconds")

    def test_a_shorter_wait_after_a_longer(self) -> None:
        self.came(b"220 hop\r\n")
        self.successResultOf(self.run_(self.connection.reply(300)))
        reply = self.run_(self.connection.command(b"NOOP", 300))
        self.came(b"250 Ok\r\n")
        self.successResultOf(reply)
        reply = self.run_(self.connection.command(b"NOOP", 5))
        self.clock.advance(5)
        self.failed(reply, "5 seconds")

    def test_a_longer_wait_after_a_shorter(self) -> None:
        greeting = self.run_(self.connection.reply(5))
        self.came(b"220 hop\r\n")
        self.successResultOf(greeting)
        reply = self.run_(self.connection.command(b"NOOP", 20))
        self.clock.pump([4] * 4)
        self.assertNoResult(reply)
        self.clock.advance(4)
        self.failed(reply, "20 seconds")

    def test_rest_ends_with_quit(self) -> None:
        self.greeted()
        self.connection.rest(30)
        self.clock.advance(30)
        self.assertEqual(self.transport.value(), b"QUIT\r\n")
        self.came(b"221 Bye\r\n")
        self.assertTrue(self.transport.disconnecting)

    def test_quit_waits_no_longer_than_it_should(self) -> None:
        self.greeted()
        self.connection.quit()
        self.clock.advance(10)
        self.assertTrue(self.transport.aborted)

    def test_a_closing_that_hangs(self) -> None:
        """A TLS peer that never answers the closing alert."""
        self.greeted()
        self.connection.quit()
        self.came(b"221 Bye\r\n")
        self.assertFalse(self.transport.aborted)
        self.clock.advance(10)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        greeting = self.run_(self.connection.reply(300))
        greeting.cancel()
        self.failed(greeting, "stopping")


class ToProve:
    """A handshake that a test completes."""

    objection: str | None = None
    proof = ""

    def verify(self) -> None:
        pass

    def refuse(self) -> None:
        raise Unverified("somebody else")


class StartTLSTests(ConnectionTestCase):
    def test_text_behind_the_reply(self) -> None:
        """NO STARTTLS: what a man in the middle adds in clear must not become a reply under TLS."""
        injected = b"250 injected\r\n"
        for cut in range(1, len(injected) + 1):
            self.setUp()
            self.greeted()
            reply = self.run_(self.connection.command(b"STARTTLS", 1))
            self.came(b"220 Go\r\n" + injected[:cut])
            self.successResultOf(reply)
            self.failed(self.run_(self.connection.start_tls(ToProve())), "4.5.0")
            self.assertEqual(self.transport.started_tls, [])

    def test_text_after_the_reply(self) -> None:
        self.greeted()
        reply = self.run_(self.connection.command(b"STARTTLS", 1))
        self.came(b"220 Go\r\n")
        self.came(b"250 injected\r\n")
        self.successResultOf(reply)
        self.failed(self.run_(self.connection.start_tls(ToProve())), "4.5.0")

    def test_a_greeting_where_tls_comes_first(self) -> None:
        """Whole or in part: it is nobody's, and must not become the greeting under TLS."""
        greeting = b"220 injected\r\n"
        for cut in range(1, len(greeting) + 1):
            self.setUp()
            self.came(greeting[:cut])
            self.failed(self.run_(self.connection.start_tls(ToProve())), "4.5.0")
            self.assertEqual(self.transport.started_tls, [])

    def test_handshake(self) -> None:
        self.greeted()
        options = ToProve()
        starting = self.run_(self.connection.start_tls(options))
        self.assertNoResult(starting)
        self.assertEqual(self.transport.started_tls, [options])
        self.connection.handshakeCompleted()
        self.successResultOf(starting)

    def test_nothing_goes_out_to_who_is_not_proven(self) -> None:
        self.greeted()
        proof = ToProve()
        starting = self.run_(self.connection.start_tls(proof))
        proof.verify = proof.refuse
        self.connection.handshakeCompleted()
        self.failed(starting, "451 4.7.5", "somebody else")
        self.failed(self.run_(self.connection.command(b"EHLO me", 1)), "somebody else")
        self.assertEqual(self.transport.value(), b"")
        self.assertTrue(self.transport.aborted)

    def test_objection(self) -> None:
        """What OpenSSL thought of the chain says more than the error that ended the handshake."""
        self.greeted()
        proof = ToProve()
        starting = self.run_(self.connection.start_tls(proof))
        proof.objection = "its certificate has expired"
        self.transport.lose(ConnectionLost("certificate verify failed"))
        self.failed(starting, "451 4.7.5", "expired")

    def test_text_during_the_handshake(self) -> None:
        """No TLS layer would let it through."""
        starting = self.run_(self.connection.start_tls(ToProve()))
        self.came(b"220 hop\r\n")
        self.failed(starting, "4.5.0")

    def test_handshake_fails(self) -> None:
        self.greeted()
        starting = self.run_(self.connection.start_tls(ToProve()))
        self.transport.lose(ConnectionLost("no such certificate"))
        self.failed(starting, "4.7.5", "no such certificate")

    def test_handshake_hangs(self) -> None:
        self.greeted()
        starting = self.run_(self.connection.start_tls(ToProve()))
        self.clock.advance(60)
        self.failed(starting, "60 seconds")


class ContentTests(ConnectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.greeted()

    def send(self, content: Any) -> Deferred[Any]:
        return self.run_(send_content(self.connection, content.open(), content.size))

    def test_one_segment_is_one_write(self) -> None:
        self.successResultOf(self.send(Content(b".a\r\n")))
        self.assertEqual(self.transport.value(), b"..a\r\n.\r\n")
        self.assertIsNone(self.transport.producer)

    def test_nothing(self) -> None:
        self.successResultOf(self.send(Content()))
        self.assertEqual(self.transport.value(), b".\r\n")

    def test_waits_for_room(self) -> None:
        sending = self.send(Content(b"a\r", b"\n.b\r\n", b"c\r\n"))
        self.assertEqual(self.transport.value(), b"a\r")
        self.transport.producer.resumeProducing()
        self.assertEqual(self.transport.value(), b"a\r\n..b\r\n")
        self.assertNoResult(sending)
        self.transport.producer.resumeProducing()
        self.successResultOf(sending)
        self.assertEqual(self.transport.value(), b"a\r\n..b\r\nc\r\n.\r\n")
        self.assertIsNone(self.transport.producer)

    def test_no_room_in_time(self) -> None:
        sending = self.send(Content(b"a\r\n", b"b\r\n"))
        self.clock.advance(180)
        self.failed(sending, "180 seconds")

    def test_early_reply(self) -> None:
        for early, outcome in (
            (b"552 5.3.4 Enough\r\n", "552 5.3.4 Enough"),
            (b"421 4.3.2 down\r\n", "421 4.3.2 down"),
            (b"250 2.0.0 Ok\r\n", "451 4.5.0"),
        ):
            self.setUp()
            sending = self.send(Content(b"a\r\n", b"b\r\n"))
            self.came(early)
            self.failed(sending, outcome)
            self.assertEqual(self.transport.value(), b"a\r\n")

    def test_lost(self) -> None:
        sending = self.send(Content(b"a\r\n", b"b\r\n"))
        self.transport.lose(ConnectionLost())
        self.failed(sending, "4.4.2")

    def test_lost_while_reading(self) -> None:
        content = Content(b"a\r\n", b"b\r\n")
        reader = content.open()
        reader.read = Deferred
        sending = self.run_(send_content(self.connection, reader, content.size))
        self.transport.lose(ConnectionLost())
        self.failed(sending, "4.4.2")

    def test_not_canonical(self) -> None:
        for segments in ([b"a\nb\r\n"], [b"a"], [b"a\r\n", b"b\r"]):
            self.setUp()
            sending = self.send(Content(*segments))
            if self.transport.producer is not None:
                self.transport.producer.resumeProducing()
            self.failureResultOf(sending, NotCanonical)
            self.assertNotIn(b"\r\n.\r\n", self.transport.value())

    def test_size_is_wrong(self) -> None:
        """A content cut short in the spool is never passed off as a whole one."""
        for size in (1, 4, 8):
            self.setUp()
            sending = self.send(Content(b"a\r\n", b"b\r\n", size=size))
            if self.transport.producer is not None:
                self.transport.producer.resumeProducing()
            if self.transport.producer is not None:
                self.transport.producer.resumeProducing()
            self.failureResultOf(sending, EOFError)
            self.assertNotIn(b"\r\n.\r\n", self.transport.value())

    def test_reader_fails(self) -> None:
        reader = Content(b"a\r\n").open()
        reader.read = lambda: Deferred().addCallback(lambda _: None)
        sending = self.run_(send_content(self.connection, reader, 3))
        self.connection._waiting.errback(Failure(OSError("gone")))
        self.failureResultOf(sending, OSError)
