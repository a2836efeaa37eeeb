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
    """Put choices in an order by chance: each next one with a probability by its weight.

    Those without weight come by equal chances where there is no weight left, and before that hardly ever
    (RFC 2782's rules: they stand first, and are taken where the number drawn is 0).

    :param choices: (weight, choice).
    :param random: from 0 to 1, 1 not included.
    """
    if len(choices) == 1:
        return [choices[0][1]]
    left = list(choices)
    for last in range(len(left) - 1, 0, -1):
        other = int(random() * (last + 1))
        left[last], left[other] = left[other], left[last]
    left.sort(key=lambda choice: choice[0] > 0)
    order = []
    while left:
        number = int(random() * (sum(weight for weight, _ in left) + 1))
        for place, (weight, choice) in enumerate(left):  # noqa: B007 - the place is what is looked for
            number -= weight
            if number <= 0:
                break
        order.append(left.pop(place)[1])
    return order


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
