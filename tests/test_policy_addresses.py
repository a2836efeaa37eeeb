"""Addresses against patterns (M7)."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.addresses import AddressPatterns
from digipoort_msa.smtp.envelope import NULL_PATH, Path


def path(text: str) -> Path:
    return Path.from_text(text)


class AddressPatternsTests(SynchronousTestCase):
    def test_match(self) -> None:
        for pattern, matching, others in (
            (
                "*@mijnbedrijf.nl",
                "a@mijnbedrijf.nl A.B@MIJNBEDRIJF.NL",
                "a@b.mijnbedrijf.nl a@mijnbedrijf.nl.",
            ),
            ("jan@*.nl", "jan@a.nl jan@a.b.nl JAN@a.nl", "piet@a.nl jan@nl jan@a.be"),
            ("a.b@c.nl", "a.b@c.nl", "axb@c.nl a.b@cxnl xa.b@c.nl a.b@c.nlx"),
            ("j*n@c.nl", "jn@c.nl jan@c.nl", "j@c.nl"),
            ("[ab]+@c.nl", "[ab]+@c.nl", "a@c.nl"),
        ):
            patterns = AddressPatterns.of([pattern, "nobody@example"])
            for text in matching.split():
                self.assertTrue(patterns.match(path(text)), (pattern, text))
            for text in others.split():
                self.assertFalse(patterns.match(path(text)), (pattern, text))

    def test_letters_that_only_look_the_same(self) -> None:
        """A domain with a dotless i is another's; an accent has two cases as any letter has."""
        patterns = AddressPatterns.of(["*@digid.nl", "*@caf\u00e9.nl"])
        for text in ("a@d\u0131gid.nl", "a@dig\u0130d.nl", "a@cafe.nl"):
            self.assertFalse(patterns.match(path(text)), text)
        self.assertTrue(patterns.match(path("a@CAF\u00c9.nl")))
        self.assertFalse(AddressPatterns.of(["info@shop.nl"]).match(path("info@\u017fhop.nl")))

    def test_a_quoted_local_part_that_looks_like_another_address(self) -> None:
        patterns = AddressPatterns.of(["*@mijnbedrijf.nl", "baas@*"])
        self.assertFalse(patterns.match(Path('"x@mijnbedrijf.nl"', "elders.nl")))
        self.assertFalse(patterns.match(Path('"baas@"', "elders.nl")))

    @settings(deadline=None, max_examples=200)
    @given(st.text("ab.*@", min_size=1, max_size=8), st.text("ab.@", max_size=10))
    def test_means_what_a_plain_translation_means(self, pattern: str, text: str) -> None:
        expression = "".join(".*" if char == "*" else re.escape(char) for char in pattern)
        self.assertEqual(
            AddressPatterns.of([pattern]).match(Path(text, "")), re.fullmatch(expression, text) is not None
        )

    def test_made_to_be_slow(self) -> None:
        """Tried every way, this would take years."""
        patterns = AddressPatterns.of([f"{'*a' * 20}@*.bedrijf.nl"])
        self.assertFalse(patterns.match(Path(f'"{"a@" * 30_000}"', "elders.nl")))
        self.assertTrue(patterns.match(Path("a" * 30_000, "x.bedrijf.nl")))

    def test_none_matches_nothing(self) -> None:
        self.assertFalse(AddressPatterns.of([]).match(path("a@b.nl")))
        self.assertFalse(AddressPatterns.of([]).match(NULL_PATH))
