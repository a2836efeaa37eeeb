"""One deadline at a time, for a connection."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Watch:
    """A deadline that moves.  A delayed call that is already due no later than the deadline is kept and
    looks again when it fires, so that a wait that ends in time costs no call in the reactor."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._deadline: float | None = None
        self._due = 0.0  # of the call
        self._action: Callable[..., object] = lambda: None
        self._arguments: tuple[object, ...] = ()

    def start(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        self._action = action
        self._arguments = arguments
        self._deadline = self._reactor.seconds() + seconds
        if self._call is not None and self._due > self._deadline:
            self._call.cancel()
            self._call = None
        if self._call is None:
            self._schedule(self._deadline, seconds)

    def stop(self) -> None:
        self._deadline = None

    def end(self) -> None:
        """No deadline will come any more."""
        self._deadline = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self, due: float, seconds: float) -> None:
        self._due = due
        self._call = self._reactor.callLater(seconds, self._fired)

    def _fired(self) -> None:
        self._call = None
        if self._deadline is None:
            return
        left = self._deadline - self._reactor.seconds()
        if left > 0:
            self._schedule(self._deadline, left)
        else:
            self._deadline = None
            self._action(*self._arguments)
