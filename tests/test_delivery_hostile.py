"""Next hops that are hostile or broken, on real sockets: none of them hurts more than its own message's turn.

Whatever a hop does, the outcome is a bounded 4yz, or a 5yz in the hop's own words, the connection is dropped,
and a possible duplicate is spoken of only where the final dot had gone out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.delivery.client import ClientConnection, Timeouts
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.reply_parser import LONGEST_LINE, LONGEST_REPLY
from tests.authority import Authority
from tests.next_hop import DIE, EXTENSIONS, MESSAGE, Content, HopProtocol, SimpleHop, envelope
from tests.requirements import proves

AUTHORITY = Authority()
WITHOUT_PIPELINING = tuple(extension for extension in EXTENSIONS if extension != "PIPELINING")
STEPS = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", ".")
#: Half a second for one step, and all the time that a busy machine may need for the others.
SHORT = {
    step: Timeouts(**{wait: 0.5})
    for step, wait in zip(
        (*STEPS, "content", "QUIT"),
        ("greeting", "ehlo", "mail", "rcpt", "data", "termination", "block", "quit"),
        strict=True,
    )
}
_MOST_WORDS = 1_200  # characters of an outcome

GARBAGE = (
    b"\r\n",
    b"hello\r\n",
    b"\0\0\0\0\r\n",
    b"25\r\n",
    b"2500 Ok\r\n",
    b"150 Ok\r\n",
    b"600 Ok\r\n",
    b"250 Ok\n",
    b"250\tOk\r\n",
    b"250_Ok\r\n",
    b"\xb2\xb5\xb0 Ok\r\n",  # digits of another alphabet
    b" 250 Ok\r\n",
    b"250-a\r\n251 b\r\n",
    b"250-a\r\nb\r\n",
    b"SSH-2.0-OpenSSH\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",  # a TLS hello
    b"250 " + b"x" * LONGEST_LINE + b"\r\n",
)


@implementer(IPullProducer)
class Endless:
    """Writes the same octets for as long as the transport takes them."""

    def __init__(self, transport: Any, octets: bytes) -> None:
        self._transport = transport
        self._octets = octets

    def resumeProducing(self) -> None:
        self._transport.write(self._octets)

    def stopProducing(self) -> None:
        pass


class HostileProtocol(HopProtocol):
    """``hop.lost`` fires when the client has dropped the connection."""

    def connectionLost(self, reason: Failure) -> None:
        self._hop.lost.callback(None)


class HostileTestCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.events: list[tuple[log.Event, dict[str, Any]]] = []
        self.patch(log, "emit", lambda event, **fields: self.events.append((event, fields)))
        self.hops: list[Any] = []
        self.protocols: list[HopProtocol] = []
        self.connections: list[ClientConnection] = []
        made = ClientConnection.connectionMade

        def remembered(connection: ClientConnection) -> None:
            self.connections.append(connection)
            made(connection)

        self.patch(ClientConnection, "connectionMade", remembered)

    def relay(
        self,
        make_hop: Callable[[], SimpleHop],
        protocol: type[HopProtocol] = HostileProtocol,
        timeouts: Timeouts = Timeouts(),  # noqa: B008
        tls: ClientTLS | None = None,
    ) -> Relay:
        def connected() -> HopProtocol:
            hop: Any = make_hop()
            hop.lost = Deferred()
            self.hops.append(hop)
            self.protocols.append(protocol(hop, AUTHORITY.server("core.example.nl")))
            return self.protocols[-1]

        factory = Factory.forProtocol(connected)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        relay = Relay(
            reactor,
            [Hop("core.example.nl", port.getHost().port)],
            "msa.example.nl",
            tls or ClientTLS("none"),
            endpoint=lambda hop: TCP4ClientEndpoint(reactor, "127.0.0.1", hop.port),
            timeouts=timeouts,
        )
        self.addCleanup(relay.stop, 0)
        return relay

    async def outcome(self, relay: Relay, content: Content = MESSAGE) -> Reply:
        outcomes = await relay.deliver(envelope(), content)
        [outcome] = outcomes.values()
        text = str(outcome.reply)
        self.assertLess(len(text), _MOST_WORDS)
        self.assertTrue(text.isascii() and text.isprintable(), text)
        return outcome.reply

    async def put_off(self, relay: Relay, *words: str, content: Content = MESSAGE, dot: bool = False) -> None:
        """The message is put off, the connection gone.

        :param dot: the final dot had gone out.
        """
        del self.events[:]
        reply = await self.outcome(relay, content)
        self.assertTrue(reply.transient, reply)
        for word in words:
            self.assertIn(word, str(reply))
        duplicates = [fields for event, fields in self.events if event is log.DUPLICATE_POSSIBLE]
        self.assertEqual(len(duplicates), dot, reply)
        await self.hops[-1].lost

    @property
    def messages(self) -> list[Any]:
        return [message for hop in self.hops for message in hop.messages]


@proves("D2", "D3")
class DyingTests(HostileTestCase):
    async def test_at_every_step(self) -> None:
        for extensions in (EXTENSIONS, WITHOUT_PIPELINING):
            for step in STEPS:
                relay = self.relay(lambda: SimpleHop(extensions, {step: [DIE]}))  # noqa: B023
                await self.put_off(relay, "4.4.2", dot=step == ".")

    async def test_within_every_reply(self) -> None:
        """Half a reply is none, the half of a 250 to the end of data included."""
        for cut in (b"2", b"250", b"250 2.0.0 Ok", b"250-Ok\r\n", b"250 2.0.0 Ok\r"):
            for step in STEPS:

                class Half(SimpleHop):
                    def _answer(self, verb: str, default: bytes) -> bytes:
                        reply = super()._answer(verb, default)
                        if verb == step:  # noqa: B023
                            self.closed = True
                            return cut  # noqa: B023
                        return reply

                await self.put_off(self.relay(Half), "4.4.2", dot=step == ".")

    async def test_within_the_content(self) -> None:
        """A content that is not whole cannot be delivered, nor delivered twice."""
        content = Content(*[b"x" * 76 + b"\r\n"] * 30_000)

        class Impatient(SimpleHop):
            def _content_line(self, line: bytes) -> bytes:
                self.closed = True
                return b""

        await self.put_off(self.relay(Impatient), content=content)
        self.assertEqual(self.messages, [])

    async def test_refused_within_the_content(self) -> None:
        """RFC 5321 has no such reply; it is the verdict all the same, and the rest is never sent."""
        content = Content(*[b"x" * 76 + b"\r\n"] * 30_000)

        class Full(SimpleHop):
            said = False

            def _content_line(self, line: bytes) -> bytes:
                reply, self.said = b"" if self.said else b"452 4.3.1 Full\r\n", True
                return reply

        await self.put_off(self.relay(Full), "452 4.3.1 Full", content=content)

    async def test_accepted_within_the_content(self) -> None:
        """A promise for what it has not seen."""
        content = Content(*[b"x" * 76 + b"\r\n"] * 30_000)

        class Hasty(SimpleHop):
            def _content_line(self, line: bytes) -> bytes:
                return b"250 2.0.0 Ok\r\n" if self._content == [] and not super()._content_line(line) else b""

        await self.put_off(self.relay(Hasty), "4.5.0", content=content)


@proves("D2", "D3")
class GarbageTests(HostileTestCase):
    async def test_at_every_step(self) -> None:
        for step in STEPS:
            for garbage in GARBAGE:
                answers: dict[str, list[bytes | None]] = {step: [garbage]}
                relay = self.relay(lambda: SimpleHop(answers=answers))  # noqa: B023
                await self.put_off(relay, "451 4.5.0", dot=step == ".")

    async def test_endless(self) -> None:
        """A line without an end, a reply without an end, and replies without an end: little of it is kept."""
        for octets in (b"2" * 65_536, b"250-x\r\n" * 8_192, b"250 x\r\n" * 8_192, b"\0" * 65_536):
            for step in STEPS:

                class Flood(HostileProtocol):
                    flooding = False

                    def _send(self, reply: bytes) -> None:
                        if self.flooding or reply != b"flood":
                            super()._send(reply)
                            return
                        self.flooding = True
                        self.transport.registerProducer(Endless(self.transport, octets), False)  # noqa: B023

                hop = SimpleHop(WITHOUT_PIPELINING, {step: [b"flood"]})
                relay = self.relay(lambda: hop, Flood)  # noqa: B023
                del self.events[:]
                reply = await self.outcome(relay)
                if octets.startswith(b"250 x") and step == ".":
                    self.assertEqual(reply.code, 250)  # the first of them was in order
                elif not octets.startswith(b"250 x") or reply.code == 451:
                    self.assertTrue(reply.transient, reply)
                await self.hops[-1].lost
                parser = self.connections[-1]._parser
                self.assertLessEqual(len(parser._octets), LONGEST_REPLY + 2 * 65_536)
                self.assertLessEqual(len(self.connections[-1]._replies), 1)

    async def test_strange_characters(self) -> None:
        """Control characters, octets above 127 and escape sequences become printable ASCII."""
        words = b"\0\x07\x1b[31m\x7f\x80\xff\xe2\x80\xa8 \rQUIT"
        for step in ("MAIL", "RCPT", "DATA", "."):
            answers: dict[str, list[bytes | None]] = {step: [b"550 5.1.1 " + words + b"\r\n"]}
            reply = await self.outcome(self.relay(lambda: SimpleHop(answers=answers)))  # noqa: B023
            self.assertEqual((reply.code, reply.enhanced), (550, "5.1.1"))
            self.assertIn("\\x00\\x07\\x1b[31m\\x7f\\x80\\xff", reply.lines[0])

    async def test_many_words(self) -> None:
        """They would be kept for each of a thousand recipients."""
        long = b"".join(b"550-5.7.1 " + b"x" * 1_000 + b"\r\n" for _ in range(60)) + b"550 5.7.1 x\r\n"
        for step in ("MAIL", "RCPT", "DATA", "."):
            reply = await self.outcome(
                self.relay(lambda: SimpleHop(WITHOUT_PIPELINING, {step: [long]}))  # noqa: B023
            )
            self.assertEqual((reply.code, reply.enhanced), (550, "5.7.1"))


@proves("D2", "D3")
class OutOfStepTests(HostileTestCase):
    async def test_early(self) -> None:
        """Each reply comes with the one to the command that the hop has not seen yet."""
        usual = {"greeting": b"220 hop\r\n", "EHLO": b"250 hop\r\n", "DATA": b"354 go\r\n"}
        for step in STEPS[:-1]:
            for early in (b"250 Ok\r\n", b"2", b"354 go\r\n"):
                reply = usual.get(step, b"250 Ok\r\n") + early
                relay = self.relay(lambda: SimpleHop(WITHOUT_PIPELINING, {step: [reply]}))  # noqa: B023
                await self.put_off(relay, "4.5.0")
                self.assertEqual(self.messages, [])

    async def test_one_too_many_after_the_end(self) -> None:
        """The message is delivered, since the hop said so in its turn; it says nothing more to us."""
        relay = self.relay(lambda: SimpleHop(answers={".": [b"250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n"]}))
        self.assertEqual((await self.outcome(relay)).code, 250)
        await self.hops[-1].lost
        self.assertEqual((await self.outcome(relay)).code, 250)
        self.assertEqual(len(self.hops), 2)

    async def test_wrong_kind(self) -> None:
        """2yz to DATA, 3yz to anything else."""
        for step in ("MAIL", "RCPT", ".", "EHLO"):
            hop = SimpleHop(WITHOUT_PIPELINING, {step: [b"354 go\r\n"]})
            relay = self.relay(lambda: hop, timeouts=SHORT["QUIT"])  # noqa: B023
            await self.put_off(relay, dot=step == ".")
        relay = self.relay(lambda: SimpleHop(answers={"DATA": [b"250 Ok\r\n"]}))
        await self.put_off(relay, "4.5.0")

    async def test_a_2yz_to_the_end_of_data_delivers(self) -> None:
        """RFC 5321 4.3.2 has 250 alone; but its first digit says what a client needs to know (4.2.1), and
        to send again what a hop says it has taken would surely duplicate it."""
        for code in (200, 250, 251, 252, 299):
            relay = self.relay(lambda: SimpleHop(answers={".": [b"%d Ok\r\n" % code]}))  # noqa: B023
            self.assertEqual((await self.outcome(relay)).code, code)
        self.assertEqual([event for event, _ in self.events if event is log.DUPLICATE_POSSIBLE], [])

    async def test_a_2yz_that_answers_something_else_does_not(self) -> None:
        for code in (211, 214, 220, 221, 235):
            relay = self.relay(lambda: SimpleHop(answers={".": [b"%d Ok\r\n" % code]}))  # noqa: B023
            await self.put_off(relay, "4.5.0", dot=True)

    async def test_unasked_while_idle(self) -> None:
        """A flood, a word, half a word, or a farewell: the next message takes another connection."""
        for octets in (b"250 Ok\r\n" * 10_000, b"250 Ok\r\n", b"2" * 100_000, b"421 4.3.2 Bye\r\n", b"\0"):
            relay = self.relay(SimpleHop)
            self.assertEqual((await self.outcome(relay)).code, 250)
            protocol, before = self.protocols[-1], len(self.hops)
            protocol.transport.write(octets)
            if octets != b"\0":  # half a word shows only when we speak
                await self.hops[-1].lost
            else:
                await _heard(self.connections[-1])
            self.assertEqual((await self.outcome(relay)).code, 250)
            self.assertEqual(len(self.hops), before + 1)


async def _heard(connection: ClientConnection) -> None:
    """Fires when some octets have come that are no reply yet."""
    looking = LoopingCall(lambda: connection._parser.pending and looking.stop())
    await looking.start(0.001)


@proves("D2", "D3")
class SlowTests(HostileTestCase):
    """An octet now and then keeps nobody waiting longer than a step may take."""

    async def test_at_every_step(self) -> None:
        for step in STEPS:

            class Dripping(HostileProtocol):
                drip: LoopingCall | None = None

                def _send(self, reply: bytes) -> None:
                    if reply != b"drip":
                        super()._send(reply)
                        return
                    self.drip = LoopingCall(self.transport.write, b"2")
                    self.drip.start(0.05)

                def connectionLost(self, reason: Failure) -> None:
                    if self.drip is not None:
                        self.drip.stop()
                    super().connectionLost(reason)

            hop = SimpleHop(WITHOUT_PIPELINING, {step: [b"drip"]})
            relay = self.relay(lambda: hop, Dripping, SHORT[step])  # noqa: B023
            await self.put_off(relay, "4.4.2", "0.5 seconds", dot=step == ".")

    async def test_a_hop_that_takes_no_content(self) -> None:
        class Deaf(HostileProtocol):
            def _send(self, reply: bytes) -> None:
                super()._send(reply)
                if b"354" in reply:
                    self.transport.pauseProducing()
                    reactor.callLater(1.5, self.transport.resumeProducing)  # to see that it is over

        content = Content(*[(b"x" * 76 + b"\r\n") * 3_000] * 100)
        await self.put_off(
            self.relay(SimpleHop, Deaf, SHORT["content"]), "4.4.2", "0.5 seconds", content=content
        )
        self.assertEqual(self.messages, [])


@proves("D2", "D4")
class TLSTests(HostileTestCase):
    def setUp(self) -> None:
        super().setUp()
        path = Path(self.mktemp())
        path.write_bytes(AUTHORITY.pem)
        self.tls = ClientTLS("verify", path)

    async def test_close_notify_at_every_step(self) -> None:
        """TLS ends in order, and the TCP connection stays."""

        class Closing(HostileProtocol):
            def _send(self, reply: bytes) -> None:
                if reply != b"close":
                    super()._send(reply)
                    return
                tls = self.transport.protocol
                tls._tlsConnection.shutdown()
                tls._flushSendBIO()

        for step in STEPS[2:]:
            hop = SimpleHop(("8BITMIME", "STARTTLS"), {step: [b"close"]})
            relay = self.relay(lambda: hop, Closing, tls=self.tls)  # noqa: B023
            await self.put_off(relay, "4.4.2", dot=step == ".")

    async def test_clear_text_within_tls(self) -> None:
        """Octets on the wire that are no TLS record."""

        class Clear(HostileProtocol):
            def _send(self, reply: bytes) -> None:
                if reply != b"clear":
                    super()._send(reply)
                else:
                    self.transport.protocol.transport.write(b"250 2.0.0 Ok\r\n")

        for step in STEPS[2:]:
            hop = SimpleHop(("8BITMIME", "STARTTLS"), {step: [b"clear"]})
            relay = self.relay(lambda: hop, Clear, tls=self.tls)  # noqa: B023
            await self.put_off(relay, "4.7.5", dot=step == ".")

    async def test_clear_text_behind_starttls(self) -> None:
        answers: dict[str, list[bytes | None]] = {"STARTTLS": [b"220 Go\r\n250 injected\r\n"]}
        relay = self.relay(lambda: SimpleHop((*EXTENSIONS, "STARTTLS"), answers), tls=self.tls)
        await self.put_off(relay, "4.5.0")
