"""One configured milter, and the dialogue with it about one transaction.

A transaction has a connection of its own.  libmilter can be asked about the next client on the same one,
but connecting is a small part of what a message costs here, and a connection that has served is in a state
that only the milter knows.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from attrs import frozen
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from digipoort_msa import log
from digipoort_msa.policy.milter import packets
from digipoort_msa.policy.milter.connection import MilterConnection
from digipoort_msa.policy.milter.health import Health
from digipoort_msa.policy.milter.packets import (
    BODY,
    END_OF_HEADER,
    END_OF_MESSAGE,
    HEADER,
    Answer,
    Kind,
    MilterError,
    Negotiated,
    Step,
)
from digipoort_msa.policy.rule import Waiting

NO_MACROS: Mapping[str, str] = MappingProxyType({})
_IN_PARTS = frozenset({HEADER, BODY})  # a milter may have had enough of these


@frozen
class Times:
    """How long each thing may take, in seconds."""

    connect: float = 10.0
    answer: float = 30.0  # to each step but the last; and to take what it is told
    verdict: float = 300.0  # from the end of the message on, whether it says that it is at work or not


class Milter:
    """See the module."""

    def __init__(
        self, name: str, endpoint: IStreamClientEndpoint, reactor: IReactorTime, times: Times
    ) -> None:
        """:param name: what operators know it by: its socket."""
        self.name = name
        self.health = Health(reactor, name)
        self.times = times
        self.reactor = reactor
        self._endpoint = endpoint
        self._connections: set[MilterConnection] = set()
        self._left_out: set[bytes] = set()  # changes that the log has told of

    async def open(self) -> "Dialogue":
        """Connect and negotiate.

        :raise MilterError: it cannot be asked now.
        """
        resting = self.health.resting
        if resting is not None:
            raise MilterError(resting)
        try:
            connection = await self._connect()
            try:
                return Dialogue(self, connection, await self._negotiate(connection))
            except MilterError as error:
                connection.fail(str(error))
                raise
        except MilterError as error:
            self.health.failed(str(error))
            raise

    def stop(self) -> Waiting:
        """Drop what is left; a Deferred that fires when all of it is gone."""
        leaving = list(self._connections)
        for connection in leaving:
            connection.abort()
        gone = gatherResults([connection.closed for connection in leaving])
        return gone.addCallback(lambda _: None)

    def leaves_out(self, change: Answer) -> None:
        """A change that it wants is not made: the log tells of each kind once."""
        if change.code not in self._left_out:
            self._left_out.add(change.code)
            log.emit(log.MILTER_CHANGE_LEFT_OUT, milter=self.name, change=change.kind.value)

    async def _connect(self) -> MilterConnection:
        made = MilterConnection(self.reactor)
        factory = Factory.forProtocol(lambda: made)
        factory.noisy = False
        connecting = self._endpoint.connect(factory)
        late = False

        def too_late() -> None:
            nonlocal late
            late = True
            connecting.cancel()

        deadline = self.reactor.callLater(self.times.connect, too_late)
        try:
            await connecting
        except (CancelledError, ConnectingCancelledError):
            if late:
                raise MilterError(f"no connection in {self.times.connect:g} s") from None
            raise CancelledError from None
        except Exception as error:  # noqa: BLE001 (an endpoint has errors of its own)
            raise MilterError(f"no connection: {error}") from None
        finally:
            if deadline.active():
                deadline.cancel()
        self._connections.add(made)
        made.closed.addCallback(lambda _: self._connections.discard(made))
        return made

    async def _negotiate(self, connection: MilterConnection) -> Negotiated:
        connection.tell(packets.NEGOTIATE)
        seconds = self.times.answer
        packet = await connection.packet(seconds, f"no answer to the negotiation in {seconds:g} s")
        connection.answered()
        return packets.negotiated(packet)


class Dialogue:
    """One transaction is told of, step by step."""

    def __init__(self, milter: Milter, connection: MilterConnection, agreed: Negotiated) -> None:
        self.leading_space = agreed.leading_space
        self._milter = milter
        self._connection = connection
        self._agreed = agreed
        self._enough: Step | None = None  # it wants no more of these

    async def tell(
        self, step: Step, data: bytes = b"", macros: Mapping[str, str] = NO_MACROS
    ) -> Answer | None:
        """Tell of one step.

        :param data: of the step's packet.
        :return: the answer: any of those that decide something, or ``None``: go on.
        :raise MilterError: the milter fails.
        """
        named = packets.macros(step, macros)
        if step is self._enough or not self._agreed.wants(step):
            if named:  # they may be looked up at a later step
                self._connection.tell(named, answers=0)
            return None
        return await self._tell(named + packets.packet(step.code, data), step)

    async def tell_header(self, fields: Iterable[bytes], macros: Mapping[str, str]) -> Answer | None:
        """Tell of the whole header section, as :meth:`tell`.

        It goes out as one: to wait for each answer would take longer than all else.  A milter reads one
        packet after the other either way, and once it has decided it answers no further ones.

        :param fields: data of their packets.
        :param macros: for the end of the header.
        """
        wants, octets, steps = self._agreed.wants, [], []
        if wants(HEADER):
            octets = [packets.packet(HEADER.code, data) for data in fields]
            steps = [HEADER] * len(octets)
        octets.append(packets.macros(END_OF_HEADER, macros))
        if wants(END_OF_HEADER):
            octets.append(packets.packet(END_OF_HEADER.code))
            steps.append(END_OF_HEADER)
        return await self._tell(b"".join(octets), *steps)

    async def _tell(self, octets: bytes, *steps: Step) -> Answer | None:
        answered = [step for step in steps if self._agreed.answers(step)]
        self._connection.tell(octets, len(answered))
        if self._connection.full:
            await self._connection.room(self._milter.times.answer)
        for step in answered:
            try:
                answer = await self._answer(step)
            except MilterError as error:
                self._connection.fail(str(error))
                raise
            if answer.kind is Kind.SKIP:
                self._enough = step
            elif answer.kind is not Kind.CONTINUE:
                return answer
        return None

    def leave(self) -> None:
        """Nothing more is told."""
        self._connection.leave(packets.QUIT)

    def drop(self) -> None:
        """The transaction is no more, whatever the milter is at."""
        if self._connection.busy:
            self._connection.abort()
        else:
            self._connection.leave(packets.ABORT + packets.QUIT)

    async def _answer(self, step: Step) -> Answer:
        """What decides the step; at the end of the message, other packets come before it."""
        times, seconds_now = self._milter.times, self._milter.reactor.seconds
        seconds = times.verdict if step is END_OF_MESSAGE else times.answer
        deadline = seconds_now() + seconds
        otherwise = f"no answer to {step.name} in {seconds:g} s"
        withheld: Answer | None = None
        while True:
            packet = await self._connection.packet(max(0.0, deadline - seconds_now()), otherwise)
            answer = packets.answer(packet)
            if answer.kind in packets.AT_THE_END:
                if step is not END_OF_MESSAGE:
                    raise MilterError(f'it answers {step.name} with "{answer.kind.value}"')
                if answer.kind is Kind.ALTER:
                    raise MilterError("it wants to change the message, which is never done")
                if answer.kind is Kind.HEADERS:
                    self._milter.leaves_out(answer)
                elif answer.kind is Kind.QUARANTINE:
                    withheld = answer
                continue
            if answer.kind is Kind.SKIP and step not in _IN_PARTS:
                raise MilterError(f'it answers {step.name} with "{answer.kind.value}"')
            self._connection.answered()
            if withheld is not None and answer.kind in (Kind.CONTINUE, Kind.ACCEPT):
                return withheld
            return answer
