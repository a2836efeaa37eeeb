"""Whole notifications, read back with the standard library's parser (RFC 3464, RFC 6522, RFC 6533)."""

import re

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.notification.notifications import MOST_FATES
from digipoort_msa.notification.original import Original
from digipoort_msa.notification.report import LARGEST, Author, report
from digipoort_msa.notification.templates import Texts
from digipoort_msa.smtp.envelope import CONTROL, Action, Envelope, Fate, MailParameters, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from tests.notifying import (
    HOP,
    HOSTNAME,
    LATER,
    MESSAGE,
    RECEIVED,
    TEXTS,
    fate,
    groups,
    news,
    parts,
    read,
    text,
    written,
)
from tests.requirements import proves

HEADER_FIELDS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
]


@proves("D2", "D3")
class ReportTests(SynchronousTestCase):
    def test_the_header(self) -> None:
        message = read(written())
        self.assertEqual(message.keys(), HEADER_FIELDS)
        self.assertEqual(message["From"], "Digipoort MSA <MAILER-DAEMON@msa.example.nl>")
        self.assertEqual(message["To"], "sender@example.nl")
        self.assertEqual(message["Subject"], "Niet bezorgd: Aangifte €")
        self.assertEqual(message["Date"], "Tue, 14 Nov 2023 23:13:20 +0000")
        self.assertEqual(message["Message-ID"], "<0NOTICE@msa.example.nl>")
        self.assertEqual(message["In-Reply-To"], "<one@example.nl>")
        self.assertEqual(message["References"], "<one@example.nl>")
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "delivery-status")
        self.assertEqual(message.defects, [])

    def test_the_text(self) -> None:
        """Every language, one after the other; it says what, whom, why, and whom to ask."""
        told = text(written())
        dutch, english = told.split("\n" + "-" * 72 + "\n")
        for words in (dutch, english):
            for fact in (
                "Aangifte €",
                "sender@example.nl",
                "2023-11-14 22:13 UTC",
                "0ORIGINAL",
                "    <one@core.example>\n",
                "core.example:25",
                "550 5.1.1 no such user",
                "Loket, 070 123 45 67",
                "msa.example.nl",
            ):
                self.assertIn(fact, words)
        self.assertIn("niet bezorgd", dutch)
        self.assertIn("not delivered", english)
        first = next(iter(read(written()).iter_parts()))
        self.assertEqual(first["Content-Type"], 'text/plain; charset="utf-8"')

    def test_each_kind(self) -> None:
        for action, subject in (
            (Action.FAILED, "Not delivered: "),
            (Action.DELAYED, "Delayed: "),
            (Action.DELIVERED, "Delivered: "),
            (Action.RELAYED, "Passed on: "),
        ):
            octets = written(fate(action=action), texts=Texts.read(("en",)))
            self.assertEqual(read(octets)["Subject"], f"{subject}Aangifte €")
            self.assertEqual(groups(octets)[1]["Action"], action.value)
        self.assertIn("2023-11-17 22:13 UTC", text(written(fate(action=Action.DELAYED))))

    def test_kinds_together(self) -> None:
        octets = written(fate("a@b.nl", Action.RELAYED, Reply(250, None, ("ok",))), fate("c@d.nl"))
        self.assertTrue(read(octets)["Subject"].startswith("Niet bezorgd: "))
        self.assertEqual([group["Action"] for group in groups(octets)[1:]], ["relayed", "failed"])
        failed, relayed, *english = text(octets).split("\n" + "-" * 72 + "\n")
        self.assertEqual(len(english), 2)
        self.assertIn("<c@d.nl>", failed)
        self.assertNotIn("<a@b.nl>", failed)
        self.assertIn("<a@b.nl>", relayed)

    def test_read_by_the_standard_library(self) -> None:
        _, status, _ = read(written()).iter_parts()
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        about_message, about_recipient = status.get_payload()
        self.assertEqual(about_message["Reporting-MTA"], "dns; msa.example.nl")
        self.assertEqual(about_recipient["Final-Recipient"], "rfc822; one@core.example")
        self.assertEqual(about_recipient["Diagnostic-Code"], "smtp; 550 5.1.1 no such user")

    def test_no_subject_and_no_message_id(self) -> None:
        message = read(written(message=b"\r\nbody\r\n"))
        self.assertEqual(message["Subject"], "Niet bezorgd: -")
        self.assertNotIn("In-Reply-To", message)
        self.assertNotIn("References", message)

    def test_the_sender_of_notifications(self) -> None:
        author = Author(HOSTNAME, TEXTS, "noreply@example.nl", None)
        octets = report(author, news(), Original(MESSAGE, True), whole=False)
        self.assertEqual(read(octets)["From"], "Digipoort MSA <noreply@example.nl>")
        self.assertIn("de beheerder van msa.example.nl", text(octets))
        for wrong in ("a@b>\r\nX: y", "a@b, c@d", "é@b", "a b@c", "@", "<a@b>"):
            with self.assertRaises(ValueError):
                Author(HOSTNAME, TEXTS, wrong, None)

    def test_the_same_news_make_the_same_octets(self) -> None:
        self.assertEqual(written(), written())

    def test_a_boundary_that_is_in_the_message(self) -> None:
        """The number in it goes on until the boundary is nowhere."""
        message = b"Subject: x\r\n\r\n--=_0NOTICE.0--\r\n--=_0NOTICE.1\r\nContent-Type: x/y\r\n\r\nforged\r\n"
        octets = written(message=message, ret="FULL")
        self.assertEqual(read(octets).get_boundary(), "=_0NOTICE.2")
        self.assertEqual([kind for kind, _ in parts(octets)][2], "message/rfc822")
        self.assertEqual(parts(octets)[2][1], message)


class ReturnedTests(SynchronousTestCase):
    """RFC 3461 4.3: how much of the message comes back."""

    def returned(self, **fields: object) -> tuple[str, bytes]:
        octets = written(**fields)  # type: ignore[arg-type]
        self.assertTrue(octets.isascii() or b"\r\nContent-Transfer-Encoding: 8bit\r\n" in octets)
        kind, part = parts(octets)[2]
        return kind, part

    HEADER = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n"

    def test_the_header(self) -> None:
        headers = ("text/rfc822-headers", self.HEADER)
        self.assertEqual(self.returned(), headers)
        self.assertEqual(self.returned(ret="HDRS"), headers)
        self.assertEqual(self.returned(ret="FULL", whole=False), headers)

    def test_the_whole_message(self) -> None:
        self.assertEqual(self.returned(ret="FULL"), ("message/rfc822", MESSAGE))
        eight_bit = MESSAGE + b"caf\xe9\r\n"
        self.assertEqual(self.returned(ret="FULL", message=eight_bit), ("message/rfc822", eight_bit))

    def test_the_whole_message_only_of_failures(self) -> None:
        octets = written(fate(action=Action.DELAYED, reply=LATER), ret="FULL")
        self.assertEqual(parts(octets)[2][0], "text/rfc822-headers")

    def test_never_what_the_hop_has_refused(self) -> None:
        """A notification with it would be refused as well."""
        refused = fate(reply=Reply(554, "5.6.3", ("no 8BITMIME here",)))
        octets = written(refused, ret="FULL", message=MESSAGE + b"caf\xe9\r\n")
        self.assertEqual(parts(octets)[2], ("text/rfc822-headers", self.HEADER))
        self.assertTrue(octets.isascii())

    def test_content_that_no_message_may_have(self) -> None:
        for body in (b"x" * 999 + b"\r\n", b"a\0b\r\n", b"a\nb\r\n", b"a\rb\r\n", b"no end"):
            self.assertEqual(self.returned(ret="FULL", message=MESSAGE + body)[0], "text/rfc822-headers")
        longest = MESSAGE + b"x" * 998 + b"\r\n"
        self.assertEqual(self.returned(ret="FULL", message=longest), ("message/rfc822", longest))

    def test_a_header_that_is_not_as_it_should_be(self) -> None:
        """RFC 6522 4: it is encoded, so that the notification passes every hop."""
        for line in (
            b"Subject: caf\xc3\xa9\r\n",
            b"Subject: caf\xe9\r\n",
            b"X: " + b"x" * 2000 + b"\r\n",
            b"X: \0\r\n",
            b"X: \r\n",
            b"--=_0NOTICE.0\xff\r\n",
        ):
            message = line + b"X-Last: 1 \r\n\r\nbody\r\n"
            for ret in (None, "FULL"):
                octets = written(message=message, ret=ret)
                _, _, part = read(octets).iter_parts()
                if line == b"X: \r\n" or (ret and line.isascii() and len(line) < 999 and b"\0" not in line):
                    continue  # as it stands
                self.assertEqual(part.get_content_type(), "text/rfc822-headers")
                self.assertEqual(part["Content-Transfer-Encoding"], "quoted-printable")
                self.assertEqual(part.get_payload(decode=True), line + b"X-Last: 1 \r\n")
                self.assertTrue(octets.isascii())

    def test_internationalized(self) -> None:
        """An addressee outside ASCII can be reached with SMTPUTF8 alone (RFC 6533 4, 6)."""
        message = "Subject: café\r\n\r\nkoffie\r\n".encode()
        recipient = fate("ontvanger@café.example")
        octets = written(recipient, sender="jürgen@example.nl", smtputf8=True, message=message)
        self.assertIn("To: <jürgen@example.nl>\r\n".encode(), octets)
        kinds = ["text/plain", "message/global-delivery-status", "message/global-headers"]
        self.assertEqual([kind for kind, _ in parts(octets)], kinds)
        self.assertEqual(groups(octets)[1]["Final-Recipient"], "utf-8; ontvanger@café.example")
        self.assertEqual(parts(octets)[2][1], "Subject: café\r\n".encode())
        octets = written(recipient, sender="jürgen@example.nl", ret="FULL", message=message)
        self.assertEqual(parts(octets)[2], ("message/global", message))

    def test_a_recipient_outside_ascii(self) -> None:
        """The notification is all ASCII, since its addressee is: the hop may have refused SMTPUTF8."""
        octets = written(fate("jürgen+x@core.example"), smtputf8=True)
        self.assertTrue(octets.isascii())
        self.assertEqual(parts(octets)[1][0], "message/delivery-status")
        final = "utf-8; j\\x{FC}rgen\\x{2B}x@core.example"
        self.assertEqual(groups(octets)[1]["Final-Recipient"], final)
        self.assertIn("<jürgen+x@core.example>", text(octets))


class SizeTests(SynchronousTestCase):
    WORDY = Reply(550, "5.1.1", ("\x7e" * 2000,) * 128)

    def test_many_recipients(self) -> None:
        """Every one is named to the machine, ten to people; of many, less is told of each."""
        for number in (11, 1000, 5000):
            fates = [fate(f"recipient-{index}@core.example", reply=self.WORDY) for index in range(number)]
            octets = written(*fates, ret="FULL")
            self.assertLessEqual(len(octets), LARGEST)
            named = [group["Final-Recipient"] for group in groups(octets)[1:]]
            self.assertEqual(named, [f"rfc822; recipient-{index}@core.example" for index in range(number)])
            self.assertIn(f"and {number - 10} more", text(octets))
            self.assertEqual("Diagnostic-Code" in groups(octets)[1], number < 5000)

    def test_more_than_there_is_room_for(self) -> None:
        fates = [fate(f"recipient-{index}@core.example") for index in range(10_000)]
        octets = written(*fates)
        self.assertLessEqual(len(octets), LARGEST)
        about_message, *named = groups(octets)
        left_out = int(about_message["X-Digipoort-Recipients-Left-Out"])
        self.assertEqual(len(named) + left_out, 10_000)
        self.assertGreater(len(named), 5000)

    def test_the_longest_of_all(self) -> None:
        """``MOST_FATES`` recipients are named whatever their addresses, and ORCPT, and what was said."""
        local_part, domain = "\u00e9" * 32, ".".join(["\u00e9" * 30] * 4) + "." + "\u00e9" * 5
        fates, parameters = [], {}
        for index in range(MOST_FATES):
            path = Path(f"{index:03}{local_part[:30]}", domain)
            fates.append(Fate(path, Action.DELAYED, self.WORDY, "x" * 200 + ":25"))
            parameters[path] = RcptParameters(orcpt="utf-8;" + "\u00e9" * 247)
        header = b"X: " + b"\xff" * 300_000 + b"\r\n"
        texts = Texts.read(("nl", "en"))
        for sender in ("a@b.nl", "\u00e9@b.nl"):
            octets = written(
                *fates,
                message=header,
                texts=texts,
                sender=sender,
                recipient_parameters=parameters,
                envid="+FF" * 1000,
            )
            self.assertLessEqual(len(octets), LARGEST)
            about_message, *named = groups(octets)
            self.assertEqual(len(named), MOST_FATES)
            self.assertNotIn("X-Digipoort-Recipients-Left-Out", about_message)
            self.assertEqual(len({group["Final-Recipient"] for group in named}), MOST_FATES)

    def test_a_long_header(self) -> None:
        """Cut at a line."""
        lines = [b"X-%d: caf\xc3\xa9" % number for number in range(40_000)]
        octets = written(message=b"\r\n".join(lines) + b"\r\n\r\n")
        self.assertLessEqual(len(octets), LARGEST)
        self.assertGreater(len(octets), LARGEST - 20_000)
        _, _, part = read(octets).iter_parts()
        returned = part.get_payload(decode=True).split(b"\r\n")
        self.assertEqual(returned.pop(), b"")
        self.assertEqual(returned, lines[: len(returned)])


# -- what an enemy may try --------------------------------------------------------------------------
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
