"""The header section: whole, cut anywhere, and made by somebody who means harm."""

import time
from email.parser import BytesHeaderParser

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.header_section import HeaderFault, HeaderSection, Malformed, TooBig, TooMany
from tests.requirements import proves


def read(*segments: bytes, **bounds: int) -> tuple[object, int | None]:
    """What is found, and how many octets the section took; a fault is given by its name."""
    section = HeaderSection(**bounds)
    before = 0
    try:
        for segment in segments:
            taken = section.push(segment)
            if taken is not None:
                assert section.fields is not None
                return [(one.name, one.text) for one in section.fields], before + taken
            before += len(segment)
        section.close()
    except HeaderFault as fault:
        return type(fault).__name__, None
    assert section.fields is not None
    return [(one.name, one.text) for one in section.fields], None


class HeaderSectionTests(SynchronousTestCase):
    def fields(self, octets: bytes) -> object:
        return read(octets)[0]

    @proves("M10")
    def test_fields(self) -> None:
        for octets, expected in (
            (b"A: x\r\n\r\n", [("a", "x")]),
            (b"\r\nA: in the body\r\n", []),
            (b"", []),
            (b"A: x\r\n", [("a", "x")]),
            (b"A:\r\nB:x\r\n\r\nbody", [("a", ""), ("b", "x")]),
            (b"A: x\r\n\t y \r\nb: z\r\n\r\n", [("a", "x\t y"), ("b", "z")]),
            (b"A:\r\n x\r\n\r\n", [("a", "x")]),
            (b"A: 1\r\nA: 2\r\n\r\n", [("a", "1"), ("a", "2")]),
            ("Ä: x\r\n\r\n".encode(), "Malformed"),
            ("A: é\r\n\r\n".encode(), [("a", "é")]),
            (b"A: \xe9\r\n\r\n", [("a", "\ufffd")]),
        ):
            self.assertEqual(self.fields(octets), expected, octets)

    def test_octets_that_are_no_utf8(self) -> None:
        section = HeaderSection()
        section.push(b"A: \xe9\r\nB: \xc3\xa9\r\n\r\n")
        assert section.fields is not None
        self.assertEqual([one.is_utf8 for one in section.fields], [False, True])
        self.assertEqual(section.fields[0].octets, b"\xe9")

    @proves("M10")
    def test_what_two_programs_may_read_in_two_ways(self) -> None:
        for octets in (
            b"no field\r\n\r\n",
            b"A: x\r\nno field\r\nB: y\r\n\r\n",
            b"A : x\r\n\r\n",
            b"A\t: x\r\n\r\n",
            b" A: x\r\n\r\n",
            b"\tfold\r\n\r\n",
            b": x\r\n\r\n",
            b"A: x\r\n \r\nB: y\r\n\r\n",
            b"A: x\r\n\t \r\n y\r\n\r\n",
            b"A: x\0\r\n\r\n",
            b"A\0: x\r\n\r\n",
            b"A: x\rB: y\r\n\r\n",
            b"A: x\nB: y\r\n\r\n",
            b"A: x\n\nB: y\r\n\r\n",
            b"From somebody Sun Nov 22 12:00:00 2026\r\nA: x\r\n\r\n",
            b"A: x",
            b"A: x\r",
        ):
            self.assertEqual(self.fields(octets), "Malformed", octets)

    @proves("M10")
    def test_size(self) -> None:
        header = b"A: " + b"x" * 93 + b"\r\n"
        for rest in (b"\r\nbody", b""):
            self.assertEqual(read(header + rest, maximum_size=98)[0], [("a", "x" * 93)])
            self.assertEqual(read(header + rest, maximum_size=97)[0], "TooBig")
        self.assertEqual(read(b"\r\n", maximum_size=1), ([], 2))
        self.assertEqual(read(b"A: 1\r\n" * 3 + b"\r\n", maximum_fields=3)[0], [("a", "1")] * 3)
        self.assertEqual(read(b"A: 1\r\n" * 4 + b"\r\n", maximum_fields=3)[0], "TooMany")

    def test_a_size_is_seen_before_the_section_ends(self) -> None:
        section = HeaderSection(maximum_size=1000)
        self.assertIsNone(section.push(b"A:" + b" " * 900))
        self.assertRaises(TooBig, section.push, b" " * 50_000_000)
        self.assertLess(len(section._octets), 1010)

    def test_faults_are_of_one_kind(self) -> None:
        for kind in (TooBig, TooMany, Malformed):
            self.assertTrue(issubclass(kind, HeaderFault))

    def test_sections_made_to_be_slow(self) -> None:
        for octets in (
            b"a" * 65536,
            b"a" * 65000 + b"\r\n\r\n",
            b"a" * 30000 + b" " * 30000 + b"\r\n\r\n",
            b"a:" * 32768,
            b"A:" + b"\r\n " * 20000 + b"\r\n\r\n",
            b"A:" + b"\r\n x" * 16000 + b"\0\r\n\r\n",
            b"A:" + b" " * 65000 + b"\0\r\n\r\n",
            b"A\r\n" * 20000,
            b"a:\r\n" * 16000 + b"\r\n",
        ):
            start = time.process_time()
            read(octets)
            self.assertLess(time.process_time() - start, 0.5, octets[:10])

    @proves("M10")
    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(st.sampled_from([b"A", b":", b" ", b"x", b"\r\n", b"\r\n ", b"\r", b"\0"]), max_size=12),
        st.sampled_from([4, 7, 1000]),
        st.sampled_from([1, 1000]),
    )
    @example([b"A", b":", b"x", b"\r\n", b"\r\n"], 4, 1)
    @example([b"A", b":", b"xx", b"\r\n", b"\r\n"], 4, 1)
    def test_cut_anywhere(self, pieces: list[bytes], size: int, fields: int) -> None:
        octets = b"".join(pieces)
        bounds = {"maximum_size": size, "maximum_fields": fields}
        whole = read(octets, **bounds)
        for cut in range(len(octets) + 1):
            self.assertEqual(read(octets[:cut], octets[cut:], **bounds), whole)
        self.assertEqual(read(*(octets[at : at + 1] for at in range(len(octets))), **bounds), whole)

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(
            st.tuples(
                st.text("Ab-9!", min_size=1, max_size=5),
                st.lists(st.text("x :;=é", max_size=6).map(lambda text: text + "x"), min_size=1, max_size=3),
            ),
            max_size=6,
        )
    )
    def test_as_the_standard_library_reads_it(self, fields: list[tuple[str, list[str]]]) -> None:
        text = "".join(name + ": " + "\r\n ".join(lines) + "\r\n" for name, lines in fields)
        octets = text.encode() + b"\r\n"
        theirs = BytesHeaderParser().parsebytes(octets)
        expected = [
            (
                name.lower(),
                str(value).encode("ascii", "surrogateescape").decode().replace("\r\n", "").strip(" \t"),
            )
            for name, value in theirs.raw_items()
        ]
        self.assertEqual(read(octets), (expected, len(octets)))
