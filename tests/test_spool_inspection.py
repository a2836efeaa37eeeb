import sqlite3
from typing import Any
from unittest import mock

from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.spool import inspection
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.operations import Attempt, DueQuery, Result
from digipoort_msa.spool.schema import SpoolError, State
from tests.requirements import proves
from tests.spooling import DEFERRED, FAILED, SpoolTestCase


class InspectionTests(SpoolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.inspection = Inspection(self.directory)
        self.addCleanup(self.inspection.close)

    def tried(self, queue_id: str, **states: Any) -> None:
        """Record an attempt: the local-part of each recipient and its state and reply."""
        page = self.result(self.spool.due(DueQuery(1e12, 10, frozenset())))
        (stored,) = [message for message in page.messages if message.envelope.queue_id == queue_id]
        results = tuple(
            Result(MailPath(name, "b.nl"), state, reply, "core.example.nl:25")
            for name, (state, reply) in states.items()
        )
        self.result(self.spool.record(stored, Attempt(queue_id, results, 1000.0, 1060.0)))

    @proves("D2")
    def test_what_failed_is_shown(self) -> None:
        queue_id = self.kept(b"12345", recipients=("one@b.nl", "two@b.nl"))
        (summary,) = self.inspection.messages()
        self.assertEqual(
            (queue_id, 1000.0, 5, "<sender@example.nl>"),
            (summary.queue_id, summary.received_at, summary.size, summary.sender),
        )
        self.assertEqual({State.QUEUED: 2}, summary.recipients)
        self.tried(queue_id, one=(State.FAILED, FAILED), two=(State.DEFERRED, DEFERRED))
        message = self.inspection.show(queue_id)
        assert message is not None
        one, two = message.recipients
        self.assertEqual(
            (State.FAILED, 1, FAILED, "core.example.nl:25"), (one.state, one.attempts, one.reply, one.hop)
        )
        self.assertEqual((State.DEFERRED, 1060.0), (two.state, message.summary.next_attempt))
        self.assertTrue(message.location.endswith("spool.sqlite3"))

    def test_unknown(self) -> None:
        self.assertIsNone(self.inspection.show("NONE"))
        self.assertEqual([], self.inspection.retry(["NONE"]))
        self.assertEqual([], self.inspection.remove(["NONE"]))

    def test_retry_all(self) -> None:
        kept = [self.kept(recipients=("one@b.nl",)) for _ in range(3)]
        self.tried(kept[1], one=(State.FAILED, FAILED))
        self.assertEqual(kept, self.inspection.retry())
        (failed,) = self.inspection.show(kept[1]).recipients  # type: ignore[union-attr]
        self.assertEqual((State.QUEUED, FAILED, 1), (failed.state, failed.reply, failed.attempts))

    def test_retry_all_lets_the_msa_have_its_turn(self) -> None:
        """One transaction over a great backlog would keep every commit waiting, then fail it."""
        kept = [self.kept() for _ in range(5)]
        with (
            mock.patch.object(inspection, "_AT_ONCE", 2),
            mock.patch("time.sleep", side_effect=lambda _: self.kept()) as pause,
        ):
            self.assertEqual(kept, self.inspection.retry())
        self.assertEqual(2, pause.call_count)

    def test_a_database_that_cannot_be_changed(self) -> None:
        queue_id = self.kept()
        self.inspection._connection.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(self.directory / "spool.sqlite3", isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        for change in (self.inspection.retry, self.inspection.remove):
            with self.assertRaisesRegex(SpoolError, "cannot be changed now: database is locked"):
                change([queue_id])
        other.execute("COMMIT")
        self.assertEqual([queue_id], self.inspection.retry([queue_id]))

    def test_a_stopped_spool(self) -> None:
        small, big = self.kept(), self.kept(bytes(100_000))
        self.stop(self.spool)
        body = self.directory / "bodies" / big
        self.assertTrue(body.exists())
        self.assertEqual([small, big], [message.queue_id for message in self.inspection.messages()])
        self.assertEqual([big], self.inspection.remove([big, "NONE"]))
        self.assertFalse(body.exists())
        self.spool = self.started()
        self.assertEqual(1, self.recovery.messages)

    def test_what_a_stopping_process_left_to_remove(self) -> None:
        big = self.kept(bytes(100_000))
        self.inspection.remove([big])
        self.stop(self.spool)
        self.spool = self.started()
        self.assertEqual((0, 1), (self.recovery.messages, self.recovery.orphans))

    def test_a_missing_body_is_shown_and_tried_only_when_it_is_back(self) -> None:
        big = self.kept(bytes(100_000))
        self.stop(self.spool)
        body = self.directory / "bodies" / big
        aside = self.directory / "aside"
        body.rename(aside)
        self.spool = self.started()
        (summary,) = self.inspection.messages()
        self.assertEqual((True, None), (summary.missing, summary.next_attempt))
        self.assertEqual([], self.inspection.retry([big]))
        aside.rename(body)
        self.assertEqual([], self.inspection.retry(["NONE"]))
        self.assertEqual([big], self.inspection.retry([big]))
        (summary,) = self.inspection.messages()
        self.assertFalse(summary.missing)

    def test_no_spool(self) -> None:
        with self.assertRaisesRegex(SpoolError, "no spool"):
            Inspection(self.directory / "elsewhere")
        self.assertFalse((self.directory / "elsewhere").exists())
