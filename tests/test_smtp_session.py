"""Sessions told as transcripts: before TLS, STARTTLS, AUTH, and what is no SMTP at all."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.events import Wait
from digipoort_msa.smtp.input import MAX_LINE
from digipoort_msa.smtp.reply import Reply, challenge
from digipoort_msa.smtp.session import Session
from digipoort_msa.smtp.states import State
from tests.requirements import proves
from tests.transcript import ENVELOPE, IN_CLEAR, LOGIN, SETTINGS, Owner, converse, logged_in

MUST_STARTTLS = reply.MUST_STARTTLS.octets


def in_clear() -> Owner:
    return Owner(start=State.CLEAR)


class ClearTests(SynchronousTestCase):
    def test_greeting(self) -> None:
        session = Session(IN_CLEAR)
        session.greet()
        self.assertEqual(session.octets_to_send(), b"220 msa.example.nl ESMTP\r\n")
        self.assertEqual(session.octets_to_send(), b"")
        self.assertIs(session.next_event(), Wait.NEED_DATA)

    @proves("T1")
    def test_all_but_four_commands(self) -> None:
        for line in (
            "HELO a", "RSET", "HELP", "VRFY a", "EXPN a", "AUTH DIGEST-MD5", "AUTH PLAIN AGEAYg==", "AUTH",
            "MAIL FROM:<a@b.nl>", "MAIL", "RCPT TO:<a@b.nl>", "DATA", "BDAT 0 LAST", "TURN", "ETRN x",
            "XYZZY",
            "", " NOOP", "NOOPS", "noop\u00a0", "STARTTLSX", "\x00", "\xe9", "EHLO\tx",
        ):  # fmt: skip
            owner = in_clear()
            owner.feed(line.encode("latin-1") + b"\r\nNOOP\r\n")
            self.assertEqual(owner.output, MUST_STARTTLS + reply.OK.octets, line)
        owner = in_clear()
        owner.feed(b"MAIL " + b"x" * 100_000 + b"\r\n")
        self.assertEqual(owner.output, MUST_STARTTLS)

    @proves("T2", "T7")
    def test_ehlo(self) -> None:
        converse(
            """
            C: EHLO mijnbedrijf.nl
            S: 250-msa.example.nl
            S: 250-PIPELINING
            S: 250-SIZE 52428800
            S: 250-STARTTLS
            S: 250-8BITMIME
            S: 250-AUTH DIGEST-MD5
            S: 250-ENHANCEDSTATUSCODES
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250 DSN
            C: noop with words
            S: 250 2.0.0 Ok
            C: QUIT
            S: 221 2.0.0 Bye
            X:
            """,
            in_clear,
        )

    @proves("T5", "T7", "M6")
    def test_the_seed_s_transcript(self) -> None:
        owner = converse(
            """
            C: EHLO mijnbedrijf.nl
            S: 250-msa.example.nl
            S: 250-PIPELINING
            S: 250-SIZE 52428800
            S: 250-STARTTLS
            S: 250-8BITMIME
            S: 250-AUTH DIGEST-MD5
            S: 250-ENHANCEDSTATUSCODES
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250 DSN
            C: STARTTLS
            S: 220 Ready to start TLS
            TLS:
            C: AUTH DIGEST-MD5
            S: 334 bm9uY2U=
            C: cmVzcG9uc2U=
            S: 334 cnNwYXV0aA==
            C:
            S: 235 2.7.0 Authentication successful
            C: MAIL FROM:<ik@mijnbedrijf.nl>
            S: 250 2.1.0 Ok
            C: RCPT TO:<belastingdienst@overheid.nl>
            S: 250 2.1.5 Ok
            C: DATA
            S: 354 End data with <CR><LF>.<CR><LF>
            C: Subject: aangifte
            C:
            C: ..
            C: .
            S: 250 2.0.0 Ok: queued as 1
            C: QUIT
            S: 221 2.0.0 Bye
            X:
            """,
            lambda: Owner(
                {
                    events.Authenticate: [challenge(b"nonce")],
                    events.Response: [challenge(b"rspauth"), reply.AUTHENTICATED],
                },
                start=State.CLEAR,
            ),
        )
        self.assertEqual(owner.messages, [b"Subject: aangifte\r\n\r\n.\r\n"])
        self.assertEqual(owner.of(events.Response), [events.Response(b"response"), events.Response(b"")])
        self.assertIsNone(owner.session.client_name)


class StartTLSTests(SynchronousTestCase):
    BEHIND = b"EHLO evil.example\r\n" + LOGIN + ENVELOPE + b"DATA\r\nstolen\r\n.\r\nRSET\r\n"

    @proves("T4")
    def test_command_injection_behind_starttls(self) -> None:
        """CVE-2011-0411, CVE-2021-33515, CVE-2024-34083: at every split point, nothing behind it is run."""
        stream = b"EHLO a.example\r\nSTARTTLS\r\n" + self.BEHIND
        plain = in_clear()
        plain.feed(b"EHLO a.example\r\n")
        for cut in range(len(stream) + 1):
            owner = in_clear()
            owner.feed(stream[:cut])
            owner.feed(stream[cut:])
            self.assertEqual(owner.output, plain.output + b"220 Ready to start TLS\r\n")
            self.assertEqual(owner.events, [events.StartTLS()])
            self.assertEqual(owner.session.buffered, 0)
            clear = owner.session
            owner.finish_handshake()
            clear.receive(self.BEHIND)
            self.assertIs(clear.next_event(), Wait.NEED_DATA)
            owner.output = b""
            owner.feed(b"NOOP\r\n")
            self.assertEqual(owner.output, reply.OK.octets)
            self.assertIsNone(owner.session.client_name)
            self.assertEqual(owner.session.commands, 1)

    @proves("T4")
    def test_half_a_command_in_clear_and_half_under_tls(self) -> None:
        owner = in_clear()
        owner.feed(b"STARTTLS\r\nMAIL FR")
        owner.finish_handshake()
        owner.feed(b"OM:<a@b.nl>\r\n")
        self.assertTrue(owner.output.endswith(reply.UNKNOWN_COMMAND.octets))

    @proves("T6")
    def test_parameter(self) -> None:
        for line in (b"STARTTLS x", b"starttls 1 2", b"STARTTLS STARTTLS"):
            for start in (State.CLEAR, State.SECURE):
                owner = Owner(start=start)
                owner.feed(line + b"\r\nNOOP\r\n")
                self.assertEqual(owner.output, reply.NO_PARAMETERS.octets + reply.OK.octets)
                self.assertEqual(owner.session.state, start)
        owner = in_clear()
        owner.feed(b"STARTTLS  \r\n")  # trailing blanks are no parameter (RFC 5321 4.1.1)
        self.assertTrue(owner.secured)

    @proves("T6")
    def test_under_tls(self) -> None:
        for owner in (Owner(), logged_in()):
            owner.feed(b"STARTTLS\r\nNOOP\r\n")
            self.assertEqual(owner.output, reply.ALREADY_SECURE.octets + reply.OK.octets)
            self.assertEqual(owner.of(events.StartTLS), [])

    @proves("T6")
    def test_a_failed_handshake_leaves_nothing_to_talk_to(self) -> None:
        owner = in_clear()
        owner.feed(b"STARTTLS\r\n")
        owner.output = b""
        for _ in range(3):
            owner.feed(b"NOOP\r\nQUIT\r\n")
        self.assertEqual((owner.output, owner.session.buffered), (b"", 0))
        owner.session.say_and_close(reply.IDLE, "idle")
        owner.run()
        self.assertTrue(owner.closed)


class SecureTests(SynchronousTestCase):
    @proves("T3", "T7")
    def test_ehlo(self) -> None:
        owner = converse(
            """
            C: EHLO client.example.nl
            S: 250-msa.example.nl
            S: 250-PIPELINING
            S: 250-SIZE 52428800
            S: 250-8BITMIME
            S: 250-AUTH DIGEST-MD5 PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250 DSN
            C: HELO other.example.nl
            S: 250 msa.example.nl
            """
        )
        self.assertEqual(owner.session.client_name, "other.example.nl")

    @proves("M8")
    def test_commands_of_any_time(self) -> None:
        for owner in (Owner, logged_in):
            converse(
                """
                C: NOOP
                S: 250 2.0.0 Ok
                C: RSET
                S: 250 2.0.0 Ok
                C: VRFY <a@b.nl>
                S: 252 2.5.0 Cannot verify an address; RCPT tells
                C: VRFY
                S: 501 5.5.4 Syntax: VRFY address
                C: HELP MAIL
                S: 214-2.0.0 Commands: EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT
                S: 214 2.0.0 A message submission agent: RFC 6409, over TLS, after AUTH
                C: RSET now
                S: 501 5.5.4 This command takes no parameters
                C: EHLO
                S: 501 5.5.4 Syntax: EHLO hostname, or HELO hostname
                C: EXPN all
                S: 500 5.5.2 Command not recognized
                C: quit
                S: 221 2.0.0 Bye
                X:
                """,
                owner,
            )

    @proves("A1")
    def test_mail_before_authentication(self) -> None:
        for line in (b"MAIL FROM:<a@b.nl>", b"MAIL nonsense", b"RCPT TO:<a@b.nl>", b"DATA", b"BDAT 0 LAST"):
            owner = Owner()
            owner.feed(b"EHLO a\r\n" + line + b"\r\n")
            self.assertTrue(owner.output.endswith(b"530 5.7.0 Authentication required\r\n"))
            self.assertEqual(len(owner.events), 1)

    @proves("A1", "A6")
    def test_pipeline_headed_by_auth(self) -> None:
        """PLAIN with an initial response may head a pipeline; where it fails, nothing behind it counts."""
        stream = LOGIN + ENVELOPE + b"NOOP\r\n"
        owner = Owner()
        owner.feed(stream)
        self.assertEqual(len(owner.of(events.Recipient)), 1)
        owner = Owner({events.Authenticate: [reply.INVALID_CREDENTIALS]})
        owner.feed(stream)
        self.assertEqual(
            owner.output,
            reply.INVALID_CREDENTIALS.octets + reply.AUTHENTICATION_REQUIRED.octets * 2 + reply.OK.octets,
        )


class NotSMTPTests(SynchronousTestCase):
    @proves("M9")
    def test_cross_protocol(self) -> None:
        """An HTTP request or a TLS hello is closed at once, with not a word and nothing of it run."""
        smuggled = b"\r\nHost: x\r\n\r\nEHLO evil\r\n" + LOGIN + ENVELOPE
        for first in (
            b"GET / HTTP/1.1", b"POST /mail HTTP/1.0", b"PRI * HTTP/2.0", b"OPTIONS *",
            b"CONNECT a:1 HTTP/1.1", b"get / HTTP/1.1", b"BREW /pot HTTP/9",
        ):  # fmt: skip
            for start in (State.CLEAR, State.SECURE):
                owner = Owner(start=start)
                owner.feed(first + smuggled)
                self.assertEqual((owner.output, owner.closed), (b"", True))
                self.assertEqual(len(owner.events), 1)
        for hello in (b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"):
            owner = in_clear()
            owner.feed(hello)
            self.assertEqual((owner.output, owner.closed), (b"", True))

    @proves("M5")
    def test_bare_line_feed_in_commands(self) -> None:
        """It is never read as a line end: what came behind it is not a command of its own."""
        for start in (State.CLEAR, State.SECURE):
            for line in (b"NOOP\nRSET\r\n", b"\n", b"NOOP\n\r\n", b"NOOP\r\nNOOP\nQUIT\r\n"):
                owner = Owner(start=start)
                owner.feed(line)
                self.assertTrue(owner.output.endswith(reply.BARE_LINE_END.octets))
                self.assertTrue(owner.closed)
        owner = logged_in()
        owner.feed(b"MAIL FROM:<a@b.nl>\rRCPT TO:<c@d.nl>\r\n")
        self.assertEqual(owner.output, reply.NOT_A_COMMAND.octets)
        self.assertEqual(owner.of(events.Mail), [])

    @proves("M1")
    def test_nothing_of_the_client_s_is_echoed(self) -> None:
        """Whatever stands in a line, no run of five of its octets comes back."""
        marker = b"Zq9Xw7"
        for line in (
            b"%s", b"NOOP %s", b"EHLO %s", b"EHLO %s %s", b"HELO %s", b"MAIL FROM:<%s>", b"MAIL FROM:<%s@%s>",
            b"MAIL FROM:<a@b.nl> %s=1", b"MAIL FROM:<a@b.nl> SIZE=%s", b"RCPT TO:<%s@b.nl>",
            b"RCPT TO:<%s@b.nl> %s", b"AUTH %s", b"AUTH PLAIN %s", b"VRFY %s", b"HELP %s", b"RSET %s",
            b"STARTTLS %s",
            b"DATA %s", b"BDAT %s", b"QUIT %s",
        ):  # fmt: skip
            said = line.replace(b"%s", marker) + b"\r\n"
            for owner in (in_clear(), Owner(), logged_in()):
                owner.feed(said)
                self.assertNotIn(marker.lower()[:5], owner.output.lower(), said)
                self.assertTrue(owner.output.endswith(b"\r\n"))

    def test_nul_and_control_characters(self) -> None:
        for octet in (*range(0x0A), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F):
            owner = logged_in()
            owner.feed(b"NOOP" + bytes([octet]) + b"\r\nNOOP x" + bytes([octet]) + b"\r\nNOOP\r\n")
            self.assertEqual(owner.output, reply.NOT_A_COMMAND.octets * 2 + reply.OK.octets)

    @proves("M9")
    def test_endless_line(self) -> None:
        owner = logged_in()
        octets = 0
        while not owner.closed:
            owner.feed(b"x" * 65_536)
            octets += 65_536
            self.assertLess(owner.session.buffered, MAX_LINE + 65_536)
            self.assertLess(octets, 3 << 20)
        self.assertEqual(owner.output, reply.LINE_TOO_LONG.octets)
        self.assertEqual(owner.session.buffered, 0)

    def test_too_many_errors(self) -> None:
        for start in (State.CLEAR, State.SECURE):
            owner = Owner(start=start, settings=evolve(SETTINGS, errors=3))
            owner.feed(b"X\r\nNOOP\r\nX\r\n")
            self.assertFalse(owner.closed)
            owner.feed(b"X\r\nNOOP\r\nX\r\n")
            self.assertTrue(owner.output.endswith(reply.TOO_MANY_ERRORS.octets))
            self.assertTrue(owner.closed)

    def test_a_message_that_went_through_wipes_the_errors(self) -> None:
        owner = logged_in(settings=evolve(SETTINGS, errors=3))
        for _ in range(5):
            owner.feed(b"X\r\nX\r\n" + ENVELOPE + b"DATA\r\n.\r\n")
        self.assertEqual(len(owner.messages), 5)


class LastWordsTests(SynchronousTestCase):
    """Sessions ended from our side."""

    def test_say_and_close(self) -> None:
        owner = logged_in()
        owner.session.receive(b"NOOP\r\n")
        owner.session.say_and_close(reply.SHUTTING_DOWN, "shutdown")
        owner.run()
        owner.feed(b"NOOP\r\n")
        owner.session.say_and_close(reply.IDLE, "again")
        owner.run()
        self.assertEqual(owner.output, reply.SHUTTING_DOWN.octets)
        self.assertEqual(owner.events[-1:], [events.Close("shutdown")])
        self.assertEqual(len(owner.of(events.Close)), 1)

    @proves("M6")
    def test_nothing_is_stored_after_the_last_words(self) -> None:
        """A client that read 421 sends its message again: what it asked before must not be stored as well."""
        owner = logged_in()
        owner.feed(ENVELOPE + b"DATA\r\n")
        session = owner.session
        session.receive(b"x\r\n.\r\n")
        self.assertEqual(session.next_event(), events.Content(b"x\r\n"))  # ContentEnds waits behind it
        session.say_and_close(reply.IDLE, "idle")
        self.assertEqual(session.next_event(), events.Close("idle"))
        self.assertIs(session.next_event(), Wait.NEED_DATA)

    def test_with_a_verdict_open(self) -> None:
        owner = Owner(patient=True)
        owner.feed(LOGIN)
        owner.session.say_and_close(reply.SHUTTING_DOWN, "shutdown")
        owner.run()
        self.assertTrue(owner.closed)
        self.assertFalse(owner.session.awaits_verdict)
        self.assertRaises(RuntimeError, owner.session.answer, reply.AUTHENTICATED)
        self.assertEqual(owner.output, reply.SHUTTING_DOWN.octets)

    def test_an_answer_that_nobody_asked_for(self) -> None:
        self.assertRaises(RuntimeError, Session(SETTINGS).answer, Reply(250, None, ("x",)))
