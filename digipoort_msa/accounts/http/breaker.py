"""A circuit breaker: a back end that does not answer is left alone for a while, and logins are told at once.

::

    closed --(failures in a row)--> resting --(its rest is over)--> probing --(an answer)--> closed
                                       ^                               |
                                       +-------(a failure: twice the rest)

Without one, each login would wait out its timeout while a dead back end is being asked, and a back end that
is coming up again would be met by all who have waited.
"""

import enum
from collections.abc import Callable

from digipoort_msa import log
from digipoort_msa.interfaces import Unavailable


class State(enum.Enum):
    CLOSED = "closed"  # it is asked
    RESTING = "resting"  # it is not
    PROBING = "probing"  # by one login, whose outcome decides


class Breaker:
    """For one back end.  Who asks it says what came of that, each time: exactly one of ``succeeded`` and
    ``failed`` after each ``admit``."""

    def __init__(
        self,
        realm: str,
        seconds: Callable[[], float],
        *,
        failures: int,
        first_rest: float,
        longest_rest: float,
    ) -> None:
        """
        :param realm: for the log.
        :param seconds: the clock.
        :param failures: in a row, after which it rests.
        :param first_rest: seconds.
        :param longest_rest: seconds, which a rest grows to.
        """
        self._realm = realm
        self._seconds = seconds
        self._failures = failures
        self._first_rest = first_rest
        self._longest_rest = longest_rest
        self.state = State.CLOSED
        self._in_a_row = 0
        self._rest = 0.0
        self._until = 0.0
        self._since = 0.0  # when it was closed last

    def admit(self) -> None:
        """May it be asked?

        :raise Unavailable: no; it is nobody's business for now, or somebody is asking whether it is back.
        """
        if self.state is State.CLOSED:
            return
        left = self._until - self._seconds()
        if self.state is State.RESTING and left <= 0:
            self.state = State.PROBING
            return
        when = f"another {left:.1f} s" if self.state is State.RESTING else "until one login has tried it"
        raise Unavailable(f"it did not answer, and is left alone for {when}")

    def succeeded(self) -> None:
        """It has answered, whatever the answer."""
        if self.state is not State.CLOSED:
            seconds = round(self._seconds() - self._since, 1)
            log.emit(log.STORE_RECOVERED, realm=self._realm, seconds=seconds)
        self.state = State.CLOSED
        self._in_a_row = 0

    def failed(self, reason: str) -> None:
        """It has not answered."""
        self._in_a_row += 1
        if self.state is State.RESTING or (self.state is State.CLOSED and self._in_a_row < self._failures):
            return  # the former is of those that were under way when the rest began
        if self.state is State.CLOSED:
            self._since, self._rest = self._seconds(), self._first_rest
        else:
            self._rest = min(2 * self._rest, self._longest_rest)
        self.state = State.RESTING
        self._until = self._seconds() + self._rest
        log.emit(log.STORE_RESTS, realm=self._realm, seconds=self._rest, reason=reason)
