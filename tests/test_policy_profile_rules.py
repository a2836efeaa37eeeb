"""Each rule of a profile: what it lets pass, what it refuses, and how it names that."""

import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.profile import Attachments, Bounds, Pattern, Profile, Types
from digipoort_msa.policy.profile.rules import Reading
from digipoort_msa.policy.profile.violation import Violation
from tests.requirements import proves
from tests.test_policy_profile_scanner import multipart

XML = b"Content-Type: application/xml; name=a.xml\r\n\r\n<a/>"


class RuleTests(SynchronousTestCase):
    def verdict(self, message: bytes, **rules: Any) -> str:
        """Rule and place of the first violation, or "passed"."""
        reading = Reading(Profile(name="test", **rules))
        try:
            reading.take(message)
            reading.finish()
        except Violation as violation:
            return f"{violation.rule} ({violation.where})"
        return "passed"

    def of_attachments(self, *parts: bytes, **rules: Any) -> str:
        return self.verdict(multipart(*parts), attachments=Attachments(**rules))

    def test_a_profile_without_rules(self) -> None:
        for message in (b"", b"\r\n", b"Subject: x\r\n\r\nx\r\n", multipart(b"\r\nx", XML)):
            self.assertEqual(self.verdict(message), "passed")

    @proves("M10")
    def test_required_headers(self) -> None:
        for header, expected in (
            (b"X-Flow: 1\r\n", "passed"),
            (b"x-FLOW:\r\n", "passed"),
            (b"X-Flow-2: 1\r\n", "required-header (X-Flow)"),
            (b"A: x\r\n X-Flow: 1\r\n", "required-header (X-Flow)"),
            (b"", "required-header (X-Flow)"),
        ):
            for body in (b"\r\n", b"\r\nX-Flow: 1\r\n"):
                self.assertEqual(self.verdict(header + body, required_headers=("X-Flow",)), expected)
        in_a_part = multipart(b"X-Flow: 1\r\n\r\n")
        self.assertEqual(self.verdict(in_a_part, required_headers=("X-Flow",)), "required-header (X-Flow)")

    @proves("M10")
    def test_forbidden_and_single_headers(self) -> None:
        self.assertEqual(
            self.verdict(b"bcc: a@b.nl\r\n\r\n", forbidden_headers=("Bcc",)), "forbidden-header (Bcc)"
        )
        twice = b"Subject: a\r\nX: 1\r\nsubject: b\r\nX: 2\r\n\r\n"
        self.assertEqual(self.verdict(twice), "single-header (Subject)")
        self.assertEqual(self.verdict(twice, single_headers=("X",)), "single-header (X)")
        self.assertEqual(self.verdict(twice, single_headers=()), "passed")

    @proves("M10")
    def test_header_patterns(self) -> None:
        subject = r"^\[V=NL\d{9}\.\d{2}\.\d{2}\]\[A=DMS\.NL\]\[K=\d{14}\]\[S=[01]\]$"
        right = b"[V=NL123456789.02.05][A=DMS.NL][K=22096222734662][S=0]"
        for text, passes in (
            (right, True),
            (b" \r\n " + right + b" ", True),
            (right.replace(b"][A", b"]\r\n [A"), False),
            (right + b"x", False),
            (right.replace(b"S=0", b"S=2"), False),
            (b"", False),
            (b"=?us-ascii?Q?" + right.replace(b"=", b"=3D") + b"?=", False),
            (right + b"\xc3\xa9", False),
        ):
            message = b"Subject:" + text + b"\r\n\r\n"
            expected = "passed" if passes else "header-pattern (Subject)"
            self.assertEqual(self.verdict(message, header_patterns={"Subject": subject}), expected, text)
        patterns = {"X-Flow": "^[0-9]+$"}
        for header, expected in (
            (b"X-Flow: 1\r\nx-flow: 2\r\n", "passed"),
            (b"X-Flow: 1\r\nx-flow: b\r\n", "header-pattern (X-Flow)"),
            (b"A: x\r\n", "passed"),
        ):
            self.assertEqual(self.verdict(header + b"\r\n", header_patterns=patterns), expected)

    @proves("M10")
    def test_decoded_header_patterns(self) -> None:
        for text, expected in (
            (b"caf\xc3\xa9", "passed"),
            (b"=?utf-8?Q?caf=C3=A9?=", "passed"),
            (b"=?iso-8859-1?B?Y2Fm?= \r\n =?ISO-8859-1*fr?q?=e9?=", "passed"),
            (b"cafe", "header-pattern (Subject)"),
            (b"=?utf-8?Q?caf=C3?=", "well-formed (Subject)"),
            (b"=?utf-7?Q?caf?=", "well-formed (Subject)"),
            (b"=?utf-8?B?Y?=", "well-formed (Subject)"),
        ):
            message = b"Subject: " + text + b"\r\n\r\n"
            self.assertEqual(
                self.verdict(message, decoded_header_patterns={"Subject": "^café$"}), expected, text
            )

    @proves("M10")
    def test_structure(self) -> None:
        mixed = multipart(b"\r\nx", multipart(b"\r\ny", boundary=b"i").replace(b"mixed", b"related"))
        for rules, expected in (
            ({"content_types": Types(["multipart/mixed"])}, "passed"),
            ({"content_types": Types(["multipart/*"])}, "passed"),
            ({"content_types": Types(["Text/*", "MULTIPART/MIXED"])}, "passed"),
            ({"content_types": Types(["text/plain"])}, "content-type (the message)"),
            ({"multipart_types": Types(["multipart/mixed", "multipart/related"])}, "passed"),
            ({"multipart_types": Types(["multipart/mixed"])}, "multipart-type (part 2)"),
            ({"bounds": Bounds(depth=1)}, "nesting (part 2)"),
            ({"bounds": Bounds(parts=2)}, "parts (the message)"),
            ({"bounds": Bounds(header_size=20)}, "header-size (the message)"),
            ({"bounds": Bounds(header_fields=1, depth=9)}, "passed"),
        ):
            self.assertEqual(self.verdict(mixed, **rules), expected, rules)

    @proves("M10")
    def test_character_sets(self) -> None:
        plain, rules = b"Content-Type: text/plain", {"charsets": ("UTF-8", "us-ascii")}
        eight_bit = b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa9\r\n"
        for message, expected in (
            (b"\r\nx\r\n", "passed"),
            (plain + b"; charset=Utf-8\r\n\r\n", "passed"),
            (plain + b"; charset=iso-8859-1\r\n\r\n", "charset (the message)"),
            (plain + b"; charset=utf-8" + eight_bit, "passed"),
            (plain + eight_bit, "charset (the message)"),
            (plain + b"; charset=us-ascii" + eight_bit, "charset (the message)"),
            (b"Subject: =?iso-8859-1?Q?a?=\r\n\r\n", "charset (the message)"),
            (b"Subject: =?utf-8?Q?a?=\r\n\r\n", "passed"),
            (multipart(XML + b"\r\n"), "passed"),
            (
                multipart(XML.replace(b"xml;", b"xml; charset=iso-8859-15;")),
                "charset (attachment 1)",
            ),
            (multipart(XML.replace(b"name=", b"name*=iso-8859-1''")), "charset (attachment 1)"),
        ):
            self.assertEqual(self.verdict(message, **rules), expected, message)
        self.assertEqual(self.verdict(plain + eight_bit), "passed")
        self.assertEqual(self.verdict(b"\r\n", charsets=("utf-8",)), "charset (the message)")

    @proves("M10")
    def test_encodings(self) -> None:
        message = multipart(XML, b"Content-Transfer-Encoding: 8bit\r\n\r\nx")
        self.assertEqual(self.verdict(message, encodings=("7bit", "base64")), "encoding (part 2)")
        self.assertEqual(self.verdict(message, encodings=("7bit", "8bit")), "passed")

    @proves("M10")
    def test_what_an_attachment_is(self) -> None:
        plain = b"Content-Type: text/plain"
        disposition = b"\r\nContent-Disposition: "
        for part, is_attachment in (
            (b"\r\nx", False),
            (plain + b"\r\n\r\n", False),
            (b"Content-Type: text/html" + disposition + b"inline\r\n\r\n", False),
            (plain + b"; name=a.txt\r\n\r\n", True),
            (plain + disposition + b"inline; filename=a.txt\r\n\r\n", True),
            (plain + disposition + b"attachment\r\n\r\n", True),
            (plain + disposition + b"x-unknown\r\n\r\n", True),
            (b"Content-Type: text/xml\r\n\r\n", True),
            (b"Content-Type: application/xml\r\n\r\n", True),
            (b"Content-Type: message/rfc822\r\n\r\n", True),
        ):
            expected = "attachment-count (the message)" if is_attachment else "passed"
            self.assertEqual(self.of_attachments(part, maximum=0), expected, part)
        self.assertEqual(self.verdict(multipart(b"\r\n"), attachments=Attachments(minimum=1)), expected)
        whole = b"Content-Type: application/xml\r\n\r\n<a/>\r\n"
        self.assertEqual(self.verdict(whole, attachments=Attachments(minimum=1, maximum=1)), "passed")
        everything = {"text_types": Types([]), "attachments": Attachments(minimum=1)}
        self.assertEqual(self.verdict(b"\r\n", **everything), "passed")

    @proves("M10")
    def test_attachments(self) -> None:
        pdf = XML.replace(b"xml", b"pdf")
        encoded = b"Content-Transfer-Encoding: base64\r\n" + XML.replace(b"<a/>", b"PGEvPg==")
        for parts, rules, expected in (
            ((b"\r\n", XML), {"minimum": 1, "maximum": 1}, "passed"),
            ((b"\r\n",), {"minimum": 1}, "attachment-count (the message)"),
            ((XML, XML), {"maximum": 1}, "attachment-count (the message)"),
            ((b"\r\n", XML, pdf), {"types": Types(["application/xml"])}, "attachment-type (attachment 2)"),
            ((XML, pdf), {"types": Types(["application/*"])}, "passed"),
            ((XML, pdf), {"names": Pattern(r"\.xml$")}, "attachment-name (attachment 2)"),
            ((XML.replace(b"; name=a.xml", b""),), {"names": Pattern("")}, "attachment-name (attachment 1)"),
            (
                (b"Content-Disposition: attachment; filename*=utf-8''a.exe\r\n" + XML,),
                {"names": Pattern(r"\.xml$")},
                "attachment-name (attachment 1)",
            ),
            ((XML, encoded), {"maximum_size": 4, "maximum_total": 8}, "passed"),
            ((XML, encoded), {"maximum_size": 3}, "attachment-size (attachment 1)"),
            ((b"\r\n12345", encoded), {"maximum_size": 3}, "attachment-size (attachment 1)"),
            ((XML, encoded), {"maximum_total": 7}, "attachment-total (attachment 2)"),
        ):
            self.assertEqual(self.of_attachments(*parts, **rules), expected, (parts, rules))

    @proves("M10")
    def test_the_first_violation_is_told_wherever_the_message_is_cut(self) -> None:
        message = multipart(XML, b"no header", header=b"Subject: x\r\n")
        profile = Profile(name="test", attachments=Attachments(maximum_size=3, maximum=0))
        for cut in range(len(message)):
            reading = Reading(profile)
            with self.assertRaises(Violation) as caught:
                reading.take(message[:cut])
                reading.take(message[cut:])
            self.assertEqual(caught.exception.rule, "attachment-count")


class PatternTests(SynchronousTestCase):
    def test_no_patterns(self) -> None:
        for text in ("(", r"(a)\1", "(?=a)", "a{2000}", "\ud800"):
            self.assertRaises(ValueError, Pattern, text)

    @proves("M10")
    def test_patterns_made_to_be_slow(self) -> None:
        """Python's own engine would not come to an end with some of these."""
        start = time.process_time()
        for text in ("(a+)+$", "(a|a)*$", "(a*)*(a*)*$", "a*a*a*a*a*a*a*$", "(.*)*=(.*)*="):
            self.assertFalse(Pattern(f"^{text}").found_in("a" * 65_000 + "!"))
        self.assertLess(time.process_time() - start, 2)
