"""What EHLO shows, and the parameters of each extension."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import extensions
from tests.requirements import proves

OURS = ["ENHANCEDSTATUSCODES", "SMTPUTF8", "CHUNKING"]  # not in the seed, so behind it


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
        self.assertEqual(set(self.parsers), {"SIZE", "BODY", "SMTPUTF8", "AUTH"})

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
