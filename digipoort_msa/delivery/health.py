"""The health of one hop: one that fails rests, for a growing while, and is then asked whether it is back.

A hop *fails* where it cannot be made ready for a message: no connection, no greeting, no TLS, no login.  It
is then left alone by every delivery.  At the end of its rest one probe opens a session; whether that succeeds
decides between recovery and a longer rest.

What a hop says to a message is never a failure of the hop.  Nor is a connection that dies amid one: the
message may be the cause.  Where that happens again and again, with no transaction between that came to its
end, it counts.

A hop that takes connections and loses every message would recover at each probe: its rests go on growing
until a transaction comes to its end, or until it has done without a rest for as long as the longest one.
Nor is everything that waits thrown at it each time: after a recovery that no transaction has borne out, the
next is told only when one has.
"""

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from digipoort_msa import log
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.smtp.reply import Reply

_BREAKS = 3  # connections lost amid a message, one after the other, until the hop is to blame


@frozen
class Rests:
    """How long a failing hop is left alone, in seconds: ``first``, then twice that, to ``longest``; each
    a quarter more or less by chance, so that many relays do not come back as one."""

    first: float = 5.0
    longest: float = 300.0


@frozen
class Failing:
    """Why a hop rests."""

    since: float  # by the reactor: its first failure since it was well
    reply: Reply  # its latest words, or ours where it had none


class Health:
    """Whether deliveries may use a hop.

    :ivar failing: :class:`Failing` while the hop rests; ``None`` while it may be used.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        hop: str,
        rests: Rests,
        random: Callable[[], float],
        probe: "Callable[[], Deferred[Any]]",
        changed: Callable[[], object],
        recovered: Callable[[], object],
    ) -> None:
        """
        :param hop: its name, for the log.
        :param random: from 0 to 1.
        :param probe: opens a session with the hop; :class:`HopFailure` where it cannot.
        :param changed: told whenever the hop rests, or may be used again.
        :param recovered: told when it may be used again, and what waits for it may be tried.
        """
        self.failing: Failing | None = None
        self._reactor = reactor
        self._hop = hop
        self._rests = rests
        self._random = random
        self._probe = probe
        self._changed = changed
        self._recovered = recovered
        self._rest = rests.first  # the next one
        self._breaks = 0
        self._proven = True  # the last recovery has been borne out, as above
        self._doubted = False  # it failed before that, so that the next recovery is to be proven first
        self._well_since = reactor.seconds()
        self._end: IDelayedCall | None = None  # of the rest
        self._probing: Deferred[Any] | None = None
        self._stopped = False

    def failed(self, reply: Reply) -> None:
        """The hop could not be made ready for a message.  Deliveries that were on their way when it began to
        rest, and fail too, change nothing."""
        if self.failing is not None or self._stopped:
            return
        now = self._reactor.seconds()
        if now - self._well_since > self._rests.longest:
            self._rest = self._rests.first
            self._proven = True
        self._doubted = not self._proven
        self._begin_rest(Failing(now, reply))
        self._changed()

    def broke(self, reply: Reply) -> None:
        """A connection was lost amid a message."""
        self._breaks += 1
        if self._breaks >= _BREAKS:
            self.failed(reply)

    def worked(self) -> None:
        """A transaction came to its end, whatever the hop said to it."""
        self._breaks = 0
        if self.failing is not None:
            return
        self._rest = self._rests.first
        self._proven = True
        if self._doubted:
            self._doubted = False
            self._recovered()

    def stop(self) -> None:
        """No rest ends any more, and no probe."""
        self._stopped = True
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._probing is not None:
            self._probing.cancel()

    def _begin_rest(self, failing: Failing) -> None:
        seconds = min(self._rest, self._rests.longest) * (0.75 + self._random() / 2)
        self._rest = min(self._rest * 2, self._rests.longest)
        self.failing = failing
        self._end = self._reactor.callLater(seconds, self._ask, failing)
        log.emit(log.HOP_RESTS, hop=self._hop, seconds=round(seconds, 1), reply=str(failing.reply))

    def _ask(self, failing: Failing) -> None:
        self._end = None
        self._probing = Deferred.fromCoroutine(self._asked(failing))

    async def _asked(self, failing: Failing) -> None:
        reply = None
        try:
            await self._probe()
        except HopFailure as failure:
            reply = failure.reply
        except Exception:  # noqa: BLE001 - a defect must not leave the hop alone for ever
            if not self._stopped:
                log.failure(log.DEFECT, None, where=f"the probe of {self._hop}")
            reply = failing.reply
        if self._stopped:
            return
        if reply is None:
            self._recover(failing)
        else:
            self._begin_rest(Failing(failing.since, reply))

    def _recover(self, failing: Failing) -> None:
        now = self._reactor.seconds()
        log.emit(log.HOP_RECOVERED, hop=self._hop, seconds=round(now - failing.since))
        self.failing = None
        self._breaks = 0
        self._proven = False
        self._well_since = now
        self._changed()
        if not self._doubted:
            self._recovered()
