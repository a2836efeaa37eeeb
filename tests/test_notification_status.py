"""The part for machines (RFC 3464 2, RFC 3463, RFC 6533)."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.notification.status import delivery_status, status
from digipoort_msa.smtp.envelope import Action, Fate, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from tests.notifying import HOSTNAME, LATER, REFUSED, fate, news
from tests.requirements import proves


def fields(*fates: Fate, **more: object) -> list[dict[str, str]]:
    octets = delivery_status(news(*fates, **more), HOSTNAME, 500_000)
    blocks = octets.decode().removesuffix("\r\n").replace("\r\n ", " ").split("\r\n\r\n")
    return [dict(line.split(": ", 1) for line in block.split("\r\n")) for block in blocks]  # type: ignore[misc]


@proves("D3")
class FieldTests(SynchronousTestCase):
    def test_of_the_message(self) -> None:
        about_message, _ = fields(envid="QQ+2B+20314159")
        self.assertEqual(
            about_message,
            {
                "Reporting-MTA": "dns; msa.example.nl",
                "Original-Envelope-Id": "QQ+ 314159",
                "X-Digipoort-Queue-ID": "0ORIGINAL",
                "Arrival-Date": "Tue, 14 Nov 2023 22:13:20 +0000",
            },
        )
        self.assertNotIn("Original-Envelope-Id", fields()[0])
        self.assertEqual(fields(envid="a+20+20b")[0]["Original-Envelope-Id"], "a  b")
        for envid in ("a+0D+0AX:y", "a+FF", "a+", "a+2b"):  # stands as it is
            self.assertEqual(fields(envid=envid)[0]["Original-Envelope-Id"], envid)

    def test_of_a_failed_recipient(self) -> None:
        parameters = {Path("one", "core.example"): RcptParameters(orcpt="rfc822;o+2Bne@example.nl")}
        _, about_recipient = fields(fate(), recipient_parameters=parameters)
        self.assertEqual(
            about_recipient,
            {
                "Original-Recipient": "rfc822; o+ne@example.nl",
                "Final-Recipient": "rfc822; one@core.example",
                "Action": "failed",
                "Status": "5.1.1",
                "Remote-MTA": "dns; core.example",
                "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
                "Last-Attempt-Date": "Tue, 14 Nov 2023 23:13:20 +0000",
            },
        )

    def test_of_a_delayed_recipient(self) -> None:
        _, about_recipient = fields(fate(action=Action.DELAYED, reply=LATER))
        self.assertEqual(about_recipient["Status"], "4.4.1")
        self.assertEqual(about_recipient["Will-Retry-Until"], "Fri, 17 Nov 2023 22:13:20 +0000")

    def test_where_no_hop_has_spoken(self) -> None:
        """The words are ours, nothing was attempted, and there is no other MTA."""
        _, about_recipient = fields(fate(hop=None, reply=Reply(554, "5.7.0", ("returned",))))
        self.assertEqual(about_recipient["Diagnostic-Code"], "X-Digipoort-MSA; 554 5.7.0 returned")
        self.assertNotIn("Remote-MTA", about_recipient)
        self.assertNotIn("Last-Attempt-Date", about_recipient)

    def test_hops(self) -> None:
        for hop, name in (
            ("core.example:25", "dns; core.example"),
            ("192.0.2.1:25", "dns; [192.0.2.1]"),
            ("[2001:db8::1]:25", "dns; [IPv6:2001:db8::1]"),
            ("/var/mail/new", None),
            ("here", None),
            ("a b:25", None),
            ("a:25\r\nX: y", None),
            ("", None),
        ):
            self.assertEqual(fields(fate(hop=hop))[1].get("Remote-MTA"), name, hop)

    def test_many_lines(self) -> None:
        """Of a long reply the beginning is told, folded."""
        octets = delivery_status(news(fate(reply=Reply(550, None, ("word " * 300,) * 128))), HOSTNAME, 10**6)
        self.assertLess(len(octets), 2000)
        self.assertLessEqual(max(map(len, octets.split(b"\r\n"))), 78)
        octets = delivery_status(news(fate(reply=Reply(550, None, ("x" * 2000,)))), HOSTNAME, 10**6)
        self.assertLess(max(map(len, octets.split(b"\r\n"))), 998)

    def test_replies_outside_ascii(self) -> None:
        _, about_recipient = fields(fate(reply=Reply(550, None, ("caf\u00e9 \u202e\u20ac \x85",))))
        self.assertEqual(about_recipient["Diagnostic-Code"], "smtp; 550 caf\\xe9 \\u202e\\u20ac \\x85")

    def test_addresses(self) -> None:
        for path, in_ascii, in_utf8 in (
            (Path("postmaster", ""), "rfc822; postmaster", None),
            (Path('"a  b"', "x.nl"), 'rfc822; "a  b"@x.nl', None),
            (Path("\u00e9+\\", "x.nl"), "utf-8; \\x{E9}\\x{2B}\\x{5C}@x.nl", "utf-8; \u00e9+\\@x.nl"),
            (Path("\U0001f600", "x.nl"), "utf-8; \\x{1F600}@x.nl", "utf-8; \U0001f600@x.nl"),
            (Path("\u202e", "x.nl"), "utf-8; \\x{202E}@x.nl", None),  # never shown: it turns what follows
        ):
            told = Fate(path, Action.FAILED, REFUSED)
            self.assertEqual(fields(told)[1]["Final-Recipient"], in_ascii)
            self.assertEqual(fields(told, sender="\u00e9@x.nl")[1]["Final-Recipient"], in_utf8 or in_ascii)

    def test_original_recipients(self) -> None:
        for orcpt, in_ascii, in_utf8 in (
            ("RFC822;a@b.nl", "rfc822; a@b.nl", None),
            ("utf-8;\\x{E9}@b.nl", "utf-8; \\x{E9}@b.nl", "utf-8; \u00e9@b.nl"),
            ("utf-8;\u00e9@b.nl", "utf-8; \\x{E9}@b.nl", "utf-8; \u00e9@b.nl"),
            ("rfc822;a+0D+0AX:y", None, None),
            ("x400;a@b.nl", None, None),
            ("nothing", None, None),
            ("rfc822;", None, None),
        ):
            parameters = {Path("one", "core.example"): RcptParameters(orcpt=orcpt)}
            told = fields(fate(), recipient_parameters=parameters)[1].get("Original-Recipient")
            self.assertEqual(told, in_ascii)
            told = fields(fate(), recipient_parameters=parameters, sender="\u00e9@b.nl")[1]
            self.assertEqual(told.get("Original-Recipient"), in_utf8 or in_ascii)

    def test_statuses(self) -> None:
        for action, code, enhanced, expected in (
            (Action.FAILED, 550, "5.1.1", "5.1.1"),
            (Action.FAILED, 550, None, "5.0.0"),
            (Action.FAILED, 550, "4.1.1", "5.0.0"),  # it contradicts itself
            (Action.FAILED, 550, "5.1.1 (x)", "5.0.0"),
            (Action.FAILED, 451, "4.4.1", "4.4.1"),  # given up: RFC 3463 3.5 wants the actual problem
            (Action.FAILED, 451, None, "4.4.7"),
            (Action.FAILED, 250, "2.0.0", "5.0.0"),
            (Action.DELAYED, 451, "4.4.1", "4.4.1"),
            (Action.DELAYED, 451, None, "4.0.0"),
            (Action.DELAYED, 550, "5.1.1", "4.0.0"),
            (Action.DELIVERED, 250, "2.1.5", "2.1.5"),
            (Action.DELIVERED, 250, None, "2.0.0"),
            (Action.RELAYED, 250, "2.6.0", "2.6.0"),
        ):
            told = fate(action=action, reply=Reply(code, enhanced, ("x",)))
            self.assertEqual(status(told), expected, (action, code, enhanced))
