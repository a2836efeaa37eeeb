"""How much may be submitted in a time (L4)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IJudgement, IPolicy
from digipoort_msa.policy import rate
from digipoort_msa.policy.rate import Bucket, Limit, RateRule, Unit
from digipoort_msa.policy.rule import Judgement
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused
from tests.msa import ClockTestCase
from tests.requirements import proves
from tests.spooling import envelope
from tests.test_submission import ONE, SENDER, TWO, trace

MESSAGES = Limit(Unit.MESSAGES, 3, 30.0, each_account=True)
OF_THE_REALM = Limit(Unit.MESSAGES, 4, 40.0, each_account=False)
OCTETS = Limit(Unit.OCTETS, 1000, 100.0, each_account=True)
RECIPIENTS = Limit(Unit.RECIPIENTS, 2, 20.0, each_account=True)


def so_far(*recipients: Path) -> Envelope:
    return envelope(recipients=tuple(map(str, recipients)))


class RateRuleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)

    def rule(self, *limits: Limit) -> RateRule:
        return RateRule(limits, self.clock.seconds)

    def begin(self, rule: RateRule, account: str = "piet") -> Judgement:
        return rule.begin(Identity(name=account, realm="one.nl"), trace())

    def mail(self, rule: RateRule, account: str = "piet", size: int | None = None) -> Judgement:
        judgement = self.begin(rule, account)
        try:
            judgement.sender(SENDER, MailParameters(size=size))
        except Refused:
            judgement.abort()
            raise
        return judgement

    def refused(self, words: str, rule: RateRule, account: str = "piet", size: int | None = None) -> None:
        self.assertEqual(str(self.assertRaises(Refused, self.mail, rule, account, size).reply), words)

    def test_interfaces(self) -> None:
        verifyObject(IPolicy, self.rule())
        verifyObject(IJudgement, self.begin(self.rule()))

    @proves("L4")
    def test_messages(self) -> None:
        rule = self.rule(MESSAGES)
        for _ in range(3):
            self.mail(rule).accepted()
        self.refused("450 4.7.1 Too many messages in this time; come back in 10 seconds", rule)
        self.mail(rule, "jan")
        self.clock.advance(9.5)
        self.refused("450 4.7.1 Too many messages in this time; come back in 1 seconds", rule)
        self.clock.advance(0.6)
        self.mail(rule).accepted()
        self.assertRaises(Refused, self.mail, rule)

    @proves("L4")
    def test_of_the_realm(self) -> None:
        rule = self.rule(OF_THE_REALM)
        for account in "abcd":
            self.mail(rule, account).accepted()
        self.refused("450 4.7.1 Too many messages in this time; come back in 10 seconds", rule, "e")

    def test_many_at_once_have_no_more_room(self) -> None:
        rule = self.rule(MESSAGES)
        open_ = [self.mail(rule) for _ in range(3)]
        self.assertRaises(Refused, self.mail, rule)
        open_[0].abort()  # what comes to nothing is given back
        self.mail(rule)
        self.assertRaises(Refused, self.mail, rule)

    def test_room_cannot_be_saved_up(self) -> None:
        """What a transaction took has drained while it was open: its end makes no room."""
        rule = self.rule(MESSAGES)
        held = []
        for _ in range(5):
            held.append(self.mail(rule))
            self.clock.advance(10)
        for _ in range(3):
            self.mail(rule).accepted()
        for judgement in held[:-1]:
            judgement.abort()
        self.assertRaises(Refused, self.mail, rule)

    def test_recipients_that_others_refuse(self) -> None:
        """They do not count once it is known who is left; also where content begins twice."""
        rule = self.rule(Limit(Unit.RECIPIENTS, 4, 40.0, each_account=True))
        judgement = self.mail(rule)
        for path in (ONE, TWO, TWO):
            judgement.recipient(so_far(), path, RcptParameters())
        for _ in range(2):
            judgement.open(so_far(ONE))
        judgement.accepted()
        other = self.mail(rule)
        for number in range(3):
            other.recipient(so_far(), Path(str(number), "overheid.nl"), RcptParameters())
        self.assertRaises(Refused, other.recipient, so_far(), ONE, RcptParameters())

    def test_all_limits_have_to_have_room(self) -> None:
        """What one of them refuses counts with none."""
        rule = self.rule(OF_THE_REALM, MESSAGES)
        for _ in range(3):
            self.mail(rule).accepted()
        for _ in range(5):
            self.assertRaises(Refused, self.mail, rule)
        self.mail(rule, "jan")
        self.assertRaises(Refused, self.mail, rule, "jan")

    @proves("L4")
    def test_recipients(self) -> None:
        rule = self.rule(RECIPIENTS)
        judgement = self.mail(rule)
        judgement.recipient(so_far(), ONE, RcptParameters())
        for path in (ONE, TWO):  # one counts once, however often it is said
            judgement.recipient(so_far(ONE), path, RcptParameters())
        three = Path("drie", "overheid.nl")
        refused = self.assertRaises(Refused, judgement.recipient, so_far(ONE, TWO), three, RcptParameters())
        self.assertEqual(
            str(refused.reply), "450 4.7.1 Too many recipients in this time; come back in 10 seconds"
        )
        judgement.abort()
        self.mail(rule).recipient(so_far(), ONE, RcptParameters())

    @proves("L4")
    def test_octets(self) -> None:
        rule = self.rule(OCTETS)
        judgement = self.mail(rule, size=900)
        judgement.write(b"x" * 600)
        self.assertIsNone(judgement.complete())
        judgement.accepted()
        self.refused("450 4.7.1 Too many octets in this time; come back in 10 seconds", rule, size=500)
        self.refused("552 5.3.4 More octets at once than this account may ever submit", rule, size=1001)
        judgement = self.mail(rule, size=400)
        judgement.write(b"x" * 500)  # more than it said
        self.assertRaises(Refused, judgement.complete)
        judgement.abort()
        self.mail(rule, size=400)

    def test_what_never_fits_is_not_told_to_come_back(self) -> None:
        rule = self.rule(MESSAGES, OCTETS)
        for _ in range(3):
            self.mail(rule).accepted()
        self.refused("552 5.3.4 More octets at once than this account may ever submit", rule, size=1001)

    def test_memory_is_bounded(self) -> None:
        self.patch(rate, "_MOST", 10)
        bucket = Bucket(MESSAGES, self.clock.seconds)
        for number in range(1000):
            bucket.add(str(number), 1)
        self.assertEqual(len(bucket), 10)
        self.clock.advance(31)
        bucket.add("x", 1)
        self.assertEqual(len(bucket), 1)

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 4)), max_size=40))
    def test_no_window_takes_more_than_twice_the_limit(self, attempts: list[tuple[float, int]]) -> None:
        """What a bucket of so many lets through: itself, and what has drained since."""
        clock = Clock()
        clock.advance(1000)
        bucket = Bucket(Limit(Unit.RECIPIENTS, 5, 50.0, each_account=True), clock.seconds)
        taken: list[tuple[float, int]] = []
        for pause, amount in attempts:
            clock.advance(pause)
            if not bucket.wait("a", amount):
                bucket.add("a", amount)
                taken.append((clock.seconds(), amount))
        for start, _ in taken:
            for end, _ in taken:
                if end >= start:
                    within = sum(amount for when, amount in taken if start <= when <= end)
                    self.assertLessEqual(within, 5 + (end - start) / 10 + 1e-3)


class DialogueTests(ClockTestCase):
    @proves("L4")
    def test_a_client_is_told_when_to_come_back(self) -> None:
        wire = self.logged_in(policies=(RateRule([MESSAGES], self.clock.seconds),))
        for _ in range(3):
            self.assertIn("queued as", wire.submit())
        self.assertEqual(
            wire.ask("MAIL FROM:<ik@mijnbedrijf.nl>"),
            "450 4.7.1 Too many messages in this time; come back in 10 seconds\r\n",
        )
        self.clock.advance(10)
        self.assertIn("queued as", wire.submit())
