"""Do two things take equally long?  Statistics for clocks on busy machines, that can say no.

Samples come in pairs, measured right after one another, so that what the machine does besides meets both.
Two figures compare them, each with an interval that is exact whatever the distribution (order statistics and
the binomial; David and Nagaraja, Order Statistics, 7.1), where means, variances and resampling are at the
mercy of the few samples that something interrupted:

- the *median of the differences* within pairs;
- the difference of a *low quantile* of each: noise only ever adds time, so that a real difference shows best
  among the quickest samples.

What a difference is worth is said beforehand, as a bound.  If both intervals lie within it, the two are
``EVEN``, which is more than that no difference was found.  If one lies wholly beyond it, there is a ``LEAK``.
Else the samples do not tell, ``OPEN``, and more of them may.
"""

import enum
import math
from collections.abc import Sequence
from functools import cache
from statistics import median

from attrs import frozen

#: The chance that an interval misses the truth.  All that are ever looked at in one run of the tests, or of
#: the benchmark, together miss it once in a thousand such runs at most.
MISS = 1e-6


class Verdict(enum.Enum):
    """Of a comparison, against its bound."""

    EVEN = "even"
    LEAK = "LEAK"
    OPEN = "open"


@frozen
class Interval:
    """An estimate, and what it may be mistaken by."""

    estimate: float
    low: float
    high: float

    def within(self, bound: float) -> bool:
        return -bound <= self.low and self.high <= bound

    def beyond(self, bound: float) -> bool:
        return self.low > bound or self.high < -bound

    @property
    def excludes_zero(self) -> bool:
        return self.beyond(0.0)


@frozen
class Difference:
    """How much longer the one takes than the other; in the samples' unit."""

    median: Interval
    quick: Interval  # of the low quantile

    def verdict(self, bound: float) -> Verdict:
        intervals = (self.median, self.quick)
        if all(interval.within(bound) for interval in intervals):
            return Verdict.EVEN
        if any(interval.beyond(bound) for interval in intervals):
            return Verdict.LEAK
        return Verdict.OPEN

    @property
    def shows(self) -> bool:
        """Is there any difference, however small?"""
        return self.median.excludes_zero or self.quick.excludes_zero


def difference(
    one: Sequence[float], other: Sequence[float], *, quantile: float = 0.1, miss: float = MISS
) -> Difference:
    """
    :param one: what is compared; each with its partner in ``other``.
    :param quantile: which low one.
    :param miss: the chance that an interval misses the truth.
    """
    if len(one) != len(other) or not one:
        raise ValueError("samples come in pairs")
    pairs = sorted(a - b for a, b in zip(one, other, strict=True))
    between = Interval(median(pairs), *_interval(pairs, 0.5, miss))
    ones, others = sorted(one), sorted(other)
    rank = int(quantile * len(ones))
    low, high = _interval(ones, quantile, miss / 2)
    others_low, others_high = _interval(others, quantile, miss / 2)
    return Difference(between, Interval(ones[rank] - others[rank], low - others_high, high - others_low))


def _interval(ascending: Sequence[float], quantile: float, miss: float) -> tuple[float, float]:
    """Where the quantile lies of what the samples were drawn from; infinite where they are too few."""
    lower, upper = _ranks(len(ascending), quantile, miss)
    low = ascending[lower - 1] if lower else -math.inf
    high = ascending[upper - 1] if upper <= len(ascending) else math.inf
    return low, high


@cache
def _ranks(count: int, quantile: float, miss: float) -> tuple[int, int]:
    """The largest and smallest rank (from 1) between whose samples the quantile lies; 0 and ``count`` + 1
    where there is none.

    Of ``count`` samples, the number below the quantile is binomial.
    """
    probabilities = [
        math.exp(
            math.lgamma(count + 1)
            - math.lgamma(below + 1)
            - math.lgamma(count - below + 1)
            + below * math.log(quantile)
            + (count - below) * math.log1p(-quantile)
        )
        for below in range(count + 1)
    ]
    lower, fewer = 0, 0.0
    while fewer + probabilities[lower] <= miss / 2:
        fewer += probabilities[lower]
        lower += 1
    upper, more = count + 1, 0.0
    while more + probabilities[upper - 1] <= miss / 2:
        more += probabilities[upper - 1]
        upper -= 1
    return lower, upper
