"""The ``Received:`` field, letter by letter."""

import re
from email import message_from_bytes
from email.utils import parsedate_to_datetime

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.envelope import NULL_PATH, Envelope, MailParameters, Path, Trace
from digipoort_msa.smtp.trace import received, rfc5322_date
from tests.requirements import proves

TRACE = Trace("s1", "msa.example.nl", "192.0.2.7", "client.example.nl", "TLSv1.3 TLS_AES_256_GCM_SHA384")
ENVELOPE = Envelope("Q1", "realm", "secret-account", "s1", NULL_PATH, (Path("b", "c.nl"),), 1_700_000_000.9)


@proves("M2", "M6")
class ReceivedTests(SynchronousTestCase):
    def test_whole(self) -> None:
        self.assertEqual(
            received(TRACE, ENVELOPE),
            b"Received: from client.example.nl ([192.0.2.7])\r\n"
            b"\t(using TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
            b"\tby msa.example.nl with ESMTPSA id Q1\r\n"
            b"\tfor <b@c.nl>;\r\n"
            b"\tTue, 14 Nov 2023 22:13:20 +0000\r\n",
        )

    def test_one_field_that_others_can_read(self) -> None:
        message = message_from_bytes(received(TRACE, ENVELOPE) + b"\r\n")
        self.assertEqual(message.keys(), ["Received"])
        date = message["Received"].rpartition(";")[2]
        self.assertEqual(parsedate_to_datetime(date.strip()).timestamp(), 1_700_000_000)

    def test_never_the_account(self) -> None:
        self.assertNotIn(b"secret-account", received(TRACE, ENVELOPE))

    @proves("T4", "T5")
    def test_no_name(self) -> None:
        """No EHLO under TLS, as in the seed's transcript."""
        self.assertTrue(
            received(evolve(TRACE, client_name=None), ENVELOPE).startswith(
                b"Received: from [192.0.2.7] ([192.0.2.7])\r\n"
            )
        )

    def test_names_that_would_break_the_field(self) -> None:
        """Only a host name or an address literal is repeated; and of those no octet above ASCII, which a
        header may only hold in a message of SMTPUTF8."""
        for name in ("a (b", "x) by evil", "[(]", "é.nl", "a;b", "a\u2028b", '"', "<x>", "a,b", ""):
            field = received(evolve(TRACE, client_name=name), ENVELOPE)
            self.assertTrue(field.startswith(b"Received: from [192.0.2.7] ([192.0.2.7])\r\n"), name)

    def test_addresses(self) -> None:
        for address, shown in (("2001:db8::1", b"([IPv6:2001:db8::1])"), ("local", b"(localhost)")):
            self.assertIn(shown, received(evolve(TRACE, client_address=address), ENVELOPE))

    def test_recipients_do_not_learn_of_each_other(self) -> None:
        several = evolve(ENVELOPE, recipients=(Path("b", "c.nl"), Path("hidden", "d.nl")))
        self.assertNotIn(b"for <", received(TRACE, several))
        self.assertIn(b"id Q1;\r\n", received(TRACE, several))

    def test_smtputf8(self) -> None:
        """RFC 6531 4.3."""
        envelope = evolve(
            ENVELOPE, parameters=MailParameters(smtputf8=True), recipients=(Path("jörg", "bücher.nl"),)
        )
        field = received(TRACE, envelope)
        self.assertIn(b" with UTF8SMTPSA id ", field)
        self.assertIn("for <jörg@bücher.nl>".encode(), field)

    def test_lines_stay_within_limits(self) -> None:
        """Of 998 octets, with the longest of everything (RFC 5322 2.1.1)."""
        field = received(
            evolve(TRACE, client_name="d." * 127 + "d", server_name="s" * 255),
            evolve(ENVELOPE, recipients=(Path("é" * 32, "d." * 126 + "nl"),)),
        )
        self.assertLess(max(map(len, field.split(b"\r\n"))), 998)
        self.assertIsNone(re.search(rb"\r(?!\n)|(?<!\r)\n", field))

    def test_dates(self) -> None:
        self.assertEqual(rfc5322_date(0), "Thu, 01 Jan 1970 00:00:00 +0000")
        self.assertEqual(rfc5322_date(951_782_400.99), "Tue, 29 Feb 2000 00:00:00 +0000")
