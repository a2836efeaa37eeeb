"""Bodies: measured as the standard library's decoders would decode them, cut anywhere."""

import re
from base64 import b64decode
from quopri import decodestring

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.profile.measure import measure
from digipoort_msa.policy.profile.violation import Malformed
from tests.requirements import proves

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_QUOTED = re.compile(rb"(?:[\x01-<>-\x7f]|=[0-9A-Fa-f]{2}|=\r\n)*=?")


def measured(encoding: str, *segments: bytes) -> int | None:
    """Octets when decoded; ``None`` where it is malformed."""
    body = measure(encoding)
    for segment in segments:
        body.take(segment)
    try:
        return body.finish()
    except Malformed:
        return None


class MeasureTests(SynchronousTestCase):
    def check(self, encoding: str, octets: bytes, expected: int | None) -> None:
        for cut in range(len(octets) + 1):
            self.assertEqual(measured(encoding, octets[:cut], octets[cut:]), expected)
        self.assertEqual(measured(encoding, *(octets[at : at + 1] for at in range(len(octets)))), expected)

    @proves("M10")
    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(st.sampled_from([b"YWJj", b"YQ==", b"YWI=", b"\r\n", b" ", b"=", b"Y", b"."]), max_size=8)
    )
    @example([b"YQ=", b"\r\n", b"="])
    def test_base64(self, pieces: list[bytes]) -> None:
        octets = b"".join(pieces)
        dense = re.sub(rb"[ \r\n]", b"", octets)
        expected = len(b64decode(dense)) if _BASE64.fullmatch(dense) else None
        self.check("base64", octets, expected)

    @proves("M10")
    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(
            st.sampled_from(
                [b"=41", b"=c3", b"=", b"=\r\n", b"\r\n", b"4", b"g", b"\r", b"\n", b"\0", b"\xff"]
            ),
            max_size=8,
        )
    )
    @example([b"=", b"\r", b"=41", b"\n"])
    def test_quoted_printable(self, pieces: list[bytes]) -> None:
        octets = b"".join(pieces)
        expected = None
        if _QUOTED.fullmatch(octets):
            expected = len(decodestring(octets.removesuffix(b"=").replace(b"=\r\n", b"")))
        self.check("quoted-printable", octets, expected)
