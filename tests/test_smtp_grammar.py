"""The grammar of commands: tables of good and bad, and hostile lines."""

import contextlib
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import extensions, grammar, reply, xtext
from digipoort_msa.smtp.envelope import NO_PARAMETERS, NULL_PATH, MailParameters, Notify, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused, Reply
from digipoort_msa.smtp.states import Verb
from tests.requirements import proves

OFFERED = extensions.offered(1000, ("PLAIN",), in_clear=False)
PARSERS = extensions.mail_parameters(OFFERED)
RCPT_PARSERS = extensions.rcpt_parameters(OFFERED)

GOOD = {
    "a@example.nl": ("a", "example.nl"),
    "A.b+c/d=e@Sub.Example.NL": ("A.b+c/d=e", "Sub.Example.NL"),
    "!#$%&'*+-/=?^_`{|}~@example.nl": ("!#$%&'*+-/=?^_`{|}~", "example.nl"),
    '"a b"@example.nl': ('"a b"', "example.nl"),
    '"a>b"@example.nl': ('"a>b"', "example.nl"),
    '"a@b"@example.nl': ('"a@b"', "example.nl"),
    '"a\\"b\\\\"@example.nl': ('"a\\"b\\\\"', "example.nl"),
    '""@example.nl': ('""', "example.nl"),
    "a@[192.0.2.1]": ("a", "[192.0.2.1]"),
    "a@[IPv6:2001:db8::1]": ("a", "[IPv6:2001:db8::1]"),
    "a@[ipv6:::ffff:192.0.2.1]": ("a", "[ipv6:::ffff:192.0.2.1]"),
    "a@under_score.example": ("a", "under_score.example"),
    "a@xn--bcher-kva.example": ("a", "xn--bcher-kva.example"),
    "a@1.2": ("a", "1.2"),
    "@hop.example,@two.example:a@example.nl": ("a", "example.nl"),  # a source route is read and ignored
    "l" * 64 + "@example.nl": ("l" * 64, "example.nl"),
    "a@" + "d." * 126 + "nl": ("a", "d." * 126 + "nl"),
}
INCOMPLETE = ("a", "a.b", '"a b"', "a@", "root", "Postmaster@", "a@localhost", "a@nl", "é", "a@é", "a!b.c")
MALFORMED = (
    "@", "@example.nl", "a@@example.nl", "a@b@example.nl", "a@.nl", "a@example..nl", "a@example.nl.",
    ".a@example.nl", "a.@example.nl", "a..b@example.nl", "a b@example.nl", "a@exa mple.nl",
    "a@-x.nl", "a@x-.nl", "a@example.nl ", " a@example.nl", "a,b@example.nl", "a:b@example.nl",
    "a(c)@example.nl", "a\\b@example.nl", '"a@example.nl', '"a"b@example.nl', '"a\\"@example.nl',
    "a@[]", "a@[192.0.2]", "a@[192.0.2.256]", "a@[192.0.2.1", "a@192.0.2.1]", "a@[2001:db8::1]",
    "a@[IPv6:1]", "a@[IPv6:fe80::1%eth0]", "a@[IPv6:x@y]", "a@[x-tag:anything]", "a@[192.0.2.01]",
    "@hop.example:", "@hop.example:@example.nl", "hop.example:a@example.nl", "@hop,a@example.nl",
    "<a@example.nl", "l" * 65 + "@example.nl", "a@" + "d." * 127 + "nl", "é" * 33 + "@example.nl",
    "a@" + "é." * 100 + "nl", "a@example.nl,b@example.nl", "a@example.nl;b", "a@exam/ple.nl",
)  # fmt: skip


def refused(call: object, *arguments: object, **keywords: object) -> Reply:
    try:
        result = call(*arguments, **keywords)  # type: ignore[operator]
    except Refused as refusal:
        return refusal.reply
    raise AssertionError(f"{arguments!r} gave {result!r}")


def attempt(call: object, *arguments: object, **keywords: object) -> None:
    with contextlib.suppress(Refused):
        call(*arguments, **keywords)  # type: ignore[operator]


@proves("M1")
class AddressTests(SynchronousTestCase):
    def test_good(self) -> None:
        for text, (local_part, domain) in GOOD.items():
            path, _ = grammar.mail(f"FROM:<{text}>", PARSERS)
            self.assertEqual((path.local_part, path.domain), (local_part, domain), text)
            self.assertEqual(grammar.rcpt(f"TO:<{text}>", RCPT_PARSERS, smtputf8=False)[0], path)
            self.assertEqual(Path.from_text(str(path)), path)

    def test_incomplete(self) -> None:
        for text in INCOMPLETE:
            self.assertEqual(refused(grammar.mail, f"FROM:<{text}>", PARSERS), reply.SENDER_INCOMPLETE, text)
            self.assertEqual(
                refused(grammar.rcpt, f"TO:<{text}>", RCPT_PARSERS, smtputf8=False),
                reply.RECIPIENT_INCOMPLETE,
                text,
            )

    def test_malformed(self) -> None:
        for text in MALFORMED:
            verdict = refused(grammar.mail, f"FROM:<{text}>", PARSERS)
            self.assertIn(verdict, (reply.SENDER_SYNTAX, reply.MAIL_SYNTAX), text)
            verdict = refused(grammar.rcpt, f"TO:<{text}>", RCPT_PARSERS, smtputf8=True)
            self.assertIn(verdict, (reply.RECIPIENT_SYNTAX, reply.RCPT_SYNTAX), text)

    def test_null_reverse_path(self) -> None:
        self.assertEqual(grammar.mail("FROM:<>", PARSERS), (NULL_PATH, MailParameters()))
        self.assertEqual(refused(grammar.rcpt, "TO:<>", RCPT_PARSERS, smtputf8=False), reply.RECIPIENT_SYNTAX)

    def test_postmaster(self) -> None:
        for name in ("postmaster", "Postmaster", "POSTMASTER"):
            path, _ = grammar.rcpt(f"TO:<{name}>", RCPT_PARSERS, smtputf8=False)
            self.assertEqual(path, Path(name, ""))
            self.assertEqual(Path.from_text(str(path)), path)
            self.assertEqual(refused(grammar.mail, f"FROM:<{name}>", PARSERS), reply.SENDER_INCOMPLETE)

    def test_international(self) -> None:
        path, parameters = grammar.mail("FROM:<jörg@bücher.example> SMTPUTF8", PARSERS)
        self.assertEqual(path, Path("jörg", "bücher.example"))
        self.assertTrue(parameters.smtputf8)
        self.assertEqual(
            grammar.rcpt("TO:<用户@例子.广告>", RCPT_PARSERS, smtputf8=True)[0], Path("用户", "例子.广告")
        )
        self.assertEqual(
            grammar.rcpt('TO:<"é é"@a.nl>', RCPT_PARSERS, smtputf8=True)[0], Path('"é é"', "a.nl")
        )
        for text in ("jörg@example.nl", "a@bücher.example"):
            self.assertEqual(refused(grammar.mail, f"FROM:<{text}>", PARSERS), reply.NEEDS_SMTPUTF8)
            self.assertEqual(
                refused(grammar.rcpt, f"TO:<{text}>", RCPT_PARSERS, smtputf8=False), reply.NEEDS_SMTPUTF8
            )

    def test_length_is_in_octets(self) -> None:
        self.assertEqual(
            grammar.rcpt("TO:<" + "é" * 32 + "@a.nl>", RCPT_PARSERS, smtputf8=True)[0].local_part, "é" * 32
        )

    def test_around_the_path(self) -> None:
        for text in ("FROM:<a@b.nl>", "from:<a@b.nl>", "FROM: <a@b.nl>", "From:   <a@b.nl>"):
            self.assertEqual(grammar.mail(text, PARSERS)[0], Path("a", "b.nl"))
        for text in (
            "", "FROM", "FROM:", "FROM:a@b.nl", "FROM:<a@b.nl", "FROM:a@b.nl>", "FROM <a@b.nl>",
            "TO:<a@b.nl>", "<a@b.nl>",
            "FROM :<a@b.nl>", "FROM:<a@b.nl>SIZE=1", "FROM:<a@b.nl>>", "FROM:<<a@b.nl>>", 'FROM:<"a>',
        ):  # fmt: skip
            self.assertEqual(refused(grammar.mail, text, PARSERS), reply.MAIL_SYNTAX, text)
            rcpt = text.replace("TO:", "X:").replace("FROM", "TO")
            self.assertEqual(
                refused(grammar.rcpt, rcpt, RCPT_PARSERS, smtputf8=False), reply.RCPT_SYNTAX, rcpt
            )

    @settings(deadline=None, max_examples=200)
    @given(st.text(st.sampled_from('a.@"\\<>[]:,- é\u3000\u202e1_'), max_size=24))
    def test_what_passes_is_kept_and_reads_back(self, text: str) -> None:
        try:
            path, _ = grammar.rcpt(f"TO:<{text}>", RCPT_PARSERS, smtputf8=True)
        except Refused:
            return
        self.assertTrue(text.endswith(str(path)))  # all of it, or all behind a source route
        self.assertEqual(Path.from_text(str(path)), path)
        self.assertEqual(grammar.rcpt(f"TO:<{path}>", RCPT_PARSERS, smtputf8=True)[0], path)


class ParameterTests(SynchronousTestCase):
    def test_all_together(self) -> None:
        _, parameters = grammar.mail(
            "FROM:<a@b.nl>  size=10 BODY=8bitmime  SMTPUTF8 AUTH=x+2By@b.nl", PARSERS
        )
        self.assertEqual(parameters, MailParameters(10, True, True, "x+y@b.nl"))

    @proves("M8")
    def test_unknown(self) -> None:
        for text in ("NOTIFY=NEVER", "X", "SIZ=1", "smtputf9", "BY=1;R"):
            self.assertEqual(refused(grammar.mail, f"FROM:<> {text}", PARSERS), reply.UNKNOWN_PARAMETER)
        for text in ("RET=FULL", "SIZE=1", "NOTIF=NEVER", "X"):
            self.assertEqual(
                refused(grammar.rcpt, f"TO:<a@b.nl> {text}", RCPT_PARSERS, smtputf8=False),
                reply.UNKNOWN_PARAMETER,
            )

    @proves("D2")
    def test_notifications(self) -> None:
        _, asked = grammar.mail("FROM:<a@b.nl> RET=hdrs ENVID=Q+2B1 SIZE=1", PARSERS)
        self.assertEqual(asked, MailParameters(1, ret="HDRS", envid="Q+2B1"))
        for name in ("a@b.nl", "postmaster"):
            path, wanted = grammar.rcpt(
                f"TO:<{name}>  orcpt=rfc822;X+2BY@b.nl notify=failure,DELAY", RCPT_PARSERS, smtputf8=False
            )
            self.assertEqual(str(path), name)
            self.assertEqual(
                wanted, RcptParameters(frozenset({Notify.FAILURE, Notify.DELAY}), "rfc822;X+2BY@b.nl")
            )
        self.assertIs(grammar.rcpt("TO:<a@b.nl>", RCPT_PARSERS, smtputf8=False)[1], NO_PARAMETERS)
        self.assertIs(grammar.rcpt("TO:<a@b.nl> ", RCPT_PARSERS, smtputf8=False)[1], NO_PARAMETERS)

    @proves("D2", "M8")
    def test_notifications_refused(self) -> None:
        for text, expected in (
            ("NOTIFY=NEVER NOTIFY=NEVER", reply.DUPLICATE_PARAMETER),
            ("notify=SUCCESS NOTIFY=DELAY", reply.DUPLICATE_PARAMETER),
            ("NOTIFY", reply.PARAMETER_SYNTAX),
            ("NOTIFY=", reply.PARAMETER_SYNTAX),
            ("NOTIFY=NEVER,DELAY", reply.PARAMETER_SYNTAX),
            ("ORCPT=rfc822;a+0Ab", reply.PARAMETER_SYNTAX),
            ("ORCPT=rfc822;a=b", reply.PARAMETER_SYNTAX),
            ("ORCPT=rfc822;\xe9", reply.PARAMETER_SYNTAX),
            ("ORCPT=utf-8;\xe9@b.nl", reply.NEEDS_SMTPUTF8),
            ("BY=1;R", reply.UNKNOWN_PARAMETER),
        ):
            verdict = refused(grammar.rcpt, f"TO:<a@b.nl> {text}", RCPT_PARSERS, smtputf8=False)
            self.assertEqual(verdict, expected, text)
        _, wanted = grammar.rcpt("TO:<a@b.nl> ORCPT=utf-8;\xe9@b.nl", RCPT_PARSERS, smtputf8=True)
        self.assertEqual(wanted.orcpt, "utf-8;\xe9@b.nl")
        for text in ("RET=ALL", "RET", "ENVID=", "ENVID=+00", "ENVID=" + "x" * 101):
            self.assertEqual(refused(grammar.mail, f"FROM:<> {text}", PARSERS), reply.PARAMETER_SYNTAX, text)

    @settings(deadline=None)
    @given(
        st.none()
        | st.just(frozenset({Notify.NEVER}))
        | st.frozensets(st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), min_size=1),
        st.none() | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=150),
    )
    def test_what_is_asked_reads_back(self, notify: frozenset[Notify] | None, address: str | None) -> None:
        parameters = RcptParameters(notify, None if address is None else f"rfc822;{xtext.encode(address)}")
        text = "TO:<a@b.nl>"
        if parameters.notify:
            text += " NOTIFY=" + ",".join(parameters.notify)
        if parameters.orcpt:
            text += f" ORCPT={parameters.orcpt}"
        _, read = grammar.rcpt(text, RCPT_PARSERS, smtputf8=False)
        self.assertEqual(read, parameters)

    def test_malformed(self) -> None:
        for text in (
            "SIZE", "SIZE=", "SIZE=-1", "SIZE=1k", "SIZE=\u0661", "SIZE=" + "9" * 21, "SIZE=1=1", "=1",
            "-X=1",
            "BODY", "BODY=", "BODY=BINARYMIME", "BODY=8B\u0131TMIME", "SMTPUTF8=1", "SMTPUTF8=",
            "AUTH", "AUTH=", "AUTH=a+2", "AUTH=a+0Ab", "AUTH=a+zz", "SIZE=1\u3000BODY=7BIT", "SIZE=1\u00a0",
            "S\u0131ZE=1",
        ):  # fmt: skip
            self.assertEqual(refused(grammar.mail, f"FROM:<> {text}", PARSERS), reply.PARAMETER_SYNTAX, text)

    def test_twice(self) -> None:
        self.assertEqual(refused(grammar.mail, "FROM:<> SIZE=1 size=2", PARSERS), reply.DUPLICATE_PARAMETER)


class CommandTests(SynchronousTestCase):
    def test_verbs(self) -> None:
        self.assertEqual(grammar.command(b"noop"), (Verb.NOOP, ""))
        self.assertEqual(grammar.command(b"MaIl  FROM:<a>  "), (Verb.MAIL, "FROM:<a>"))
        for line in (
            b"",
            b" NOOP",
            b"NOOPX",
            b"N",
            b"EXPN a",
            b"SASL response",
            b"end of data",
            b"HANDSHAKE",
        ):
            self.assertIsNone(grammar.command(line)[0], line)

    def test_verbs_that_unicode_folds_to_ascii(self) -> None:
        """In the upper case of text, a dotless i is I, and a long s is S; a filter before us may not know."""
        for line in ("ma\u0131l FROM:<a@b.nl>", "r\u017fet", "\u017ftarttls", "\ufb06arttls", "RS\u00c9T"):
            self.assertIsNone(grammar.command(line.encode())[0], line)
        self.assertEqual(refused(grammar.chunk, "5 LA\u017fT"), reply.BDAT_SYNTAX)

    @proves("M1")
    def test_control_characters_and_other_encodings(self) -> None:
        for octet in (*range(0x20), 0x7F):
            line = b"MAIL FROM:<a" + bytes([octet]) + b"@b.nl>"
            self.assertEqual(refused(grammar.command, line), reply.NOT_A_COMMAND)
        for text in ("\x80", "\x85", "\x9f", "\u2028", "\u2029"):
            self.assertEqual(refused(grammar.command, f"NOOP {text}".encode()), reply.NOT_A_COMMAND)
        for line in (b"\xff", b"NOOP \xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"):
            self.assertEqual(refused(grammar.command, line), reply.NOT_A_COMMAND)

    def test_hostnames(self) -> None:
        for text in ("a", "a.nl", "[192.0.2.1]", "a_b", "-", "(x)", "é"):
            self.assertEqual(grammar.hostname(text), text)
        for text in ("", "a b", "a" * 256):
            self.assertEqual(refused(grammar.hostname, text), reply.EHLO_SYNTAX)

    @proves("M2")
    def test_hostnames_for_the_trace(self) -> None:
        for text in ("a", "a.nl", "a_b.nl", "[192.0.2.1]", "[IPv6:::1]"):
            self.assertTrue(grammar.is_hostname(text), text)
        for text in ("", "a(b", "[a)b]", "[1.2.3.400]", "a.nl\n", "é.nl", "-", "a..b", "a;b", "<a>"):
            self.assertFalse(grammar.is_hostname(text), text)

    def test_chunks(self) -> None:
        self.assertEqual(grammar.chunk("0"), (0, False))
        self.assertEqual(grammar.chunk("007 last"), (7, True))
        for text in ("", "LAST", "-1", "1.5", "0x1", "1 LAST x", "1LAST", "\u0661", "1" * 21, "+1"):
            self.assertEqual(refused(grammar.chunk, text), reply.BDAT_SYNTAX, text)


@proves("A2", "A6")
class AuthTests(SynchronousTestCase):
    def test_good(self) -> None:
        self.assertEqual(grammar.auth("plain"), ("PLAIN", None))
        self.assertEqual(grammar.auth("DIGEST-MD5"), ("DIGEST-MD5", None))
        self.assertEqual(grammar.auth("PLAIN ="), ("PLAIN", b""))
        self.assertEqual(grammar.auth("PLAIN AGEAYg=="), ("PLAIN", b"\0a\0b"))

    def test_bad(self) -> None:
        for text in ("", "PL AIN x", "PLAIN  AGEAYg==", "PLAIN AGEA Yg==", "M" * 21, "é", "PLA(N"):
            self.assertEqual(refused(grammar.auth, text), reply.AUTH_SYNTAX, text)

    def test_base64_is_strict(self) -> None:
        self.assertEqual(grammar.base64(b""), b"")
        for octets in (
            b"=", b"==", b"====", b"a", b"ab", b"abc", b"ab=", b"abcd=", b"abcd====", b"abc=d", b"ab==cd==",
            b"YR==", b"YWI=YWI=", b"YW Jj", b"YWJj\t", b"YWJ*", b"*", b"-_-_", b"\xff\xff\xff\xff", b"YQ==\r",
        ):  # fmt: skip
            self.assertEqual(refused(grammar.base64, octets), reply.NOT_BASE64, octets)

    @settings(deadline=None, max_examples=200)
    @given(st.text("AQgYz+/=", max_size=12).map(str.encode))
    def test_one_way_to_write_each(self, octets: bytes) -> None:
        try:
            decoded = grammar.base64(octets)
        except Refused:
            return
        self.assertEqual(reply.challenge(decoded).octets, b"334 " + octets + b"\r\n")


@proves("M9")
class BacktrackingTests(SynchronousTestCase):
    """No line of 12 KiB keeps a pattern busy: the time grows no faster than the line.

    A pattern that backtracks without bound would need hours; the clock is only a guard against a hang.
    """

    SEEDS = (
        "a", "a.", "-", "a-", "_", '"', '""', '"a"', '\\"', '"\\', "\\", "@a,", "@a:", "@a.b,", "<", ">", "[",
        "1.",        " ", " a=", "=", "a@", "+2B", "é", "é.", "a.-",
        "\\x{", "\\x{41}", "\\x{1F600}", "SUCCESS,", ",", ";",
    )  # fmt: skip

    def test_twelve_kibibytes(self) -> None:
        began = time.process_time()
        for seed in self.SEEDS:
            long = (seed * 12_288)[:12_000]
            for text in (
                f"FROM:<{long}", f"FROM:<{long}>", f"FROM:<{long}!>x", f'FROM:<"{long}',
                f"FROM:<{long}@b.nl> {long}", f"FROM:<a@{long}!>", f"FROM:<@{long}>",
                f"FROM:<@a:{long}!>", f"FROM:{' ' * 6000}{long}",
                f"FROM:<> AUTH={long}!\x7f", f"FROM:<> {long}", f"FROM:<> ENVID={long}",
                f"FROM:<a@b.nl> ORCPT=utf-8;{long}", f"FROM:<a@b.nl> ORCPT=rfc822;{long}+",
                f"FROM:<a@b.nl> NOTIFY={long}", f"FROM:<a@b.nl> ORCPT={long}",
            ):  # fmt: skip
                attempt(grammar.mail, text, PARSERS)
                attempt(grammar.rcpt, text.replace("FROM", "TO", 1), RCPT_PARSERS, smtputf8=True)
            for text in (long, long + "!", f"PLAIN {long}", f"1 {long}", f"1{' ' * 6000}{long}"):
                grammar.is_hostname(text)
                attempt(grammar.command, text.encode())
                for call in (grammar.auth, grammar.chunk, grammar.hostname):
                    attempt(call, text)
        self.assertLess(time.process_time() - began, 15)
