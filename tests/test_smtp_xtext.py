"""xtext and the addresses of RFC 6533: what is written reads back, and nothing hostile comes out."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import xtext
from digipoort_msa.smtp.envelope import CONTROL
from tests.requirements import proves

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)


@proves("D2")
class XtextTests(SynchronousTestCase):
    def test_known(self) -> None:
        for text, written in (("a", "a"), ("e=mc2@b.nl", "e+3Dmc2@b.nl"), ("a + b", "a+20+2B+20b")):
            self.assertEqual(xtext.encode(text), written)
            self.assertEqual(xtext.decode(written), text)
        self.assertEqual(xtext.decode("+41+7E"), "A~")  # what needs no code may have one

    def test_malformed(self) -> None:
        for text in (
            *("", "+", "+2", "a+", "+2b", "+aB", "+GG", "+ 2", "++20", "+-1", "+0x"),
            *("a b", "a=b", "a\t", "a\n", "\x7f", "\xe9", "\u0661", "+\u0662\u0660", "\ud800"),
        ):
            self.assertRaises(ValueError, xtext.octets, text)
            self.assertRaises(ValueError, xtext.decode, text)

    def test_what_may_not_come_out(self) -> None:
        for text in ("+00", "+0A", "a+0D+0Ab", "+1B[2J", "+09", "+7F", "+80", "+E9", "+C3+A9", "+FF"):
            self.assertRaises(ValueError, xtext.decode, text)

    def test_only_ascii_is_written(self) -> None:
        self.assertRaises(UnicodeEncodeError, xtext.encode, "\xe9")
        self.assertRaises(UnicodeEncodeError, xtext.encode, "\ud800")

    @settings(deadline=None)
    @given(PRINTABLE)
    def test_what_is_written_reads_back(self, text: str) -> None:
        self.assertEqual(xtext.decode(xtext.encode(text)), text)

    @settings(deadline=None)
    @given(st.text(st.sampled_from("+=aA2Bb09F \\\x00\xe9\ud800\u2028"), max_size=8))
    def test_nothing_but_printable_ascii_comes_out(self, text: str) -> None:
        try:
            decoded = xtext.decode(text)
        except ValueError:
            return
        self.assertTrue(decoded and decoded.isascii() and decoded.isprintable())
        self.assertEqual(xtext.decode(xtext.encode(decoded)), decoded)


@proves("D2")
class OriginalRecipientTests(SynchronousTestCase):
    def test_good(self) -> None:
        for parameter, address_type, address in (
            ("rfc822;a@b.nl", "rfc822", "a@b.nl"),
            ("RFC822;A+2BB@b.nl", "rfc822", "A+B@b.nl"),
            ('rfc822;"a+20b"@c.nl', "rfc822", '"a b"@c.nl'),
            ("rfc822;a;b@c.nl", "rfc822", "a;b@c.nl"),
            ("utf-8;a@b.nl", "utf-8", "a@b.nl"),
            ("UTF-8;j\\x{F6}rg\\x{2B}x@b\\x{fc}cher.example", "utf-8", "j\xf6rg+x@b\xfccher.example"),
            ("utf-8;j\xf6rg@b\\x{FC}cher.example", "utf-8", "j\xf6rg@b\xfccher.example"),
            ("utf-8;\\x{10FFFD}\\x{1F600}\\x{200D}", "utf-8", "\U0010fffd\U0001f600\u200d"),
            ("utf-8;\\x{5C}x{41}", "utf-8", "\\x{41}"),  # once, never twice
        ):
            self.assertEqual(xtext.original_recipient(parameter), (address_type, address))

    def test_bad(self) -> None:
        for parameter in (
            *("", ";", "rfc822", "rfc822;", "a@b.nl", "rfc822:a@b.nl", " rfc822;a", "x400;a", "unknown;a"),
            *("rfc822;a+0D+0Ab", "rfc822;+00", "rfc822;a+2b", "rfc822;a b", "rfc822;\xe9", "rfc822;+C3+A9"),
            *("utf-8;", "utf-8;a+b", "utf-8;a=b", "utf-8;a b", "utf-8;a\\b", "utf-8;\\x{41}", "utf-8;\\x{}"),
            *("utf-8;\\x{A}", "utf-8;\\x{0A}", "utf-8;\\x{0D}", "utf-8;\\x{00}", "utf-8;\\x{7F}"),
            *("utf-8;\\x{000A}", "utf-8;\\x{00E9}", "utf-8;\\x{85}", "utf-8;\\x{2028}", "utf-8;\x85"),
            *("utf-8;\\x{D800}", "utf-8;\\x{dfff}", "utf-8;\ud800", "utf-8;\\x{110000}", "utf-8;\\x{1F600"),
            *("utf-8;\u2029", "utf-8;a\r\nb", "utf-8;\\x{FFFFFF}", "\u017frfc822;a", "utf\u20118;a"),
        ):
            self.assertRaises(ValueError, xtext.original_recipient, parameter)

    @settings(deadline=None)
    @given(
        st.text(
            st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\\+= "), min_size=1
        )
    )
    def test_in_seven_bits(self, address: str) -> None:
        parameter = f"utf-8;{address}"
        seven_bit = xtext.seven_bit(parameter)
        self.assertTrue(seven_bit.isascii())
        self.assertEqual(xtext.original_recipient(seven_bit), ("utf-8", address))
        self.assertEqual(xtext.original_recipient(parameter), ("utf-8", address))
        self.assertEqual(xtext.seven_bit(seven_bit), seven_bit)

    @settings(deadline=None)
    @given(st.text(st.sampled_from("rfc82utf-;x{}\\+=aAD0189 \x00\x85\xe9\ud800"), max_size=16))
    def test_no_control_character_comes_out(self, text: str) -> None:
        for parameter in (text, f"utf-8;{text}", f"rfc822;{text}"):
            try:
                _, address = xtext.original_recipient(parameter)
            except ValueError:
                continue
            self.assertTrue(address)
            self.assertIsNone(CONTROL.search(address))
