"""A peer's replies: bounded, printable, and the same however they are cut."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.reply_parser import (
    LONGEST_LINE,
    LONGEST_REPLY,
    MOST_LINES,
    ProtocolError,
    ReplyParser,
)


def parse(*pieces: bytes) -> list[Reply | str]:
    """What comes out, up to the first error's text."""
    parser = ReplyParser()
    came: list[Reply | str] = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while (reply := parser.next_reply()) is not None:
                came.append(reply)
        except ProtocolError as error:
            return [*came, str(error)]
    return came


class ReplyTests(SynchronousTestCase):
    def check(self, octets: bytes, *expected: Reply) -> None:
        """Whole, cut at every byte, and one byte at a time."""
        self.assertEqual(parse(octets), list(expected))
        for cut in range(1, len(octets)):
            self.assertEqual(parse(octets[:cut], octets[cut:]), list(expected))
        self.assertEqual(parse(*(octets[i : i + 1] for i in range(len(octets)))), list(expected))

    def test_single_line(self) -> None:
        self.check(b"250 Ok\r\n", Reply(250, None, ("Ok",)))

    def test_code_alone(self) -> None:
        self.check(b"250\r\n250 \r\n", Reply(250, None, ("",)), Reply(250, None, ("",)))

    def test_enhanced(self) -> None:
        self.check(b"250 2.1.5 Ok\r\n", Reply(250, "2.1.5", ("Ok",)))
        self.check(b"550 5.1.1\r\n", Reply(550, "5.1.1", ("",)))

    def test_enhanced_of_another_class_is_text(self) -> None:
        self.check(b"550 4.1.1 Odd\r\n", Reply(550, None, ("4.1.1 Odd",)))

    def test_not_enhanced(self) -> None:
        self.check(b"250 2.0.0.1 is up\r\n", Reply(250, None, ("2.0.0.1 is up",)))

    def test_many_lines(self) -> None:
        self.check(
            b"250-hop\r\n250-SIZE 5\r\n250 HELP\r\n220 x\r\n",
            Reply(250, None, ("hop", "SIZE 5", "HELP")),
            Reply(220, None, ("x",)),
        )

    def test_many_lines_enhanced(self) -> None:
        self.check(
            b"550-5.7.1 No\r\n550-odd one\r\n550-5.7.1\r\n550 5.7.1 way\r\n",
            Reply(550, "5.7.1", ("No", "odd one", "", "way")),
        )

    def test_text_is_made_printable(self) -> None:
        [reply] = parse(b"550 5.1.1 caf\xc3\xa9 \x1b[2J\x00\rX\r\n")
        self.assertEqual(reply.lines, (r"caf\xc3\xa9 \x1b[2J\x00\x0dX",))

    def test_pending(self) -> None:
        parser = ReplyParser()
        self.assertFalse(parser.pending)
        parser.feed(b"220 Go\r\n2")
        self.assertTrue(parser.pending)
        parser.next_reply()
        self.assertTrue(parser.pending)
        parser = ReplyParser()
        parser.feed(b"220-Go\r\n")
        parser.next_reply()
        self.assertTrue(parser.pending)


class HostileTests(SynchronousTestCase):
    def refused(self, octets: bytes, words: str, before: int = 0) -> None:
        for pieces in ([octets], [octets[i : i + 1] for i in range(len(octets))]):
            *replies, error = parse(*pieces)
            self.assertEqual(len(replies), before)
            self.assertIsInstance(error, str)
            self.assertIn(words, error)
            self.assertTrue(error.isprintable())
            self.assertLess(len(error), 500)

    def test_garbage(self) -> None:
        for garbage in (
            b"\r\n",
            b"HTTP/1.1 400 Bad\r\n",
            b"25 x\r\n",
            b"2500 x\r\n",
            b"150 x\r\n",
            b"250+x\r\n",
        ):
            self.refused(garbage, "not a reply")
        self.refused(b"250 ok\r\n\x16\x03\x01\xff\r\n", r"\x16\x03\x01\xff", before=1)

    def test_digits_of_another_script(self) -> None:
        self.refused("٢٥٠ ok\r\n".encode(), "not a reply")

    def test_bare_lf(self) -> None:
        self.refused(b"250 a\n250 b\r\n", "LF without CR")

    def test_another_code(self) -> None:
        self.refused(b"250-a\r\n550 b\r\n", "another code")

    def test_endless_line(self) -> None:
        self.refused(b"250 " + b"x" * LONGEST_LINE, "octets")
        self.assertEqual(len(parse(b"250 " + b"x" * (LONGEST_LINE - 6) + b"\r\n")), 1)

    def test_endless_reply(self) -> None:
        self.refused(b"250-x\r\n" * (MOST_LINES + 1), "lines")
        self.assertEqual(len(parse(b"250-x\r\n" * (MOST_LINES - 1) + b"250 x\r\n")), 1)

    def test_large_reply(self) -> None:
        line = b"250-" + b"x" * 2000 + b"\r\n"
        self.refused(line * (LONGEST_REPLY // len(line) + 2), f"{LONGEST_REPLY} octets")

    def test_the_error_stays(self) -> None:
        parser = ReplyParser()
        parser.feed(b"garbage\r\n250 Ok\r\n")
        for _ in range(3):
            self.assertRaises(ProtocolError, parser.next_reply)

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.binary(max_size=60) | st.sampled_from([b"250 ok\r\n", b"250-a\r\n", b"\r\n", b"\n"])))
    def test_cuts_change_nothing(self, pieces: list[bytes]) -> None:
        octets = b"".join(pieces)
        whole = parse(octets)
        self.assertEqual(parse(*pieces), whole)
        self.assertEqual(parse(*(octets[i : i + 1] for i in range(len(octets)))), whole)
        for reply in whole:
            self.assertTrue(str(reply).isprintable())
