"""The directive list: its grammar, and that nothing else passes."""

import contextlib
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl.directives import parse, quoted
from tests.requirements import proves

TOKEN = "!#$%&'*+-.0123456789ABCXYZ^_`abcxyz|~"
names = st.text(TOKEN, min_size=1, max_size=8)
values = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)
spaces = st.sampled_from(["", " ", "\t", "\r\n ", " \r\n\t \t"])


@st.composite
def written(draw: st.DrawFn, name: str, value: str) -> bytes:
    """One directive in one of the ways it may be written."""
    if value and not value.strip(TOKEN) and draw(st.booleans()):
        text = value.encode()
    else:
        text = quoted(value)
        if draw(st.booleans()):  # escape what needs none, too
            text = b'"' + re.sub(rb"([ -~])", rb"\\\1", value.encode()) + b'"'
    around = [draw(spaces).encode() for _ in range(4)]
    return around[0] + name.encode() + around[1] + b"=" + around[2] + text + around[3]


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[tuple[str, str]], bytes]:
    pairs = draw(st.lists(st.tuples(names, values), max_size=5))
    elements = []
    for name, value in pairs:
        elements += [draw(spaces).encode()] * draw(st.integers(0, 2))  # null elements
        elements.append(draw(written(name, value)))
    return pairs, b",".join(elements)


@proves("A3")
class ParseTests(SynchronousTestCase):
    def test_tokens_and_quoted_strings(self) -> None:
        octets = b'charset=utf-8,username="chris",nc=00000001'
        self.assertEqual(parse(octets), (("charset", b"utf-8"), ("username", b"chris"), ("nc", b"00000001")))

    def test_escapes(self) -> None:
        self.assertEqual(parse(rb'a="\"\\\x,"'), (("a", b'"\\x,'),))

    def test_names_are_lower_cased_and_values_are_not(self) -> None:
        self.assertEqual(parse(b"QoP=Auth"), (("qop", b"Auth"),))

    def test_white_space_and_empty_elements(self) -> None:
        self.assertEqual(parse(b' , ,a = 1 ,\r\n\t, b\t="2" ,,'), (("a", b"1"), ("b", b"2")))

    def test_nothing(self) -> None:
        self.assertEqual(parse(b""), ())
        self.assertEqual(parse(b" ,, "), ())

    def test_duplicates_are_the_callers_business(self) -> None:
        self.assertEqual(parse(b"a=1,a=2"), (("a", b"1"), ("a", b"2")))

    def test_eight_bit(self) -> None:
        self.assertEqual(parse(b'a="\xe9"'), (("a", b"\xe9"),))

    def test_refused(self) -> None:
        for octets in (
            b"a",
            b"a=",
            b"=1",
            b"a=,b=1",
            b"a=1 b=2",
            b'a="1"b="2"',
            b'a="1"x',
            b'a=x"1"',
            b'a="1',
            b'a="1\\"',
            b"a=1;b=2",
            b"a=\xe9",
            b"a=smtp/host",
            b"a==1",
            b'a="\0"',
            b'a="\\\0"',
            b'a="\r\n b"',
            b'a="\\\xe9"',
            b"a=1\r\n",
            b"a=1\n",
            b"a=1\0",
            b"a b=1",
        ):
            with self.subTest(octets=octets):
                self.assertRaisesRegex(ValueError, "at octet", parse, octets)

    def test_the_error_says_where(self) -> None:
        self.assertRaisesRegex(ValueError, "octet 5$", parse, b"a=1, b")

    def test_hostile_input_takes_linear_time(self) -> None:
        """None of these may send the pattern back over its own steps."""
        for octets in (b" " * 4096, b"a" + b"\r\n " * 1365, b'a="' + b"\\a" * 2046, b"," * 4096 + b"!"):
            with self.subTest(octets=octets[:8]), contextlib.suppress(ValueError):
                parse(octets)

    @settings(deadline=None, max_examples=200)
    @given(lists())
    def test_round_trip(self, case: tuple[list[tuple[str, str]], bytes]) -> None:
        pairs, octets = case
        self.assertEqual(parse(octets), tuple((name.lower(), value.encode()) for name, value in pairs))

    @settings(deadline=None, max_examples=300)
    @given(st.binary(max_size=40) | st.text('a="\\, \t\r\n', max_size=20).map(str.encode))
    def test_raises_nothing_else(self, octets: bytes) -> None:
        with contextlib.suppress(ValueError):
            parse(octets)


class QuotedTests(SynchronousTestCase):
    def test_escapes(self) -> None:
        self.assertEqual(quoted('a"b\\c\u00e9'), b'"a\\"b\\\\c\xc3\xa9"')

    def test_control_characters_are_refused(self) -> None:
        for text in ("a\r\nb", "\0", "\x7f"):
            self.assertRaises(ValueError, quoted, text)
