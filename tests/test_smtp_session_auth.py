"""AUTH in the session: its syntax, its moment, its limits (RFC 4954 4)."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.input import MAX_LINE
from digipoort_msa.smtp.reply import challenge
from digipoort_msa.smtp.states import State
from tests.requirements import proves
from tests.transcript import ENVELOPE, LOGIN, Owner, Verdicts, converse, logged_in


def scripted(verdicts: Verdicts) -> Owner:
    return Owner(verdicts)


@proves("A2", "A6")
class AuthTests(SynchronousTestCase):
    def test_login_with_its_prompts(self) -> None:
        owner = converse(
            """
            C: AUTH login
            S: 334 VXNlcm5hbWU6
            C: YQ==
            S: 334 UGFzc3dvcmQ6
            C: Yg==
            S: 235 2.7.0 Authentication successful
            C: AUTH LOGIN
            S: 503 5.5.1 Already authenticated
            """,
            lambda: scripted(
                {
                    events.Authenticate: [challenge(b"Username:")],
                    events.Response: [challenge(b"Password:"), reply.AUTHENTICATED],
                }
            ),
        )
        self.assertEqual(owner.of(events.Authenticate), [events.Authenticate("LOGIN", None)])
        self.assertEqual(owner.of(events.Response), [events.Response(b"a"), events.Response(b"b")])

    def test_empty_challenge_has_its_space(self) -> None:
        owner = converse(
            """
            C: AUTH PLAIN
            S: 334 ~
            C: AGEAYg==
            S: 235 2.7.0 Authentication successful
            """,
            lambda: scripted({events.Authenticate: [challenge(b"")]}),
        )
        self.assertEqual(owner.of(events.Response), [events.Response(b"\0a\0b")])

    def test_initial_responses(self) -> None:
        for line, initial in (
            (b"AUTH PLAIN", None),
            (b"AUTH PLAIN =", b""),
            (b"AUTH PLAIN AGEAYg==", b"\0a\0b"),
        ):
            owner = Owner()
            owner.feed(line + b"\r\n")
            self.assertEqual(owner.events, [events.Authenticate("PLAIN", initial)])

    def test_cancel(self) -> None:
        owner = converse(
            """
            C: AUTH LOGIN
            S: 334 VXNlcm5hbWU6
            C: *
            S: 501 5.7.0 Authentication cancelled
            C: NOOP
            S: 250 2.0.0 Ok
            C: *
            S: 500 5.5.2 Command not recognized
            """,
            lambda: scripted({events.Authenticate: [challenge(b"Username:")]}),
        )
        self.assertEqual(len(owner.of(events.Cancelled)), 1)
        self.assertEqual(owner.session.state, State.SECURE)

    def test_bad_responses_end_the_exchange(self) -> None:
        """What cannot be a response is never handed on, and never a command."""
        for line in (
            b"=", b"a", b"YQ", b"YQ==\0", b" YQ==", b"YQ== ", b"* ", b"**", b"MAIL FROM:<a@b.nl>", b"\xff",
            b"QUIT\xc3\xa9", b"*\r", b"Y\rQ==", b"EHLO x",
        ):  # fmt: skip
            owner = Owner({events.Authenticate: [challenge(b"")]})
            owner.feed(b"AUTH PLAIN\r\n" + line + b"\r\nNOOP\r\n")
            self.assertEqual(owner.output, b"334 \r\n" + reply.NOT_BASE64.octets + reply.OK.octets, line)
            self.assertEqual(len(owner.of(events.Cancelled)), 1)
            self.assertEqual(owner.of(events.Response), [])

    def test_bad_commands(self) -> None:
        for line, words in (
            (b"AUTH", reply.AUTH_SYNTAX),
            (b"AUTH ", reply.AUTH_SYNTAX),
            (b"AUTH PLAIN AGEAYg== x", reply.AUTH_SYNTAX),
            (b"AUTH PLAIN *", reply.NOT_BASE64),
            (b"AUTH PLAIN ==", reply.NOT_BASE64),
            (b"AUTH PLAIN AGEAYg", reply.NOT_BASE64),
            ("AUTH PLAIN é".encode(), reply.NOT_BASE64),
            (b"AUTH CRAM-MD5", reply.UNKNOWN_MECHANISM),
            (b"AUTH NTLM TlRMTVNTUAA=", reply.UNKNOWN_MECHANISM),
            (b"AUTH PLAIN\tAGEAYg==", reply.NOT_A_COMMAND),
        ):
            owner = Owner()
            owner.feed(line + b"\r\nNOOP\r\n")
            self.assertEqual(owner.output, words.octets + reply.OK.octets, line)
            self.assertEqual(owner.of(events.Authenticate), [])

    def test_in_a_transaction(self) -> None:
        for before in (b"", ENVELOPE.splitlines(True)[0], ENVELOPE, ENVELOPE + b"BDAT 2\r\n\r\n"):
            owner = logged_in()
            owner.feed(before)
            owner.output = b""
            owner.feed(LOGIN)
            self.assertEqual(owner.output, reply.ALREADY_AUTHENTICATED.octets)

    @proves("M9")
    def test_long_lines(self) -> None:
        """12,288 octets fit (RFC 4954 4), as a response and behind AUTH; a longer line is a 500 and ends
        an exchange."""
        response = b"QUFB" * (12_288 // 4)
        for said in (b"AUTH PLAIN\r\n" + response + b"\r\n", b"AUTH DIGEST-MD5 " + response + b"\r\n"):
            for cut in (1, 100, 12_200, len(said) - 1, len(said)):
                owner = Owner({events.Authenticate: [challenge(b"")] if b"PLAIN" in said else []})
                owner.feed(said[:cut])
                owner.feed(said[cut:])
                self.assertTrue(owner.output.endswith(reply.AUTHENTICATED.octets))
        for length in (MAX_LINE + 1, MAX_LINE + 2, 100_000):
            said = b"AUTH PLAIN\r\n" + b"A" * length + b"\r\nNOOP\r\n"
            for size in (1000, MAX_LINE, MAX_LINE + 13, len(said)):
                owner = Owner({events.Authenticate: [challenge(b"")]})
                for start in range(0, len(said), size):
                    owner.feed(said[start : start + size])
                    self.assertLessEqual(owner.session.buffered, MAX_LINE + size)
                self.assertEqual(owner.output, b"334 \r\n" + reply.LINE_TOO_LONG.octets + reply.OK.octets)
                self.assertEqual(len(owner.of(events.Cancelled)), 1)

    def test_the_limit_is_exact(self) -> None:
        for over, words in ((0, reply.OK), (1, reply.LINE_TOO_LONG)):
            owner = Owner()
            owner.feed(b"NOOP " + b"x" * (MAX_LINE - 5 + over) + b"\r\n")
            self.assertEqual(owner.output, words.octets)

    def test_three_failures(self) -> None:
        """Not before, and the third is told with its own 535 first."""
        owner = Owner({events.Authenticate: [reply.INVALID_CREDENTIALS, reply.MALFORMED_RESPONSE] * 2})
        owner.feed(LOGIN * 2 + b"NOOP\r\n")
        self.assertFalse(owner.closed)
        owner.output = b""
        owner.feed(LOGIN * 3)
        self.assertEqual(owner.output, reply.INVALID_CREDENTIALS.octets + reply.TOO_MANY_FAILURES.octets)
        self.assertTrue(owner.closed)

    def test_our_own_failure_is_not_counted(self) -> None:
        owner = Owner({events.Authenticate: [reply.AUTHENTICATION_UNAVAILABLE] * 10})
        owner.feed(LOGIN * 11)
        self.assertEqual(owner.session.state, State.READY)

    def test_failure_in_a_response_returns_to_the_start(self) -> None:
        owner = Owner(
            {events.Authenticate: [challenge(b"")] * 3, events.Response: [reply.INVALID_CREDENTIALS] * 3}
        )
        owner.feed(b"AUTH PLAIN\r\nAGEAYg==\r\n" * 3)
        self.assertEqual(
            owner.output,
            (b"334 \r\n" + reply.INVALID_CREDENTIALS.octets) * 3 + reply.TOO_MANY_FAILURES.octets,
        )

    def test_line_ends_in_an_exchange(self) -> None:
        owner = Owner({events.Authenticate: [challenge(b"")]})
        owner.feed(b"AUTH PLAIN\r\nAGEAYg==\nQUIT\r\n")
        self.assertEqual(owner.output, b"334 \r\n" + reply.BARE_LINE_END.octets)
        self.assertEqual(owner.of(events.Response), [])
        self.assertTrue(owner.closed)
