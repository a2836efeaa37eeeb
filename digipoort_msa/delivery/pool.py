"""The connections to one hop: a bounded number, each kept for the next message while it is idle.

Whoever asks for a session holds one of the hop's slots (``line``).  A connection that takes its leave keeps
its place until it is gone, so that a hop that refuses everybody and never answers QUIT holds no more sockets
than any other.

A hop may bear fewer connections than we are allowed: where it refuses one more while others of ours work,
that says nothing against the hop, and the pool makes do with those for a while (:class:`Crowded`).
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from digipoort_msa import log
from digipoort_msa.delivery import failures
from digipoort_msa.delivery.client import ClientConnection
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hop import Hop, Limits
from digipoort_msa.delivery.line import Line, Slots
from digipoort_msa.delivery.session import Session

_CROWDED = 60.0  # seconds until one connection more is tried


class Crowded(HopFailure):
    """The hop takes no more connections beside those that work."""


class Pool:
    """Sessions with one hop, opened when needed."""

    def __init__(
        self,
        reactor: IReactorTime,
        hop: Hop,
        limits: Limits,
        line: Line,
        connect: "Callable[[Hop], Deferred[ClientConnection]]",
        open_session: Callable[[ClientConnection, Hop], Coroutine[Any, Any, Session]],
    ) -> None:
        """
        :param line: where one waits for a slot; a pool gives out no slots itself.
        :param connect: opens a connection.
        :param open_session: makes it ready for mail; both fail with :class:`HopFailure`.
        """
        self.hop = hop
        self.slots = Slots(limits.connections)
        self._reactor = reactor
        self._limits = limits
        self._line = line
        self._connect = connect
        self._open_session = open_session
        self._connecting: set[Deferred[ClientConnection]] = set()
        self._open: set[ClientConnection] = set()
        self._working: set[ClientConnection] = set()  # of those, the ones that have seen a transaction
        self._idle: list[Session] = []  # the one used last is at the end
        self._wanting: deque[Deferred[None]] = deque()  # who wait for a connection's place
        self._stopped: Deferred[None] | None = None
        self._last_moment: IDelayedCall | None = None
        self._widening: IDelayedCall | None = None

    @property
    def stopping(self) -> bool:
        return self._stopped is not None

    @property
    def unused(self) -> bool:
        """No delivery works here or waits for it."""
        return not self.slots.used and not self.slots.waiting

    async def session(self, fresh: bool = False) -> Session:
        """A session; the caller holds a slot, and hands the session back.

        :param fresh: not one that was used before.
        :raise Crowded: there will be one for the caller only in its turn: it lets go of its slot.
        :raise HopFailure: none can be opened.
        """
        while True:
            if self.stopping:
                raise HopFailure(failures.STOPPING)
            session = None if fresh else self._kept()
            if session is not None:
                return session
            if len(self._open) + len(self._connecting) < self.slots.limit:
                return await self._opened()
            place = self._place()
            if self._idle:
                self._close(self._idle[0])
            await place

    def hand_back(self, session: Session) -> None:
        """The caller is done with it."""
        connection = session.connection
        if self.stopping or session.transactions >= self._limits.messages_per_connection:
            connection.quit()
        elif connection.usable:
            if session.transactions:
                self._working.add(connection)
            self._idle.append(session)
            connection.rest(self._limits.idle_timeout)
            self._look_again()

    def leave(self) -> None:
        """The caller is done with its slot."""
        self._line.give(self.slots)
        self._look_whether_stopped()

    def stop(self, grace: float) -> "Deferred[None]":
        """Close idle connections now, and each other one when its transaction is over.

        :param grace: seconds after which what is left is dropped.
        :return: fires when no connection and no delivery is left.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            self._last_moment = self._reactor.callLater(grace, self._drop)
            self._widen()
            for session in list(self._idle):
                self._close(session)
            self._look_whether_stopped()
        return self._stopped

    def _kept(self) -> Session | None:
        """An idle session, the one used last; it is idle no more."""
        while self._idle:
            session = self._idle.pop()
            if session.connection.usable:
                return session
        return None

    def _place(self) -> "Deferred[None]":
        """Fires when there may be a place for a connection, or a session: who finds neither asks again."""
        wanting: Deferred[None] = Deferred(self._wanting.remove)
        self._wanting.append(wanting)
        return wanting

    def _look_again(self) -> None:
        """Something has changed for those who wait for a place."""
        wanting, self._wanting = self._wanting, deque()
        while wanting:
            wanting.popleft().callback(None)

    async def _opened(self) -> Session:
        connection = await self._connected()
        try:
            return await self._open_session(connection, self.hop)
        except HopFailure as failure:
            connection.quit()
            if failures.says_no(failure.reply) and (working := self._at_work()):
                self._narrow(working, failure)
                raise Crowded(failure.reply) from failure
            raise
        except BaseException:
            connection.quit()
            raise

    def _at_work(self) -> int:
        return sum(connection.usable for connection in self._working)

    def _narrow(self, connections: int, failure: HopFailure) -> None:
        self.slots.limit = connections
        if self._widening is None and not self.stopping:
            self._widening = self._reactor.callLater(_CROWDED, self._widen)
            log.emit(log.HOP_CROWDED, hop=self.hop.name, connections=connections, reply=str(failure.reply))

    def _widen(self) -> None:
        if self._widening is not None:
            if self._widening.active():
                self._widening.cancel()
            self._widening = None
        self.slots.limit = self._limits.connections
        self._line.serve(self.slots)
        self._look_again()

    async def _connected(self) -> ClientConnection:
        connecting = self._connect(self.hop)
        self._connecting.add(connecting)
        try:
            connection = await connecting
        except BaseException:
            self._connecting.discard(connecting)
            self._look_again()
            raise
        self._connecting.discard(connecting)
        self._open.add(connection)
        connection.closed.addCallback(lambda _: self._gone(connection))
        return connection

    def _close(self, session: Session) -> None:
        self._idle.remove(session)
        session.connection.quit()

    def _gone(self, connection: ClientConnection) -> None:
        self._open.discard(connection)
        self._working.discard(connection)
        self._idle = [session for session in self._idle if session.connection is not connection]
        self._look_again()
        self._look_whether_stopped()

    def _drop(self) -> None:
        for connecting in list(self._connecting):
            connecting.cancel()
        for connection in list(self._open):
            connection.fail(failures.STOPPING)

    def _look_whether_stopped(self) -> None:
        if self._stopped is None or self._stopped.called:
            return
        if not self.slots.used and not self._open and not self._connecting:
            if self._last_moment is not None and self._last_moment.active():
                self._last_moment.cancel()
            self._stopped.callback(None)
