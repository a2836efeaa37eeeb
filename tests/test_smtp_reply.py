"""The catalogue: every reply well-formed, with the status that belongs to its code."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Refused, Reply, passed_on
from digipoort_msa.smtp.reply_parser import ReplyParser
from tests.requirements import proves

CATALOGUE = {name: value for name, value in vars(reply).items() if isinstance(value, Reply)}


class CatalogueTests(SynchronousTestCase):
    def test_every_reply_is_well_formed(self) -> None:
        self.assertGreater(len(CATALOGUE), 40)
        for name, words in CATALOGUE.items():
            lines = words.octets.decode("ascii").split("\r\n")
            self.assertEqual(lines.pop(), "", name)
            for number, line in enumerate(lines):
                separator = " " if number == len(lines) - 1 else "-"
                self.assertTrue(line.startswith(f"{words.code}{separator}"), name)
                self.assertLessEqual(len(line) + 2, 512, name)  # RFC 5321 4.5.3.1.5
                self.assertTrue(line.isprintable(), name)

    @proves("T7")
    def test_enhanced_codes(self) -> None:
        """All that RFC 2034 3 asks for: every 2yz, 4yz and 5yz bears a status of its own class."""
        without = {"READY_TO_START_TLS", "START_CONTENT"}  # the seed's words; 3yz never has one
        for name, words in CATALOGUE.items():
            if name in without:
                self.assertIsNone(words.enhanced, name)
            else:
                self.assertRegex(
                    words.enhanced or "", rf"\A{words.code // 100}\.\d{{1,3}}\.\d{{1,3}}\Z", name
                )

    def test_names_are_unique_in_their_words(self) -> None:
        octets = [words.octets for words in CATALOGUE.values()]
        self.assertEqual(len(set(octets)), len(octets))

    @proves("T1", "A1", "A5", "A6", "M3", "M6", "M8", "M9")
    def test_words_that_the_interface_fixes(self) -> None:
        for words, octets in (
            (reply.MUST_STARTTLS, b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
            (reply.AUTHENTICATION_REQUIRED, b"530 5.7.0 Authentication required\r\n"),
            (reply.READY_TO_START_TLS, b"220 Ready to start TLS\r\n"),
            (reply.SENDER_OK, b"250 2.1.0 Ok\r\n"),
            (reply.RECIPIENT_OK, b"250 2.1.5 Ok\r\n"),
            (reply.START_CONTENT, b"354 End data with <CR><LF>.<CR><LF>\r\n"),
            (reply.queued("EA37575310A"), b"250 2.0.0 Ok: queued as EA37575310A\r\n"),
            (reply.greeting("msa.example.nl"), b"220 msa.example.nl ESMTP\r\n"),
        ):
            self.assertEqual(words.octets, octets)
        for words, code, status in (
            (reply.BYE, 221, "2.0.0"),
            (reply.IDLE, 421, "4.4.2"),
            (reply.IDLE_BARE_LINE_END, 421, "4.4.2"),
            (reply.TOO_MANY_ERRORS, 421, "4.7.0"),
            (reply.INVALID_CREDENTIALS, 535, "5.7.8"),
            (reply.UNKNOWN_MECHANISM, 504, "5.5.4"),
            (reply.MECHANISM_SWITCHED_OFF, 504, "5.5.4"),
            (reply.NOT_BASE64, 501, "5.5.2"),
            (reply.LINE_TOO_LONG, 500, "5.5.6"),
            (reply.ALREADY_SECURE, 503, "5.5.1"),
            (reply.UNKNOWN_COMMAND, 500, "5.5.2"),
            (reply.UNKNOWN_PARAMETER, 555, "5.5.4"),
            (reply.TOO_BIG, 552, "5.3.4"),
            (reply.TOO_MANY_RECIPIENTS, 452, "4.5.3"),
            (reply.SENDER_NOT_YOURS, 550, "5.7.1"),
        ):
            self.assertEqual((words.code, words.enhanced), (code, status))


class ReplyTests(SynchronousTestCase):
    def test_several_lines(self) -> None:
        self.assertEqual(
            Reply(250, None, ("host", "SIZE 1", "X")).octets, b"250-host\r\n250-SIZE 1\r\n250 X\r\n"
        )
        self.assertEqual(Reply(550, "5.1.1", ("a", "b")).octets, b"550-5.1.1 a\r\n550 5.1.1 b\r\n")

    @proves("A6")
    def test_challenges(self) -> None:
        self.assertEqual(reply.challenge(b"").octets, b"334 \r\n")
        self.assertEqual(reply.challenge(b"Username:").octets, b"334 VXNlcm5hbWU6\r\n")
        self.assertNotIn(b"\n", reply.challenge(b"x" * 4096).octets[:-2])

    def test_a_reply_cannot_be_split(self) -> None:
        """Response splitting: a line end in a text would be a reply of its own."""
        for text in ("a\r\n250 b", "a\nb", "a\rb", "\x00", "\x1b[2J", "a\tb", "\x7f"):
            self.assertRaises(ValueError, Reply, 550, "5.7.1", (text,))
        self.assertRaises(ValueError, Reply, 250, None, ())

    def test_no_octet_above_ascii(self) -> None:
        self.assertEqual(Reply(250, None, ("é\u2028",)).octets, b"250 ??\r\n")

    def test_classes(self) -> None:
        for code in (235, 250, 334, 354):
            words = Reply(code, None, ("x",))
            self.assertEqual((words.positive, words.transient, words.permanent), (True, False, False))
        for code, transient in ((421, True), (454, True), (500, False), (555, False)):
            words = Reply(code, None, ("x",))
            self.assertEqual(
                (words.positive, words.transient, words.permanent), (False, transient, not transient)
            )

    def test_for_the_log(self) -> None:
        self.assertEqual(str(Reply(250, None, ("a", "b"))), "250 a / b")
        self.assertEqual(str(reply.BYE), "221 2.0.0 Bye")

    def test_frozen(self) -> None:
        self.assertRaises(AttributeError, setattr, reply.OK, "code", 550)

    def test_refused(self) -> None:
        refused = Refused(reply.TOO_BIG, "why")
        self.assertEqual((refused.reply, refused.cause, str(refused)), (reply.TOO_BIG, "why", "why"))
        self.assertEqual(str(Refused(reply.BYE)), "221 2.0.0 Bye")

    @proves("M10")
    def test_settings_in_a_reply(self) -> None:
        for of_size, code in ((False, b"550 5.7.1"), (True, b"552 5.3.4")):
            words = reply.profile_refuses("customs", "header-pattern", "Subject", of_size=of_size)
            expected = b"The message flow's profile customs refuses this: header-pattern (Subject)"
            self.assertEqual(words.octets, b"%s %s\r\n" % (code, expected))


@proves("D3")
class PassedOnTests(SynchronousTestCase):
    """What a next hop said, told to the client: a hop cannot speak for us (CVE-2020-8794)."""

    def test_as_it_was_said(self) -> None:
        for octets in (
            b"550 5.1.1 Who?\r\n",
            b"452-4.2.2 The mailbox is full,\r\n452 4.2.2 250 Ok: queued\r\n",
            b"554 5.0.0 \\xe9 <a@b.nl>\r\n",
        ):
            parser = ReplyParser()
            parser.feed(octets)
            said = parser.next_reply()
            assert said is not None
            self.assertEqual(passed_on(said).octets, octets)

    def test_what_is_between_the_hop_and_us(self) -> None:
        for code, status, expected in (
            (421, "4.3.2", "4.3.2"),
            (421, None, "4.0.0"),
            (530, "5.7.0", "4.7.0"),
            (534, "5.7.9", "4.7.9"),
            (535, "5.7.8", "4.7.8"),
            (538, None, "4.0.0"),
        ):
            told = passed_on(Reply(code, status, ("closing",)))
            self.assertEqual((told.code, told.enhanced, told.lines), (451, expected, ("closing",)))

    def test_a_status_of_the_right_class(self) -> None:
        for code, status, expected in (
            (450, None, "4.0.0"),
            (550, None, "5.0.0"),
            (550, "2.0.0", "5.0.0"),
            (450, "5.1.1", "4.1.1"),
            (550, "5.1.1 250", "5.0.0"),
            (550, "5.1.1234", "5.0.0"),
            (550, "\u0665.1.1", "5.0.0"),
            (550, "5.1.\u0661", "5.0.0"),
        ):
            self.assertEqual(passed_on(Reply(code, status, ("x",))).enhanced, expected)

    def test_no_refusal(self) -> None:
        for code in (200, 220, 235, 250, 334, 354):
            self.assertRaises(ValueError, passed_on, Reply(code, None, ("x",)))

    def test_bounds(self) -> None:
        told = passed_on(Reply(550, "5.1.1", ("x" * 2000,) * 128))
        self.assertEqual(told.lines, ("x" * 397 + "...",) * 3 + ("...",))
        self.assertEqual(passed_on(Reply(550, None, ("a", "", " ", "b", "c", "d"))).lines, tuple("abcd"))
        self.assertEqual(passed_on(Reply(550, None, ("", "  "))).lines, ("The next hop gives no reason",))

    @settings(deadline=None, max_examples=300)
    @given(
        st.integers(400, 599),
        st.none() | st.text(max_size=12).filter(str.isprintable),
        st.lists(
            st.text(st.characters(exclude_characters=[*map(chr, range(0x20)), "\x7f"], codec=None)),
            min_size=1,
            max_size=12,
        ),
    )
    def test_whatever_it_said(self, code: int, status: str | None, lines: list[str]) -> None:
        """Lone surrogates and C1 controls among it."""
        told = passed_on(Reply(code, status, tuple(lines)))
        self.assertEqual(told.code // 100, 4 if code in (530, 534, 535, 538) else code // 100)
        self.assertLessEqual(len(told.lines), 4)
        *wire, end = told.octets.decode("ascii").split("\r\n")
        self.assertEqual((end, len(wire)), ("", len(told.lines)))
        for number, line in enumerate(wire):
            self.assertLessEqual(len(line), 510)
            self.assertTrue(line.isprintable())
            self.assertRegex(line, r"\A[45][0-9]{2}[ -][45]\.[0-9]{1,3}\.[0-9]{1,3} ")
            self.assertEqual(line[3], "-" if number < len(wire) - 1 else " ")
        self.assertNotEqual(told.code, 421)
