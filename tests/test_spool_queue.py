"""The queue of one realm (D1, D2, D3)."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed

from digipoort_msa import log
from digipoort_msa.interfaces import Damaged
from digipoort_msa.smtp.envelope import NULL_PATH, Notify, Outcome, RcptParameters
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import queue, waiting
from digipoort_msa.spool.rows import Stored
from digipoort_msa.spool.schedule import Schedule
from tests.queueing import QueueTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED, FAILED, RecordingDelivery

YEAR = 365 * 24 * 3600.0
HOUR = 3600.0


class DeliveryTests(QueueTestCase):
    @proves("D1", "M6")
    def test_a_new_message_is_delivered_at_once_from_memory(self) -> None:
        self.queue()
        self.settle()
        with mock.patch.object(self.spool, "due", side_effect=AssertionError("no need to read it back")):
            queue_id = self.kept(b"octets")
        self.until(lambda: not self.working.active)
        envelope, content = self.delivery.calls[0]
        self.assertEqual(
            (queue_id, MailPath("sender", "example.nl")), (envelope.queue_id, envelope.reverse_path)
        )
        self.assertEqual(b"octets", self.successResultOf(content.open().read()))
        self.assertEqual([], self.rows("SELECT * FROM message"))
        self.assertEqual({}, self.states())

    @proves("D2")
    def test_a_row_that_makes_no_sense_stops_no_other(self) -> None:
        """A release that allows less in an address than the one before it finds such rows."""
        broken, sound = self.kept(), self.kept()
        self.rows("UPDATE message SET reverse_path = 'a' || char(13) || '@b' WHERE queue_id = ?", broken)
        self.queue(active=1)
        self.settle()
        self.until(lambda: not self.working.active)
        self.assertEqual([sound], self.delivery.queue_ids)
        self.assertEqual([broken], [event["queue_id"] for event in self.logged(log.ROW_UNREADABLE)])
        self.assertEqual([(broken,)], self.rows("SELECT queue_id FROM message"))

    @proves("D2")
    def test_what_a_crash_left_is_delivered_after_the_start(self) -> None:
        self.delivery.held = True
        queue_id = self.kept()
        self.queue()
        self.settle()
        self.assertEqual([queue_id], self.delivery.queue_ids)  # and then the process dies
        self.queues.stop()
        self.stop(self.spool)
        self.spool = self.started()
        self.delivery = RecordingDelivery()
        self.queue()
        self.settle()
        self.assertEqual([queue_id], self.delivery.queue_ids)

    @proves("D3", "D2")
    def test_each_recipient_its_own_end(self) -> None:
        self.delivery.replies = {"later@b.nl": DEFERRED, "never@b.nl": FAILED}
        self.queue()
        queue_id = self.kept(recipients=("one@b.nl", "later@b.nl", "never@b.nl"))
        self.settle()
        self.assertEqual(
            {"one@b.nl": "delivered", "later@b.nl": "deferred", "never@b.nl": "returned"}, self.states()
        )
        self.advance(60)
        retried = [envelope for envelope, _ in self.delivery.calls if envelope.queue_id == queue_id]
        self.assertEqual([MailPath("later", "b.nl")], list(retried[1].recipients))
        self.delivery.replies = {}
        self.advance(120)
        self.assertEqual({}, self.states())
        (returned,) = self.logged(log.RETURNED)
        self.assertEqual((queue_id, "never@b.nl"), (returned["queue_id"], returned["recipient"]))
        self.assertIn("550 5.1.1 no such user", returned["reply"])
        delivered = [e["recipient"] for e in self.logged(log.DELIVERED)]
        self.assertEqual(["one@b.nl", "sender@example.nl", "later@b.nl"], delivered)
        self.assertEqual([60, 120], [event["delay"] for event in self.logged(log.DEFERRED)])

    @proves("D2")
    def test_the_notification_goes_out_at_once_by_the_same_way(self) -> None:
        self.delivery.replies = {"one@example.nl": FAILED}
        self.queue()
        queue_id = self.kept()
        self.settle()
        told = self.delivery.calls[1][0]
        self.assertEqual(
            (NULL_PATH, (MailPath("sender", "example.nl"),)), (told.reverse_path, told.recipients)
        )
        self.assertEqual([], self.rows("SELECT * FROM message"))
        (event,) = self.logged(log.TOLD)
        self.assertEqual(
            (queue_id, "sender@example.nl", told.queue_id),
            (event["queue_id"], event["sender"], event["notification"]),
        )

    @proves("D2")
    def test_a_notification_that_fails_is_held(self) -> None:
        self.delivery.replies = {"one@example.nl": FAILED, "sender@example.nl": FAILED}
        self.queue()
        self.kept()
        self.settle()
        self.assertEqual({"sender@example.nl": "held"}, self.states())
        (event,) = self.logged(log.HELD)
        self.assertEqual(self.delivery.queue_ids[1], event["queue_id"])
        self.assertIn("null", event["reason"])
        self.assertEqual(1, len(self.notifications.told))

    @proves("D2")
    def test_who_wants_no_news_has_his_message_held(self) -> None:
        self.delivery.replies = {"one@example.nl": FAILED}
        self.queue()
        path = MailPath("one", "example.nl")
        self.keep(recipient_parameters={path: RcptParameters(frozenset({Notify.NEVER}))})
        self.settle()
        self.assertEqual({"one@example.nl": "held"}, self.states())
        self.advance(YEAR)
        self.assertEqual(1, len(self.delivery.calls))

    @proves("D3")
    def test_the_schedule(self) -> None:
        self.delivery.replies = {"one@example.nl": DEFERRED}
        self.queue(schedule=Schedule(give_up_after=400))
        self.kept()
        self.settle()
        for delay in (60, 120, 240):
            calls = len(self.delivery.calls)
            self.advance(delay - 1)
            self.assertEqual(calls, len(self.delivery.calls))
            self.advance(1)
            self.settle()
            self.assertLess(calls, len(self.delivery.calls))
        self.assertEqual({}, self.states())  # returned after 420 s
        self.assertEqual(3, len(self.logged(log.DEFERRED)))
        self.assertIn("450 4.2.1 not now", self.logged(log.RETURNED)[0]["reply"])
        self.assertEqual([{"one@example.nl": "failed"}], self.notifications.told)

    @proves("D3")
    def test_a_delay_is_told_once(self) -> None:
        self.delivery.replies = {"one@example.nl": DEFERRED}
        self.queue()
        self.kept()
        self.settle()
        for _ in range(40):
            self.advance(HOUR / 2)
        self.assertEqual([{"one@example.nl": "delayed"}], self.notifications.told)
        self.assertEqual({"one@example.nl": "deferred"}, self.states())

    def test_a_sequence_goes_one_after_the_other(self) -> None:
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: f"{realm} {account}")
        self.delivery.held = True
        self.queue()
        self.settle()
        kept = [self.kept() for _ in range(3)]
        self.settle()
        self.assertEqual(kept[:1], self.delivery.queue_ids)
        self.delivery.finish(kept[0])
        self.until(lambda: len(self.delivery.calls) == 2)
        self.delivery.replies = {"one@example.nl": FAILED}
        self.delivery.finish(kept[1])
        self.until(lambda: len(self.delivery.calls) == 4)  # the notification is in no sequence
        self.assertEqual(kept, [each for each in self.delivery.queue_ids if each in kept])
        self.assertEqual(2, len(self.working.active))


class DefectTests(QueueTestCase):
    """What should never happen, and must lose nothing, nor go on for ever."""

    @contextmanager
    def failing(self, *operations: str) -> Iterator[None]:
        """The disk does not take what these write."""
        full = sqlite3.OperationalError("database or disk is full")
        with ExitStack() as stack:
            for name in operations:
                stack.enter_context(mock.patch(f"digipoort_msa.spool.operations.{name}", side_effect=full))
            yield

    def test_a_defect_of_the_delivery_counts_as_temporary(self) -> None:
        self.queue()
        defects = (fail(RuntimeError("oops")), mock.Mock(side_effect=TypeError("oops")), succeed(None))
        for number, defect in enumerate(defects):
            answer = defect if callable(defect) else lambda *_, defect=defect: defect
            with mock.patch.object(self.delivery, "deliver", answer):
                self.kept(recipients=(f"{number}@b.nl",))
                self.settle()
        self.assertEqual({"deferred"}, set(self.states().values()))
        self.assertEqual(3, len(self.logged(log.DEFECT)))
        self.assertEqual(3, len(self.flushLoggedErrors(RuntimeError, TypeError)))

    def test_a_recipient_without_outcome_is_tried_again(self) -> None:
        with mock.patch.object(self.delivery, "outcomes", return_value={}):
            self.queue()
            self.kept()
            self.settle()
        self.assertEqual({"one@example.nl": "deferred"}, self.states())

    def test_an_outcome_of_a_stranger_is_none(self) -> None:
        strange = {MailPath("other", "b.nl"): Outcome(Reply(250, None, ("ok",)), "core")}
        with mock.patch.object(self.delivery, "outcomes", return_value=strange):
            self.queue()
            self.kept()
            self.settle()
        self.assertEqual({"one@example.nl": "deferred"}, self.states())

    @proves("D2")
    def test_an_outcome_that_cannot_be_recorded_is_recorded_later(self) -> None:
        self.delivery.held = True
        self.delivery.replies = {"never@b.nl": FAILED}
        self.queue()
        kept = [self.kept(), self.kept(recipients=("never@b.nl",))]
        self.settle()
        with self.failing("forget", "record"):
            for queue_id in kept:
                self.delivery.finish(queue_id)
            self.settle()
            self.advance(queue.RECORD_AGAIN)
        self.assertLessEqual(4, len(self.flushLoggedErrors(sqlite3.OperationalError)))
        self.assertEqual(2, len(self.working.active))
        self.advance(queue.RECORD_AGAIN)
        (told,) = set(self.delivery.queue_ids).difference(kept)
        self.delivery.finish(told)
        self.settle()
        self.assertEqual([], self.rows("SELECT * FROM message"))
        self.assertEqual(3, len(self.delivery.calls))  # not delivered twice; and one notification
        self.assertEqual(1, len(self.notifications.told))
        self.assertEqual(0, len(self.working.active))

    @proves("D2")
    def test_stopping_while_nothing_can_be_recorded(self) -> None:
        self.delivery.held = True
        self.queue(grace=30)
        queue_id = self.kept()
        self.settle()
        with self.failing("forget"):
            self.delivery.finish(queue_id)
            self.settle()
            stopped = self.queues.stop()
            self.assertNoResult(stopped)
            self.advance(30)
        self.successResultOf(stopped)
        self.flushLoggedErrors(sqlite3.OperationalError)
        self.assertEqual([(queue_id, 1000.0)], self.rows("SELECT queue_id, next_attempt FROM message"))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_page_that_cannot_be_read_is_read_later(self) -> None:
        queue_id = self.kept()
        with self.failing("due"):
            self.queue()
            self.settle()
        self.flushLoggedErrors(sqlite3.OperationalError)
        self.advance(1)
        self.assertEqual([queue_id], self.delivery.queue_ids)

    @proves("D2")
    def test_damaged_content_is_held(self) -> None:
        damage = fail(Damaged("its SHA-256 is another"))
        with mock.patch.object(self.delivery, "deliver", return_value=damage):
            self.queue()
            self.kept()
            self.settle()
        self.assertEqual(
            [("held", "its content is damaged: its SHA-256 is another")],
            self.rows("SELECT state, reason FROM recipient"),
        )
        self.assertEqual(1, len(self.logged(log.CONTENT_DAMAGED)))
        self.assertEqual(0, len(self.working.active))
        self.assertEqual([], self.notifications.told)

    @proves("D2")
    def test_an_outcome_that_can_never_be_recorded_takes_no_room(self) -> None:
        self.queue(active=1)
        self.settle()
        with mock.patch("digipoort_msa.spool.operations.forget", side_effect=TypeError("oops")):
            poison = self.kept()
            self.settle()
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        sound = self.kept()
        self.settle()
        for _ in range(20):
            self.advance(queue.RECORD_AGAIN)
        self.assertEqual([poison, sound], self.delivery.queue_ids)
        self.assertEqual([(poison,)], self.rows("SELECT queue_id FROM message"))

    def test_attempts_that_end_at_once_do_not_nest(self) -> None:
        self.delivery.held = True
        self.queue(active=1)
        self.settle()
        first = self.kept()
        for _ in range(250):
            self.kept()
        with mock.patch.object(self.spool, "content", side_effect=ValueError):
            self.delivery.finish(first)
            self.until(lambda: not self.working.active)
            self.settle()
        self.assertEqual(250, len(self.flushLoggedErrors(ValueError)))
        self.assertEqual([first], self.delivery.queue_ids)

    @proves("D2")
    def test_a_defect_of_ours_leaves_the_message_alone(self) -> None:
        """Its row says that it is due: without this it would be delivered again and again."""
        kept = [self.kept() for _ in range(50)]
        with mock.patch.object(self.spool, "content", side_effect=RuntimeError("oops")):
            self.queue(active=1)
            self.settle()
            for _ in range(60):
                self.advance(1)
        self.assertEqual(50, len(self.flushLoggedErrors(RuntimeError)))
        self.assertEqual([], self.delivery.calls)
        self.assertEqual([(queue_id,) for queue_id in kept], self.rows("SELECT queue_id FROM message"))


class ClockTests(QueueTestCase):
    """The wall clock jumps."""

    def setUp(self) -> None:
        super().setUp()
        self.delivery.replies = {"one@example.nl": DEFERRED}

    def tries(self) -> int:
        return sum(not envelope.reverse_path.is_null for envelope, _ in self.delivery.calls)

    @proves("D2", "D3")
    def test_forward_and_back(self) -> None:
        self.queue()
        self.kept()
        self.settle()
        self.turned = YEAR
        self.advance(1)
        self.advance(1)
        self.assertEqual(2, self.tries())  # tried once, and not given up
        self.turned = 0
        self.advance(1)
        self.assertEqual(3, self.tries())
        self.assertEqual(1, len(self.logged(log.CLOCK_TURNED_BACK)))
        for _ in range(60):
            self.advance(1)
        self.assertEqual(3, self.tries())
        self.assertEqual({"one@example.nl": "deferred"}, self.states())

    @proves("D3")
    def test_back_before_the_start(self) -> None:
        self.kept()
        self.rows("UPDATE message SET next_attempt = ? WHERE EXISTS (SELECT 1 FROM recipient)", 1000.0 + YEAR)
        self.queue()
        self.settle()
        self.assertEqual(1, len(self.delivery.calls))

    def test_a_clock_that_swings_has_nothing_tried_at_each_swing(self) -> None:
        self.queue()
        self.kept()
        self.settle()
        for number in range(120):
            self.turned = -3000.0 * (number % 2)
            self.advance(1)
        self.assertLess(len(self.delivery.calls), 5)

    @proves("D2")
    def test_a_message_from_the_future_has_its_end(self) -> None:
        self.turned = YEAR
        self.queue()
        self.keep(received_at=self.now())
        self.settle()
        self.turned = 0
        for _ in range(90):
            self.advance(HOUR)
        self.assertEqual(
            [{"one@example.nl": "delayed"}, {"one@example.nl": "failed"}], self.notifications.told
        )
        self.assertEqual({}, self.states())


class BacklogTests(QueueTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.delivery.held = True

    def finish_one(self) -> None:
        count = len(self.delivery.calls)
        active = len(self.working.active)
        self.delivery.finish(next(iter(self.delivery.open)))
        self.until(lambda: len(self.delivery.calls) > count or len(self.working.active) < active)
        self.settle()

    def test_bounded_and_each_once(self) -> None:
        backlog = [self.kept() for _ in range(50)]
        self.queue(active=4)
        self.settle()
        most = 0
        while self.delivery.open:
            self.assertLessEqual(len(self.working.active), 4)
            most = max(most, len(self.working._waiting))
            self.finish_one()
        self.assertEqual(sorted(backlog), sorted(self.delivery.queue_ids))
        self.assertLess(most, 4 * (queue.PAGES + 1))
        self.assertEqual([], self.rows("SELECT * FROM message"))

    def test_the_way_out_does_not_wait_for_the_disk_but_does_not_run_ahead_of_it_either(self) -> None:
        backlog = [self.kept() for _ in range(20)]
        forget, recorded = self.spool.forget, Deferred[None]()

        def later(stored: Stored) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            recorded.addCallback(lambda _: forget(stored).chainDeferred(done))
            return done

        with mock.patch.object(self.spool, "forget", later):
            self.queue(active=2)
            self.settle()
            while self.delivery.open:
                self.assertLessEqual(len(self.delivery.open), 2)
                self.delivery.finish(next(iter(self.delivery.open)))
                self.settle()
        self.assertEqual(backlog[: 2 * queue.RECORDING], self.delivery.queue_ids)
        self.delivery.held = False
        recorded.callback(None)
        self.until(lambda: len(self.delivery.calls) == 20 and not self.working.active)
        self.assertEqual(backlog, self.delivery.queue_ids)
        self.assertEqual([], self.rows("SELECT * FROM message"))

    @proves("D2")
    def test_a_message_that_cannot_be_begun_costs_no_other_its_outcome(self) -> None:
        self.queue(active=1)
        first = self.kept()
        self.settle()
        second = self.kept()
        with mock.patch.object(self.spool.underway, "begin", side_effect=RuntimeError("oops")):
            self.delivery.finish(first)
            self.settle()
        self.assertEqual([first], [event["queue_id"] for event in self.logged(log.DELIVERED)])
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
        self.advance(1)
        self.assertEqual([first, second], self.delivery.queue_ids)

    def test_ten_thousand_that_are_done_at_once(self) -> None:
        """However quick the way out is, nothing calls itself ten thousand times deep."""
        self.delivery.held = False
        self.rows(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
            " INSERT INTO message (queue_id, realm, account, session_id, reverse_path, parameters,"
            " received_at, since, next_attempt, size, eight_bit, in_row) SELECT printf('%016d', i),"
            " 'overheidstransactiepoort.nl', 'a', 's', 'a@b.nl', '[null,false,false,null,null,null]',"
            " 1, 1, 1, 1, 0, 1 FROM n"
        )
        self.rows("INSERT INTO content SELECT queue_id, x'41' FROM message")
        self.rows(
            "INSERT INTO recipient (queue_id, path, position) SELECT queue_id, 'one@b.nl', 0 FROM message"
        )
        self.queue(active=200)
        self.until(lambda: len(self.delivery.calls) == 10_000 and not self.working.active)
        self.assertEqual([], self.rows("SELECT * FROM message"))
        self.assertEqual(10_000, len(set(self.delivery.queue_ids)))

    def test_new_and_old_take_turns(self) -> None:
        old = {self.kept() for _ in range(20)}
        self.queue(active=2)
        self.settle()
        new = [self.kept() for _ in range(20)]
        for _ in range(10):
            self.finish_one()
        taken = self.delivery.queue_ids[2:]
        self.assertGreaterEqual(len(old.intersection(taken)), 4)
        self.assertGreaterEqual(len(set(new).intersection(taken)), 4)
        self.assertEqual(len(taken), len(set(taken)))

    def test_the_waiting_room_is_bounded(self) -> None:
        self.patch(waiting, "MESSAGES", 3)
        self.queue(active=1)
        self.settle()
        kept = [self.kept() for _ in range(10)]
        self.settle()
        self.assertEqual(3, len(self.working._waiting))
        while self.delivery.open:
            self.finish_one()
        self.assertEqual(sorted(kept), sorted(self.delivery.queue_ids))

    def test_the_octets_waiting_are_bounded(self) -> None:
        self.patch(waiting, "OCTETS", 100)
        self.queue(active=1)
        self.settle()
        for _ in range(10):
            self.kept(bytes(40))
        self.assertEqual(2, len(self.working._waiting))

    def test_stopping_waits_for_the_active_ones(self) -> None:
        self.queue(active=1)
        self.settle()
        first, second = self.kept(), self.kept()
        stopped = self.queues.stop()
        self.assertNoResult(stopped)
        self.delivery.finish(first)
        self.result(stopped)
        self.assertEqual([(second,)], self.rows("SELECT queue_id FROM message"))
        self.assertEqual([first], self.delivery.queue_ids)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stopping_waits_a_bounded_time(self) -> None:
        self.queue(grace=30)
        self.settle()
        queue_id = self.kept()
        stopped = self.queues.stop()
        self.clock.advance(29)
        self.assertNoResult(stopped)
        self.clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual([(queue_id, 1000.0)], self.rows("SELECT queue_id, next_attempt FROM message"))
        self.assertEqual([], self.logged(log.DEFECT))
        self.assertEqual(0, len(self.working.active))

    @proves("D2")
    def test_stopping_while_a_notification_is_written(self) -> None:
        """What was delivered stays delivered; what failed is found out once more."""
        self.notifications.answer = Deferred()
        self.delivery.held = False
        self.delivery.replies = {"never@b.nl": FAILED}
        self.queue(grace=30)
        self.settle()
        self.kept(recipients=("one@b.nl", "never@b.nl"))
        self.settle()
        stopped = self.queues.stop()
        self.clock.advance(30)
        self.successResultOf(stopped)
        self.settle()
        self.assertEqual({"one@b.nl": "delivered", "never@b.nl": "deferred"}, self.states())
        self.assertEqual([], self.logged(log.DEFECT))
