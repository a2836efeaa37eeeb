"""Many commands at once: in order, one at a time, and in bounded memory (RFC 2920, M9)."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp import events, reply
from digipoort_msa.smtp.events import Wait
from digipoort_msa.smtp.session import Session
from digipoort_msa.smtp.states import State
from tests.requirements import proves
from tests.transcript import ENVELOPE, IN_CLEAR, LOGIN, SENDER_AND_RECIPIENT, SETTINGS, Owner, logged_in

#: The most that may wait to be sent at a time: the limit, and one reply over it.
UNSENT = 16_384 + 1024


class OrderTests(SynchronousTestCase):
    """CVE-2024-41671: a verdict that comes late is not overtaken."""

    @proves("M6")
    def test_nothing_overtakes_an_open_verdict(self) -> None:
        owner = Owner(patient=True)
        said = LOGIN + ENVELOPE + b"NOOP\r\nDATA\r\nx\r\n.\r\nNOOP\r\nMAIL FROM:<c@d.nl>\r\nQUIT\r\n"
        owner.feed(said)
        expected = b""
        for verdict, behind in (
            (reply.AUTHENTICATED, b""),
            (reply.SENDER_OK, b""),
            (reply.RECIPIENT_OK, reply.OK.octets),
            (reply.START_CONTENT, b""),
            (reply.queued("7"), reply.OK.octets),
            (reply.SENDER_NOT_YOURS, reply.BYE.octets),
        ):
            self.assertEqual(owner.output, expected)
            self.assertTrue(owner.session.awaits_verdict)
            self.assertIs(owner.session.next_event(), Wait.PAUSED)
            owner.feed(b"")
            self.assertEqual(owner.output, expected)
            expected += verdict.octets + behind
            owner.answer_next(verdict)
        self.assertEqual(owner.output, expected)
        self.assertTrue(owner.closed)

    def test_all_in_one_segment_or_octet_by_octet(self) -> None:
        message = ENVELOPE + b"RCPT TO:<nobody>\r\nDATA\r\nx\r\n.\r\n"
        said = LOGIN + message * 3 + b"VRFY a\r\nHELP\r\nRSET\r\nQUIT\r\n"
        whole, single = Owner(), Owner()
        whole.feed(said)
        for octet in said:
            single.feed(bytes([octet]))
        self.assertEqual(whole.output, single.output)
        self.assertEqual(whole.messages, [b"x\r\n"] * 3)
        self.assertEqual(single.messages, whole.messages)
        middle = SENDER_AND_RECIPIENT + reply.RECIPIENT_INCOMPLETE.octets + reply.START_CONTENT.octets
        self.assertEqual(
            whole.output,
            reply.AUTHENTICATED.octets
            + b"".join(middle + reply.queued(str(number)).octets for number in (1, 2, 3))
            + reply.CANNOT_VERIFY.octets
            + reply.HELP.octets
            + reply.OK.octets
            + reply.BYE.octets,
        )

    def test_nothing_behind_quit(self) -> None:
        owner = logged_in()
        owner.feed(b"QUIT\r\n" + ENVELOPE)
        self.assertEqual(owner.output, reply.BYE.octets)
        self.assertEqual(owner.of(events.Mail), [])
        self.assertEqual(owner.session.buffered, 0)


@proves("M9")
class RecipientTests(SynchronousTestCase):
    def test_a_limit_of_one_transaction(self) -> None:
        owner = logged_in(settings=evolve(SETTINGS, recipients=2))
        rcpt = b"RCPT TO:<a@b.nl>\r\n"
        owner.feed(ENVELOPE + rcpt * 3 + b"DATA\r\nx\r\n.\r\n" + ENVELOPE)
        self.assertEqual(
            owner.output,
            SENDER_AND_RECIPIENT
            + reply.RECIPIENT_OK.octets
            + reply.TOO_MANY_RECIPIENTS.octets * 2
            + reply.START_CONTENT.octets
            + reply.queued("1").octets
            + SENDER_AND_RECIPIENT,
        )

    def test_refused_recipients_do_not_count(self) -> None:
        owner = logged_in(
            {events.Recipient: [reply.RECIPIENT_NOT_ALLOWED] * 5}, evolve(SETTINGS, recipients=2)
        )
        owner.feed(ENVELOPE + b"RCPT TO:<a@b.nl>\r\n" * 6)
        self.assertTrue(owner.output.endswith(reply.RECIPIENT_OK.octets * 2), owner.output)

    def test_ten_thousand(self) -> None:
        owner = logged_in()
        owner.feed(b"MAIL FROM:<a@b.nl>\r\n")
        owner.output = b""
        said = b"".join(b"RCPT TO:<r%d@example.nl>\r\n" % number for number in range(10_000))
        for start in range(0, len(said), 65_536):
            owner.feed(said[start : start + 65_536])
            self.assertLess(owner.session.buffered, 100)
        self.assertEqual(
            owner.output, reply.RECIPIENT_OK.octets * 1000 + reply.TOO_MANY_RECIPIENTS.octets * 9000
        )
        self.assertEqual(len(owner.of(events.Recipient)), 1000)
        self.assertFalse(owner.closed)


@proves("M9")
class BoundsTests(SynchronousTestCase):
    COMMANDS = 100_000

    def flood(self, owner: Owner, line: bytes, words: bytes) -> None:
        """So many commands, by 64 KiB: the replies to them are asked to be sent before they pile up."""
        said = line * self.COMMANDS
        sent = 0
        for start in range(0, len(said), 65_536):
            owner.feed(said[start : start + 65_536])
            self.assertLess(owner.session.buffered, len(line))
            sent += len(owner.output)
            owner.output = b""
        self.assertEqual(sent, len(words) * self.COMMANDS)
        self.assertLess(owner.most_unsent, UNSENT)

    def test_a_hundred_thousand_noops(self) -> None:
        self.flood(logged_in(), b"NOOP\r\n", reply.OK.octets)

    def test_replies_far_bigger_than_their_commands(self) -> None:
        """EHLO's reply is 25 times EHLO: a flood of them is not a flood of memory."""
        self.flood(Owner(start=State.CLEAR), b"EHLO a\r\n", IN_CLEAR.clear_ehlo.octets)

    def test_replies_wait_until_they_are_sent(self) -> None:
        session = Session(SETTINGS)
        session.receive(b"EHLO a\r\n" * 8192)
        for _ in range(3):
            self.assertIs(session.next_event(), Wait.SEND)
        waiting = session.buffered
        self.assertLess(len(session.octets_to_send()), UNSENT)
        self.assertIs(session.next_event(), Wait.SEND)
        self.assertLess(session.buffered, waiting)

    def test_last_words_do_not_wait(self) -> None:
        session = Session(SETTINGS)
        session.receive(b"EHLO a\r\n" * 8192)
        session.next_event()
        session.say_and_close(reply.IDLE, "idle")
        self.assertEqual(session.next_event(), events.Close("idle"))
        self.assertTrue(session.octets_to_send().endswith(reply.IDLE.octets))

    def test_input_behind_a_verdict_is_all_that_is_kept(self) -> None:
        owner = Owner(patient=True)
        said = LOGIN + b"NOOP\r\n" * 1000
        owner.feed(said)
        self.assertEqual(owner.session.buffered, 6000)
        owner.feed(b"NOOP\r\n")
        self.assertEqual(owner.session.buffered, 6006)
        owner.answer_next()
        self.assertEqual(owner.session.buffered, 0)

    def test_what_was_read_is_let_go_of(self) -> None:
        """An idle session does not keep the last segment it has read."""
        owner = logged_in()
        for said in (b"NOOP\r\n" * 10_000, b"NOOP\r\n" * 10_000 + b"NO"):
            owner.feed(said)
            self.assertLess(len(owner.session._input._octets), 3)

    def test_many_tiny_chunks_are_not_quadratic(self) -> None:
        """Each chunk is copied out of the input; what waits behind it stays where it is."""
        owner = logged_in()
        owner.feed(ENVELOPE)
        session = owner.session
        session.receive(b"BDAT 1\r\n." * 5000)
        waiting = session._input._octets
        while (event := session.next_event()) is not Wait.NEED_DATA:
            self.assertIs(session._input._octets, waiting)
            if event is Wait.SEND:
                session.octets_to_send()
            elif isinstance(event, events.Asks):
                session.answer(reply.START_CONTENT)
            elif isinstance(event, events.Content):
                self.assertEqual(event.octets, b".")
        self.assertEqual(session.buffered, 0)

    def test_errors_by_the_thousand(self) -> None:
        for start in (State.CLEAR, State.SECURE):
            owner = Owner(start=start)
            owner.feed(b"X\r\n" * self.COMMANDS)
            self.assertTrue(owner.closed)
            self.assertEqual(owner.session.buffered, 0)
            self.assertLess(len(owner.output), 5000)
            self.assertEqual(len(owner.of(events.Rejected)), SETTINGS.errors)
