import sqlite3
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import fail
from twisted.logger import globalLogPublisher

from digipoort_msa import log
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.spool import queue
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.queue import Queue
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.schema import State
from tests.requirements import proves
from tests.spooling import DEFERRED, FAILED, RecordingDelivery, SpoolTestCase, clock_at


class QueueTestCase(SpoolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = clock_at(1000.0)  # when the messages of kept() were received
        self.delivery = RecordingDelivery()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def queue(self, **settings: Any) -> Queue:
        settings = {"random": lambda: 0.5, "schedule": Schedule(), **settings}
        queue = Queue(self.spool, self.delivery, self.clock, **settings)
        queue.start()
        self.addCleanup(queue.stop)
        self.working = queue
        return queue

    def settle(self) -> None:
        """Until the queue has nothing under way in the spool: each step of it has had its turn there."""
        for _ in range(10):
            self.result(self.spool.data_version())

    def until(self, condition: Callable[[], bool]) -> None:
        self.threads.run_until(condition)

    def advance(self, seconds: float) -> None:
        """Let the clock reach a time, and the queue have its look at it."""
        self.clock.advance(seconds)
        self.settle()

    def logged(self, event: log.Event) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("event") == event.name]

    def states(self) -> dict[str, str]:
        return dict(self.rows("SELECT path, state FROM recipient"))


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
        self.working.stop()
        self.stop(self.spool)
        self.spool = self.started()
        self.delivery = RecordingDelivery()
        self.queue()
        self.settle()
        self.assertEqual([queue_id], self.delivery.queue_ids)

    @proves("D3")
    def test_each_recipient_its_own_end(self) -> None:
        self.delivery.replies = {"later@b.nl": DEFERRED, "never@b.nl": FAILED}
        self.queue()
        queue_id = self.kept(recipients=("one@b.nl", "later@b.nl", "never@b.nl"))
        self.settle()
        self.assertEqual(
            {"one@b.nl": "delivered", "later@b.nl": "deferred", "never@b.nl": "failed"}, self.states()
        )
        self.advance(60)
        self.assertEqual([MailPath("later", "b.nl")], list(self.delivery.calls[1][0].recipients))
        self.delivery.replies = {}
        self.advance(120)
        self.assertEqual(3, len(self.delivery.calls))
        self.assertEqual(
            {"one@b.nl": "delivered", "later@b.nl": "delivered", "never@b.nl": "failed"}, self.states()
        )
        (failed,) = self.logged(log.FAILED)
        self.assertEqual((queue_id, "never@b.nl"), (failed["queue_id"], failed["recipient"]))
        self.assertEqual(["one@b.nl", "later@b.nl"], [e["recipient"] for e in self.logged(log.DELIVERED)])
        self.assertEqual([60, 120], [event["delay"] for event in self.logged(log.DEFERRED)])
        self.assertIn("550 5.1.1 no such user", failed["reply"])

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
            self.assertEqual(calls + 1, len(self.delivery.calls))
        self.assertEqual({"one@example.nl": State.FAILED}, self.states())  # after 420 s
        self.assertEqual(3, len(self.logged(log.DEFERRED)))
        self.assertIn("450 4.2.1 not now", self.logged(log.FAILED)[0]["reply"])

    def test_a_defect_of_the_delivery_counts_as_temporary(self) -> None:
        for defect in (fail(RuntimeError("oops")), mock.Mock(side_effect=TypeError("oops"))):
            answer = defect if callable(defect) else lambda *_, defect=defect: defect
            with mock.patch.object(self.delivery, "deliver", answer):
                if not self.events:
                    self.queue()
                self.kept(recipients=(f"{len(self.events)}@b.nl",))
                self.settle()
        self.assertEqual({"deferred"}, set(self.states().values()))
        self.assertEqual(2, len(self.logged(log.DEFECT)))
        self.assertEqual(2, len(self.flushLoggedErrors(RuntimeError, TypeError)))

    def test_a_recipient_without_outcome_is_tried_again(self) -> None:
        with mock.patch.object(self.delivery, "outcomes", return_value={}):
            self.queue()
            self.kept()
            self.settle()
        self.assertEqual({"one@example.nl": "deferred"}, self.states())

    def test_an_outcome_that_cannot_be_recorded_is_recorded_later(self) -> None:
        self.queue()
        self.settle()
        full = sqlite3.OperationalError("database or disk is full")
        with mock.patch("digipoort_msa.spool.operations.forget", side_effect=full):
            self.kept()
            self.settle()
        self.assertEqual(1, len(self.flushLoggedErrors(sqlite3.OperationalError)))
        self.advance(queue.RECORD_AGAIN)
        self.assertEqual([], self.rows("SELECT * FROM message"))
        self.assertEqual(1, len(self.delivery.calls))  # not delivered twice
        self.assertEqual(0, self.working.active)

    def test_a_page_that_cannot_be_read_is_read_later(self) -> None:
        queue_id = self.kept()
        locked = sqlite3.OperationalError("database is locked")
        with mock.patch("digipoort_msa.spool.operations.due", side_effect=locked):
            self.queue()
            self.settle()
        self.assertEqual(1, len(self.flushLoggedErrors(sqlite3.OperationalError)))
        self.advance(1)
        self.assertEqual([queue_id], self.delivery.queue_ids)


class BacklogTests(QueueTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.delivery.held = True

    def finish_one(self) -> None:
        count = len(self.delivery.calls)
        active = self.working.active
        self.delivery.finish(next(iter(self.delivery.open)))
        self.until(lambda: len(self.delivery.calls) > count or self.working.active < active)
        self.settle()

    def test_bounded_and_each_once(self) -> None:
        backlog = [self.kept() for _ in range(50)]
        self.queue(active=4)
        self.settle()
        most = 0
        while self.delivery.open:
            self.assertLessEqual(self.working.active, 4)
            most = max(most, len(self.working._paged) + len(self.working._fresh))
            self.finish_one()
        self.assertEqual(sorted(backlog), sorted(self.delivery.queue_ids))
        self.assertLessEqual(most, 4)
        self.assertEqual([], self.rows("SELECT * FROM message"))

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
        self.patch(queue, "WAITING_MESSAGES", 3)
        self.queue(active=1)
        self.settle()
        kept = [self.kept() for _ in range(10)]
        self.settle()
        self.assertEqual(3, len(self.working._fresh))
        while self.delivery.open:
            self.finish_one()
        self.assertEqual(sorted(kept), sorted(self.delivery.queue_ids))

    def test_the_octets_waiting_are_bounded(self) -> None:
        self.patch(queue, "WAITING_OCTETS", 100)
        self.queue(active=1)
        self.settle()
        for _ in range(10):
            self.kept(bytes(40))
        self.assertEqual(2, len(self.working._fresh))

    def test_stopping_waits_for_the_active_ones(self) -> None:
        self.queue(active=1)
        self.settle()
        first, second = self.kept(), self.kept()
        stopped = self.working.stop()
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
        stopped = self.working.stop()
        self.clock.advance(29)
        self.assertNoResult(stopped)
        self.clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual([(queue_id, 1000.0)], self.rows("SELECT queue_id, next_attempt FROM message"))
        self.assertEqual([], self.logged(log.DEFECT))
        self.assertEqual(0, self.working.active)


class OperatorTests(QueueTestCase):
    """What ``digipoort-msa queue`` does beside a running queue."""

    def setUp(self) -> None:
        super().setUp()
        self.inspection = Inspection(self.directory)
        self.addCleanup(self.inspection.close)

    def test_a_retry_is_seen_within_a_second(self) -> None:
        self.delivery.replies = {"one@example.nl": FAILED}
        self.queue()
        queue_id = self.kept()
        self.settle()
        self.delivery.replies = {}
        with mock.patch("time.time", self.clock.seconds):
            self.assertEqual([queue_id], self.inspection.retry([queue_id]))
        self.advance(1)
        self.assertEqual([queue_id] * 2, self.delivery.queue_ids)
        self.assertIsNone(self.inspection.show(queue_id))

    def test_nothing_is_read_while_nothing_changes(self) -> None:
        self.queue()
        self.kept()
        self.settle()
        with mock.patch.object(self.spool, "due", side_effect=AssertionError("needless")):
            self.advance(1)
            self.advance(1)

    def test_removing_what_is_being_delivered(self) -> None:
        self.delivery.held = True
        self.queue()
        queue_id = self.kept(bytes(100_000))
        self.settle()
        body = self.directory / "bodies" / queue_id
        self.assertEqual([queue_id], self.inspection.remove([queue_id]))
        self.assertEqual([], list(self.inspection.messages()))
        self.advance(1)
        self.assertTrue(body.exists())
        self.delivery.replies = {"one@example.nl": DEFERRED}
        self.delivery.finish(queue_id)
        self.until(lambda: not self.working.active)
        self.assertFalse(body.exists())
        self.assertEqual([], self.rows("SELECT * FROM message"))

    def test_removing_what_waits(self) -> None:
        self.delivery.held = True
        self.queue(active=1)
        self.settle()
        first, second = self.kept(), self.kept()
        self.settle()
        self.inspection.remove([second])
        self.advance(1)
        self.delivery.finish(first)
        self.until(lambda: not self.working.active)
        self.settle()
        self.assertEqual([first], self.delivery.queue_ids)
        self.assertEqual([], self.rows("SELECT * FROM message"))
        self.assertEqual([second], [event["queue_id"] for event in self.logged(log.REMOVED)])
