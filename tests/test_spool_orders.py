"""What an operator orders, from beside the process that works the spool, and without it."""

import os
import sqlite3
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from zope.interface import implementer

from digipoort_msa.interfaces import IContent, INotifications
from digipoort_msa.smtp.envelope import Envelope, Notify
from digipoort_msa.spool import orders
from digipoort_msa.spool.orders import NOT_HERE, Done
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.states import State
from digipoort_msa.spool.verdicts import Verdicts
from tests.inspecting import BIG, InspectionTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED, DELIVERED, FAILED

REALM = "overheidstransactiepoort.nl"


@implementer(INotifications)
class Told:
    """Writes a notification that holds the message."""

    reason: str | None = None
    later = False

    def may_tell(self, envelope: Envelope) -> str | None:
        return self.reason

    def write(
        self, envelope: Envelope, content: IContent, fates: Any, queue_id: str, now: float, until: float
    ) -> "Deferred[bytes]":
        return Deferred() if self.later else content.open().read()


class OrdersTests(InspectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.told = Told()
        self.verdicts = Verdicts(self.told, Schedule(), QueueIds())

    def deferred(self, **fields: Any) -> str:
        queue_id = self.kept(recipients=("one@b.nl",), **fields)
        self.tried(queue_id, next_attempt=1e12, one=(State.DEFERRED, DEFERRED))
        return queue_id

    def returned(self, *queue_ids: str, sealing: Sealing | None = None) -> Done:
        return orders.return_(
            self.inspection, queue_ids, lambda realm: self.verdicts if realm == REALM else None, sealing
        )

    @proves("D3")
    def test_retry(self) -> None:
        queue_id = self.deferred()
        self.assertEqual(Done([queue_id], {}), orders.retry(self.inspection, [queue_id]))
        self.assertEqual(["queued"], self.states(queue_id))
        message = self.shown(queue_id)
        self.assertLess(message.summary.next_attempt or 1e12, 1e11)
        self.assertGreater(message.since, 1e9, "a new time until giving up")

    def test_retry_is_not_for_what_is_held_or_gone(self) -> None:
        held = self.kept()
        orders.hold(self.inspection, [held], "why")
        self.assertEqual(
            Done([], {"NONE": NOT_HERE, held: "it is held: release it"}),
            orders.retry(self.inspection, [held, "NONE", "NONE"]),
        )

    @proves("D2")
    def test_hold_and_release(self) -> None:
        queue_id = self.kept(recipients=("one@b.nl", "two@b.nl"))
        self.tried(queue_id, one=(State.DELIVERED, DELIVERED))
        self.assertEqual([queue_id], orders.hold(self.inspection, [queue_id], "a call").done)
        self.assertEqual(["delivered", "held"], self.states(queue_id))
        message = self.shown(queue_id)
        self.assertEqual((None, "a call"), (message.summary.next_attempt, message.summary.reason))
        self.assertEqual(
            {queue_id: "it is held already"}, orders.hold(self.inspection, [queue_id], "x").refused
        )
        self.assertEqual([queue_id], orders.release(self.inspection, [queue_id]).done)
        self.assertEqual(["delivered", "queued"], self.states(queue_id))
        message = self.shown(queue_id)
        self.assertIsNotNone(message.summary.next_attempt)
        self.assertIsNone(message.summary.reason)
        self.assertEqual(
            {queue_id: "nothing of it is held"}, orders.release(self.inspection, [queue_id]).refused
        )

    @proves("D2")
    def test_release_looks_for_the_body_file(self) -> None:
        queue_id = self.kept(BIG)
        orders.hold(self.inspection, [queue_id], "why")
        body = self.directory / "bodies" / queue_id
        aside = self.directory / "aside"
        body.rename(aside)
        (why,) = orders.release(self.inspection, [queue_id]).refused.values()
        self.assertIn("is missing: put it back", why)
        self.assertEqual(["held"], self.states(queue_id))
        aside.rename(body)
        self.assertEqual([queue_id], orders.release(self.inspection, [queue_id]).done)

    def test_in_sequence(self) -> None:
        """The next one's turn comes when the head is held; what is released waits its turn."""
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: f"{realm} {account}")
        first, second, third = (self.kept() for _ in range(3))

        def heads() -> list[str]:
            return [row for (row,) in self.sql("SELECT queue_id FROM message WHERE next_attempt IS NOT NULL")]

        orders.hold(self.inspection, [first], "why")
        self.assertEqual([second], heads())
        orders.release(self.inspection, [first])
        self.assertEqual([second], heads(), "one at a time")
        orders.hold(self.inspection, [second], "why")
        self.assertEqual([first], heads())
        orders.retry(self.inspection, [third])
        orders.move(self.inspection, [third], "other.example.nl:25", lambda realm: None)
        self.assertEqual([first], heads())
        self.stop(self.spool)
        orders.remove(self.inspection, [first])
        self.assertEqual([third], heads())
        self.returned(third)
        self.assertNotIn(third, heads())

    def test_move(self) -> None:
        queue_id = self.deferred()
        refused = orders.move(
            self.inspection, [queue_id], "other.nl:25", lambda realm: f"{realm}: no"
        ).refused
        self.assertEqual({queue_id: f"{REALM}: no"}, refused)
        orders.move(self.inspection, [queue_id], "other.nl:25", lambda realm: None)
        summary = self.shown(queue_id).summary
        self.assertEqual("other.nl:25", summary.next_hop)
        self.assertLess(summary.next_attempt or 1e12, 1e11)
        orders.move(self.inspection, [queue_id], None, lambda realm: None)
        self.assertIsNone(self.shown(queue_id).summary.next_hop)

    def test_remove_beside_the_msa(self) -> None:
        """It only asks: the message may be under way."""
        queue_id = self.kept(BIG)
        self.assertEqual(
            Done([queue_id], {"NONE": NOT_HERE}, [queue_id]),
            orders.remove(self.inspection, [queue_id, "NONE"]),
        )
        self.assertEqual("remove", self.shown(queue_id).summary.wish)
        for order in (
            orders.retry(self.inspection, [queue_id]),
            orders.hold(self.inspection, [queue_id], "x"),
            orders.release(self.inspection, [queue_id]),
            orders.move(self.inspection, [queue_id], None, lambda realm: None),
            self.returned(queue_id),
        ):
            self.assertIn(queue_id, order.refused)
        self.assertEqual([queue_id], orders.remove(self.inspection, [queue_id]).done, "again is no harm")

    def test_remove_from_a_stopped_spool(self) -> None:
        small, big = self.kept(), self.kept(BIG)
        self.tried(big, one=(State.DEFERRED, DEFERRED))
        self.stop(self.spool)
        body = self.directory / "bodies" / big
        self.assertTrue(body.exists())
        self.assertEqual(Done([big], {}), orders.remove(self.inspection, [big]))
        self.assertFalse(body.exists())
        for table in ("message", "content", "recipient", "attempt"):
            self.assertNotIn((big,), self.sql(f"SELECT queue_id FROM {table}"))
        self.assertEqual([small], self.inspection.queue_ids())

    def test_an_unreadable_message_can_be_removed(self) -> None:
        queue_id = self.kept()
        self.sql("UPDATE recipient SET state = 'lost', path = x'00' WHERE queue_id = ?", queue_id)
        self.stop(self.spool)
        self.assertEqual([queue_id], orders.remove(self.inspection, [queue_id]).done)
        self.assertEqual([], self.sql("SELECT * FROM recipient"))

    def test_a_queue_id_that_is_none_removes_no_file(self) -> None:
        queue_id = self.kept(BIG)
        for table in ("message", "recipient"):
            self.sql(f"UPDATE {table} SET queue_id = '../lock' WHERE queue_id = ?", queue_id)
        self.stop(self.spool)
        orders.remove(self.inspection, ["../lock"])
        self.assertTrue((self.directory / "lock").exists())
        self.assertEqual([], self.inspection.queue_ids())

    @proves("D2")
    def test_return_from_a_stopped_spool(self) -> None:
        """The message and its notification change places in one transaction."""
        for octets in (b"Subject: x\r\n\r\nsmall\r\n", BIG):
            queue_id = self.kept(octets, recipients=("one@b.nl", "two@b.nl"))
            self.tried(queue_id, one=(State.DELIVERED, DELIVERED), two=(State.HELD, FAILED))
            self.stop(self.spool)
            self.assertEqual(Done([queue_id], {}), self.returned(queue_id))
            self.assertFalse((self.directory / "bodies" / queue_id).exists())
            (notification,) = self.inspection.queue_ids()
            message = self.shown(notification)
            self.assertEqual("sender@example.nl", str(message.envelope.recipients[0]))
            self.assertTrue(message.envelope.reverse_path.is_null)
            stored = self.inspection.stored(notification)
            assert stored is not None
            self.assertEqual(octets, b"".join(self.inspection.content(stored, None)))
            self.assertIsNotNone(stored.digest)
            orders.remove(self.inspection, [notification])
            self.spool = self.started()

    @proves("D2")
    def test_return_beside_the_msa(self) -> None:
        """It only asks; and no second notification is written."""
        queue_id = self.kept()
        self.assertEqual(Done([queue_id], {}, [queue_id]), self.returned(queue_id))
        self.assertEqual("return", self.shown(queue_id).summary.wish)
        self.assertEqual([queue_id], self.inspection.queue_ids())
        self.assertEqual({queue_id: "an operator wants it returned"}, self.returned(queue_id).refused)

    @proves("D2")
    def test_return_is_refused_where_nobody_may_be_told(self) -> None:
        queue_id = self.kept()
        self.told.reason = "it is a stranger's address"
        null = self.kept()
        self.sql("UPDATE message SET reverse_path = '' WHERE queue_id = ?", null)
        elsewhere = self.kept()
        self.sql("UPDATE message SET realm = 'gone.nl' WHERE queue_id = ?", elsewhere)
        never = self.kept()
        self.sql("UPDATE recipient SET parameters = '[[\"NEVER\"],null]' WHERE queue_id = ?", never)
        self.assertEqual(
            [frozenset({Notify.NEVER})],
            [each.notify for each in self.shown(never).envelope.recipient_parameters.values()],
        )
        damaged = self.kept()
        self.sql("UPDATE message SET parameters = '[' WHERE queue_id = ?", damaged)
        for running in (True, False):
            if not running:
                self.stop(self.spool)
            refused = self.returned(queue_id, null, elsewhere, damaged, "NONE").refused
            self.assertEqual("it is a stranger's address", refused[queue_id])
            self.assertIn("null", refused[null])
            self.assertIn("gone.nl is not configured", refused[elsewhere])
            self.assertIn("make no sense", refused[damaged])
            self.assertEqual(NOT_HERE, refused["NONE"])
            self.told.reason = None
            self.assertIn("NOTIFY", self.returned(never).refused[never])
            self.told.reason = "it is a stranger's address"
        self.assertEqual(5, len(self.inspection.queue_ids()))
        self.assertEqual(["queued"], self.states(queue_id))

    def test_return_with_a_damaged_content(self) -> None:
        """Nothing is changed where the notification cannot be written."""
        queue_id = self.kept(BIG)
        (self.directory / "bodies" / queue_id).unlink()
        self.assertIn("missing", self.returned(queue_id).refused[queue_id])
        self.told.later = True
        small = self.kept()
        self.assertIn("without the MSA", self.returned(small).refused[small])
        self.assertEqual([None, None], [self.shown(each).summary.wish for each in (queue_id, small)])

    def test_return_encrypts(self) -> None:
        sealing = Sealing(bytes(range(32)))
        self.stop(self.spool)
        self.spool = self.started(sealing=sealing)
        queue_id = self.kept(b"Subject: secret\r\n\r\n")
        self.stop(self.spool)
        self.assertIn("not configured", self.returned(queue_id).refused[queue_id])
        self.assertEqual([queue_id], self.returned(queue_id, sealing=sealing).done)
        ((content, name),) = self.sql("SELECT octets, sealed_by FROM message JOIN content USING (queue_id)")
        self.assertEqual(sealing.name, name)
        self.assertNotIn(b"secret", content)

    def test_the_msa_has_its_turn(self) -> None:
        """One transaction over a great backlog would keep every commit waiting, then fail it."""
        kept = [self.kept() for _ in range(5)]
        with (
            mock.patch.object(orders, "_AT_ONCE", 2),
            mock.patch("time.sleep", side_effect=lambda _: self.kept()) as pause,
        ):
            self.assertEqual(kept, orders.hold(self.inspection, kept, "why").done)
        self.assertEqual(2, pause.call_count)

    def test_a_database_that_cannot_be_changed(self) -> None:
        """What was done before is told of all the same."""
        kept = [self.kept() for _ in range(3)]
        self.sql("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(self.directory / "spool.sqlite3", isolation_level=None)
        self.addCleanup(other.close)
        with (
            mock.patch.object(orders, "_AT_ONCE", 1),
            mock.patch("time.sleep", side_effect=lambda _: other.execute("BEGIN IMMEDIATE")),
        ):
            done = orders.hold(self.inspection, kept, "why")
        other.execute("COMMIT")
        self.assertEqual(kept[:1], done.done)
        self.assertEqual(kept[1:], list(done.refused))
        self.assertIn("cannot be changed now: database is locked", done.refused[kept[1]])

    def test_a_file_that_cannot_be_removed(self) -> None:
        queue_id = self.kept(BIG)
        self.stop(self.spool)
        with (
            mock.patch.object(os, "unlink", side_effect=OSError),
            mock.patch("pathlib.Path.unlink", side_effect=OSError),
        ):
            self.assertEqual([queue_id], orders.remove(self.inspection, [queue_id]).done)
        self.spool = self.started()
        self.assertEqual(1, self.recovery.orphans)
