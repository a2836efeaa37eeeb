"""The health of one milter: one that fails is left alone for a while, so that it does not cost each message
its time-outs.

A milter *fails* where it cannot be connected to or does not negotiate, and where that many transactions, one
after the other, were begun and came to grief: one alone may be the message's fault.  The rests grow until a
verdict comes.
"""

from twisted.internet.interfaces import IReactorTime

from digipoort_msa import log

_BREAKS = 3  # transactions
_FIRST, _LONGEST = 2.0, 60.0  # seconds of rest


class Health:
    """Whether one milter may be asked."""

    def __init__(self, reactor: IReactorTime, milter: str) -> None:
        """:param milter: its name, for the log."""
        self._reactor = reactor
        self._milter = milter
        self._rest = _FIRST  # the next one
        self._until = 0.0  # by the reactor: the end of this one
        self._since: float | None = None  # it has failed
        self._breaks = 0
        self._reason = ""

    @property
    def resting(self) -> str | None:
        """Why it is not to be asked now."""
        if self._since is not None and self._reactor.seconds() < self._until:
            return f"it is left alone for a while: {self._reason}"
        return None

    def failed(self, reason: str) -> None:
        """It could not be made ready for a transaction.  Those that were on their way when its rest began,
        and fail too, change nothing."""
        if self.resting is not None:
            return
        now = self._reactor.seconds()
        if self._since is None:
            self._since = now
        seconds, self._rest = self._rest, min(self._rest * 2, _LONGEST)
        self._until = now + seconds
        self._reason = reason
        log.emit(log.MILTER_FAILED, milter=self._milter, reason=reason, seconds=round(seconds))

    def broke(self, reason: str) -> None:
        """A transaction came to grief."""
        self._breaks += 1
        if self._breaks >= _BREAKS:
            self.failed(reason)

    def worked(self) -> None:
        """There is a verdict, whichever."""
        self._breaks = 0
        self._rest = _FIRST
        if self._since is not None:
            seconds = round(self._reactor.seconds() - self._since)
            self._since = None
            log.emit(log.MILTER_WORKS, milter=self._milter, seconds=seconds)
