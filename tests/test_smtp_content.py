"""The receivers and the check of content, held against slow references that are plainly right."""

import re
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import reply
from digipoort_msa.smtp.content import ChunkReceiver, ContentCheck, DataReceiver
from tests.requirements import proves
from tests.transcript import pieces

_HOSTILE = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"x", b"\x00", b"\xff", b"\r\n.\r\n", b"QUIT"]),
    max_size=24,
).map(b"".join)
_CUTS = st.lists(st.integers(0, 60), max_size=8)


def by_the_line(stream: bytes) -> tuple[bytes, bytes | None]:
    """RFC 5321 4.5.2 to the letter: the content, and what follows the end of data."""
    lines: list[bytes] = []
    start = 0
    while (end := stream.find(b"\r\n", start)) >= 0:
        line, start = stream[start:end], end + 2
        if line == b".":
            return b"".join(lines), stream[start:]
        lines.append(line.removeprefix(b".") + b"\r\n")
    return b"".join(lines), None


def received(parts: list[bytes]) -> tuple[bytes, bytes | None]:
    receiver = DataReceiver()
    content = b""
    for number, part in enumerate(parts):
        octets, rest = receiver.receive(part)
        content += octets
        if rest is not None:
            return content, rest + b"".join(parts[number + 1 :])
    return content, None


@proves("M2", "M4", "M5")
class DataReceiverTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=250)
    @given(_HOSTILE, _CUTS)
    def test_as_a_line_at_a_time(self, stream: bytes, cuts: list[int]) -> None:
        expected, rest = by_the_line(stream)
        content, actual_rest = received(pieces(stream, (cut for cut in cuts if cut <= len(stream))))
        self.assertEqual(actual_rest, rest)
        if rest is not None:
            self.assertEqual(content, expected)
        else:
            # All that can be known yet, but for what may be the end mark, is given at once.
            self.assertTrue(content.startswith(expected[:-2]), (content, expected))
            self.assertLessEqual(len(expected) - len(content), 2)

    def test_every_cut_of_a_stuffed_message(self) -> None:
        stream = b"..\r\n.a\r\n\r\nb.\r\n...\r\n\x00\xff\r\n.\r\nRSET\r\n"
        expected = by_the_line(stream)
        for first in range(len(stream) + 1):
            for second in range(first, len(stream) + 1):
                self.assertEqual(received(pieces(stream, (first, second))), expected)
        self.assertEqual(received([bytes([octet]) for octet in stream]), expected)

    def test_empty_message(self) -> None:
        self.assertEqual(received([b".\r\n"]), (b"", b""))
        self.assertEqual(received([b".", b"\r", b"\nNOOP\r\n"]), (b"", b"NOOP\r\n"))

    def test_every_octet_passes(self) -> None:
        octets = bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") + b"\r\n"
        self.assertEqual(received([octets + b".\r\n"]), (octets, b""))

    def test_smuggled_end_of_data(self) -> None:
        """CVE-2023-51764, CVE-2024-27305 and their kin: none of these ends data, wherever it is cut."""
        marks = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n\x00", b"\n\r", b"\x85", b"\x0b", b"")
        for before, after in product(marks, marks):
            if before.endswith(b"\r\n") and after.startswith(b"\r\n"):
                continue
            stream = b"x" + before + b"." + after + b"MAIL FROM:<evil@example.nl>\r\n"
            if by_the_line(stream)[1] is not None:
                self.fail("the reference is wrong")
            for cut in range(len(stream) + 1):
                self.assertIsNone(received([stream[:cut], stream[cut:]])[1], stream)

    def test_cr_cr_lf_dot_is_an_end_but_of_a_message_that_is_refused(self) -> None:
        """CR CRLF . CRLF holds a true end of data; the bare CR before it refuses the message."""
        content, rest = received([b"x\r\r\n.\r\n"])
        self.assertEqual((content, rest), (b"x\r\r\n", b""))
        check = ContentCheck(100)
        check.take(content)
        self.assertEqual(check.final_refusal, reply.BARE_CR_OR_LF)

    def test_memory_is_four_octets(self) -> None:
        receiver = DataReceiver()
        given_back = 0
        for _ in range(1000):
            content, _rest = receiver.receive(b"\r\n.\r" * 16)
            given_back += len(content)
        self.assertGreaterEqual(given_back, 1000 * 16 * 3 - 4)  # the dots are gone, four octets wait


@proves("M5")
class ChunkReceiverTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=40), st.integers(0, 50), _CUTS)
    def test_exactly_the_octets(self, stream: bytes, size: int, cuts: list[int]) -> None:
        receiver = ChunkReceiver(size)
        content, rest = b"", None
        for part in pieces(stream, (cut for cut in cuts if cut <= len(stream))):
            if rest is not None:
                rest += part
                continue
            octets, rest = receiver.receive(part)
            content += octets
        self.assertEqual(content, stream[:size])
        self.assertEqual(rest, stream[size:] if len(stream) >= size else None)

    def test_no_octets(self) -> None:
        self.assertEqual(ChunkReceiver(0).receive(b""), (b"", b""))
        self.assertEqual(ChunkReceiver(0).receive(b"x"), (b"", b"x"))


def bare(content: bytes) -> bool:
    return re.search(rb"\r(?!\n)|(?<!\r)\n", content) is not None


def checked(parts: list[bytes], limit: int = 10_000) -> ContentCheck:
    check = ContentCheck(limit)
    for part in parts:
        check.take(part)
    return check


@proves("M5")
class ContentCheckTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=250)
    @given(_HOSTILE, _CUTS)
    def test_as_a_regex_on_the_whole(self, content: bytes, cuts: list[int]) -> None:
        check = checked(pieces(content, (cut for cut in cuts if cut <= len(content))))
        self.assertEqual(check.size, len(content))
        self.assertEqual(check.final_refusal is not None, bare(content) or content[-2:] not in (b"", b"\r\n"))
        self.assertEqual(
            check.bare_line_end, bare(content + b"\n") if content.endswith(b"\r") else bare(content)
        )

    def test_every_short_content_in_every_two_parts(self) -> None:
        for length in range(7):
            for octets in product(b"\r\nx", repeat=length):
                content = bytes(octets)
                for cut in range(length + 1):
                    check = checked([content[:cut], b"", content[cut:]])
                    refused = check.final_refusal is not None
                    self.assertEqual(
                        refused, bare(content) or not (b"\r\n" + content).endswith(b"\r\n"), content
                    )

    def test_named_cases(self) -> None:
        for content in (
            b"\rX\n",
            b"\r\r\n",
            b"\n",
            b"\r\n\n",
            b"a\nb\r\n",
            b"a\rb\r\n",
            b"\n\r",
            b"\r\n\r\r\n",
        ):
            for cut in range(len(content) + 1):
                check = checked([content[:cut], content[cut:], b"\r\n"])
                self.assertEqual(check.final_refusal, reply.BARE_CR_OR_LF, (content, cut))

    def test_unterminated(self) -> None:
        for content in (b"x", b"\r\nx", b"\r"):
            self.assertEqual(checked([content]).final_refusal, reply.UNTERMINATED)
            self.assertIsNone(checked([content]).refusal)

    def test_empty_content_is_whole(self) -> None:
        self.assertIsNone(checked([]).final_refusal)
        self.assertIsNone(checked([b""]).final_refusal)

    @proves("M3")
    def test_limit_is_inclusive(self) -> None:
        self.assertIsNone(checked([b"12345678\r\n"], 10).final_refusal)
        self.assertEqual(checked([b"12345678\r", b"\n", b"x"], 10).refusal, reply.TOO_BIG)

    def test_too_big_wins(self) -> None:
        self.assertEqual(checked([b"\n" * 11], 10).final_refusal, reply.TOO_BIG)
