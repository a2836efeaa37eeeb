"""Flow: a client that is ahead of us, one that does not listen, and many at once; every buffer is bounded."""

import socket
import ssl
import time
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from digipoort_msa.smtp.input import MAX_LINE
from tests.msa import ClockTestCase, MemorySpool, MSATestCase, memory
from tests.msa_client import MESSAGE, Client, mail, stuffed


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
        self.assertEqual(wire.read().count("250-CHUNKING"), 4000)
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


class SpoolDoubleTests(ClockTestCase):
    def test_a_spool_that_raises(self) -> None:
        """The unexpected is a 451 and a logged failure; the session goes on."""

        class Broken(MemorySpool):
            def receive(self, realm: str) -> Any:
                raise RuntimeError("a defect")

        self.spool = Broken()
        wire = self.logged_in()
        self.assertEqual(wire.ask("MAIL FROM:<a@b.nl>")[:9], "451 4.3.0")
        self.assertEqual(wire.ask("NOOP"), "250 2.0.0 Ok\r\n")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
