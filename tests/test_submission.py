"""A submission: policy, then the spool, with one field in front."""

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import ISubmission, ISubmitter
from digipoort_msa.policy.rule import Judgement, Rule
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import NULL_PATH, MailParameters, Path, RcptParameters, Trace
from digipoort_msa.smtp.reply import Refused
from digipoort_msa.submission import HEAD, Submission, Submitter
from tests.msa import ClockTestCase, MemorySpool
from tests.requirements import proves

SENDER = Path("ik", "mijnbedrijf.nl")
ONE, TWO = Path("een", "overheid.nl"), Path("twee", "overheid.nl")
DATE = "Mon, 05 Jan 2026 06:07:08 +0000"
NOW = 1767593228.9


def trace(**fields: Any) -> Trace:
    facts = {
        "session_id": "S1",
        "server_name": "msa.example.nl",
        "client_address": "192.0.2.1",
        "client_name": "mijnbedrijf.nl",
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
    }
    return Trace(**{**facts, **fields})


class Held(Rule, Judgement):
    """Every moment waits for its Deferred."""

    def __init__(self) -> None:
        self.sender_answer: Deferred[None] = Deferred()
        self.recipient_answer: Deferred[None] = Deferred()
        self.open_answer: Deferred[None] = succeed(None)
        self.room: Deferred[None] | None = None  # what write() answers
        self.content_answer: Deferred[None] = Deferred()
        self.seen: list[bytes] = []
        self.envelopes: list[Any] = []
        self.ends: list[str] = []

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        return self

    def sender(self, path: Path, parameters: MailParameters) -> Any:
        return self.sender_answer

    def recipient(self, envelope: Any, path: Path, parameters: RcptParameters) -> Any:
        self.envelopes.append(envelope)
        return self.recipient_answer

    def open(self, envelope: Any) -> Any:
        self.envelopes.append(envelope)
        return self.open_answer

    def write(self, octets: bytes) -> Any:
        self.seen.append(octets)
        return self.room

    def complete(self) -> Any:
        return self.content_answer

    def accepted(self) -> None:
        self.ends.append("accepted")

    def abort(self) -> None:
        self.ends.append("aborted")


MOMENTS = ("sender", "recipient", "open", "write", "complete")


class Says(Rule):
    """Says no at the moments that are named."""

    def __init__(self, *moments: str, calls: list[str] | None = None) -> None:
        self.moments = moments
        self.calls: list[str] = [] if calls is None else calls

    def begin(self, identity: Identity, trace: Trace) -> Judgement:
        judgement = Judgement()
        for moment in MOMENTS:
            setattr(judgement, moment, lambda *_, moment=moment: self.say(moment))
        for end in ("accepted", "abort"):
            setattr(judgement, end, lambda end=end: self.calls.append(end))
        return judgement

    def say(self, moment: str) -> None:
        self.calls.append(moment)
        if moment in self.moments:
            raise Refused(reply.SENDER_NOT_YOURS, "no")


class SubmissionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.spool = MemorySpool()

    def submitter(self, *policies: Any, add: bool = False) -> Submitter:
        identity = Identity(name="piet", realm="one.nl")
        return Submitter(identity, self.spool, self.clock.seconds, policies, add)

    def begin(
        self,
        *policies: Any,
        add: bool = False,
        parameters: MailParameters = MailParameters(),  # noqa: B008 - frozen
        **fields: Any,
    ) -> Submission:
        begun = self.submitter(*policies, add=add).begin(SENDER, parameters, trace(**fields))
        assert isinstance(begun, Submission)
        return begun

    def submit(self, *segments: bytes, recipients: tuple[Path, ...] = (ONE,), **options: Any) -> bytes:
        """The octets that are kept."""
        submission = self.begin(**options)
        for path in recipients:
            submission.recipient(path, RcptParameters())
        submission.open()
        for segment in segments:
            submission.write(segment)
        self.successResultOf(submission.commit())
        return self.spool.kept[-1][1]


class ReceivedTests(SubmissionTestCase):
    """M2: exactly one field, to the octet."""

    @proves("M2", "M6")
    def test_the_field(self) -> None:
        octets = self.submit(b"Subject: x\r\n\r\nx\r\n")
        self.assertEqual(
            octets.decode(),
            "Received: from mijnbedrijf.nl ([192.0.2.1])\r\n"
            "\t(using TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
            "\tby msa.example.nl with ESMTPSA id Q00001\r\n"
            "\tfor <een@overheid.nl>;\r\n"
            f"\t{DATE}\r\n"
            "Subject: x\r\n\r\nx\r\n",
        )

    @proves("M2")
    def test_variants(self) -> None:
        for fields, words in (
            ({"client_address": "2001:db8::1"}, "from mijnbedrijf.nl ([IPv6:2001:db8::1])"),
            ({"client_name": None}, "from [192.0.2.1] ([192.0.2.1])"),
            ({"client_name": "[192.0.2.9]"}, "from [192.0.2.9] ([192.0.2.1])"),
            ({"client_address": "local"}, "from mijnbedrijf.nl (localhost)"),
            ({"parameters": MailParameters(smtputf8=True)}, "with UTF8SMTPSA id Q"),
        ):
            octets = self.submit(b"\r\n", **fields)
            self.assertIn(words, octets.decode().replace("\r\n\t", " "))
        self.assertNotIn(b"for <", self.submit(b"\r\n", recipients=(ONE, TWO)))

    @proves("M2")
    def test_hostile_client_names(self) -> None:
        for name in (
            "x)(y",
            "a;b",
            "<x@y>",
            "x\u2028y",
            "é.nl",
            "a b",
            "a\r\nBcc: x",
            '"x"',
            "-",
            "",
        ):
            octets = self.submit(b"\r\n", client_name=name)
            self.assertTrue(octets.startswith(b"Received: from [192.0.2.1] ([192.0.2.1])\r\n"), name)
            self.assertTrue(octets.isascii())

    @proves("M2")
    def test_content_is_not_touched(self) -> None:
        content = bytes(range(256)) * 3 + b"\r\n"
        for cut in (0, 1, 100, len(content)):
            self.assertTrue(
                self.submit(content[:cut], content[cut:]).endswith(f"{DATE}\r\n".encode() + content)
            )


class MissingHeaderTests(SubmissionTestCase):
    """RFC 6409 8: off by default."""

    def added(self, content: bytes, cut: int | None = None) -> bytes:
        segments = (content,) if cut is None else (content[:cut], content[cut:])
        octets = self.submit(*segments, add=True)
        _, _, after = octets.partition(f"\t{DATE}\r\n".encode())
        self.assertTrue(after.endswith(content))
        return after.removesuffix(content)

    DATE_FIELD = f"Date: {DATE}\r\n".encode()

    def id_field(self) -> bytes:
        return f"Message-ID: <{self.spool.kept[-1][0].queue_id}@msa.example.nl>\r\n".encode()

    @proves("M2")
    def test_what_is_missing(self) -> None:
        for content, date, message_id in (
            (b"Subject: x\r\n\r\nx\r\n", True, True),
            (b"Subject: x\r\nDATE : y\r\n\r\nx\r\n", False, True),
            (b"message-id:y\r\n\r\nDate: in the body\r\n", True, False),
            (b"date:x\r\nMessage-Id: y\r\n\r\n", False, False),
            (b"Subject: x\r\n Date: folded\r\n\r\n", True, True),
            (b"X-Date: x\r\n\r\n", True, True),
            (b"\r\nDate: in the body\r\n", True, True),
            (b"", True, True),
            (b"Subject: no end of the header\r\n", True, True),
            (b"Subject: " + b"x" * HEAD + b"\r\n\r\n", True, True),
        ):
            for cut in (None, *range(min(len(content), 50))):
                added = self.added(content, cut)
                expected = (self.DATE_FIELD if date else b"") + (self.id_field() if message_id else b"")
                self.assertEqual(added, expected, (content[:40], cut))

    @proves("M2")
    def test_off_by_default(self) -> None:
        self.assertNotIn(b"Message-ID", self.submit(b"\r\n"))

    def test_policies_see_the_content(self) -> None:
        """All of it as it comes, with what is added, and without our Received."""
        held = Held()
        held.sender_answer = held.recipient_answer = held.content_answer = succeed(None)
        begun: Any = self.submitter(held, add=True).begin(SENDER, MailParameters(), trace())
        submission = self.successResultOf(begun)
        submission.recipient(ONE, RcptParameters())
        submission.open()
        body = b"x" * 30_000
        for segment in (b"Subject: x\r\n\r\n", body, body, body):
            submission.write(segment)
        self.successResultOf(submission.commit())
        kept = self.spool.kept[-1][1]
        self.assertEqual(b"".join(held.seen), kept[kept.index(b"Date: ") :])
        self.assertEqual(held.seen[1:], [body] * 3)
        self.assertEqual(held.ends, ["accepted"])


class PolicyTests(SubmissionTestCase):
    def test_interfaces(self) -> None:
        verifyObject(ISubmitter, self.submitter())
        verifyObject(ISubmission, self.begin())

    @proves("M7")
    def test_refused_at_each_moment(self) -> None:
        refused = self.assertRaises(
            Refused, self.submitter(Says("sender")).begin, SENDER, MailParameters(), trace()
        )
        self.assertEqual(refused.reply, reply.SENDER_NOT_YOURS)
        self.assertEqual(self.spool.incoming, [])

        submission = self.begin(Says("recipient"))
        self.assertRaises(Refused, submission.recipient, ONE, RcptParameters())

        for moments in (("write",), ("complete",), ("write", "complete")):
            calls: list[str] = []
            submission = self.begin(Says(*moments, calls=calls))
            submission.recipient(ONE, RcptParameters())
            submission.open()
            submission.write(b"x\r\n")  # whatever is said of content is said at the end of data
            submission.write(b"y\r\n")
            self.assertRaises(Refused, submission.commit)
            self.assertTrue(self.spool.incoming[-1].aborted)
            self.assertEqual(self.spool.kept, [])
            self.assertEqual(calls[-1], "abort")
            self.assertEqual(calls.count("write"), 1 if "write" in moments else 2)

        submission = self.begin(Says("open"))
        submission.recipient(ONE, RcptParameters())
        self.assertRaises(Refused, submission.open)

    @proves("M7")
    def test_in_order_and_until_one_says_no(self) -> None:
        calls: list[str] = []
        self.assertRaises(
            Refused,
            self.submitter(Says(calls=calls), Says("sender", calls=calls), Says(calls=calls)).begin,
            NULL_PATH,
            MailParameters(),
            trace(),
        )
        self.assertEqual(calls, ["sender", "sender", "abort", "abort", "abort"])

    @proves("M7", "M10")
    def test_policies_that_take_their_time(self) -> None:
        held = Held()
        calls: list[str] = []
        begun = self.submitter(held, Says(calls=calls)).begin(SENDER, MailParameters(), trace())
        assert isinstance(begun, Deferred)
        self.assertNoResult(begun)
        self.assertEqual(calls, [])  # the next is asked when this one has answered
        held.sender_answer.callback(None)
        submission = self.successResultOf(begun)
        self.assertEqual(calls, ["sender"])

        added: Any = submission.recipient(ONE, RcptParameters())
        self.assertNoResult(added)
        held.recipient_answer.callback(None)
        self.successResultOf(added)
        held.recipient_answer = succeed(None)
        added = submission.recipient(TWO, RcptParameters())
        self.successResultOf(added)
        self.assertEqual([envelope.recipients for envelope in held.envelopes], [(), (ONE,)])

        submission.open()
        submission.write(b"Subject: x\r\n\r\n")
        committed = submission.commit()
        self.assertNoResult(committed)
        self.assertEqual(self.spool.kept, [])
        held.content_answer.callback(None)
        self.assertEqual(self.successResultOf(committed), "Q00001")
        ((envelope, _),) = self.spool.kept
        self.assertEqual((envelope.recipients, envelope.account), ((ONE, TWO), "piet"))

    @proves("M7")
    def test_a_late_refusal_at_each_moment(self) -> None:
        no = Refused(reply.RECIPIENT_NOT_ALLOWED, "no")
        held = Held()
        held.sender_answer = fail(no)
        begun: Any = self.submitter(held).begin(SENDER, MailParameters(), trace())
        self.failureResultOf(begun, Refused)
        self.assertEqual(self.spool.incoming, [])  # nothing was begun

        held = Held()
        held.sender_answer, held.recipient_answer, held.content_answer = succeed(None), fail(no), fail(no)
        begun = self.submitter(held).begin(SENDER, MailParameters(), trace())
        submission = self.successResultOf(begun)
        added: Any = submission.recipient(ONE, RcptParameters())
        self.failureResultOf(added, Refused)
        submission.open()
        self.failureResultOf(submission.commit(), Refused)
        self.assertEqual(held.envelopes[-1].recipients, ())
        self.assertTrue(self.spool.incoming[-1].aborted)
        self.assertEqual(self.spool.kept, [])

    def test_nothing_of_the_content_is_kept_for_policies(self) -> None:
        submission = self.begin(Says())
        submission.open()
        for _ in range(100):
            submission.write(b"x" * 65536)
        self.assertEqual(submission._head, b"")

    def test_who_is_slow_slows_the_client_down(self) -> None:
        """Two policies and the spool: the client is read from again when all of them have room."""
        policies = Held(), Held()
        for held in policies:
            held.sender_answer = held.recipient_answer = held.content_answer = succeed(None)
        begun: Any = self.submitter(*policies).begin(SENDER, MailParameters(), trace())
        submission = self.successResultOf(begun)
        submission.recipient(ONE, RcptParameters())
        submission.open()
        policies[0].room, policies[1].room, self.spool.room = Deferred(), Deferred(), Deferred()
        waiting: Any = submission.write(b"x\r\n")
        for room in (policies[1].room, self.spool.room, policies[0].room):
            self.assertNoResult(waiting)
            room.callback(None)
        self.successResultOf(waiting)

    def test_a_refusal_that_comes_late_waits_for_the_end(self) -> None:
        held = Held()
        held.sender_answer = held.recipient_answer = held.content_answer = succeed(None)
        submission = self.successResultOf(self.submitter(held).begin(SENDER, MailParameters(), trace()))
        submission.open()
        held.room = fail(Refused(reply.HEADER_TOO_BIG, "no"))
        waiting: Any = submission.write(b"x\r\n")
        self.successResultOf(waiting)
        submission.write(b"y\r\n")
        self.assertEqual(held.seen, [b"x\r\n"])
        self.assertRaises(Refused, submission.commit)
        self.assertEqual(held.ends, ["aborted"])

    def test_a_policy_that_cannot_begin(self) -> None:
        """Those before it are told of the end."""

        class Broken(Rule):
            def begin(self, identity: Identity, trace: Trace) -> Judgement:
                raise ZeroDivisionError

        says = Says()
        self.assertRaises(ZeroDivisionError, self.begin, says, Broken(), says)
        self.assertEqual(says.calls, ["abort"])

    def test_each_end_is_told_once(self) -> None:
        for end, expected in (("commit", "accepted"), ("abort", "abort"), ("fail", "abort")):
            calls: list[str] = []
            submission = self.begin(Says(calls=calls))
            submission.open()
            self.spool.held = end == "fail"
            if end == "abort":
                submission.abort()
            else:
                committed = submission.commit()
                if end == "fail":
                    self.spool.incoming[-1].committed.errback(OSError("full"))  # type: ignore[union-attr]
                    self.failureResultOf(committed, Refused)
            submission.abort()
            self.assertEqual([call for call in calls if call not in MOMENTS], [expected], end)


class CommitTests(ClockTestCase):
    @proves("M6")
    def test_a_spool_that_fails(self) -> None:
        self.spool.held = True
        submitter = Submitter(Identity(name="piet", realm="one.nl"), self.spool, self.clock.seconds)
        submission: Any = submitter.begin(SENDER, MailParameters(), trace())
        submission.open()
        committed = submission.commit()
        self.assertNoResult(committed)
        self.assertEqual(self.events("queued"), [])
        incoming = self.spool.incoming[0]
        assert incoming.committed is not None
        incoming.committed.errback(OSError("the disk is full"))
        refused = self.failureResultOf(committed, Refused).value
        self.assertEqual((refused.reply, refused.cause), (reply.NOT_STORED, "the disk is full"))
        self.assertEqual(self.events("queued"), [])

    @proves("M6", "D2")
    def test_an_intake_that_fails_at_once(self) -> None:
        """The judgements have their end all the same."""
        says = Says()
        begun = Submitter(Identity(name="piet", realm="one.nl"), self.spool, self.clock.seconds, (says,))
        submission: Any = begun.begin(SENDER, MailParameters(), trace())
        submission.open()

        def broken(envelope: Any) -> Any:
            raise ZeroDivisionError("x")

        self.patch(type(submission._incoming), "commit", lambda _, envelope: broken(envelope))
        refused = self.failureResultOf(submission.commit(), Refused).value
        self.assertEqual(refused.reply, reply.NOT_STORED)
        self.assertEqual(says.calls[-2:], ["complete", "abort"])

    def test_the_intake_that_refuses_is_heard(self) -> None:
        """452 4.3.1 for want of space, or a hop's own refusal: as it is, not as a 451."""
        self.spool.held = True
        for said in (reply.reply(452, "4.3.1", "x"), reply.reply(554, "5.7.1", "y")):
            submitter = Submitter(Identity(name="piet", realm="one.nl"), self.spool, self.clock.seconds)
            submission: Any = submitter.begin(SENDER, MailParameters(), trace())
            submission.open()
            committed = submission.commit()
            self.spool.incoming[-1].committed.errback(Refused(said, "why"))
            refused = self.failureResultOf(committed, Refused).value
            self.assertEqual((refused.reply, refused.cause), (said, "why"))
        self.assertEqual(self.events("queued"), [])

    @proves("M6")
    def test_the_same_id_everywhere(self) -> None:
        wire = self.logged_in()
        answer = wire.submit()
        ((envelope, octets),) = self.spool.kept
        (event,) = self.events("queued")
        self.assertEqual(event["queue_id"], envelope.queue_id)
        self.assertIn(f"queued as {envelope.queue_id}\r\n", answer)
        self.assertIn(f" id {envelope.queue_id}\r\n".encode(), octets)
        self.assertEqual((event["size"], event["recipients"]), (len(octets), "<belastingdienst@overheid.nl>"))
