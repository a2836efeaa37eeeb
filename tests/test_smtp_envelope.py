"""Values that cannot be wrong."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.envelope import NULL_PATH, MailParameters, Path, RcptParameters
from tests.requirements import proves


@proves("M1")
class PathTests(SynchronousTestCase):
    def test_no_control_character_fits_in(self) -> None:
        """GHSA-v3q9-hj7j-63hq, CVE-2025-7962: CR LF in an address is a command of its own."""
        for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xD800, 0xDFFF):
            self.assertRaises(ValueError, Path, f"a{chr(code)}", "b.nl")
            self.assertRaises(ValueError, Path, "a", f"b{chr(code)}.nl")
            self.assertRaises(ValueError, Path.from_text, f"a@b{chr(code)}.nl")

    def test_text(self) -> None:
        for path, text in (
            (NULL_PATH, ""),
            (Path("a", "b.nl"), "a@b.nl"),
            (Path("Postmaster", ""), "Postmaster"),
            (Path('"a@b"', "c.nl"), '"a@b"@c.nl'),
        ):
            self.assertEqual(str(path), text)
            self.assertEqual(Path.from_text(text), path)

    @settings(deadline=None, max_examples=100)
    @given(st.text('a.@"é', min_size=1), st.text("a.é[]", min_size=1))
    def test_round_trip(self, local_part: str, domain: str) -> None:
        path = Path(local_part, domain)
        self.assertEqual(Path.from_text(str(path)), path)

    def test_kinds(self) -> None:
        self.assertTrue(NULL_PATH.is_null)
        self.assertFalse(Path("postmaster", "").is_null)
        self.assertTrue(Path("a", "b.nl").is_ascii)
        self.assertFalse(Path("é", "b.nl").is_ascii)
        self.assertFalse(Path("a", "é.nl").is_ascii)

    def test_frozen_and_hashable(self) -> None:
        path = Path("a", "b.nl")
        self.assertRaises(AttributeError, setattr, path, "domain", "\r\n")
        self.assertEqual(len({path, Path("a", "b.nl"), Path("A", "b.nl")}), 2)


class ParameterTests(SynchronousTestCase):
    @proves("D2", "M1")
    def test_a_value_is_one_word(self) -> None:
        """Whoever makes it: what goes to a hop as a parameter cannot be another one, or a command."""
        for value in ("", "a b", "a\r\nRCPT TO:<b@c.nl>", "\x00", "\x85", "\u2028", "\ud800"):
            self.assertRaises(ValueError, MailParameters, envid=value)
            self.assertRaises(ValueError, RcptParameters, orcpt=value)
