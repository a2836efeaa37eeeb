"""From and Sender, read strictly (RFC 5322 3.4)."""

from email.utils import getaddresses

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.mailboxes import Unreadable, mailboxes

READ = {
    "a@b.nl": ["a@b.nl"],
    " a@b.nl\t": ["a@b.nl"],
    "<a@b.nl>": ["a@b.nl"],
    "Jan Jansen <jan@b.nl>": ["jan@b.nl"],
    "J. Jansen B.V. <jan@b.nl>": ["jan@b.nl"],
    '"Jansen, Jan" <jan@b.nl>': ["jan@b.nl"],
    '"a \\" <x@y.nl>" <jan@b.nl>': ["jan@b.nl"],
    "jan@b.nl (Jan (de man) Jansen)": ["jan@b.nl"],
    "(x <y@z.nl>) jan@b.nl": ["jan@b.nl"],
    "=?utf-8?q?Jos=C3=A9?= <jose@b.nl>": ["jose@b.nl"],
    "=?iso-8859-1?B?Sm9z6Q==?= =?utf-8?q?=28Inkoop=29?= <jose@b.nl>": ["jose@b.nl"],
    "=?utf-8?q?Jansen=2C_=22Jos=C3=A9=22?= <jose@b.nl>": ["jose@b.nl"],
    "José <josé@bédrijf.nl>": ["josé@bédrijf.nl"],
    "a@b.nl, Piet <c@d.nl>,e@f.nl": ["a@b.nl", "c@d.nl", "e@f.nl"],
    '"jan de man"@b.nl': ['"jan de man"@b.nl'],
    "jan@[192.0.2.1]": ["jan@[192.0.2.1]"],
}
UNREADABLE = (
    "",
    " ",
    ",",
    "a@b.nl,",
    ",a@b.nl",
    "a@b.nl,,c@d.nl",
    "a@b.nl c@d.nl",
    "a@b.nl; c@d.nl",
    "a",
    "Jan Jansen",
    "<>",
    "<a>",
    "a @b.nl",
    "a@ b.nl",
    "<a@b.nl> <c@d.nl>",
    "a@b.nl <c@d.nl>",
    "<@x.nl:a@b.nl>",
    "groep: a@b.nl, c@d.nl;",
    "undisclosed-recipients:;",
    "<a@b.nl",
    "a@b.nl>",
    "a..b@c.nl",
    ".a@b.nl",
    "a@b..nl",
    '"a@b.nl',
    "(a@b.nl",
    "a@b.nl)",
    "((((((((((((((((((x)))))))))))))))))) a@b.nl",
    "a@b@c.nl",
    "a@b.nl\0",
    "Jan\x01 <a@b.nl>",
    "a@[1 2]",
    f"{'a' * 316}@b.nl",
    f'"{"@" * 60_000}"@b.nl',
    # To a reader that decodes first, these are from c@d.nl.
    "=?utf-8?q?c=40d.nl?= <a@b.nl>",
    "=?utf-8?b?PGNAZC5ubD4s?= <a@b.nl>",
    '"=?utf-8?q?=3Cc=40d.nl=3E?=" <a@b.nl>',
    "a@b.nl (=?utf-8?q?c=40d.nl?=)",
    "=?utf-8?q?c=40d.nl?=@b.nl",
    '=?utf-8?q?=22?= "<c@d.nl>" <a@b.nl>',
    "=?utf-7?q?c+AEA-d.nl?= <a@b.nl>",
    '"=? utf-8?q?c=40d.nl?=" <a@b.nl>',
    '"=?utf-8?q?c=40d.nl x?=" <a@b.nl>',
)


class MailboxesTests(SynchronousTestCase):
    def test_what_is_read(self) -> None:
        for body, expected in READ.items():
            self.assertEqual([str(path) for path in mailboxes(body)], expected, body)

    def test_what_is_not(self) -> None:
        for body in UNREADABLE:
            with self.assertRaises(Unreadable, msg=body):
                mailboxes(body)

    def test_many(self) -> None:
        self.assertEqual(len(mailboxes(", ".join(["a@b.nl"] * 100))), 100)
        self.assertRaises(Unreadable, mailboxes, ", ".join(["a@b.nl"] * 101))

    def test_made_to_be_slow(self) -> None:
        """64 KiB each; a parser that goes back and forth would take minutes."""
        for body in (
            "a " * 32_000,
            "a." * 32_000,
            '"' + "\\a" * 32_000,
            "(" + "\\(" * 32_000,
            "()" * 32_000,
            "a" * 64_000,
            "a@" * 32_000,
            "<" * 64_000,
            '"" ' * 20_000,
            f'"{"=?utf-8?q?" * 6_000}" <a@b.nl>',
            f'"{"=?" * 30_000}" <a@b.nl>',
        ):
            self.assertRaises(Unreadable, mailboxes, body)

    @settings(deadline=None, max_examples=500)
    @given(st.text('ab.@<>,"()\\ :;é', max_size=14))
    def test_whatever_is_read_another_reader_sees_alike(self, body: str) -> None:
        try:
            found = mailboxes(body)
        except Unreadable:
            return
        if '"' in body or "\\" in body:
            return  # Python's own reader takes quotes and backslashes off
        self.assertEqual([str(path) for path in found], [address for _, address in getaddresses([body])])
