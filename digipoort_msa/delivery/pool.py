"""The connections of a relay: a bounded number, each kept for the next message while it is idle.

A delivery holds a *slot* while it works; there are as many slots as connections may be, and who finds none
free waits in line.  An idle connection takes the place of nobody: the oldest is closed where another
hop needs its place.  One that takes its leave keeps its place until it is gone, so that a hop that refuses
everybody and never answers QUIT holds no more sockets than any other.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.client import ClientConnection
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.session import Session


class Slots:
    """A semaphore that wakes those who wait one after the other, never one inside the other: ten thousand
    who leave at once do not end in a recursion."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.free = limit
        self._waiting: deque[Deferred[None]] = deque()
        self._waking = False

    def take(self) -> "Deferred[None]":
        if self.free and not self._waiting:
            self.free -= 1
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def give(self) -> None:
        self.free += 1
        if self._waking:
            return
        self._waking = True
        while self.free and self._waiting:
            self.free -= 1
            self._waiting.popleft().callback(None)
        self._waking = False

    @property
    def unused(self) -> bool:
        return self.free == self.limit


class Pool:
    """Sessions, opened when needed."""

    def __init__(
        self,
        reactor: IReactorTime,
        connect: "Callable[[Hop], Deferred[ClientConnection]]",
        open_session: Callable[[ClientConnection, Hop], Coroutine[Any, Any, Session]],
        limit: int,
        idle_timeout: float,
        messages_per_connection: int,
    ) -> None:
        """
        :param connect: opens a connection.
        :param open_session: makes it ready for mail; both fail with :class:`HopFailure`.
        :param idle_timeout: seconds after which an unused connection is closed.
        """
        self.slots = Slots(limit)
        self._reactor = reactor
        self._connect = connect
        self._open_session = open_session
        self._idle_timeout = idle_timeout
        self._messages_per_connection = messages_per_connection
        self._connecting: set[Deferred[ClientConnection]] = set()
        self._open: set[ClientConnection] = set()
        self._idle: list[Session] = []  # the one used last is at the end
        self._wanting: deque[Deferred[None]] = deque()  # who wait for a connection's place
        self._stopped: Deferred[None] | None = None

    @property
    def stopping(self) -> bool:
        return self._stopped is not None

    async def session(self, hop: Hop, fresh: bool = False) -> Session:
        """A session with ``hop``; the caller holds a slot, and hands the session back.

        :param fresh: not one that was used before.
        :raise HopFailure: none can be opened.
        """
        while (session := None if fresh else self._kept(hop)) is None:
            if len(self._open) + len(self._connecting) < self.slots.limit:
                return await self._opened(hop)
            place = self._place()
            if self._idle:
                self._close(self._idle[0])
            await place
            if self.stopping:
                raise HopFailure(failures.STOPPING)
        return session

    def hand_back(self, session: Session) -> None:
        """The caller is done with it."""
        if self.stopping or session.transactions >= self._messages_per_connection:
            session.connection.quit()
        elif session.connection.usable:
            self._idle.append(session)
            session.connection.rest(self._idle_timeout)

    def leave(self) -> None:
        """The caller is done with its slot."""
        self.slots.give()
        self._look_whether_stopped()

    def stop(self, grace: float) -> "Deferred[None]":
        """Close idle connections now, and each other one when its transaction is over.

        :param grace: seconds after which what is left is dropped.
        :return: fires when no connection and no delivery is left.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            self._last_moment = self._reactor.callLater(grace, self._drop)
            for session in list(self._idle):
                self._close(session)
            self._look_whether_stopped()
        return self._stopped

    def _kept(self, hop: Hop) -> Session | None:
        """An idle session with ``hop``, the one used last; it is idle no more."""
        for session in reversed(self._idle):
            if session.hop == hop and session.connection.usable:
                self._idle.remove(session)
                return session
        return None

    def _place(self) -> "Deferred[None]":
        """Fires when there may be a place for a connection: at most one is taken by whom it wakes."""
        wanting: Deferred[None] = Deferred(self._wanting.remove)
        self._wanting.append(wanting)
        return wanting

    def _place_is_free(self) -> None:
        if self._wanting:
            self._wanting.popleft().callback(None)

    async def _opened(self, hop: Hop) -> Session:
        connection = await self._connected(hop)
        try:
            return await self._open_session(connection, hop)
        except BaseException:
            connection.quit()
            raise

    async def _connected(self, hop: Hop) -> ClientConnection:
        connecting = self._connect(hop)
        self._connecting.add(connecting)
        try:
            connection = await connecting
        except BaseException:
            self._connecting.discard(connecting)
            self._place_is_free()
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
        self._idle = [session for session in self._idle if session.connection is not connection]
        self._place_is_free()
        self._look_whether_stopped()

    def _drop(self) -> None:
        for connecting in list(self._connecting):
            connecting.cancel()
        for connection in list(self._open):
            connection.fail(failures.STOPPING)

    def _look_whether_stopped(self) -> None:
        if self._stopped is None or self._stopped.called:
            return
        if self.slots.unused and not self._open and not self._connecting:
            if self._last_moment.active():
                self._last_moment.cancel()
            self._stopped.callback(None)
