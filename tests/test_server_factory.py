"""Listeners as clients find them: behind a proxy, and when the server stops."""

import socket

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.msa import MSATestCase, make_realms
from tests.msa_client import Client, stuffed
from tests.requirements import proves

V1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 465\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24"
    + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + b"\x9c\x40\x01\xd1"
)
PROXIED = "haproxy:tcp:0:interface=127.0.0.1"


class ProxyTests(MSATestCase):
    def proxied(self, port: int, header: bytes, implicit: bool) -> Client:
        client = Client(port)
        client.send(header)
        if implicit:
            client.handshake()
            client.reply()
        else:
            client.start_tls()
        return client

    @proves("L5")
    async def test_the_right_address(self) -> None:
        for implicit in (True, False):
            for header, literal in ((V1, b"[198.51.100.7]"), (V2, b"[IPv6:2001:db8::7]")):
                port = self.serve(endpoint=PROXIED, proxied=True, implicit=implicit)

                def script(port: int = port, header: bytes = header, implicit: bool = implicit) -> None:
                    with self.proxied(port, header, implicit) as client:
                        client.login()
                        client.submit()

                await self.run_client(script)
                self.assertIn(b"Received: from %b (%b)\r\n" % (literal, literal), self.spool.kept[-1][1])
                self.assertIn(self.events("connected")[-1]["peer"].encode(), literal)
        # The client greets first where nobody knows who it is: one "connected" for each all the same.
        self.assertEqual(len(self.events("connected")), 4)

    async def test_limits_count_the_client_behind(self) -> None:
        port = self.serve(endpoint=PROXIED, proxied=True, implicit=True, connections_per_address=1)

        def script() -> list[bytes]:
            with self.proxied(port, V1, True), self.proxied(port, V2, True):
                client = Client(port)
                client.send(V1)
                client.handshake()
                with client:
                    return [client.rest()]

        (answer,) = await self.run_client(script)
        self.assertEqual(answer[:9], b"421 4.7.0")

    async def test_a_failed_handshake_shows_the_client(self) -> None:
        port = self.serve(endpoint=PROXIED, proxied=True, implicit=True)

        def script() -> None:
            with Client(port) as client:
                client.send(V1 + b"EHLO x\r\n")
                client.rest()

        await self.run_client(script)
        await self.until(lambda: self.events("tls-failed"))
        self.assertEqual(self.events("tls-failed")[0]["peer"], "198.51.100.7")

    async def test_no_header(self) -> None:
        port = self.serve(endpoint=PROXIED, proxied=True)

        def script() -> bytes:
            with Client(port) as client:
                client.reply()
                client.send(b"EHLO mijnbedrijf.nl\r\n")
                return client.rest()

        self.assertEqual(await self.run_client(script), b"")


class StopTests(MSATestCase):
    @proves("M9")
    async def test_everyone_is_told(self) -> None:
        """A connection in clear, one under TLS, one inside its content, one that only just connected."""
        clear, implicit = self.serve(), self.serve(implicit=True)
        ready: list[int] = []

        def script(kind: str) -> bytes:
            with Client(clear if kind == "clear" else implicit) as client:
                if kind != "clear" and kind != "handshake":
                    client.handshake()
                if kind != "handshake":
                    client.reply()
                if kind == "content":
                    client.login()
                    client.ask("MAIL FROM:<a@b.nl>")
                    client.ask("RCPT TO:<a@b.nl>")
                    client.ask("DATA")
                    client.send(b"Subject: x\r\n\r\nhalf")
                ready.append(1)
                return client.rest()

        kinds = ["clear", "tls", "content", "handshake"]
        clients = [self.run_client(script, kind) for kind in kinds]
        await self.until(lambda: len(ready) == 4 and len(self.events("connected")) == 4)
        await deferLater(reactor, 0.05)
        for factory in self.factories:
            factory.close_connections()
        answers = [await client for client in clients]
        self.assertEqual([answer[:9] for answer in answers[:3]], [b"421 4.3.2"] * 3)
        self.assertNotIn(b"421", answers[3])
        self.assertEqual(self.spool.kept, [])

    async def test_the_open_verdict_first(self) -> None:
        self.spool.held = True
        port = self.serve(implicit=True)

        def script() -> bytes:
            with Client(port, implicit=True) as client:
                client.reply()
                client.login()
                client.ask("MAIL FROM:<a@b.nl>")
                client.ask("RCPT TO:<a@b.nl>")
                client.ask("DATA")
                client.send(stuffed(b"Subject: x\r\n\r\n"))
                return client.rest()

        answer = self.run_client(script)
        await self.until(lambda: self.spool.incoming and self.spool.incoming[0].committed)
        self.factory.close_connections()
        await deferLater(reactor, 0.05)
        committed = self.spool.incoming[0].committed
        assert committed is not None
        committed.callback("memory")
        first, second, _ = (await answer).split(b"\r\n")
        self.assertEqual((first, second[:9]), (b"250 2.0.0 Ok: queued as Q00001", b"421 4.3.2"))


class SharingTests(MSATestCase):
    async def test_nothing_of_one_client_reaches_another(self) -> None:
        """Two transactions step by step in turn, on one listener."""
        port = self.serve(implicit=True, realms=make_realms(reactor, self.spool))

        def script() -> None:
            with Client(port, implicit=True) as one, Client(port, implicit=True) as two:
                for client in (one, two):
                    client.reply()
                one.login()
                assert two.ask("MAIL FROM:<a@two.nl>")[:3] == "530"
                two.login()
                for line in ("MAIL FROM:<a@{}.nl>", "RCPT TO:<a@{}.nl>", "DATA"):
                    for name, client in (("one", one), ("two", two)):
                        assert client.ask(line.format(name))[0] in "23"
                one.send(b"from one\r\n")
                two.send(b"from two\r\n.\r\n")
                two.reply()
                one.send(b".\r\n")
                one.reply()

        await self.run_client(script)
        for envelope, octets in self.spool.kept:
            name = envelope.reverse_path.domain.removesuffix(".nl")
            self.assertEqual(str(envelope.recipients[0]), f"a@{name}.nl")
            self.assertTrue(octets.endswith(f"\r\nfrom {name}\r\n".encode()))
        self.assertEqual(len({envelope.session_id for envelope, _ in self.spool.kept}), 2)
