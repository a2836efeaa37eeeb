"""A milter in memory that does as it is told, and a transaction that goes past it."""

import struct
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from digipoort_msa.identity import Identity
from digipoort_msa.policy.milter.judgement import MilterRule
from digipoort_msa.policy.milter.milter import Milter, Times
from digipoort_msa.policy.milter.packets import PacketReader, packet
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase
from tests.next_hop import MemoryTransport

DIE = None  # as an answer: the milter closes the connection instead
HANG = b""  # as an answer: it says nothing
CONTINUE, ACCEPT = packet(b"c"), packet(b"a")
#: A message of two fields, and a body of more than one part.
MESSAGE = b"From: <a@example.nl>\r\nSubject: one\r\n\ttwo\r\n\r\n" + b"line\r\n" * 30_000

TRACE = Trace("S1", "msa.example.nl", "192.0.2.1", "client.example", "TLSv1.3 TLS_AES_256_GCM_SHA384")
IDENTITY = Identity(name="business", realm="example.nl")
SENDER, RECIPIENT = Path("a", "example.nl"), Path("b", "example.nl")

PASSED = ["", "", ""]
UNAVAILABLE, REJECTS, DEFERS = map(str, (reply.FILTER_UNAVAILABLE, reply.FILTER_REJECTS, reply.FILTER_DEFERS))
WORDS = packet(b"y", b"550 5.7.1 A virus, 100%% sure\0")


def moment(code: bytes) -> int:
    """The moment at which the client hears of a step: MAIL, RCPT or the end of data."""
    return 0 if code in b"OCHM" else 1 if code == b"R" else 2


def refused_at(code: bytes, said: str) -> list[str]:
    """What :meth:`Transaction.whole` returns where a step is refused."""
    return [""] * moment(code) + [said]


def agreed(protocol: int = 0, version: int = 6) -> bytes:
    """A milter's part of the negotiation."""
    return packet(b"O", struct.pack("!LLL", version, 0, protocol))


class Conversation:
    """One connection's milter; ``told`` is what it heard, as pairs of code and data."""

    def __init__(self, answers: dict[bytes, bytes | None]) -> None:
        self.told: list[tuple[bytes, bytes]] = []
        self.closed = False
        self._answers = answers
        self._reader = PacketReader()

    def receive(self, octets: bytes) -> bytes:
        self._reader.feed(octets)
        said = []
        while (one := self._reader.next_packet()) is not None:
            self.told.append((one.code, one.data))
            if self.closed:
                continue
            if one.code == b"Q":
                self.closed = True
            elif one.code not in b"DA":
                answer = self._answers.get(one.code, agreed() if one.code == b"O" else CONTINUE)
                if answer is DIE:
                    self.closed = True
                else:
                    said.append(answer)
        return b"".join(said)

    @property
    def codes(self) -> str:
        """The steps, without macros; a row of equal ones is one."""
        steps = [code.decode() for code, _ in self.told if code != b"D"]
        return "".join(step for number, step in enumerate(steps) if steps[number - 1 : number] != [step])

    def data(self, code: bytes) -> list[bytes]:
        return [data for one, data in self.told if one == code]


@implementer(IStreamClientEndpoint)
class ScriptedMilter:
    """An endpoint whose other end answers by a table.

    :param answers: by the code of a step (``b"O"`` is the negotiation); those it lacks are "continue".
    """

    def __init__(self, answers: dict[bytes, bytes | None] | None = None) -> None:
        self.answers = answers or {}
        self.state = "up"  # or "down", or "silent"
        self.cut = 1 << 20  # octets in one segment towards us
        self.connections: list[tuple[MemoryTransport, Conversation]] = []

    def connect(self, factory: Any) -> "Deferred[Protocol]":
        if self.state == "down":
            return fail(ConnectionRefusedError("refused"))
        if self.state == "silent":
            return Deferred()
        protocol = factory.buildProtocol(None)
        transport = MemoryTransport(protocol)
        self.connections.append((transport, Conversation(self.answers)))
        protocol.makeConnection(transport)
        return succeed(protocol)

    @property
    def last(self) -> Conversation:
        return self.connections[-1][1]

    @property
    def open(self) -> int:
        return sum(not transport.lost for transport, _ in self.connections)

    def pump(self) -> None:
        """Move octets to and fro until all is quiet."""
        moved = True
        while moved:
            moved = sum(self._move(*connection) for connection in self.connections) > 0

    def _move(self, transport: MemoryTransport, conversation: Conversation) -> bool:
        if transport.lost:
            return False
        octets = transport.value()
        transport.clear()
        said = conversation.receive(octets) if octets else b""
        if transport.producer is not None:
            transport.producer.resumeProducing()
        for start in range(0, len(said), self.cut):
            if not transport.lost:
                transport.protocol.dataReceived(said[start : start + self.cut])
        if (conversation.closed or transport.disconnecting) and not transport.value():
            transport.lose(ConnectionDone())
        return bool(octets or said) or (transport.lost and bool(octets))


class Asked:
    """One rule, its milter and its clock."""

    def __init__(
        self,
        answers: dict[bytes, bytes | None] | None = None,
        *,
        passes: bool = False,
        maximum_size: int | None = None,
    ) -> None:
        self.clock = Clock()
        self.script = ScriptedMilter(answers)
        self.milter = Milter(
            "unix:/milter", self.script, self.clock, Times(connect=5, answer=30, verdict=300)
        )
        self.rule = MilterRule(self.milter, passes, maximum_size)

    def begin(self, trace: Trace = TRACE) -> "Transaction":
        return Transaction(self, self.rule.begin(IDENTITY, trace))


class Transaction:
    """The moments of one judgement, each with what came of it: "" or a reply."""

    def __init__(self, asked: Asked, judgement: Any) -> None:
        self._asked = asked
        self.judgement = judgement
        self.seconds = 0.0  # waited for in all

    def sender(self, parameters: MailParameters = MailParameters()) -> str:  # noqa: B008 (it is frozen)
        return self.outcome(lambda: self.judgement.sender(SENDER, parameters))

    def recipient(self, path: Path = RECIPIENT) -> str:
        return self.outcome(lambda: self.judgement.recipient(envelope(), path, RcptParameters()))

    def open(self) -> str:
        return self.outcome(lambda: self.judgement.open(envelope(RECIPIENT)))

    def write(self, octets: bytes) -> str:
        return self.outcome(lambda: self.judgement.write(octets))

    def complete(self) -> str:
        return self.outcome(self.judgement.complete)

    def whole(self, message: bytes = MESSAGE, size: int = 65_536) -> list[str]:
        """Everything in turn, until something is refused: what came of MAIL, RCPT and the end of data."""
        said = []
        for moment in (self.sender, self.recipient):
            said.append(moment())
            if said[-1]:
                self.judgement.abort()
                return said
        assert not self.open()
        for start in range(0, len(message), size):
            assert not self.write(message[start : start + size])
        said.append(self.complete())
        if said[-1]:
            self.judgement.abort()
        else:
            self.judgement.accepted()
        self._asked.script.pump()
        return said

    def outcome(self, ask: Any) -> str:
        try:
            waiting = ask()
        except Refused as refused:
            return str(refused.reply)
        if waiting is None:
            return ""
        came: list[Any] = []
        waiting.addBoth(came.append)
        for _ in range(2_000):
            self._asked.script.pump()
            if came:
                break
            self._asked.clock.advance(1)
            self.seconds += 1
        assert came, "it waits for ever"
        if came[0] is None:
            return ""
        came[0].trap(Refused)
        return str(came[0].value.reply)


def envelope(*recipients: Path) -> Envelope:
    return Envelope("Q1", "example.nl", "business", "S1", SENDER, recipients, 0.0)


class MilterTestCase(ClockTestCase):
    """Sees what is logged."""

    def assertNothingLeft(self, asked: Asked) -> None:
        asked.script.pump()
        self.assertEqual(asked.script.open, 0)
        self.assertEqual(asked.clock.getDelayedCalls(), [])
        stopped = asked.rule.stop()
        assert stopped is not None
        self.assertIsNone(self.successResultOf(stopped))
