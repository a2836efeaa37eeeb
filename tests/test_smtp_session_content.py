"""Content through a session: DATA and BDAT, sizes, line ends, and everything that was ever smuggled."""

import re

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.input import MAX_LINE
from digipoort_msa.smtp.states import State
from tests.requirements import proves
from tests.transcript import (
    ENVELOPE,
    LOGIN,
    SENDER_AND_RECIPIENT,
    SETTINGS,
    Owner,
    Verdicts,
    converse,
    logged_in,
    pieces,
)

DATA = ENVELOPE + b"DATA\r\n"
OPEN = SENDER_AND_RECIPIENT + reply.START_CONTENT.octets
SMALL = evolve(SETTINGS, message_size=10)
EVIL = b"MAIL FROM:<evil@example.nl>\r\nRCPT TO:<victim@example.nl>\r\nDATA\r\nsmuggled\r\n"


def in_transaction() -> Owner:
    owner = logged_in()
    owner.feed(ENVELOPE)
    owner.output = b""
    return owner


def small() -> Owner:
    owner = logged_in(settings=SMALL)
    owner.feed(ENVELOPE)
    owner.output = b""
    return owner


class DataTests(SynchronousTestCase):
    @proves("M2", "M4", "M6")
    def test_transcript(self) -> None:
        owner = converse(
            """
            C: DATA
            S: 354 End data with <CR><LF>.<CR><LF>
            C: Subject: x
            C:
            c: ..dot\\r\\n...\\r\\n.\\x2e\\r\\n\\x00\\xff \\t\\x1a\\r\\n
            C: RSET
            C: .
            S: 250 2.0.0 Ok: queued as 1
            C: RSET
            S: 250 2.0.0 Ok
            """,
            in_transaction,
        )
        self.assertEqual(
            owner.messages, [b"Subject: x\r\n\r\n.dot\r\n..\r\n.\r\n\x00\xff \t\x1a\r\nRSET\r\n"]
        )

    def test_empty_message(self) -> None:
        owner = in_transaction()
        owner.feed(b"DATA\r\n.\r\nNOOP\r\n")
        self.assertEqual(owner.messages, [b""])
        self.assertTrue(owner.output.endswith(reply.OK.octets))

    def test_refused_data_keeps_the_transaction(self) -> None:
        owner = logged_in({events.ContentBegins: [reply.LOCAL_ERROR]})
        owner.feed(DATA)
        self.assertEqual(owner.session.state, State.RECIPIENTS)
        self.assertEqual(owner.of(events.Aborted), [])
        owner.feed(b"DATA\r\nx\r\n.\r\n")
        self.assertEqual(owner.messages, [b"x\r\n"])

    def test_a_verdict_against_the_content(self) -> None:
        for words in (reply.NOT_STORED, reply.RECIPIENT_NOT_ALLOWED):
            owner = logged_in({events.ContentEnds: [words]})
            owner.feed(DATA + b"x\r\n.\r\nRCPT TO:<a@b.nl>\r\n")
            self.assertEqual(owner.output, OPEN + words.octets + reply.NEED_MAIL.octets)
            self.assertEqual(owner.messages, [])

    @proves("M5")
    def test_connection_lost_before_the_end_of_data(self) -> None:
        """After a dot or a dot and CR too: nothing is complete before the last octet."""
        stream = DATA + b"x\r\n.\r\n"
        for length in range(len(DATA), len(stream)):
            owner = logged_in()
            owner.feed(stream[:length])
            self.assertEqual(owner.of(events.ContentEnds), [])
            self.assertTrue(owner.session.receiving_content)

    @proves("M5")
    def test_smtp_smuggling(self) -> None:
        """CVE-2023-51764/5/6, CVE-2024-27305: whatever looks like an end of data and is none is content, and
        refuses it."""
        for mark in (
            b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n",
            b"\r\r\n.\n",
            b"\r\n.\r\r\n", b"\r\n\n.\r", b"\r\n.\x00\r\r\n", b"\n\n.\n\n", b"\r\n.\n\r\n",
        ):  # fmt: skip
            stream = DATA + b"x" + mark + EVIL + b".\r\nQUIT\r\n"
            for cut in range(len(DATA), len(stream)):
                owner = logged_in()
                owner.feed(stream[:cut])
                owner.feed(stream[cut:])
                self.assertEqual(
                    owner.output, OPEN + reply.BARE_CR_OR_LF.octets + reply.BYE.octets, (mark, cut)
                )
                self.assertEqual(len(owner.of(events.Mail)), 1)
                self.assertEqual((owner.messages, len(owner.of(events.Aborted))), ([], 1))

    @proves("M5")
    def test_bare_line_ends_anywhere(self) -> None:
        for content in (
            b"a\nb\r\n",
            b"a\rb\r\n",
            b"\rX\n\r\n",
            b"\r\r\n",
            b"\n\r\n",
            b"\r\n\n\r\n",
            b"..\n\r\n",
        ):
            for cut in range(len(content) + 1):
                owner = in_transaction()
                for piece in (b"DATA\r\n" + content[:cut], content[cut:] + b".\r\nNOOP\r\n"):
                    owner.feed(piece)
                expected = reply.START_CONTENT.octets + reply.BARE_CR_OR_LF.octets + reply.OK.octets
                self.assertEqual(owner.output, expected)
                self.assertEqual((owner.messages, len(owner.of(events.Aborted))), ([], 1))

    @proves("M9")
    def test_why_no_end_of_data_was_seen(self) -> None:
        owner = in_transaction()
        owner.feed(b"DATA\r\nx\r\n")
        self.assertFalse(owner.session.bare_line_end)
        owner.feed(b"x\n.\n")
        self.assertTrue(owner.session.bare_line_end)

    @settings(deadline=None, max_examples=120)
    @given(
        st.lists(
            st.lists(st.sampled_from([b"\r\n", b".", b"..", b"x", b"\r", b"\n", b"\0", b"RSET"]), max_size=8),
            min_size=1,
            max_size=4,
        ),
        st.lists(st.integers(0, 400), max_size=8),
    )
    @proves("M2", "M5", "M6")
    def test_messages_in_are_messages_out(self, contents: list[list[bytes]], cuts: list[int]) -> None:
        """Whatever is in them and however it is cut: each message comes whole, or not at all."""
        said, stored, codes = b"", [], []
        for parts in contents:
            content = b"".join(parts) + b"\r\n"
            stuffed = re.sub(rb"(\A|\r\n)\.", rb"\1..", content)
            said += DATA + stuffed + b".\r\n"
            good = not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
            stored += [content] if good else []
            codes.append(good)
        owner = logged_in()
        for piece in pieces(said, (cut for cut in cuts if cut <= len(said))):
            owner.feed(piece)
        self.assertEqual(owner.messages, stored)
        self.assertEqual(len(owner.of(events.Mail)), len(contents))
        number = 0
        expected = b""
        for good in codes:
            number += good
            expected += OPEN + (reply.queued(str(number)) if good else reply.BARE_CR_OR_LF).octets
        self.assertEqual(owner.output, expected)

    def test_a_line_of_sixteen_kibibytes_is_content(self) -> None:
        """twisted.mail drops back to commands there."""
        for length in (998, 16_383, 16_384, 16_385, MAX_LINE, 200_000):
            owner = in_transaction()
            content = b"x" * length + b"\r\nRSET\r\n"
            owner.feed(b"DATA\r\n" + content + b".\r\n")
            self.assertEqual(owner.messages, [content])


@proves("M3")
class SizeTests(SynchronousTestCase):
    def test_at_mail(self) -> None:
        owner = logged_in()
        owner.feed(b"MAIL FROM:<a@b.nl> SIZE=52428801\r\nMAIL FROM:<a@b.nl> SIZE=52428800\r\n")
        self.assertEqual(owner.output, reply.TOO_BIG.octets + reply.SENDER_OK.octets)

    def test_while_receiving(self) -> None:
        for said, words in ((b"12345678\r\n", reply.queued("1")), (b"123456789\r\n", reply.TOO_BIG)):
            for cut in range(1, len(said)):
                owner = small()
                owner.feed(b"DATA\r\n" + said[:cut])
                owner.feed(said[cut:] + b".\r\nNOOP\r\n")
                self.assertEqual(
                    owner.output, reply.START_CONTENT.octets + words.octets + reply.OK.octets, (said, cut)
                )

    def test_stuffed_dots_do_not_count(self) -> None:
        """RFC 1870 3."""
        owner = small()
        owner.feed(b"DATA\r\n.......\r\n.\r\n..\r\n.\r\n")
        self.assertEqual(owner.messages, [b"......\r\n"])
        owner = small()
        owner.feed(b"DATA\r\n.........\r\n.\r\n")
        self.assertEqual(owner.messages, [b"........\r\n"])

    def test_an_oversized_message_is_let_go_of_at_once(self) -> None:
        """Nothing more of it is handed on, however much comes; and its end is still found."""
        owner = small()
        owner.feed(b"DATA\r\n12345678\r\n")
        for _ in range(100):
            owner.feed(b"x" * 1000 + b"\r\n")
            self.assertLess(owner.session.buffered, 2000)
        self.assertEqual(len(owner.of(events.Content)), 1)
        self.assertEqual(len(owner.of(events.Aborted)), 1)
        owner.output = b""
        owner.feed(b".\r\nNOOP\r\n")
        self.assertEqual(owner.output, reply.TOO_BIG.octets + reply.OK.octets)
        self.assertEqual(owner.of(events.ContentEnds), [])


class ChunkTests(SynchronousTestCase):
    """BDAT (RFC 3030)."""

    @proves("M2", "M6")
    def test_transcript(self) -> None:
        owner = converse(
            """
            C: BDAT 4
            c: a\\r\\n.
            S: 250 2.0.0 Ok: chunk received
            C: BDAT 0
            S: 250 2.0.0 Ok: chunk received
            C: NOOP
            S: 250 2.0.0 Ok
            C: BDAT 2
            c: \\r\\n
            S: 250 2.0.0 Ok: chunk received
            C: bdat 7 last
            c: .\\r\\n\\x00\\xff\\r\\n
            S: 250 2.0.0 Ok: queued as 1
            C: NOOP
            S: 250 2.0.0 Ok
            """,
            in_transaction,
        )
        self.assertEqual(owner.messages, [b"a\r\n.\r\n.\r\n\x00\xff\r\n"])

    def test_nothing(self) -> None:
        for said, message in (
            (b"BDAT 0 LAST\r\n", b""),
            (b"BDAT 0\r\nBDAT 0\r\nBDAT 0 LAST\r\n", b""),
            (b"BDAT 3\r\nx\r\nBDAT 0 LAST\r\n", b"x\r\n"),
            (b"BDAT 000003 LAST\r\nx\r\n", b"x\r\n"),
        ):
            owner = in_transaction()
            owner.feed(said + b"NOOP\r\n")
            self.assertEqual(owner.messages, [message])
            self.assertTrue(owner.output.endswith(reply.OK.octets))

    @proves("M5")
    def test_octets_of_a_refused_bdat_never_run_as_commands(self) -> None:
        """Out of place, before TLS, before AUTH, refused by the owner, after an oversized one: read past."""
        chunk = LOGIN + ENVELOPE + b"DATA\r\nsmuggled\r\n.\r\n"
        said = b"BDAT %d\r\n%sBDAT %d LAST\r\n%sNOOP\r\n" % (len(chunk), chunk, len(chunk), chunk)
        no: Verdicts = {events.ContentBegins: [reply.LOCAL_ERROR]}
        for make, before, first, second in (
            (lambda: Owner(start=State.CLEAR), b"", reply.MUST_STARTTLS, reply.MUST_STARTTLS),
            (Owner, b"", reply.AUTHENTICATION_REQUIRED, reply.AUTHENTICATION_REQUIRED),
            (logged_in, b"", reply.NEED_MAIL, reply.NEED_MAIL),
            (logged_in, ENVELOPE.splitlines(True)[0], reply.NEED_RCPT, reply.NEED_RCPT),
            (lambda: logged_in(no), ENVELOPE, reply.LOCAL_ERROR, reply.NEED_MAIL),
            (lambda: logged_in(settings=SMALL), ENVELOPE, reply.TOO_BIG, reply.NEED_MAIL),
        ):
            for cut in range(0, len(said), 3):
                owner = make()
                owner.feed(before)
                owner.output = b""
                owner.feed(said[:cut])
                owner.feed(said[cut:])
                self.assertEqual(owner.output, first.octets + second.octets + reply.OK.octets)
                self.assertEqual(owner.messages, [])

    @proves("M5")
    def test_bdat_that_cannot_be_read_closes(self) -> None:
        """Its chunk cannot be told from commands, so there is no going on: neither after a fault of syntax,
        nor where the line is no text, or too long."""
        for line, words in (
            (b"BDAT", reply.BDAT_SYNTAX),
            (b"BDAT x", reply.BDAT_SYNTAX),
            (b"BDAT -1", reply.BDAT_SYNTAX),
            (b"BDAT 5 FIRST", reply.BDAT_SYNTAX),
            (b"BDAT 1" + b"0" * 20, reply.BDAT_SYNTAX),
            (b"BDAT 5\x00", reply.NOT_A_COMMAND),
            (b"bdat\t5", reply.NOT_A_COMMAND),
            (b"BDAT 5 \xff", reply.NOT_A_COMMAND),
            (b"BDAT 5" + b" " * MAX_LINE, reply.LINE_TOO_LONG),
            (b"BDAT 5" + b" " * 100_000, reply.LINE_TOO_LONG),
        ):
            said = line + b"\r\nRSET\r\nMAIL FROM:<evil@example.nl>\r\n"
            for size in (len(said), 1000):
                owner = in_transaction()
                for start in range(0, len(said), size):
                    owner.feed(said[start : start + size])
                self.assertEqual(owner.output, words.octets, line[:20])
                self.assertTrue(owner.closed)
                self.assertEqual(len(owner.of(events.Mail)), 1)
            owner = Owner(start=State.CLEAR)
            owner.feed(said)
            self.assertEqual((owner.output, owner.closed), (reply.MUST_STARTTLS.octets, True))

    def test_between_chunks(self) -> None:
        for line, words in (
            (b"DATA", reply.CHUNKS_OPEN),
            (b"RCPT TO:<a@b.nl>", reply.CHUNKS_OPEN),
            (b"MAIL FROM:<a@b.nl>", reply.CHUNKS_OPEN),
            (b"AUTH PLAIN", reply.ALREADY_AUTHENTICATED),
            (b"VRFY a", reply.CANNOT_VERIFY),
        ):
            owner = in_transaction()
            owner.feed(b"BDAT 3\r\nx\r\n" + line + b"\r\nBDAT 0 LAST\r\n")
            self.assertEqual(
                owner.output, reply.CHUNK_OK.octets + words.octets + reply.queued("1").octets, line
            )

    def test_bdat_after_data(self) -> None:
        """Inside DATA it is content; behind it there is no transaction."""
        owner = in_transaction()
        owner.feed(b"DATA\r\nBDAT 3 LAST\r\nx\r\n.\r\nBDAT 3 LAST\r\nx\r\n")
        self.assertEqual(owner.messages, [b"BDAT 3 LAST\r\nx\r\n"])
        self.assertTrue(owner.output.endswith(reply.NEED_MAIL.octets))

    def test_reset_between_chunks(self) -> None:
        for line in (b"RSET", b"EHLO a"):
            owner = in_transaction()
            owner.feed(
                b"BDAT 3\r\nx\r\n" + line + b"\r\nBDAT 3 LAST\r\ny\r\n" + ENVELOPE + b"BDAT 3 LAST\r\nz\r\n"
            )
            self.assertEqual(owner.messages, [b"z\r\n"])
            self.assertEqual(len(owner.of(events.Aborted)), 1)
            self.assertIn(reply.NEED_MAIL.octets, owner.output)

    @proves("M3")
    def test_oversize_in_the_middle(self) -> None:
        owner = small()
        owner.feed(b"BDAT 4\r\n1234BDAT 8\r\n567890\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n")
        self.assertEqual(
            owner.output,
            reply.CHUNK_OK.octets + reply.TOO_BIG.octets + reply.NEED_MAIL.octets + reply.OK.octets,
        )
        self.assertEqual((owner.messages, len(owner.of(events.Aborted))), ([], 1))

    @proves("M3", "M9")
    def test_a_chunk_without_end(self) -> None:
        owner = small()
        owner.feed(b"BDAT 99999999999999999999\r\n")
        for _ in range(100):
            owner.feed(b"RSET\r\n" * 1000)
            self.assertEqual(owner.session.buffered, 0)
        self.assertEqual(owner.output, b"")
        self.assertEqual(len(owner.of(events.Aborted)), 1)
        self.assertLessEqual(len(owner.of(events.Content)), 1)

    @proves("M5")
    def test_bare_line_feed_in_a_chunk(self) -> None:
        for chunks in (
            (b"a\nb\r\n",), (b"a\r", b"b\r\n"), (b"a", b"\n", b"\r\n"), (b"a\r", b"\r\n"), (b"a\r\n", b"\n"),
        ):  # fmt: skip
            owner = in_transaction()
            for chunk in chunks[:-1]:
                owner.feed(b"BDAT %d\r\n%s" % (len(chunk), chunk))
            owner.feed(b"BDAT %d LAST\r\n%sNOOP\r\n" % (len(chunks[-1]), chunks[-1]))
            self.assertIn(reply.BARE_CR_OR_LF.octets, owner.output)
            self.assertTrue(owner.output.endswith(reply.OK.octets))
            self.assertEqual((owner.messages, len(owner.of(events.Aborted))), ([], 1))

    @proves("M5")
    def test_a_line_end_split_between_chunks(self) -> None:
        owner = in_transaction()
        owner.feed(b"BDAT 2\r\nx\rBDAT 1 LAST\r\n\n")
        self.assertEqual(owner.messages, [b"x\r\n"])

    @proves("M2")
    def test_last_line_without_its_end(self) -> None:
        """DATA towards the next hop could only pass it on with a line end added."""
        for last in (b"x", b"x\r", b"."):
            owner = in_transaction()
            owner.feed(b"BDAT %d LAST\r\n%sNOOP\r\n" % (len(last), last))
            self.assertEqual(owner.output, reply.UNTERMINATED.octets + reply.OK.octets)
            self.assertEqual((owner.messages, len(owner.of(events.Aborted))), ([], 1))

    def test_dots_are_octets(self) -> None:
        owner = in_transaction()
        content = b".\r\n..\r\nx\r\n.\r\n"
        owner.feed(b"BDAT %d LAST\r\n%s" % (len(content), content))
        self.assertEqual(owner.messages, [content])

    @settings(deadline=None, max_examples=120)
    @given(
        st.lists(st.lists(st.sampled_from([b"\r\n", b".", b"x", b"\0", b"QUIT"]), max_size=5), max_size=5),
        st.lists(st.integers(0, 300), max_size=8),
    )
    @proves("M2", "M6")
    def test_any_chunks_any_cuts(self, chunks: list[list[bytes]], cuts: list[int]) -> None:
        parts = [b"".join(chunk) for chunk in chunks]
        said = b"".join(b"BDAT %d\r\n%s" % (len(part), part) for part in parts) + b"BDAT 2 LAST\r\n\r\n"
        owner = in_transaction()
        for piece in pieces(said, (cut for cut in cuts if cut <= len(said))):
            owner.feed(piece)
        self.assertEqual(owner.messages, [b"".join(parts) + b"\r\n"])
        self.assertEqual(owner.output, reply.CHUNK_OK.octets * len(parts) + reply.queued("1").octets)
