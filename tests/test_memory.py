"""The memory of the whole server, under what it must bear without growing."""

import os
import resource
import socket
import subprocess
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import Authority
from tests.installed import Server, checkout, relay
from tests.postfix import free_port
from tests.raw_client import ConnectionLost, RawClient
from tests.requirements import proves

MIB = 1024 * 1024
SENDER, RECIPIENT = b"MAIL FROM:<sender@example.nl>", b"RCPT TO:<recipient@core.example>"


class Case(SynchronousTestCase):
    limits: dict[str, object] = {}  # noqa: RUF012

    def setUp(self) -> None:
        port = free_port()
        user = () if os.geteuid() else ("-u", "nobody")
        sink = subprocess.Popen(
            ["/usr/sbin/smtp-sink", *user, f"127.0.0.1:{port}", "100"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(sink.wait)
        self.addCleanup(sink.kill)
        settings = relay(port) | {"limits": {"login-first-delay": 0, **self.limits}}
        self.server = Server(Path(self.mktemp()).absolute(), Authority(), settings, checkout())
        self.addCleanup(self.server.kill)
        self.server.add_account()
        self.server.start()
        for implicit in (True, False):  # what is loaded at the first message is no growth
            self.submit(b"Subject: the first\r\n\r\n", 1, implicit=implicit)
        self.server.await_empty_queue()
        self.server.reset_peak()
        self.idle = self.server.memory()

    def submit(self, block: bytes, times: int, *, implicit: bool = True) -> None:
        """One message of ``times`` such blocks, made as it goes."""
        with RawClient(self.server, implicit=implicit, seconds=240) as client:
            client.command(SENDER, 250)
            client.command(RECIPIENT, 250)
            client.command(b"DATA", 354)
            for _ in range(times):
                client.send(block)
            client.command(b".", 250)

    def growth(self) -> float:
        """MiB above idle, at the highest."""
        return (self.server.memory("VmHWM") - self.idle) / MIB

    def assertServes(self) -> None:
        self.submit(b"Subject: still there\r\n\r\n", 1)


class LargeMessages(Case):
    @proves("M3")
    def test_twenty_at_once(self) -> None:
        """Twenty messages of exactly the limit, 50 MiB, under TLS and with the relay at work: 64 MiB."""
        block = (b"x" * 62 + b"\r\n") * 1024
        self.assertEqual(len(block) * 800, 52_428_800)
        done: list[int] = []

        def send(number: int) -> None:
            self.submit(block, 800, implicit=number % 2 == 0)
            done.append(number)

        threads = [Thread(target=send, args=(number,), daemon=True) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        self.assertEqual(sorted(done), list(range(20)), self.server.logged())
        self.server.await_empty_queue(120)
        self.assertLess(self.growth(), 64)

    def test_one_octet_more(self) -> None:
        """Is too much, and costs no more."""
        with RawClient(self.server) as client:
            client.command(SENDER, 250)
            client.command(RECIPIENT, 250)
            client.command(b"DATA", 354)
            block = (b"x" * 62 + b"\r\n") * 1024
            for _ in range(800):
                client.send(block)
            client.send(b"x\r\n")
            client.command(b".", 552)
            client.command(b"NOOP", 250)
        self.assertLess(self.growth(), 16)
        self.assertEqual(self.server.json("queue", "list"), [])


class HalfOpenConnections(Case):
    limits = {"connections-per-address": 5000, "connections": 5000}  # noqa: RUF012

    def setUp(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 2500:
            resource.setrlimit(resource.RLIMIT_NOFILE, (2500, hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        super().setUp()

    def test_a_thousand(self) -> None:
        """Clients that begin and say no more: before TLS, within the handshake, within a command."""
        sockets = []
        for number in range(1000):
            tls, octets = [
                ("starttls", b""),
                ("starttls", b"EHLO cl"),
                ("implicit", b"\x16\x03\x01"),
                ("implicit", b""),
            ][number % 4]
            connection = socket.create_connection(("127.0.0.1", self.server.ports[tls]), 30)
            self.addCleanup(connection.close)
            connection.sendall(octets)
            sockets.append(connection)
        self.assertServes()
        for connection in sockets[::4]:
            self.assertTrue(connection.recv(100).startswith(b"220 "))
        self.assertLess(self.growth(), 80)  # an OpenSSL connection takes a few dozen KiB
        for connection in sockets:
            connection.close()
        self.assertServes()


class Floods(Case):
    """From one client."""

    def test_commands(self) -> None:
        """10^5 in one stream, whose replies are read only when the server takes no more."""
        commands = memoryview(b"NOOP\r\n" * 100_000)
        with RawClient(self.server) as client:
            sent: list[int] = []

            def send() -> None:
                for start in range(0, len(commands), 6000):
                    client.send(commands[start : start + 6000])
                    sent.append(start)

            sender = Thread(target=send, daemon=True)
            sender.start()
            self._until_still(sent)
            for _ in range(100_000):
                client.expect(250)
            sender.join(10)
            self.assertFalse(sender.is_alive())
            client.command(b"QUIT", 221)
        self.assertLess(self.growth(), 16)
        self.assertServes()

    def _until_still(self, sent: list[int], seconds: float = 20) -> None:
        """Until nothing was sent for a second."""
        end = monotonic() + seconds
        before = -1
        while len(sent) > before and monotonic() < end:
            before = len(sent)
            sleep(1)

    def test_recipients(self) -> None:
        """10^4 of one message: no more than the limit are kept."""
        with RawClient(self.server) as client:
            client.command(SENDER, 250)
            replies = {250: 0, 452: 0}
            for _ in range(100):
                client.send(
                    b"".join(b"RCPT TO:<recipient%d@core.example>\r\n" % number for number in range(100))
                )
                try:
                    for _ in range(100):
                        replies[int(client.expect(250, 452, 421)[:3])] += 1
                except (ConnectionLost, KeyError):
                    break  # 421: it had enough of it
            self.assertEqual(replies[250], 1000)
        self.assertLess(self.growth(), 16)
        self.assertServes()

    def test_an_endless_line(self) -> None:
        """Under TLS and before it."""
        with RawClient(self.server) as client:
            self._flood(client.socket)
        with socket.create_connection(("127.0.0.1", self.server.ports["starttls"]), 30) as clear:
            self._flood(clear)
        self.assertLess(self.growth(), 16)
        self.assertServes()

    def _flood(self, connection: socket.socket) -> None:
        try:
            for _ in range(320):
                connection.sendall(b"x" * 65536)
        except OSError:
            pass  # closed, or taken no further
