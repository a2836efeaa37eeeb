"""Which hop comes first: by priority, and within one priority by a weighted draw (RFC 2782)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import frozen

from digipoort_msa.delivery.hop import Hop, Limits

T = TypeVar("T")


@frozen
class Candidate:
    """One hop of an entry."""

    hop: Hop
    limits: Limits
    priority: int = 0  # within its entry: that of its record
    weight: int = 0


@frozen
class Entry:
    """The hops of one entry of a relay's list, with the entry's own priority and weight."""

    candidates: Sequence[Candidate]
    priority: int
    weight: int


def drawn(choices: Sequence[tuple[int, T]], random: Callable[[], float]) -> list[T]:
    """Put choices in an order by chance: each next one with the probability of its weight.

    Those without weight come last, by equal chances.  (RFC 2782 draws whole numbers from 0 to the sum, both
    included, which gives weights of 3 and 1 shares of 70 and 30 in 100, and 0 a small one.)

    :param choices: (weight, choice).
    :param random: from 0 to 1, 1 not included.
    """
    if len(choices) == 1:
        return [choices[0][1]]
    left = list(choices)
    for last in range(len(left) - 1, 0, -1):
        other = int(random() * (last + 1))
        left[last], left[other] = left[other], left[last]
    order = []
    while total := sum(weight for weight, _ in left):
        number = random() * total
        for place, (weight, _) in enumerate(left):  # noqa: B007 - the place is what is looked for
            number -= weight
            if number < 0:
                break
        order.append(left.pop(place)[1])
    return order + [choice for _, choice in left]


def tiers(entries: Sequence[Entry], random: Callable[[], float]) -> list[list[Candidate]]:
    """The hops by priority, the best first; those of one priority in the order drawn.  None comes twice.

    The priorities of an entry's records count within that entry only: the best of them stands beside the
    other entries of the same priority, the next best behind all of these.
    """
    ranked: dict[tuple[int, int], list[tuple[int, list[tuple[int, Candidate]]]]] = {}
    for entry in entries:
        for rank, priority in enumerate(sorted({candidate.priority for candidate in entry.candidates})):
            equals = [(c.weight, c) for c in entry.candidates if c.priority == priority]
            ranked.setdefault((entry.priority, rank), []).append((entry.weight, equals))
    order: list[list[Candidate]] = []
    seen: set[Hop] = set()
    for place in sorted(ranked):
        tier = []
        for equals in drawn(ranked[place], random):
            for candidate in drawn(equals, random):
                if candidate.hop not in seen:
                    seen.add(candidate.hop)
                    tier.append(candidate)
        if tier:
            order.append(tier)
    return order
