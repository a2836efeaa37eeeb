"""The queues of all realms, and what operators want of them (D2)."""

import sqlite3
from contextlib import closing
from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred, fail

from digipoort_msa import log
from digipoort_msa.smtp.envelope import NULL_PATH
from digipoort_msa.spool import orders, queues, upkeep
from digipoort_msa.spool.inspection import Inspection
from tests.queueing import REALM, QueueTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED, RecordingDelivery, envelope

OTHER = "berichtenbox.nl"


class RealmTests(QueueTestCase):
    def release(self, queue_ids: list[str]) -> list[str]:
        with (
            closing(Inspection(self.directory)) as inspection,
            mock.patch("time.time", return_value=self.now()),
        ):
            return orders.release(inspection, queue_ids).done

    def test_each_message_goes_by_its_realms_way(self) -> None:
        others = RecordingDelivery()
        waiting = [self.keep(realm=OTHER), self.keep()]
        self.run_queues(self.made(), self.made(OTHER, delivery=others))
        self.settle()
        arriving = [self.keep(realm=OTHER), self.keep()]
        self.settle()
        self.assertEqual([waiting[1], arriving[1]], self.delivery.queue_ids)
        self.assertEqual([waiting[0], arriving[0]], others.queue_ids)
        self.assertEqual([], self.rows("SELECT * FROM message"))

    @proves("D2")
    def test_a_way_out_that_hangs_holds_up_no_other_realm(self) -> None:
        hanging = RecordingDelivery(held=True)
        stuck = [self.keep(realm=OTHER) for _ in range(300)]
        self.run_queues(self.made(active=1), self.made(OTHER, delivery=hanging, active=2))
        for _ in range(3):
            self.keep()
            self.advance(1)
        self.assertEqual(3, len(self.delivery.calls))
        self.assertEqual(2, len(hanging.calls))
        self.assertEqual(2, self.queues.active)
        self.assertEqual([(300,)], self.rows("SELECT count(*) FROM message"))
        self.assertEqual(stuck[:2], hanging.queue_ids)

    @proves("D2")
    def test_a_realm_that_is_no_longer_there(self) -> None:
        kept = [self.keep(realm=OTHER) for _ in range(3)]
        self.run_queues(self.made())
        self.advance(1)
        self.advance(3600)
        self.assertEqual([], self.delivery.calls)
        (event,) = self.logged(log.REALM_UNKNOWN)
        self.assertEqual((OTHER, 3), (event["realm"], event["messages"]))
        self.assertEqual(
            [("held", f"its realm {OTHER} is not configured")] * 3,
            self.rows("SELECT state, reason FROM recipient"),
        )
        self.assertEqual([], self.rows("SELECT * FROM message WHERE next_attempt IS NOT NULL"))
        self.queues.stop()
        self.run_queues(self.made(OTHER))
        self.settle()
        self.assertEqual([], self.delivery.calls, "an operator has to release them")
        self.assertEqual(kept, self.release(kept))
        self.advance(1)
        self.assertEqual(kept, self.delivery.queue_ids)

    @proves("D2")
    def test_many_of_a_realm_that_is_no_longer_there(self) -> None:
        """In pieces, in sequences or not; what was held before keeps its reason, other realms are left."""
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: f"{realm} {account}" if account else None)
        kept = [self.keep(realm=OTHER, account=account) for account in ("a", "", "a", "b", "", "b", "a")]
        self.other_process(
            "UPDATE recipient SET state = 'held', reason = 'a call' WHERE queue_id = ?", kept[1]
        )
        known = self.keep()
        self.delivery.held = True
        with mock.patch.object(upkeep, "AT_ONCE", 2):
            self.run_queues(self.made())
            self.settle()
        waiting = self.rows("SELECT queue_id FROM recipient WHERE state <> 'held'")
        self.assertEqual([(known,)], waiting)
        self.assertEqual([known], self.delivery.queue_ids)
        reasons = [
            reason for (reason,) in self.rows("SELECT DISTINCT reason FROM recipient WHERE reason <> ''")
        ]
        self.assertEqual({"a call", f"its realm {OTHER} is not configured"}, set(reasons))
        self.release(kept)
        heads = self.rows("SELECT queue_id FROM message WHERE next_attempt IS NOT NULL AND realm = ?", OTHER)
        self.assertEqual([kept[0], kept[1], kept[3], kept[4]], sorted(queue_id for (queue_id,) in heads))

    @proves("D3")
    def test_a_flush_is_one_realms(self) -> None:
        others = RecordingDelivery()
        self.delivery.replies = others.replies = {"one@example.nl": DEFERRED}
        self.run_queues(self.made(), self.made(OTHER, delivery=others))
        for _ in range(30):
            self.keep()
        self.keep(realm=OTHER)
        self.settle()
        self.delivery.replies = {}
        for _ in range(3):
            self.queues.flush(REALM)
        self.queues.flush("elsewhere.nl")
        self.settle()
        self.assertEqual((60, 1), (len(self.delivery.calls), len(others.calls)))
        self.assertEqual([(OTHER,)], self.rows("SELECT realm FROM message"))

    def test_a_flush_after_the_stop(self) -> None:
        self.queue()
        self.settle()
        self.queues.stop()
        self.queues.flush(REALM)
        self.settle()
        self.assertEqual([], self.logged(log.DEFECT))

    def test_the_stop_waits_for_every_queue(self) -> None:
        self.delivery.held = True
        others = RecordingDelivery(held=True)
        self.run_queues(self.made(grace=30), self.made(OTHER, delivery=others, grace=10))
        first, second = self.keep(), self.keep(realm=OTHER)
        self.settle()
        stopped = self.queues.stop()
        self.clock.advance(10)
        self.assertNoResult(stopped)
        self.delivery.finish(first)
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual([(second,)], self.rows("SELECT queue_id FROM message"))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertIsNone(self.spool.arrived)


class OtherProcessTests(QueueTestCase):
    """What ``digipoort-msa queue`` does beside the running queues."""

    def test_a_retry_is_seen_within_a_second(self) -> None:
        self.delivery.replies = {"one@example.nl": DEFERRED}
        self.queue()
        queue_id = self.kept()
        self.settle()
        self.advance(1)
        self.delivery.replies = {}
        self.other_process("UPDATE message SET next_attempt = ?", self.clock.seconds())
        self.advance(1)
        self.assertEqual([queue_id] * 2, self.delivery.queue_ids)
        self.assertEqual([], self.rows("SELECT * FROM message"))

    def test_nothing_is_read_while_nothing_changes(self) -> None:
        self.queue()
        self.kept()
        self.settle()
        with mock.patch.object(self.spool, "due", side_effect=AssertionError("needless")):
            self.advance(1)
            self.advance(1)

    def test_what_is_held_is_not_taken_from_memory(self) -> None:
        self.delivery.held = True
        self.queue(active=1)
        self.settle()
        first, second, third = self.kept(), self.kept(), self.kept()
        self.settle()
        self.other_process("UPDATE recipient SET state = 'held' WHERE queue_id = ?", second)
        self.other_process("UPDATE message SET next_attempt = NULL WHERE queue_id = ?", second)
        self.advance(1)
        self.delivery.finish(first)
        self.settle()
        self.assertEqual([first, third], self.delivery.queue_ids)

    def test_what_is_moved_goes_to_the_other_hop(self) -> None:
        self.delivery.held = True
        self.queue(active=1)
        self.settle()
        first, second = self.kept(), self.kept()
        self.settle()
        self.other_process("UPDATE message SET next_hop = 'other:25' WHERE queue_id = ?", second)
        self.advance(1)
        self.delivery.finish(first)
        self.settle()
        self.assertEqual("other:25", self.delivery.calls[1][0].next_hop)


class WishTests(QueueTestCase):
    """The removal or the return of a message."""

    def wish(self, wish: str, *queue_ids: str) -> None:
        for queue_id in queue_ids:
            self.other_process(
                "UPDATE message SET wish = ?, next_attempt = NULL WHERE queue_id = ?", wish, queue_id
            )

    def reasons(self) -> list[str]:
        return [reason for (reason,) in self.rows("SELECT reason FROM recipient WHERE state = 'held'")]

    def test_removing_what_is_being_delivered(self) -> None:
        self.delivery.held = True
        self.queue()
        queue_id = self.kept(bytes(100_000))
        self.settle()
        body = self.directory / "bodies" / queue_id
        self.wish("remove", queue_id)
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
        first, second, third = self.kept(), self.kept(), self.kept()
        self.settle()
        self.wish("remove", second)
        self.advance(1)
        self.delivery.finish(first)
        self.settle()
        self.assertEqual([first, third], self.delivery.queue_ids)
        self.assertEqual([second], [event["queue_id"] for event in self.logged(log.REMOVED)])

    @proves("D2")
    def test_a_start_tells_of_what_it_removes(self) -> None:
        """And that it was under way: the core may have it all the same."""
        kept, waiting, active = self.kept(), self.kept(), self.kept()
        self.wish("remove", waiting, active)
        self.stop(self.spool)
        (self.directory / "underway").write_text(f"{active}\n")
        self.spool = self.started()
        self.assertEqual([(kept,)], self.rows("SELECT queue_id FROM message"))
        told = [(each["event"], each["queue_id"]) for each in self.events if "queue_id" in each]
        self.assertEqual([("interrupted", active), ("removed", waiting), ("removed", active)], told)

    @proves("D2")
    def test_returning_what_waits(self) -> None:
        self.delivery.replies = {"one@b.nl": DEFERRED}
        self.queue()
        kept = [self.keep(recipients=envelope(recipients=("one@b.nl", "two@b.nl")).recipients) for _ in "abc"]
        self.settle()
        self.wish("return", *kept)
        self.advance(1)
        self.assertEqual([{"one@b.nl": "failed"}] * 3, self.notifications.told)
        self.assertEqual([], self.rows("SELECT * FROM message"))
        self.assertEqual(6, len(self.delivery.calls))  # the notifications among them
        self.assertIn("554 5.7.0", self.logged(log.RETURNED)[0]["reply"])

    @proves("D2")
    def test_returning_what_is_being_delivered(self) -> None:
        """The attempt goes on; only what it leaves is returned."""
        self.delivery.held = True
        self.delivery.replies = {"one@example.nl": DEFERRED}
        self.queue()
        done, left = self.kept(recipients=("a@b.nl",)), self.kept()
        self.settle()
        self.wish("return", done, left)
        self.advance(1)
        self.assertEqual([], self.notifications.told)
        self.delivery.finish(done)
        self.settle()
        self.advance(1)
        self.delivery.finish(left)
        self.settle()
        self.assertEqual([], self.notifications.told)
        self.advance(1)
        self.assertEqual([{"one@example.nl": "failed"}], self.notifications.told)
        self.assertEqual([("sender@example.nl",)], self.rows("SELECT path FROM recipient"))

    @proves("D2")
    def test_a_wish_that_a_crash_left(self) -> None:
        queue_id = self.kept()
        self.wish("return", queue_id)
        self.queue()
        self.settle()
        self.assertEqual([{"one@example.nl": "failed"}], self.notifications.told)
        self.assertNotIn(queue_id, self.delivery.queue_ids)

    @proves("D2")
    def test_what_cannot_be_returned_is_held_and_asked_for_once(self) -> None:
        self.keep(reverse_path=NULL_PATH)
        self.keep(realm=OTHER)
        self.wish("return", *(queue_id for (queue_id,) in self.rows("SELECT queue_id FROM message")))
        self.queue()
        for _ in range(3):
            self.advance(1)
        self.assertEqual([], self.delivery.calls)
        self.assertEqual(
            {
                "it cannot be returned: its reverse-path is null: there is nobody to tell",
                f"it cannot be returned: there is no realm {OTHER} now",
            },
            set(self.reasons()),
        )
        self.assertEqual([(None,)] * 2, self.rows("SELECT wish FROM message"))

    @proves("D2")
    def test_a_notification_that_cannot_be_written(self) -> None:
        kept = [self.kept(), self.kept()]
        self.notifications.answer = fail(RuntimeError("oops"))
        self.wish("return", *kept)
        self.queue()
        self.advance(1)
        self.assertEqual(["it cannot be returned: oops"] * 2, self.reasons())
        self.assertEqual(2, len(self.flushLoggedErrors(RuntimeError)))

    def test_a_return_that_takes_its_time_holds_up_nothing(self) -> None:
        slow = self.kept()
        self.notifications.answer = Deferred()
        self.wish("return", slow)
        self.queue()
        self.settle()
        removed, delivered = self.keep(), self.kept()
        self.advance(1)
        self.advance(1)
        self.assertEqual([removed, delivered], self.delivery.queue_ids)
        stopped = self.queues.stop()
        self.successResultOf(stopped)
        self.settle()
        self.assertEqual([(slow, "return")], self.rows("SELECT queue_id, wish FROM message"))
        self.assertEqual([], self.logged(log.DEFECT))

    def test_a_spool_that_fails_meanwhile(self) -> None:
        """What could not be done is done a little later."""
        kept = [self.kept(), self.kept()]
        self.wish("return", *kept)
        full = sqlite3.OperationalError("database or disk is full")
        with mock.patch("digipoort_msa.spool.operations.record", side_effect=full):
            self.queue()
            self.settle()
        self.flushLoggedErrors(sqlite3.OperationalError)
        self.assertEqual([("return",)] * 2, self.rows("SELECT wish FROM message"))
        self.advance(1)
        self.advance(1)
        self.assertEqual([], self.rows("SELECT * FROM message"))

    @proves("D2")
    def test_one_that_cannot_be_recorded_keeps_no_other_from_being_returned(self) -> None:
        broken, sound = self.keep(recipients=envelope(recipients=("broken@b.nl",)).recipients), self.kept()
        self.other_process(
            "CREATE TRIGGER broken BEFORE UPDATE ON recipient WHEN new.path = 'broken@b.nl'"
            " BEGIN SELECT RAISE(ABORT, 'oops'); END"
        )
        self.wish("return", broken, sound)
        self.queue()
        self.advance(1)
        self.assertEqual([(broken, "return")], self.rows("SELECT queue_id, wish FROM message"))
        self.assertEqual(1, len(self.flushLoggedErrors(sqlite3.IntegrityError)))

    @proves("D2")
    def test_others_have_their_turn_while_many_are_removed(self) -> None:
        for _ in range(3):
            self.kept()
        self.wish("remove", *(queue_id for (queue_id,) in self.rows("SELECT queue_id FROM message")))
        delivered: list[int] = []
        wished = self.spool.wished

        def asked(held: frozenset[str]) -> object:
            delivered.append(len(self.delivery.calls))
            incoming = self.spool.receive(REALM)
            incoming.commit(envelope(incoming.queue_id))
            return wished(held)

        with (
            mock.patch.object(upkeep, "AT_ONCE", 1),
            mock.patch.object(queues, "AT_ONCE", 1),
            mock.patch.object(self.spool, "wished", asked),
        ):
            self.queue()
            self.settle()
        self.assertEqual([0, 1, 2, 3], delivered)
        self.assertEqual(3, len(self.logged(log.REMOVED)))
        self.assertEqual([], self.rows("SELECT * FROM message"))

    def test_wishes_are_looked_at_no_more_than_needed(self) -> None:
        """Busy queues, and one change by an operator: not a look each second from then on."""
        self.delivery.held = True
        self.queue()
        asked = mock.Mock(side_effect=self.spool.wished)
        with mock.patch.object(self.spool, "wished", asked):
            self.settle()
            kept = [self.kept() for _ in range(10)]
            self.advance(1)
            self.wish("remove", self.keep(recipients=(evolve(envelope().recipients[0], domain="b.nl"),)))
            for queue_id in kept:
                self.advance(1)
                self.delivery.finish(queue_id)
                self.kept()
            for _ in range(10):
                self.advance(1)
        self.assertLessEqual(asked.call_count, 14)

    def test_nothing_is_taken_while_messages_are_removed(self) -> None:
        """It might be one that an operator has just asked to be removed, and lose its body file."""
        removing: Deferred[object] = Deferred()
        with mock.patch.object(self.spool, "wished", return_value=removing):
            self.queue()
            self.settle()
            kept, removed = self.kept(), self.kept()
            self.settle()
            self.assertEqual([], self.delivery.calls)
        self.rows("DELETE FROM message WHERE queue_id = ?", removed)
        removing.callback(([removed], ()))
        self.settle()
        self.assertEqual([kept], self.delivery.queue_ids)

    def test_a_stop_meanwhile_begins_nothing(self) -> None:
        with mock.patch.object(self.spool, "wished", return_value=Deferred()):
            self.queue()
            self.settle()
            self.kept()
            self.successResultOf(self.queues.stop())
            self.settle()
        self.assertEqual([], self.delivery.calls)

    @proves("D2")
    def test_the_next_of_a_sequence_has_its_turn(self) -> None:
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: account)
        self.delivery.replies = {"one@example.nl": DEFERRED}
        self.queue()
        kept = [self.kept() for _ in range(3)]
        self.settle()
        for wish in ("remove", "return"):
            self.wish(wish, kept[len(self.delivery.queue_ids) - 1])
            self.advance(1)
        tried = [queue_id for queue_id in self.delivery.queue_ids if queue_id in kept]
        self.assertEqual(kept, tried)

    @proves("D2")
    def test_a_realm_that_cannot_be_looked_at_keeps_no_other_from_it(self) -> None:
        broken = self.made(OTHER)
        self.delivery.replies = {"one@example.nl": DEFERRED}
        self.run_queues(broken, self.made())
        self.settle()
        queue_id = self.kept()
        self.advance(1)
        self.other_process("UPDATE message SET next_attempt = 0")
        with mock.patch.object(broken, "look", side_effect=RuntimeError("oops")):
            self.advance(1)
        self.assertEqual([queue_id] * 2, self.delivery.queue_ids)
        self.flushLoggedErrors(RuntimeError)

    def test_many(self) -> None:
        kept = [self.kept() for _ in range(100)]
        self.other_process("UPDATE message SET wish = 'return', next_attempt = NULL")
        self.queue(active=5)
        self.settle()
        self.until(lambda: len(self.delivery.calls) == 100 and not self.working.active)
        self.settle()
        self.assertEqual(100, len(self.notifications.told))
        self.assertEqual([], self.rows("SELECT * FROM message"))
        self.assertFalse(set(kept).intersection(self.delivery.queue_ids))
