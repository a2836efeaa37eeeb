"""What outcomes come to (D2, D3)."""

from collections.abc import Mapping
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.interfaces import Damaged, INotifications
from digipoort_msa.smtp.envelope import (
    NULL_PATH,
    Arrival,
    Envelope,
    Fate,
    Notify,
    Outcome,
    Path,
    RcptParameters,
)
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import verdicts
from digipoort_msa.spool.rows import Attempt, Stored
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.states import State
from digipoort_msa.spool.verdicts import HERE, NobodyToTell, Verdicts
from tests.notification_doubles import ListedNotifications
from tests.requirements import proves
from tests.spooling import DEFERRED, DELIVERED, FAILED, envelope

HOP = "core.example.nl:25"
NOW = 1000.0
HOUR = 3600.0
CONTENT: Any = object()  # nothing here reads it
SENDER = Path("sender", "example.nl")


def notify(*when: Notify) -> RcptParameters:
    return RcptParameters(notify=frozenset(when))


class VerdictsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.notifications = ListedNotifications()
        verifyObject(INotifications, self.notifications)
        self.schedule = Schedule()
        self.verdicts = Verdicts(self.notifications, self.schedule, iter(("N1", "N2", "N3")).__next__)

    def stored(
        self, wishes: Mapping[str, RcptParameters | None], attempts: int = 0, **changes: Any
    ) -> Stored:
        """A message for these recipients."""
        parameters = {Path.from_text(path): given for path, given in wishes.items() if given is not None}
        given = evolve(envelope(recipients=tuple(wishes)), recipient_parameters=parameters, **changes)
        return Stored(given, 4, False, b"body", since=NOW, attempts=attempts)

    def attempt(
        self, stored: Stored, replies: Mapping[str, Reply], now: float = NOW, **outcome: Any
    ) -> Attempt:
        outcomes = {Path.from_text(path): Outcome(reply, HOP, **outcome) for path, reply in replies.items()}
        attempt = self.verdicts.attempt(stored, CONTENT, outcomes, now, lambda: 0.5)
        result: Attempt = self.successResultOf(Deferred.fromCoroutine(attempt))
        return result

    def one(self, reply: Reply, wish: RcptParameters | None = None, now: float = NOW, **more: Any) -> Attempt:
        outcome = {"arrival": more.pop("arrival")} if "arrival" in more else {}
        return self.attempt(self.stored({"one@b.nl": wish}, **more), {"one@b.nl": reply}, now, **outcome)

    def states(self, attempt: Attempt) -> dict[str, State]:
        return {str(result.path): result.state for result in attempt.results}


class AttemptTests(VerdictsTestCase):
    @proves("D3")
    def test_each_recipient_its_own_state(self) -> None:
        stored = self.stored({"one@b.nl": None, "later@b.nl": None, "never@b.nl": None, "lost@b.nl": None})
        attempt = self.attempt(
            stored,
            {"never@b.nl": FAILED, "one@b.nl": DELIVERED, "later@b.nl": DEFERRED, "other@b.nl": DELIVERED},
        )
        self.assertEqual(
            {
                "one@b.nl": State.DELIVERED,
                "later@b.nl": State.DEFERRED,
                "never@b.nl": State.RETURNED,
                "lost@b.nl": State.DEFERRED,  # the delivery said nothing of it
            },
            self.states(attempt),
        )
        self.assertEqual((NOW, NOW + 60), (attempt.now, attempt.next_attempt))
        self.assertEqual((FAILED, HOP), (attempt.results[2].reply, attempt.results[2].hop))
        self.assertEqual(HERE, attempt.results[3].hop)
        self.assertEqual([{"never@b.nl": "failed"}], self.notifications.told)

    def test_a_reply_that_is_neither_yes_nor_no(self) -> None:
        attempt = self.one(Reply(354, None, ("go ahead",)))
        self.assertEqual({"one@b.nl": State.DEFERRED}, self.states(attempt))

    @proves("D2")
    def test_the_notification_is_a_message_that_cannot_loop(self) -> None:
        attempt = self.attempt(
            self.stored({"one@b.nl": None}, reverse_path=SENDER, next_hop="other:25"), {"one@b.nl": FAILED}
        )
        told = attempt.notification
        assert told is not None
        self.assertEqual(("N1", NULL_PATH, (SENDER,)), _who(told.envelope))
        original = envelope()
        self.assertEqual(
            (original.realm, original.account, original.queue_id, NOW, None),
            (
                told.envelope.realm,
                told.envelope.account,
                told.envelope.session_id,
                told.envelope.received_at,
                told.envelope.next_hop,
            ),
        )
        self.assertEqual(notify(Notify.NEVER), told.envelope.parameters_of(SENDER))
        self.assertEqual((False, False), _extensions(told.envelope))
        self.assertEqual((None, NOW, 0), (told.sequence, told.since, told.attempts))
        assert told.octets is not None
        self.assertEqual((len(told.octets), False), (told.size, told.eight_bit))
        (self_told,) = self.notifications.written
        self.assertEqual(("N1", NOW, NOW + 72 * HOUR), self_told[2:])

    def test_a_notification_outside_ascii(self) -> None:
        self.notifications.answer = succeed("één".encode())
        stored = self.stored({"one@b.nl": None}, reverse_path=Path("één", "b.nl"))
        told = self.attempt(stored, {"one@b.nl": FAILED}).notification
        assert told is not None
        self.assertTrue(told.eight_bit)
        self.assertEqual((True, True), _extensions(told.envelope))

    @proves("D2")
    def test_who_is_not_told_of_a_failure(self) -> None:
        """The message is an operator's then."""
        attempt = self.one(FAILED, notify(Notify.NEVER))
        self.assertEqual(verdicts.NOT_WANTED, attempt.results[0].reason)
        for wish in (None, notify(Notify.NEVER), notify(Notify.FAILURE, Notify.SUCCESS)):
            attempt = self.one(FAILED, wish, reverse_path=NULL_PATH)
            self.assertEqual({"one@b.nl": State.HELD}, self.states(attempt))
            self.assertEqual(verdicts.NULL_SENDER, attempt.results[0].reason)
        self.notifications.why_not = "a stranger's"
        attempt = self.one(FAILED)
        self.assertEqual("a stranger's", attempt.results[0].reason)
        self.assertEqual([], self.notifications.told)
        self.assertEqual((FAILED, HOP), (attempt.results[0].reply, attempt.results[0].hop))

    def test_success_is_told_where_it_is_asked_for_and_nobody_else_tells(self) -> None:
        wish = notify(Notify.SUCCESS)
        for arrival, action in ((Arrival.RELAYED, "relayed"), (Arrival.DELIVERED, "delivered")):
            self.one(DELIVERED, wish, arrival=arrival)
            self.assertEqual({"one@b.nl": action}, self.notifications.told[-1])
        self.assertIsNone(self.one(DELIVERED, wish, arrival=Arrival.PASSED_ON).notification)
        self.assertIsNone(self.one(DELIVERED).notification)
        self.assertIsNone(self.one(DELIVERED, notify(Notify.FAILURE)).notification)
        self.assertIsNone(self.one(DELIVERED, wish, reverse_path=NULL_PATH).notification)
        self.assertEqual(2, len(self.notifications.told))

    def test_a_delay_is_told_once(self) -> None:
        late = NOW + 4 * HOUR
        self.assertIsNone(self.one(DEFERRED, now=late - 1, attempts=8).notification)
        attempt = self.one(DEFERRED, now=late, attempts=8)
        self.assertEqual((Path("one", "b.nl"),), attempt.told_of_delay)
        self.assertIsNotNone(attempt.notification)
        self.assertEqual([{"one@b.nl": "delayed"}], self.notifications.told)
        stored = self.stored({"one@b.nl": None, "two@b.nl": None}, attempts=9)
        stored = evolve(stored, told_of_delay=frozenset({Path("one", "b.nl")}))
        attempt = self.attempt(stored, {}, late)
        self.assertEqual((Path("two", "b.nl"),), attempt.told_of_delay)
        self.assertEqual({"two@b.nl": "delayed"}, self.notifications.told[-1])

    def test_a_delay_that_nobody_is_told_of(self) -> None:
        late = NOW + 4 * HOUR
        self.assertIsNone(self.one(DEFERRED, notify(Notify.FAILURE), late).notification)
        self.assertIsNone(self.one(DEFERRED, now=late, reverse_path=NULL_PATH).notification)
        self.notifications.why_not = "a stranger's"
        attempt = self.one(DEFERRED, now=late)
        self.assertEqual(((), None), (attempt.told_of_delay, attempt.notification))
        self.assertEqual({"one@b.nl": State.DEFERRED}, self.states(attempt))

    @proves("D2")
    def test_given_up(self) -> None:
        over = NOW + 72 * HOUR
        attempt = self.one(DEFERRED, now=over, attempts=40)
        self.assertEqual({"one@b.nl": State.RETURNED}, self.states(attempt))
        self.assertEqual([{"one@b.nl": "failed"}], self.notifications.told)
        self.assertEqual(DEFERRED, self.notifications.written[0][1][0].reply)
        self.assertEqual((), attempt.told_of_delay)

    def test_given_up_by_the_clock_alone_is_not(self) -> None:
        self.assertEqual({"one@b.nl": State.DEFERRED}, self.states(self.one(DEFERRED, now=NOW + 99 * HOUR)))

    def test_one_notification_for_all_failures_first(self) -> None:
        wish = notify(*(set(Notify) - {Notify.NEVER}))
        stored = self.stored(dict.fromkeys(("one@b.nl", "two@b.nl", "three@b.nl"), wish), attempts=8)
        attempt = self.attempt(
            stored, {"one@b.nl": DELIVERED, "two@b.nl": DEFERRED, "three@b.nl": FAILED}, NOW + 5 * HOUR
        )
        self.assertEqual(
            [{"three@b.nl": "failed", "one@b.nl": "relayed", "two@b.nl": "delayed"}], self.notifications.told
        )
        fates: tuple[Fate, ...] = tuple(self.notifications.written[0][1])
        self.assertEqual(("three@b.nl", HOP), (str(fates[0].path), fates[0].hop))
        self.assertIsNotNone(attempt.notification)

    def test_our_own_words_have_no_hop(self) -> None:
        stored = self.stored({"one@b.nl": None}, attempts=40)
        self.attempt(stored, {}, NOW + 99 * HOUR)
        self.assertIsNone(self.notifications.written[0][1][0].hop)


class NotWrittenTests(VerdictsTestCase):
    """The writing of a notification fails: no outcome is lost."""

    def mixed(self) -> Attempt:
        wish = notify(*(set(Notify) - {Notify.NEVER}))
        stored = self.stored(dict.fromkeys(("one@b.nl", "two@b.nl", "three@b.nl"), wish), attempts=8)
        replies = {"one@b.nl": DELIVERED, "two@b.nl": DEFERRED, "three@b.nl": FAILED}
        outcomes = {Path.from_text(path): Outcome(reply, HOP) for path, reply in replies.items()}
        self.running = Deferred.fromCoroutine(
            self.verdicts.attempt(stored, CONTENT, outcomes, NOW + 5 * HOUR, lambda: 0.5)
        )
        if self.notifications.answer is not None and not getattr(self.notifications.answer, "called", True):
            self.running.cancel()
        attempt: Attempt = self.successResultOf(self.running)
        self.assertEqual(((), None), (attempt.told_of_delay, attempt.notification))
        self.assertEqual(State.DELIVERED, attempt.results[0].state)
        self.assertEqual(State.DEFERRED, attempt.results[1].state)
        return attempt

    @proves("D2")
    def test_a_defect(self) -> None:
        for answer in (RuntimeError("oops \xe9\n"), fail(RuntimeError("oops \xe9\n")), succeed(b"")):
            self.notifications.answer = answer
            attempt = self.mixed()
            self.assertEqual(State.HELD, attempt.results[2].state)
            reason = attempt.results[2].reason
            assert reason is not None
            self.assertIn("its notification could not be written: ", reason)
            self.assertTrue(reason.isascii())
        self.assertEqual(3, len(self.flushLoggedErrors(RuntimeError, TypeError)))

    @proves("D2")
    def test_damage(self) -> None:
        self.notifications.answer = fail(Damaged("its file \ud800 is gone"))
        failed = self.mixed().results[2]
        self.assertEqual(
            (State.HELD, "its content is damaged: its file \\ud800 is gone"), (failed.state, failed.reason)
        )

    @proves("D2")
    def test_a_stop_meanwhile(self) -> None:
        self.notifications.answer = Deferred()
        attempt = self.mixed()
        self.assertEqual(State.DEFERRED, attempt.results[2].state)  # and is refused once more
        self.assertGreater(attempt.next_attempt, attempt.now)

    def test_not_knowing_whether_to_tell(self) -> None:
        self.patch(self.notifications, "may_tell", lambda envelope: 1 / 0)
        attempt = self.mixed()
        self.assertEqual(State.HELD, attempt.results[2].state)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class ReturnedTests(VerdictsTestCase):
    """An operator returns a message."""

    def returned(self, stored: Stored) -> Any:
        return Deferred.fromCoroutine(self.verdicts.returned(stored, CONTENT, NOW))

    @proves("D2")
    def test_every_recipient(self) -> None:
        attempt = self.successResultOf(self.returned(self.stored({"one@b.nl": None, "two@b.nl": None})))
        self.assertEqual({"one@b.nl": State.RETURNED, "two@b.nl": State.RETURNED}, self.states(attempt))
        self.assertEqual([{"one@b.nl": "failed", "two@b.nl": "failed"}], self.notifications.told)
        fate = self.notifications.written[0][1][0]
        self.assertEqual((verdicts.RETURNED_BY_OPERATOR, None), (fate.reply, fate.hop))
        self.assertTrue(fate.reply.permanent)
        self.assertEqual(("N1", NULL_PATH, (SENDER,)), _who(attempt.notification.envelope))

    def test_those_of_whom_the_sender_wants_no_news_are_held(self) -> None:
        stored = self.stored({"one@b.nl": None, "two@b.nl": notify(Notify.NEVER)})
        attempt = self.successResultOf(self.returned(stored))
        self.assertEqual({"one@b.nl": State.RETURNED, "two@b.nl": State.HELD}, self.states(attempt))
        self.assertEqual([{"one@b.nl": "failed"}], self.notifications.told)

    def test_nobody_to_tell(self) -> None:
        unwanted = self.stored({"one@b.nl": notify(Notify.SUCCESS), "two@b.nl": notify(Notify.NEVER)})
        self.failureResultOf(self.returned(unwanted), NobodyToTell)
        self.failureResultOf(
            self.returned(self.stored({"one@b.nl": None}, reverse_path=NULL_PATH)), NobodyToTell
        )
        self.notifications.why_not = "a stranger's"
        refusal = self.failureResultOf(self.returned(self.stored({"one@b.nl": None})), NobodyToTell)
        self.assertEqual("a stranger's", str(refusal.value))
        self.assertEqual([], self.notifications.told)

    def test_nothing_is_returned_without_its_notification(self) -> None:
        self.notifications.answer = fail(RuntimeError("oops"))
        self.failureResultOf(self.returned(self.stored({"one@b.nl": None})), RuntimeError)

    def test_what_cannot_be_returned_is_held(self) -> None:
        stored = self.stored({"one@b.nl": None, "two@b.nl": None})
        attempt = verdicts.not_returned(stored, "a stranger's", NOW)
        self.assertEqual({"one@b.nl": State.HELD, "two@b.nl": State.HELD}, self.states(attempt))
        self.assertEqual("it cannot be returned: a stranger's", attempt.results[0].reason)


_REPLIES = st.sampled_from((DELIVERED, DEFERRED, FAILED, None))
_WISHES = st.none() | st.builds(
    lambda when: notify(*when) if when else notify(Notify.NEVER),
    st.sets(st.sampled_from(sorted(set(Notify) - {Notify.NEVER}))),
)


class PropertyTests(VerdictsTestCase):
    @proves("D2")
    @given(
        st.lists(st.tuples(_REPLIES, _WISHES, st.sampled_from(Arrival)), min_size=1, max_size=6),
        st.booleans(),
        st.sampled_from((None, "a stranger's")),
        st.booleans(),
        st.sampled_from((NOW, NOW + 5 * HOUR, NOW + 80 * HOUR)),
    )
    def test_no_recipient_is_ever_lost(
        self, outcomes: Any, null: bool, why_not: str | None, broken: bool, now: float
    ) -> None:
        """Each recipient has one result; it is returned if, and only if, the notification says that it
        failed; nobody is told against his wish; whatever is held says why."""
        self.setUp()
        self.notifications.why_not = why_not
        self.notifications.answer = RuntimeError("oops") if broken else None
        wishes = {f"{number}@b.nl": wish for number, (_, wish, _) in enumerate(outcomes)}
        stored = self.stored(wishes, attempts=20, reverse_path=NULL_PATH if null else SENDER)
        given_outcomes = {
            Path(str(number), "b.nl"): Outcome(reply, HOP, arrival)
            for number, (reply, _, arrival) in enumerate(outcomes)
            if reply is not None
        }
        running = self.verdicts.attempt(stored, CONTENT, given_outcomes, now, lambda: 0.5)
        attempt: Attempt = self.successResultOf(Deferred.fromCoroutine(running))
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(list(stored.envelope.recipients), [result.path for result in attempt.results])
        told = self.notifications.told[-1] if attempt.notification is not None else {}
        self.assertFalse(told and (null or why_not or broken))
        over = now > NOW + 72 * HOUR
        for result, (reply, wish, arrival) in zip(attempt.results, outcomes, strict=True):
            news = told.get(str(result.path))
            failed = reply is FAILED or (over and reply is not DELIVERED)
            wants = wish or RcptParameters()
            self.assertEqual(result.state is State.DELIVERED, reply is DELIVERED)
            self.assertEqual(result.state in (State.RETURNED, State.HELD), failed)
            self.assertEqual(result.state is State.RETURNED, news == "failed")
            self.assertEqual(result.state is State.HELD, result.reason is not None)
            self.assertEqual(result.path in attempt.told_of_delay, news == "delayed")
            if news == "failed":
                self.assertTrue(wants.wants(Notify.FAILURE))
            elif news == "delayed":
                self.assertTrue(wants.wants(Notify.DELAY) and result.state is State.DEFERRED)
            elif news is not None:
                self.assertTrue(wants.wants(Notify.SUCCESS) and arrival is not Arrival.PASSED_ON)


def _who(of: Envelope) -> tuple[str, Path, tuple[Path, ...]]:
    return of.queue_id, of.reverse_path, of.recipients


def _extensions(of: Envelope) -> tuple[bool, bool]:
    return of.parameters.body_8bitmime, of.parameters.smtputf8
