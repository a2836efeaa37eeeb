"""What an enemy may try with addresses, replies, parameters and headers (CVE-2020-8794)."""

import re

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.notification.original import Original
from digipoort_msa.notification.report import LARGEST, Author, report
from digipoort_msa.smtp.envelope import CONTROL, Action, Envelope, Fate, MailParameters, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from tests.notifying import (
    HEADER_FIELDS,
    HOP,
    HOSTNAME,
    RECEIVED,
    TEXTS,
    groups,
    news,
    parts,
    read,
    written,
)

NASTY = st.sampled_from(
    [
        "\r\n",
        "\n",
        "\r",
        "\0",
        "\u2028",
        "\x85",
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "=?utf-8?q?=0D=0ABcc:_x@y?=",
        "=?x?b?!?=",
        "=?undefined?q?a?=",
        "=?\u20ac?q?a?=",
        "=?utf-16?b?/////w==?=",
        "\r\nBcc: victim@example.com\r\n",
        "\r\n\r\n--=_0NOTICE.0\r\n",
        "--=_0NOTICE.0--",
        "$subject ${x} $",
        "%s {0}",
        "x" * 1200,
        "\u20ac" * 400,
        ".\r\n",
        "Content-Type: text/html\r\n\r\n<script>",
        '"a b"@c',
        "<>",
    ]
)
TEXT = st.lists(NASTY | st.text(max_size=12), max_size=5).map("".join)
LINES = TEXT.map(lambda text: re.sub(r"[\x00-\x1f\x7f]", "", text))  # a reply holds no control
ADDRESSES = st.builds(
    Path,
    *[TEXT.map(lambda text: CONTROL.sub("", text))] * 2,  # nor does a path
)
WORDS = TEXT.map(lambda text: CONTROL.sub("", text).replace(" ", "") or "x")  # nor does a parameter
PARAMETERS = st.builds(
    RcptParameters, st.none(), st.none() | WORDS | WORDS.map("rfc822;".__add__) | WORDS.map("utf-8;".__add__)
)
REPLIES = st.builds(
    Reply,
    st.integers(200, 599),
    st.none() | st.sampled_from(["5.1.1", "4.4.1", "2.0.0", "5.6.3", "5.1.1 x", "\r\nX: y"]),
    st.lists(LINES, min_size=1, max_size=130).map(tuple),
)
HOPS = st.none() | st.sampled_from([HOP, "[2001:db8::1]:25", "192.0.2.1:25", "/var/mail/new"]) | TEXT
FATES = st.builds(Fate, ADDRESSES, st.sampled_from(Action), REPLIES, HOPS)
OCTETS = TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=30)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"Subject: ", b"Message-ID: ", b"Message-ID: <", b"X: ", b" ", b""]),
        OCTETS,
        st.sampled_from([b"\r\n", b"\n", b"", b"\r\n\r\n"]),
    ).map(b"".join),
    max_size=6,
).map(b"".join)


class HostileTests(SynchronousTestCase):
    @given(
        st.lists(FATES, min_size=1, max_size=3),
        HEADERS,
        ADDRESSES,
        TEXT,
        WORDS,
        st.lists(PARAMETERS, min_size=3, max_size=3),
        st.sampled_from(["FULL", "HDRS", None]),
        st.booleans(),
    )
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_three_parts_whatever_comes(
        self,
        fates: list[Fate],
        message: bytes,
        sender: Path,
        queue_id: str,
        envid: str,
        parameters: list[RcptParameters],
        ret: str | None,
        complete: bool,
    ) -> None:
        paths = [fate.path for fate in fates]
        envelope = Envelope(
            queue_id=queue_id,
            realm="realm",
            account="account",
            session_id="S1",
            reverse_path=sender,
            recipients=tuple(paths),
            received_at=RECEIVED,
            parameters=MailParameters(ret=ret, envid=envid),  # type: ignore[arg-type]
            recipient_parameters=dict(zip(paths, parameters, strict=False)),
        )
        told = evolve(news(*fates, queue_id=queue_id), envelope=envelope)
        author = Author(HOSTNAME, TEXTS)
        octets = report(author, told, Original(message, complete), whole=True)
        self.assertWellFormed(octets, sender.is_ascii, message)
        status = groups(octets)
        self.assertEqual(len(status), 1 + len(fates))
        allowed = {"Reporting-MTA", "Original-Envelope-Id", "X-Digipoort-Queue-ID", "Arrival-Date"}
        self.assertLessEqual(set(status[0]), allowed)
        for group, told_of in zip(status[1:], fates, strict=True):
            required = {"Final-Recipient", "Action", "Status"}
            optional = {"Original-Recipient", "Remote-MTA", "Diagnostic-Code"}
            optional |= {"Last-Attempt-Date", "Will-Retry-Until"}
            self.assertLessEqual(required, set(group))
            self.assertLessEqual(set(group), required | optional)
            self.assertEqual(group["Action"], told_of.action.value)
            self.assertRegex(group["Status"], r"^[245]\.\d{1,3}\.\d{1,3}$")

    def assertWellFormed(self, octets: bytes, ascii_sender: bool, message: bytes) -> None:
        self.assertNotIn(b"\0", octets)
        self.assertNotIn(b"\r", octets.replace(b"\r\n", b""))
        self.assertNotIn(b"\n", octets.replace(b"\r\n", b""))
        self.assertTrue(octets.endswith(b"\r\n"))
        self.assertLessEqual(max(map(len, octets.split(b"\r\n"))), 998)
        self.assertLessEqual(len(octets), LARGEST)
        parsed = read(octets)
        fields = [name for name in parsed.keys() if name != "Content-Transfer-Encoding"]  # noqa: SIM118
        self.assertLessEqual(set(fields), set(HEADER_FIELDS))
        self.assertEqual(len(fields), len(set(fields)))
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        kinds = [part.get_content_type() for part in parsed.iter_parts()]
        self.assertEqual(len(kinds), 3, kinds)
        self.assertEqual(kinds[0], "text/plain")
        self.assertIn(kinds[1], ("message/delivery-status", "message/global-delivery-status"))
        headers = ("text/rfc822-headers", "message/global-headers")
        self.assertIn(kinds[2], ("message/rfc822", "message/global", *headers))
        if ascii_sender and kinds[2] in headers:
            self.assertTrue(octets.isascii())
        header, _, body = octets.partition(b"\r\n\r\n")
        if not body.isascii():
            self.assertEqual(parsed["Content-Transfer-Encoding"], "8bit")
        if ascii_sender:
            self.assertTrue(header.isascii())
        if kinds[2] in ("message/rfc822", "message/global"):
            self.assertEqual(parts(octets)[2][1], message)

    @given(TEXT)
    @settings(max_examples=200, deadline=None)
    def test_subjects(self, subject: str) -> None:
        """What comes back of a subject is what was there, printable and not too long."""
        message = b"Subject: " + CONTROL.sub("", subject).encode("utf-8", "replace") + b"\r\n\r\n"
        parsed = read(written(message=message))
        self.assertTrue(parsed["Subject"].startswith("Niet bezorgd: "))
        self.assertTrue(parsed["Subject"].isprintable() or "=?" in subject, parsed["Subject"])
        self.assertLess(len(parsed["Subject"]), 300)
