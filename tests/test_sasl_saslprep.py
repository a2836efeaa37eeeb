"""SASLprep: the examples of RFC 4013 3, each rule, and its properties."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl.saslprep import saslprep
from tests.requirements import proves

HEBREW = "\u05d0\u05d1"


@proves("A4")
class ExampleTests(SynchronousTestCase):
    """RFC 4013 3."""

    def test_soft_hyphen_is_mapped_to_nothing(self) -> None:
        self.assertEqual(saslprep("I\u00adX"), "IX")

    def test_no_transformation(self) -> None:
        self.assertEqual(saslprep("user"), "user")

    def test_case_is_preserved(self) -> None:
        self.assertEqual(saslprep("USER"), "USER")

    def test_output_is_nfkc_of_latin_1(self) -> None:
        self.assertEqual(saslprep("\u00aa"), "a")

    def test_output_is_nfkc_and_matches_ix(self) -> None:
        self.assertEqual(saslprep("\u2168"), "IX")

    def test_prohibited_character(self) -> None:
        self.assertRaisesRegex(ValueError, "control character", saslprep, "\u0007")

    def test_bidirectional_check(self) -> None:
        self.assertRaisesRegex(ValueError, "right-to-left", saslprep, "\u0627\u0031")


@proves("A4")
class RuleTests(SynchronousTestCase):
    def test_every_space_is_the_ascii_space(self) -> None:
        self.assertEqual(saslprep("a\u00a0b\u3000c"), "a b c")

    def test_composed_and_decomposed_are_one(self) -> None:
        self.assertEqual(saslprep("Ange\u0301lique"), saslprep("Ang\u00e9lique"))

    def test_prohibited_kinds(self) -> None:
        kinds = (
            ("a\x7f", "control"),
            ("a\u0085", "control"),
            ("a\ue000", "private use"),
            ("a\ufdd0", "non-character"),
            ("a\ud800", "surrogate"),
            ("a\ufffd", "plain text"),
            ("a\u2ff0", "canonical"),
            ("a\u200e", "display"),
            ("a\U000e0041", "tagging"),
            ("a\U0001f600", "Unicode 3.2"),
        )
        for text, kind in kinds:
            with self.subTest(kind=kind):
                self.assertRaisesRegex(ValueError, kind, saslprep, text)

    def test_right_to_left(self) -> None:
        self.assertEqual(saslprep(HEBREW), HEBREW)
        self.assertEqual(saslprep(f"{HEBREW}1{HEBREW}"), f"{HEBREW}1{HEBREW}")
        self.assertRaisesRegex(ValueError, "mixes", saslprep, f"{HEBREW}a{HEBREW}")
        self.assertRaisesRegex(ValueError, "begin and end", saslprep, f"1{HEBREW}")

    def test_the_error_never_shows_the_text(self) -> None:
        error = self.assertRaises(ValueError, saslprep, "hunter\u0007two")
        self.assertNotIn("hunter", str(error))

    @settings(deadline=None, max_examples=200)
    @given(st.text(max_size=20))
    def test_idempotent_and_nothing_but_a_value_error(self, text: str) -> None:
        try:
            prepared = saslprep(text)
        except ValueError:
            return
        self.assertEqual(saslprep(prepared), prepared)
