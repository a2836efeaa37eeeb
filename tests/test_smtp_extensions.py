"""What EHLO shows, and the parameters of each extension."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import extensions
from digipoort_msa.smtp.envelope import Notify
from tests.requirements import proves

OURS = ["ENHANCEDSTATUSCODES", "SMTPUTF8", "CHUNKING", "DSN"]  # not in the seed, so behind it


def keywords(*, in_clear: bool, mechanisms: tuple[str, ...]) -> list[str]:
    return [one.keyword for one in extensions.offered(52_428_800, mechanisms, in_clear=in_clear)]


class OfferedTests(SynchronousTestCase):
    @proves("T2", "T7")
    def test_in_clear(self) -> None:
        self.assertEqual(
            keywords(in_clear=True, mechanisms=("DIGEST-MD5",)),
            ["PIPELINING", "SIZE 52428800", "STARTTLS", "8BITMIME", "AUTH DIGEST-MD5", *OURS],
        )

    @proves("T3")
    def test_under_tls(self) -> None:
        shown = keywords(in_clear=False, mechanisms=("DIGEST-MD5", "PLAIN", "LOGIN"))
        self.assertNotIn("STARTTLS", shown)
        self.assertIn("AUTH DIGEST-MD5 PLAIN LOGIN", shown)

    def test_no_mechanism_no_auth(self) -> None:
        offered = extensions.offered(1, (), in_clear=False)
        self.assertFalse([one for one in offered if one.keyword.startswith("AUTH")])
        self.assertNotIn("AUTH", extensions.mail_parameters(offered))


class ParameterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.parsers = extensions.mail_parameters(extensions.offered(1, ("PLAIN",), in_clear=False))

    def test_names(self) -> None:
        self.assertEqual(set(self.parsers), {"SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID"})

    @proves("M3", "M4")
    def test_values(self) -> None:
        for name, value, fields in (
            ("SIZE", "0", {"size": 0}),
            ("SIZE", "9" * 20, {"size": 10**20 - 1}),
            ("BODY", "7bit", {"body_8bitmime": False}),
            ("BODY", "8BITMIME", {"body_8bitmime": True}),
            ("SMTPUTF8", None, {"smtputf8": True}),
        ):
            self.assertEqual(self.parsers[name](value), fields)

    @proves("A6")
    def test_auth(self) -> None:
        """RFC 4954 5: xtext (RFC 3461 4), or nobody."""
        for value, decoded in (
            ("<>", ""),
            ("a@b.nl", "a@b.nl"),
            ("e+3Dmc2@example.com", "e=mc2@example.com"),
            ("+2B", "+"),
        ):
            self.assertEqual(self.parsers["AUTH"](value), {"auth": decoded})
        for bad in (None, "", "+", "+2b", "+2", "a=b", "é", "+0D+0A", "+00", "+7F", "+85"):
            self.assertRaises(ValueError, self.parsers["AUTH"], bad)


@proves("D2", "M8")
class DSNTests(SynchronousTestCase):
    """RFC 3461 4, RFC 6533 3."""

    def setUp(self) -> None:
        offered = extensions.offered(1, ("PLAIN",), in_clear=False)
        self.mail = extensions.mail_parameters(offered)
        self.rcpt = extensions.rcpt_parameters(offered)

    def bad(self, parser: extensions.ParameterParser, *values: str | None) -> None:
        for value in (None, "", *values):
            self.assertRaises(ValueError, parser, value)

    def test_names(self) -> None:
        self.assertEqual(set(self.rcpt), {"NOTIFY", "ORCPT"})

    def test_ret(self) -> None:
        for value in ("FULL", "full", "HDRS", "hdrs"):
            self.assertEqual(self.mail["RET"](value), {"ret": value.upper()})
        self.bad(self.mail["RET"], "HDR", "FULL,HDRS", "hdr\u017f", "NONE")

    def test_envid(self) -> None:
        for value in ("QQ314159", "a+2Bb", "+20", "<x@y>", "e" * 100):
            self.assertEqual(self.mail["ENVID"](value), {"envid": value})
        self.bad(self.mail["ENVID"], "e" * 101, "+0D+0A", "+00", "+2b", "\xe9", "+E9", "a=b", "a b", "\ud800")

    def test_notify(self) -> None:
        for value, wanted in (
            ("NEVER", {Notify.NEVER}),
            ("never", {Notify.NEVER}),
            ("SUCCESS", {Notify.SUCCESS}),
            ("Success,FAILURE,delay", {Notify.SUCCESS, Notify.FAILURE, Notify.DELAY}),
            ("DELAY,FAILURE", {Notify.FAILURE, Notify.DELAY}),
        ):
            self.assertEqual(self.rcpt["NOTIFY"](value), {"notify": frozenset(wanted)})
        self.bad(
            self.rcpt["NOTIFY"],
            *("NEVER,NEVER", "NEVER,SUCCESS", "DELAY,NEVER", "SUCCESS,success", "SUCCESS,,DELAY", ",SUCCESS"),
            *(
                "SUCCESS,",
                "ALWAYS",
                "SUCCESS;DELAY",
                "\u017fUCCESS",
                "NEVER\x00",
                "\ud800",
                "SUCCESS," * 3000,
            ),
        )

    def test_orcpt(self) -> None:
        for value in (
            "rfc822;a+2Bb@C.nl",
            "RFC822;a@b.nl",
            "utf-8;j\\x{F6}rg@b.nl",
            "utf-8;j\xf6rg@b.nl",
            "rfc822;" + "x" * 493,
            "utf-8;" + "\xe9" * 82,
        ):
            self.assertEqual(self.rcpt["ORCPT"](value), {"orcpt": value})
        self.bad(
            self.rcpt["ORCPT"],
            *(
                "a@b.nl",
                "rfc822;",
                ";a@b.nl",
                "x400;a",
                "rfc822;+0A",
                "rfc822;+00",
                "rfc822;a+2b",
                "rfc822;\xe9",
            ),
            *("rfc822;" + "x" * 494, "utf-8;" + "\xe9" * 83, "utf-8;\ud800", "utf-8;\\x{0A}", "x" * 12_000),
        )
