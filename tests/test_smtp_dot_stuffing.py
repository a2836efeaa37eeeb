"""Transparency on the sending side: right at every boundary, and canonical or not at all."""

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.dot_stuffing import DotStuffing, NotCanonical
from tests.requirements import proves


def stuff(*segments: bytes) -> bytes:
    stuffing = DotStuffing()
    return b"".join(map(stuffing.stuff, segments)) + stuffing.end()


def expected(content: bytes) -> bytes:
    """By the line, as RFC 5321 4.5.2 says it."""
    lines = content.split(b"\r\n")[:-1]
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def canonical(content: bytes) -> bool:
    return not re.search(rb"\r(?!\n)|(?<!\r)\n", content) and (not content or content.endswith(b"\r\n"))


_OCTETS = st.lists(st.sampled_from([b".", b"\r\n", b"\r\n.", b"x", b"\r\n.\r\n"])).map(b"".join)


@proves("M2", "D1")
class StuffingTests(SynchronousTestCase):
    def test_plain(self) -> None:
        self.assertEqual(stuff(b"a\r\nb\r\n"), b"a\r\nb\r\n.\r\n")

    def test_no_line_end_is_added(self) -> None:
        self.assertEqual(stuff(b"\r\n"), b"\r\n.\r\n")
        self.assertEqual(stuff(), b".\r\n")
        self.assertEqual(stuff(b""), b".\r\n")

    def test_dots(self) -> None:
        self.assertEqual(
            stuff(b".\r\n..\r\na.\r\n.b\r\n\r\n.\r\n"), b"..\r\n...\r\na.\r\n..b\r\n\r\n..\r\n.\r\n"
        )

    def test_cut_at_every_byte(self) -> None:
        content = b".\r\n..\r\na.b\r\n\r\n.c\r\n.\r\n"
        for first in range(len(content) + 1):
            for second in range(first, len(content) + 1):
                segments = content[:first], content[first:second], content[second:]
                self.assertEqual(stuff(*segments), expected(content))

    def test_dot_at_sixteen_kibibytes(self) -> None:
        """Where Twisted's own client leaves it unstuffed."""
        content = b"x" * 16382 + b"\r\n" + b".\r\nQUIT\r\n"
        self.assertEqual(stuff(content[:16384], content[16384:]), expected(content))

    @settings(deadline=None, max_examples=300)
    @given(_OCTETS, st.lists(st.integers(0, 40), max_size=6))
    def test_any_cut(self, content: bytes, cuts: list[int]) -> None:
        content += b"\r\n"
        places = [0, *sorted(cuts), len(content)]
        segments = [content[a:b] for a, b in pairwise(places)]
        self.assertEqual(stuff(*segments), expected(content))


@proves("M5")
class NotCanonicalTests(SynchronousTestCase):
    def test_lone_octets(self) -> None:
        for content in (
            b"a\nb\r\n",
            b"a\rb\r\n",
            b"\rX\n\r\n",
            b"\n\r\r\n",
            b"\r\r\n",
            b"\n\r\n",
            b"a\r\n\r",
        ):
            for cut in range(len(content) + 1):
                self.assertRaises(NotCanonical, stuff, content[:cut], content[cut:])

    def test_no_last_line_end(self) -> None:
        for content in (b"a", b"a\r\nb", b"a\r"):
            self.assertRaises(NotCanonical, stuff, content)

    @settings(deadline=None, max_examples=500)
    @given(st.lists(st.text("\r\n.x", max_size=6).map(str.encode), max_size=8))
    def test_exactly_the_canonical_pass(self, segments: list[bytes]) -> None:
        content = b"".join(segments)
        if canonical(content):
            self.assertEqual(stuff(*segments), expected(content))
        else:
            self.assertRaises(NotCanonical, stuff, *segments)
