"""What is taken from the message that a notification is about."""

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.notification.original import Original


def original(octets: bytes, complete: bool = True) -> Original:
    return Original(octets, complete)


class HeaderTests(SynchronousTestCase):
    def test_where_it_ends(self) -> None:
        for octets, complete, header in (
            (b"A: 1\r\nB: 2\r\n\r\nC: 3\r\n", True, b"A: 1\r\nB: 2\r\n"),
            (b"A: 1\r\nB: 2\r\n", True, b"A: 1\r\nB: 2\r\n"),
            (b"A: 1\r\n\r\n", False, b"A: 1\r\n"),
            (b"A: 1\r\nB: 2", False, b"A: 1\r\n"),
            (b"A: 1\r\nB: 2\r\n", False, b"A: 1\r\nB: 2\r\n"),
            (b"A: 1\r\nB: 2\r", False, b"A: 1\r\n"),
            (b"A", False, b""),
            (b"A", True, b"A\r\n"),
            (b"\r\nbody\r\n", True, b""),
            (b"", True, b""),
            (b"", False, b""),
        ):
            self.assertEqual(original(octets, complete).header, header, (octets, complete))

    @given(st.binary(max_size=40) | st.text("\r\nA: ", max_size=20).map(str.encode), st.booleans())
    def test_whole_lines(self, octets: bytes, complete: bool) -> None:
        header = original(octets, complete).header
        self.assertTrue(not header or header.endswith(b"\r\n"))
        self.assertNotIn(b"\r\n\r\n", header.removesuffix(b"\r\n"))


class FieldTests(SynchronousTestCase):
    def test_subjects(self) -> None:
        for value, subject in (
            (b"plain", "plain"),
            (b"  folded\r\n\t over \r\n lines", "folded over lines"),
            (b"=?utf-8?b?4oKs?= =?iso-8859-1?q?_=E9?=", "\u20ac \u00e9"),
            ("\u20ac raw".encode(), "\u20ac raw"),
            (b"\xe9 raw", "\ufffd raw"),
            (b"=?nonsense?q?a?=", "=?nonsense?q?a?="),
            (b"=?rot13?q?a?=", "=?rot13?q?a?="),
            (b"=?\xc3\xa9?q?a?=", "=?\u00e9?q?a?="),
            (b"=?utf-8?b?a?=", "=?utf-8?b?a?="),
            (b"=?utf-8?q?a=0D=0AX:_y=00?=", "a X: y\ufffd"),
            (b"=?utf-8?b?4oCu?= evil", "\ufffd evil"),  # the direction of writing
            (b"x" * 500, "x" * 197 + "..."),
            (b"", ""),
            (b"a\0b", "a\ufffdb"),
        ):
            self.assertEqual(original(b"X: y\r\nSUBJECT : " + value + b"\r\n\r\n").subject, subject)
        self.assertEqual(original(b"\r\nSubject: in the body\r\n").subject, "")
        self.assertEqual(original(b"X: y\r\n Subject: in a fold\r\n").subject, "")
        self.assertEqual(original(b"Subject: one\r\nSubject: two\r\n").subject, "one")

    def test_message_ids(self) -> None:
        for value, well_formed in (
            (b"<a@b>", True),
            (b"\r\n <a.b+c=d@[192.0.2.1]>", True),
            (b"<a@b> <c@d>", False),
            (b"<a@b>, x", False),
            (b"a@b", False),
            (b"<a b@c>", False),
            (b"<a@b@c>", False),
            (b"<\xc3\xa9@b>", False),
            (b"<" + b"a" * 300 + b"@b>", False),
            (b"", False),
        ):
            message_id = original(b"Message-Id: " + value + b"\r\n\r\n").message_id
            self.assertEqual(message_id, value.decode("utf-8").strip() if well_formed else None)

    def test_a_hostile_header_costs_no_time(self) -> None:
        """256 KiB of the worst: well under a second, by far."""
        for octets in (
            b"Subject: " + b"=?a?q?" * 43_000,
            b"Subject:" + b"\r\n " * 87_000,
            b"Subject" * 37_000,
            b"Subject \t" * 29_000 + b":",
            b"Subject" + b" " * 262_000,
            b"Message-ID: <" + b"a@" * 131_000,
            b"Message-ID: <" + b"\r\n\t" * 87_000,
        ):
            start = time.process_time()
            message = original(octets + b"\r\n")
            _ = message.subject, message.message_id
            message.returned(whole=True, eight_bit=True, utf8=False, most=500_000)
            self.assertLess(time.process_time() - start, 5, octets[:20])
