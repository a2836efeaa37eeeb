"""Queue ids: what the log, ``Received:``, the 250 and the queue tools call a message (M6).

Sixteen upper-case characters: 52 bits of microseconds since the epoch and 28 random bits, in the base32
alphabet that sorts like the number it stands for (RFC 4648 7).  So ids sort by time of arrival, one
process never gives out the same twice, and two processes, or one that was restarted with its clock set
back, do so with a chance of one in 268 million even where they pick the same microsecond.  An id carries
no authority: knowing one allows nothing.
"""

import random
import time
from collections.abc import Callable

_RANDOM_BITS = 28
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]  # ten bits at a time


class QueueIds:
    """Gives out queue ids, each later in order than the one before, whatever the clock does.

    :param seconds: the time since the epoch.
    :param random_bits: gives a number of so many bits.
    """

    def __init__(
        self,
        seconds: Callable[[], float] = time.time,
        random_bits: Callable[[int], int] | None = None,
    ) -> None:
        self._seconds = seconds
        self._random_bits = random_bits or random.Random().getrandbits  # noqa: S311 -- seeded by the system
        self._last = 0

    def __call__(self) -> str:
        number = int(self._seconds() * 1_000_000) << _RANDOM_BITS | self._random_bits(_RANDOM_BITS)
        self._last = number = max(number, self._last + 1)
        return "".join([_PAIRS[number >> shift & 1023] for shift in range(70, -10, -10)])
