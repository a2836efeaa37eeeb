"""Names and passwords as they arrive."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl import Denied, Malformed
from digipoort_msa.sasl.identity import MAXIMUM_OCTETS, prepared
from tests.requirements import proves


@proves("A4")
class PreparedTests(SynchronousTestCase):
    def test_encodings(self) -> None:
        self.assertEqual(prepared("Ang\u00e9lique".encode(), "name"), "Ang\u00e9lique")
        self.assertEqual(prepared(b"Ang\xe9lique", "name", "iso-8859-1"), "Ang\u00e9lique")

    def test_the_longest(self) -> None:
        self.assertEqual(len(prepared(b"a" * MAXIMUM_OCTETS, "name")), MAXIMUM_OCTETS)
        self.assertRaisesRegex(Malformed, "1025 octets", prepared, b"a" * (MAXIMUM_OCTETS + 1), "name")

    def test_malformed(self) -> None:
        for octets in (b"", b"a\0b", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80"):
            with self.subTest(octets=octets):
                self.assertRaises(Malformed, prepared, octets, "name")

    def test_denied(self) -> None:
        for octets in (b"a\x07", b"\xc2\xad"):
            with self.subTest(octets=octets):
                self.assertRaises(Denied, prepared, octets, "name")

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=40), st.sampled_from(("utf-8", "iso-8859-1")))
    def test_raises_nothing_else(self, octets: bytes, encoding: str) -> None:
        with contextlib.suppress(Malformed, Denied):
            self.assertNotEqual(prepared(octets, "name", encoding), "")
