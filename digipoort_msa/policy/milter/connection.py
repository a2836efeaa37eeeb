"""One connection to a milter: packets out, answers in, every wait timed.

The dialogue above it is a coroutine that reads top to bottom.  A milter speaks only when it is asked: what
comes at any other time, what is no packet, and what comes in floods ends the connection at once, and
whatever waits or comes later gets the :class:`~digipoort_msa.policy.milter.packets.MilterError` that says
why.
"""

from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.policy.milter.packets import MilterError, MilterLost, Packet, PacketReader

_MOST_PACKETS = 10_000  # in one connection: a milter that wants many changes sends hundreds
_LEAVE = 10.0  # seconds for it to take our last words


@implementer(IPushProducer)
class MilterConnection(Protocol):
    """One connection.

    :ivar closed: a Deferred that fires with ``None`` when the connection is gone.
    :ivar full: it is slow to take what it is told: :meth:`room` is to be waited for.
    """

    transport: Any

    def __init__(self, reactor: IReactorTime) -> None:
        self.closed: Deferred[None] = Deferred()
        self._reactor = reactor
        self._reader = PacketReader()
        self._packets: deque[Packet] = deque()
        self._came = 0
        self._due = 0  # answers that were asked for
        self._failure: MilterError | None = None
        self._waiting: Deferred[None] | None = None  # the dialogue, for a packet
        self._room: Deferred[None] | None = None  # the dialogue, until the transport takes more
        self.full = False
        self._leaving: Any = None  # the delayed call that ends a leave-taking

    # -- the dialogue's side ------------------------------------------------------------------------

    def tell(self, octets: bytes, answers: int = 1) -> None:
        """Send packets.

        :param answers: how many of them are answered.
        :raise MilterError: the connection is gone.
        """
        self._check()
        self._due += answers
        self.transport.write(octets)

    async def packet(self, seconds: float, otherwise: str) -> Packet:
        """The next packet of the answer.

        :raise MilterError: the connection is gone, or ``otherwise``, where there is none in time.
        """
        if not self._packets:
            self._check()
            self._waiting = Deferred()
            await self._wait(self._waiting, seconds, otherwise)
        return self._packets.popleft()

    def answered(self) -> None:
        """That was the whole of one answer.

        :raise MilterError: there is more, and nothing else was asked.
        """
        if self._packets and self._due == 1:
            self.fail("it said more than it was asked")
            self._check()
        self._due -= 1

    @property
    def busy(self) -> bool:
        """Is an answer due, or has it still to take what it was told?"""
        return self._due > 0 or self.full

    async def room(self, seconds: float) -> None:
        """Until it takes more, or says something: one that has decided need not take the rest.

        :raise MilterError: it took nothing for so long.
        """
        if self._packets:
            return
        self._check()
        if self.full:
            self._room = Deferred()
            await self._wait(self._room, seconds, f"it took nothing for {seconds:g} s")

    def leave(self, octets: bytes) -> None:
        """Say these last words, and close."""
        if self._failure is None:
            self._failure = MilterError("the connection was closed")
            self.transport.write(octets)
            self.transport.unregisterProducer()
            self._leaving = self._reactor.callLater(_LEAVE, self.transport.abortConnection)
            self.transport.loseConnection()

    def fail(self, reason: str) -> None:
        """Drop the connection at once."""
        if self._failure is None:
            self._failure = self._error(reason)
            self._packets.clear()
            self.transport.abortConnection()
            self._wake(self._failure)

    def abort(self) -> None:
        """Drop the connection at once, last words or not: nobody waits for it any more."""
        self.fail("it was given up")
        self.transport.abortConnection()

    # -- waiting ------------------------------------------------------------------------------------

    async def _wait(self, waiting: "Deferred[None]", seconds: float, reason: str) -> None:
        deadline = self._reactor.callLater(seconds, self.fail, reason)
        try:
            await waiting
        except CancelledError:
            self.fail("it was given up")
            raise
        finally:
            self._waiting = self._room = None
            if deadline.active():
                deadline.cancel()

    def _check(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))  # each with a traceback of its own

    def _error(self, reason: str) -> MilterError:
        return MilterError(reason) if self._due or self._room else MilterLost(reason)

    def _wake(self, failure: MilterError | None = None) -> None:
        waiting = self._waiting or self._room
        self._waiting = self._room = None
        if waiting is not None and not waiting.called:
            waiting.callback(None) if failure is None else waiting.errback(failure)

    # -- the transport's side -----------------------------------------------------------------------

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._failure is not None:
            return
        if not self._due:
            self.fail("it spoke before it was asked")
            return
        self._reader.feed(data)
        try:
            while (packet := self._reader.next_packet()) is not None:
                self._packets.append(packet)
                self._came += 1
        except MilterError as error:
            self.fail(str(error))
            return
        if self._came > _MOST_PACKETS:
            self.fail(f"it sent more than {_MOST_PACKETS} packets")
        elif self._packets:
            self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        if self._failure is None:
            done = reason.check(ConnectionDone)
            self._failure = self._error("it closed the connection" if done else reason.getErrorMessage())
            self._wake(self._failure)
        self.closed.callback(None)

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """The connection is about to be lost: ``connectionLost`` tells the dialogue."""
