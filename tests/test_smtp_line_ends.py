"""Line ends: whole, and cut anywhere."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.line_ends import LineEnds
from tests.requirements import proves

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def canonical(*segments: bytes) -> bool:
    line_ends = LineEnds()
    return [line_ends.canonical(segment) for segment in segments][-1]


class LineEndTests(SynchronousTestCase):
    @proves("M5")
    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(
            st.sampled_from([b"\r", b"\n", b"\r\n", b"x", b"\xff", b"\0", b"\x85", b"\x0c"]), max_size=12
        )
    )
    @example([b"\r", b"x", b"\r\n", b"\n"])
    @example([b"\n", b"\r"])
    def test_as_a_search_for_bare_ones_says(self, pieces: list[bytes]) -> None:
        """Each two segments, and octet by octet; with a line end behind, which judges a last CR."""
        content = b"".join(pieces) + b"x\r\n"
        expected = _BARE.search(content) is None
        for cut in range(len(content) + 1):
            self.assertEqual(canonical(content[:cut], content[cut:]), expected)
        self.assertEqual(canonical(*(content[at : at + 1] for at in range(len(content)))), expected)

    def test_a_last_cr_is_judged_later(self) -> None:
        self.assertTrue(canonical(b"a\r"))
        self.assertTrue(canonical(b"a\r", b"\n"))
        self.assertFalse(canonical(b"a\r", b"b"))

    def test_a_bare_one_is_not_forgotten(self) -> None:
        self.assertFalse(canonical(b"a\n", b"b\r\n"))
