"""Whole notifications, read back with the standard library's parser (RFC 3464, RFC 6522, RFC 6533)."""

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.notification.notifications import MOST_FATES
from digipoort_msa.notification.original import Original
from digipoort_msa.notification.report import LARGEST, Author, report
from digipoort_msa.notification.templates import Texts
from digipoort_msa.smtp.envelope import Action, Fate, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from tests.notifying import (
    HEADER_FIELDS,
    HOSTNAME,
    LATER,
    MESSAGE,
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
