"""Through the real server to a hop that is slow: large messages, and a client that does not wait for it."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.through import Through
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.spool.queue_ids import QueueIds
from tests.msa import MSATestCase, memory
from tests.msa_client import Client
from tests.next_hop import EXTENSIONS, HANG, HopProtocol, SimpleHop
from tests.requirements import proves

MIB = 1 << 20
BLOCK = (b"x" * 62 + b"\r\n") * 1024  # 64 KiB


class CountingHop(SimpleHop):
    """Keeps of a content nothing but its length."""

    def __init__(self) -> None:
        super().__init__(EXTENSIONS)
        self.octets = 0
        self._last = b""

    @property
    def silent(self) -> bool:
        return self._mute

    @silent.setter
    def silent(self, silent: bool) -> None:
        self._mute = silent

    def receive(self, octets: bytes) -> bytes:
        if self._content is None:
            return super().receive(octets)
        self.octets += len(octets)
        self._last = (self._last + octets)[-5:]
        if self._last != b"\r\n.\r\n":
            return b""
        return super().receive(b".\r\n")


class SlowHop(HopProtocol):
    """Reads, then rests for a millisecond."""

    peak = 0

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        SlowHop.peak = max(SlowHop.peak, memory())
        self.transport.pauseProducing()
        self._rest = reactor.callLater(0.001, self.transport.resumeProducing)

    _rest: Any = None

    def wake(self) -> None:
        if self._rest is not None and self._rest.active():
            self._rest.cancel()


class SlowHopTests(MSATestCase):
    def setUp(self) -> None:
        super().setUp()
        self.hop = CountingHop()
        self.connections: list[SlowHop] = []

        def connected() -> SlowHop:
            self.connections.append(SlowHop(self.hop))
            return self.connections[-1]

        factory: Any = Factory.forProtocol(connected)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: [connection.wake() for connection in self.connections])
        self.relay = Relay(
            reactor, [Hop("127.0.0.1", port.getHost().port)], "msa.example.nl", ClientTLS("none")
        )
        self.addCleanup(self.relay.stop)
        self.spool: Any = Through(self.relay, QueueIds(), reactor)
        self.port = self.serve()

    def submit(self, blocks: int, *, wait: bool = True) -> str:
        """Blocking."""
        with Client(self.port) as client:
            client.start_tls()
            client.login()
            for line in ("MAIL FROM:<ik@mijnbedrijf.nl>", "RCPT TO:<core@overheid.nl>", "DATA"):
                client.ask(line)
            for _ in range(blocks):
                client.send(BLOCK)
            client.send(b".\r\n")
            return client.reply() if wait else ""

    @proves("M3", "D1")
    async def test_fifty_mebibytes(self) -> None:
        """The client is faster; memory stays flat all the same."""
        self.assertEqual(
            (await self.run_client(self.submit, 16))[:3], "250"
        )  # what is loaded once is no growth
        before, self.hop.octets, SlowHop.peak = memory(), 0, 0
        self.assertEqual((await self.run_client(self.submit, 800))[:3], "250")
        self.assertGreater(self.hop.octets, 50 * MIB)
        self.assertLess((SlowHop.peak - before) / MIB, 16)
        self.assertEqual(len(self.events("hop-connected")), 1)

    @proves("D2", "M6")
    async def test_a_client_that_leaves_before_it_hears(self) -> None:
        """Its message is delivered, and the log says that it may come again."""
        self.hop.answers["."] = [HANG]
        await self.run_client(self.submit, 1, wait=False)
        await self.until(lambda: self.hop.silent and self.events("disconnected"))
        self.assertEqual(self.events("queued"), [])
        self.hop.silent = False
        self.connections[0].transport.write(b"250 2.0.0 Ok: queued as HOP1\r\n")
        await self.until(lambda: self.events("queued"))
        [queued], [unheard] = self.events("queued"), self.events("unheard")
        self.assertEqual(unheard["queue_id"], queued["queue_id"])
