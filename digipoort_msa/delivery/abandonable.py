"""Waits that can be given up, whatever it is that one waits for."""

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def abandonable(working: "Deferred[T]", late: Callable[[T], object] = lambda _: None) -> "Deferred[T]":
    """The same result; but who cancels it hears so at once, whatever ``working`` makes of that.

    :param late: takes a result that comes all the same.
    """
    cancelled = False

    def cancel(_: object) -> None:
        nonlocal cancelled
        cancelled = True
        working.cancel()

    def came(result: T) -> None:
        if cancelled:
            late(result)
        else:
            outcome.callback(result)

    def failed(failure: Failure) -> None:
        if not cancelled:
            outcome.errback(failure)

    outcome: Deferred[T] = Deferred(cancel)
    working.addCallbacks(came, failed)
    return outcome
