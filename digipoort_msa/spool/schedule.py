"""When a message that was refused temporarily is tried again, when its sender is told that it takes long, and
when it has failed (D3, RFC 5321 4.5.4.1).

Times in the spool are those of the wall clock, since they outlive the process; and a wall clock may jump, to
any time and back.  So it is never believed alone:

- *Forward.*  Everything is due at once, and is tried once; then the delays hold again.  But the messages
  would all have failed, too: so a message has failed only when the time is over **and** it was really
  tried, :data:`ENOUGH_ATTEMPTS` times (or as often as the schedule does in that time, where that is less).
  The same spares a message whose time went by while the machine was off, or while it waited for its turn in
  a sequence.
- *Back.*  A next attempt may then lie years ahead.  None is ever set further away than ``longest_delay``, so
  one that is much further (``horizon``) was set by another clock; the queue makes such messages due.  The
  leeway is that wide so that a clock that swings does not have them tried at each swing.
- *Back beyond the time of receipt.*  A message from the future has no age by the clock; its attempts are its
  clock then: as old as the schedule takes to make so many.
"""

from collections.abc import Callable

from attrs import field, frozen, validators

ENOUGH_ATTEMPTS = 12  # by the default schedule that takes ten hours

_positive = validators.gt(0.0)


@frozen
class Schedule:
    """Growing, jittered delays.  All times are in seconds, and ``now`` and ``since`` count from the epoch."""

    first_delay: float = field(default=60.0, validator=_positive)
    factor: float = field(default=2.0, validator=validators.ge(1.0))
    maximum_delay: float = field(default=7200.0, validator=_positive)
    jitter: float = field(
        default=0.2, validator=[validators.ge(0.0), validators.lt(1.0)]
    )  # a fifth, each way
    give_up_after: float = field(default=72 * 3600.0, validator=_positive)
    tell_of_delay_after: float = field(default=4 * 3600.0, validator=_positive)

    def delay(self, attempts: int, random: Callable[[], float]) -> float:
        """The time from attempt number ``attempts`` (from 1) to the next.

        :param random: gives a number from 0 up to 1; jitter keeps messages that failed together from
            coming back together.
        """
        return self._middle(attempts) * (1 + self.jitter * (2 * random() - 1))

    def given_up(self, since: float, now: float, attempts: int) -> bool:
        """Has a message failed that was refused temporarily once more?

        :param since: where its time began.
        :param attempts: how many were made, this one included.
        """
        return self._age(since, now, attempts) >= self.give_up_after and attempts >= self._enough

    def takes_long(self, since: float, now: float, attempts: int) -> bool:
        """Is it time to tell the sender of a delay?  Arguments as for ``given_up``."""
        return self._age(since, now, attempts) >= self.tell_of_delay_after

    def gives_up_at(self, since: float, now: float) -> float:
        """When a message that is tried until then will have failed, as well as that is known."""
        return max(min(since, now) + self.give_up_after, now)

    @property
    def longest_delay(self) -> float:
        """No next attempt is set further away than this."""
        return self.maximum_delay * (1 + self.jitter)

    def horizon(self, now: float) -> float:
        """A next attempt that is due later than this was set by a clock that has been turned back since."""
        return now + 2 * self.longest_delay

    def _middle(self, attempts: int) -> float:
        growth = self.factor ** min(attempts - 1, 64)  # far past any maximum, and no overflow
        return min(self.first_delay * growth, self.maximum_delay)

    def _age(self, since: float, now: float, attempts: int) -> float:
        return now - since if since <= now else self._spent(attempts)

    def _spent(self, attempts: int) -> float:
        """How long it takes to make so many attempts."""
        return sum(map(self._middle, range(1, attempts)))

    @property
    def _enough(self) -> int:
        within = (n for n in range(2, ENOUGH_ATTEMPTS + 1) if self._spent(n) > self.give_up_after)
        return next(within, ENOUGH_ATTEMPTS + 1) - 1
