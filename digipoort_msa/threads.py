"""A bounded pool of threads with a bounded queue before it.

Slow work (a password hash, a database) runs here, in a pool of its own: the reactor's shared pool must
not fill with argon2, each of which holds tens of MiB.  What does not fit in the queue is refused at once
as :class:`~digipoort_msa.interfaces.Unavailable`, and so is what has no answer in time: waiting longer than a
client does helps nobody.

Threads that compute for long are told to be ``nice`` about it (nice(2), which Linux has for each thread):
where they keep every core busy, the reactor's thread gets one at once when there is something for it.
Without that it waits its turn, for milliseconds at each wake-up (``benchmarks.authentication``).
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.threadpool import ThreadPool

from digipoort_msa.interfaces import Unavailable

T = TypeVar("T")


class Threads:
    """Run calls off the reactor's thread.  Threads are made when first needed; :meth:`stop` ends them."""

    def __init__(
        self, reactor: Any, name: str, *, size: int, waiting: int, patience: float = 10.0, nice: int = 0
    ) -> None:
        """
        :param reactor: provides ``IReactorFromThreads`` and ``IReactorTime``.
        :param name: of the pool, for thread names and errors.
        :param size: how many calls run at once.
        :param waiting: how many more may wait for a thread.
        :param patience: seconds until a call is given up, whether it waits or runs.
        :param nice: how far the threads step back for others, up to 19; for long computations that let go of
            the interpreter's lock: to wait for a thread that holds it and has stepped back helps nobody.
        """
        self._reactor = reactor
        self._name = name
        self._limit = size + waiting
        self._patience = patience
        self._outstanding = 0  # calls given to the pool and not done; known to the reactor's thread only
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)
        if nice and sys.platform == "linux":  # elsewhere it would be for the whole process
            self._pool.threadFactory = partial(_NiceThread, nice)  # type: ignore[assignment]
        self._pool.start()

    def call(self, work: Callable[..., T], *arguments: Any) -> "Deferred[T]":
        """Run ``work(*arguments)`` in a thread.

        :return: its result.  Cancelling gives up the answer, not the work, which keeps its place; work that
            has not begun by then is passed over.
        :raise Unavailable: (as the failure) the queue is full, or there was no answer in time.
        """
        if self._outstanding >= self._limit:
            return fail(Unavailable(f"{self._outstanding} calls already wait for the {self._name} threads"))
        self._outstanding += 1
        answer: Deferred[T] = Deferred()

        def unless_given_up() -> T | None:
            return None if answer.called else work(*arguments)

        def done(success: bool, result: Any) -> None:
            self._outstanding -= 1
            (answer.callback if success else answer.errback)(result)

        def to_reactor(success: bool, result: Any) -> None:
            self._reactor.callFromThread(done, success, result)

        self._pool.callInThreadWithCallback(to_reactor, unless_given_up)
        return answer.addTimeout(self._patience, self._reactor, self._out_of_patience)

    def _out_of_patience(self, _: object, seconds: float) -> NoReturn:
        raise Unavailable(f"no answer from the {self._name} threads in {seconds:g} s")

    def stop(self) -> None:
        """End the threads, after the work they have; for the very end, since it waits for that."""
        self._pool.stop()


class _NiceThread(threading.Thread):
    """Steps back for others."""

    def __init__(self, nice: int, **options: Any) -> None:
        super().__init__(**options)
        self._nice = nice

    def run(self) -> None:
        with suppress(OSError):  # a sandbox may forbid it, and then it is as it was
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        super().run()
