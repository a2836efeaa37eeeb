"""Which hop comes first (RFC 2782)."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery.choice import Candidate, Entry, drawn, tiers
from digipoort_msa.delivery.hop import Hop, Limits

LIMITS = Limits()
weights = st.integers(0, 65_535)


def entry(*candidates: tuple[str, int, int], priority: int = 1, weight: int = 0) -> Entry:
    return Entry([Candidate(Hop(host, 25), LIMITS, *rest) for host, *rest in candidates], priority, weight)


def names(order: list[list[Candidate]]) -> list[list[str]]:
    return [[candidate.hop.host for candidate in tier] for tier in order]


class DrawTests(SynchronousTestCase):
    @given(st.lists(weights, max_size=30), st.randoms(use_true_random=False))
    def test_everyone_once(self, given_weights: list[int], random: Random) -> None:
        order = drawn([(weight, number) for number, weight in enumerate(given_weights)], random.random)
        self.assertEqual(sorted(order), list(range(len(given_weights))))

    def firsts(self, *given_weights: int, times: int = 20_000) -> list[float]:
        """How often each comes first."""
        random = Random(1).random
        choices = [(weight, number) for number, weight in enumerate(given_weights)]
        counted = Counter(drawn(choices, random)[0] for _ in range(times))
        return [counted[number] / times for number in range(len(given_weights))]

    def test_by_weight(self) -> None:
        for share, expected in zip(self.firsts(600, 300, 100), (0.6, 0.3, 0.1), strict=True):
            self.assertLess(abs(share - expected), 0.02)

    def test_small_weights(self) -> None:
        self.assertLess(abs(self.firsts(3, 1)[0] - 0.75), 0.02)

    def test_without_weight_last(self) -> None:
        self.assertEqual(self.firsts(0, 1)[0], 0)

    def test_without_any_weight_evenly(self) -> None:
        for share in self.firsts(0, 0, 0, 0):
            self.assertLess(abs(share - 0.25), 0.02)

    def test_the_ends_of_chance(self) -> None:
        for number in (0.0, 1 - 2**-53):
            self.assertEqual(sorted(drawn([(0, 1), (0, 2), (65_535, 3)], lambda n=number: n)), [1, 2, 3])


class TierTests(SynchronousTestCase):
    def order(self, *entries: Entry, seed: int = 1) -> list[list[str]]:
        return names(tiers(entries, Random(seed).random))

    def test_by_priority(self) -> None:
        self.assertEqual(
            self.order(entry(("b", 0, 0), priority=2), entry(("a", 0, 0)), entry(("c", 0, 0), priority=9)),
            [["a"], ["b"], ["c"]],
        )

    def test_records_within_their_entry(self) -> None:
        """The best exchanger of a domain stands beside another entry of the same priority, whatever number
        its record has; the others come behind."""
        order = self.order(
            entry(("a10", 10, 0), ("a20", 20, 0)), entry(("b", 0, 0)), entry(("c", 0, 0), priority=2)
        )
        self.assertEqual([sorted(tier) for tier in order], [["a10", "b"], ["a20"], ["c"]])

    def test_the_entrys_weight_counts_before_its_records(self) -> None:
        heavy = entry(*((f"a{number}", 0, 0) for number in range(5)), weight=1)
        light = entry(("b", 0, 0), weight=1)
        firsts = Counter(self.order(heavy, light, seed=seed)[0][0][0] for seed in range(4_000))
        self.assertLess(abs(firsts["b"] / 4_000 - 0.5), 0.05)

    def test_nobody_twice(self) -> None:
        self.assertEqual(self.order(entry(("a", 0, 0), ("a", 5, 0)), entry(("a", 0, 0), priority=2)), [["a"]])

    def test_none(self) -> None:
        self.assertEqual(self.order(entry()), [])
