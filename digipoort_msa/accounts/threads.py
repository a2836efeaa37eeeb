"""A bounded pool of threads with a bounded queue before it.

Slow work (a password hash, a database) runs here, in a pool of its own: the reactor's shared pool must
not fill with argon2, each of which holds tens of MiB.  What does not fit in the queue is refused at once
as :class:`~digipoort_msa.interfaces.Unavailable`; waiting longer than a client does helps nobody.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool

from digipoort_msa.interfaces import Unavailable

T = TypeVar("T")


class Threads:
    """Run calls off the reactor's thread.  Threads are made when first needed; :meth:`stop` ends them."""

    def __init__(self, reactor: IReactorFromThreads, name: str, *, size: int, waiting: int) -> None:
        """
        :param name: of the pool, for thread names and errors.
        :param size: how many calls run at once.
        :param waiting: how many more may wait for a thread.
        """
        self._reactor = reactor
        self._name = name
        self._limit = size + waiting
        self._outstanding = 0  # calls given to the pool and not done; known to the reactor's thread only
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)
        self._pool.start()

    def call(self, work: Callable[..., T], *arguments: Any) -> "Deferred[T]":
        """Run ``work(*arguments)`` in a thread.

        :return: its result.  Cancelling gives up the answer, not the work, which keeps its place.
        :raise Unavailable: (as the failure) the queue is full.
        """
        if self._outstanding >= self._limit:
            return fail(Unavailable(f"{self._outstanding} calls already wait for the {self._name} threads"))
        self._outstanding += 1
        answer: Deferred[T] = Deferred()

        def done(success: bool, result: Any) -> None:
            self._outstanding -= 1
            (answer.callback if success else answer.errback)(result)

        def to_reactor(success: bool, result: Any) -> None:
            self._reactor.callFromThread(done, success, result)

        self._pool.callInThreadWithCallback(to_reactor, work, *arguments)
        return answer

    def stop(self) -> None:
        """End the threads, after the work they have; for the very end, since it waits for that."""
        self._pool.stop()
