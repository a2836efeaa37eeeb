"""When a message that was refused temporarily is tried again (D3, RFC 5321 4.5.4.1)."""

from collections.abc import Callable

from attrs import field, frozen, validators

_positive = validators.gt(0.0)


@frozen
class Schedule:
    """Growing, jittered delays.  All times are in seconds."""

    first_delay: float = field(default=60.0, validator=_positive)
    factor: float = field(default=2.0, validator=validators.ge(1.0))
    maximum_delay: float = field(default=7200.0, validator=_positive)
    jitter: float = field(
        default=0.2, validator=[validators.ge(0.0), validators.lt(1.0)]
    )  # a fifth, each way
    give_up_after: float = field(default=72 * 3600.0, validator=_positive)

    def delay(self, attempts: int, random: Callable[[], float]) -> float:
        """The time from attempt number ``attempts`` (from 1) to the next.

        :param random: gives a number from 0 up to 1; jitter keeps messages that failed together from
            coming back together.
        """
        growth = self.factor ** min(attempts - 1, 64)  # far past any maximum, and no overflow
        delay = min(self.first_delay * growth, self.maximum_delay)
        return delay * (1 + self.jitter * (2 * random() - 1))

    def given_up(self, since: float, now: float) -> bool:
        return now - since >= self.give_up_after
