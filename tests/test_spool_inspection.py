"""What an operator sees of a spool."""

import os
import shutil
from pathlib import Path
from unittest import mock

from digipoort_msa.interfaces import Damaged
from digipoort_msa.smtp.envelope import MailParameters
from digipoort_msa.spool import inspection, opening, schema
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.selection import EVERY, Selection
from digipoort_msa.spool.states import State
from digipoort_msa.spool.statistics import statistics
from digipoort_msa.spool.views import Message, Summary, Unreadable
from tests.inspecting import BIG, InspectionTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED, DELIVERED


class ReadingTests(InspectionTestCase):
    @proves("D2")
    def test_what_waits_is_shown(self) -> None:
        queue_id = self.kept(b"12345", recipients=("one@b.nl", "two@b.nl"))
        (summary,) = self.inspection.summaries()
        assert isinstance(summary, Summary)
        self.assertEqual(
            (queue_id, "overheidstransactiepoort.nl", "bedrijf", 1000.0, 5, "sender@example.nl"),
            (
                summary.queue_id,
                summary.realm,
                summary.account,
                summary.received_at,
                summary.size,
                str(summary.sender),
            ),
        )
        self.assertEqual({State.QUEUED: 2}, summary.states)
        self.tried(queue_id, one=(State.DELIVERED, DELIVERED), two=(State.DEFERRED, DEFERRED))
        message = self.shown(queue_id)
        one, two = message.recipients
        self.assertEqual((State.DELIVERED, 1, DELIVERED), (one.state, one.attempts, one.reply))
        self.assertEqual((State.DEFERRED, 1060.0), (two.state, message.summary.next_attempt))
        self.assertEqual("two@b.nl", str(message.summary.recipient), "the one that matters")
        self.assertEqual(
            [(1000.0, "core.example.nl:25", DELIVERED), (1000.0, "core.example.nl:25", DEFERRED)],
            [(attempt.at, attempt.hop, attempt.reply) for attempt in message.attempts],
        )
        self.assertEqual(self.directory / "spool.sqlite3", self.inspection.location(message))

    def test_unknown(self) -> None:
        for queue_id in ("NONE", "", "'; DROP TABLE message; --", "\udcff", "../../etc/passwd"):
            self.assertIsNone(self.inspection.show(queue_id))
            self.assertIsNone(self.inspection.stored(queue_id))
            self.assertEqual([queue_id], self.inspection.unknown((queue_id,)))

    def test_pages(self) -> None:
        kept = [self.kept() for _ in range(7)]
        with mock.patch.object(inspection, "_PAGE", 3):
            self.assertEqual(kept, [one.queue_id for one in self.inspection.summaries()])
            self.assertEqual(kept[:4], [one.queue_id for one in self.inspection.summaries(EVERY, 4)])
            self.assertEqual(kept[:3], [one.queue_id for one in self.inspection.summaries(EVERY, 3)])

    def test_no_transaction_is_open_between_pages(self) -> None:
        """A reader that stands still must not keep SQLite from emptying its log."""
        for _ in range(4):
            self.kept()
        with mock.patch.object(inspection, "_PAGE", 2):
            for _ in self.inspection.summaries():
                self.assertFalse(self.inspection.connection.in_transaction)
                (busy, *_rest) = self.sql("PRAGMA wal_checkpoint(TRUNCATE)")[0]
                self.assertEqual(0, busy)

    def test_selections(self) -> None:
        first = self.kept(recipients=("one@b.nl",), received_at=1000.0)
        second = self.kept(recipients=("two@b.nl", "x_y@c%d.nl"), received_at=2000.0)
        self.tried(second, two=(State.DEFERRED, DEFERRED))
        for selection, expected in (
            (EVERY, [first, second]),
            (Selection(queue_ids=(second, "NONE")), [second]),
            (Selection(states=frozenset({State.DEFERRED})), [second]),
            (Selection(states=frozenset({State.QUEUED, State.HELD})), [first, second]),
            (Selection(realm="elsewhere.nl"), []),
            (Selection(account="bedrijf", realm="overheidstransactiepoort.nl"), [first, second]),
            (Selection(sender="SENDER@"), [first, second]),
            (Selection(sender="*@example.nl"), [first, second]),
            (Selection(sender="sender"), [first, second]),
            (Selection(sender="sender*nl*x"), []),
            (Selection(recipient="ne@b"), [first]),
            (Selection(recipient="*@b.nl"), [first, second]),
            (Selection(recipient="%"), [second]),
            (Selection(recipient="x_y"), [second]),
            (Selection(recipient="o_e"), []),
            (Selection(recipient="' OR 1=1 --"), []),
            (Selection(sender="\udcff"), []),
            (Selection(received_before=2000.0), [first]),
            (Selection(received_after=2000.0), [second]),
        ):
            self.assertEqual(expected, self.inspection.queue_ids(selection), selection)
            self.assertEqual(expected, [one.queue_id for one in self.inspection.summaries(selection)])

    def test_rows_that_make_no_sense(self) -> None:
        """Each is told of, and none hides those behind it."""
        damages = {
            "UPDATE recipient SET state = 'lost' WHERE queue_id = ?": "lost",
            "UPDATE recipient SET state = x'00ff' WHERE queue_id = ?": "",
            "UPDATE recipient SET path = x'00ff' WHERE queue_id = ?": "UTF-8",
            "UPDATE recipient SET path = 'a@b' || char(13, 10) WHERE queue_id = ?": "control character",
            "UPDATE recipient SET reply = '[1' WHERE queue_id = ?": "",
            "UPDATE recipient SET reply = '[250, null, [\"a\\nb\"]]' WHERE queue_id = ?": "reply",
            "DELETE FROM recipient WHERE queue_id = ?": "no recipients",
            "UPDATE message SET received_at = 'soon' WHERE queue_id = ?": "soon",
            "UPDATE message SET realm = CAST(x'ff' AS TEXT) WHERE queue_id = ?": "UTF-8",
            "UPDATE message SET reverse_path = x'00' WHERE queue_id = ?": "bytes",
            "UPDATE message SET size = x'00' WHERE queue_id = ?": "",
        }
        damaged = [self.kept() for _ in damages]
        last = self.kept()
        for queue_id, sql in zip(damaged, damages, strict=True):
            self.sql(sql, queue_id)
        with mock.patch.object(inspection, "_PAGE", 2):
            *found, whole = self.inspection.summaries()
        self.assertEqual(damaged, [one.queue_id for one in found])
        for one, why in zip(found, damages.values(), strict=True):
            assert isinstance(one, Unreadable), one
            self.assertIn(why, one.why)
            self.assertIsInstance(self.inspection.show(one.queue_id), Unreadable)
        self.assertEqual(last, whole.queue_id)
        self.assertEqual(7, statistics(self.inspection).unreadable + 3)

    def test_only_the_rest_of_a_row_makes_no_sense(self) -> None:
        for change in ("parameters = '[['", "session_id = x'00'", "since = 'x'"):
            queue_id = self.kept()
            self.sql(f"UPDATE message SET {change} WHERE queue_id = ?", queue_id)
            self.assertIsInstance(self.inspection.show(queue_id), Unreadable)
            if not change.startswith("s"):
                with self.assertRaises(Damaged):
                    self.inspection.stored(queue_id)

    def test_a_queue_id_that_is_none_names_no_file(self) -> None:
        queue_id = self.kept(BIG)
        evil = "../lock"
        for table in ("message", "recipient"):
            self.sql(f"UPDATE {table} SET queue_id = ? WHERE queue_id = ?", evil, queue_id)
        (one,) = self.inspection.summaries()
        self.assertEqual(Unreadable(evil, "this is not a queue id"), one)
        with self.assertRaises(Damaged):
            self.inspection.stored(evil)

    def test_content(self) -> None:
        for octets in (b"a\r\n", BIG):
            stored = self.inspection.stored(self.kept(octets))
            assert stored is not None
            self.assertEqual(octets, b"".join(self.inspection.content(stored, None)))

    def test_in_sequence(self) -> None:
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: f"{realm} {account}")
        first, second = self.kept(), self.kept()
        self.assertEqual((None, first), (self.shown(first).waits_for, self.shown(second).waits_for))
        self.assertIsNone(self.shown(second).summary.next_attempt)
        self.assertEqual(1, statistics(self.inspection).in_line)

    def test_parameters(self) -> None:
        parameters = MailParameters(ret="HDRS", envid="abc", auth="a@b.nl", smtputf8=True)
        queue_id = self.kept(parameters=parameters)
        self.assertEqual(parameters, self.shown(queue_id).envelope.parameters)

    def test_statistics(self) -> None:
        one = self.kept(b"12345", recipients=("one@b.nl", "two@b.nl"), received_at=1000.0)
        self.kept(b"12", received_at=2000.0)
        self.kept(b"1", received_at=3000.0)
        self.tried(one, one=(State.DEFERRED, DEFERRED))
        found = statistics(self.inspection)
        self.assertEqual((3, 8, 0, 1000.0), (found.messages, found.octets, found.unreadable, found.next_due))
        queued, deferred = found.tallies
        self.assertEqual(
            (State.QUEUED, 3, 3, 8), (queued.state, queued.messages, queued.recipients, queued.octets)
        )
        self.assertEqual((1000.0, 2000.0), (queued.oldest, queued.median))
        self.assertEqual((State.DEFERRED, 1), (deferred.state, deferred.messages))
        self.assertTrue(found.running)
        self.stop(self.spool)
        self.assertFalse(statistics(self.inspection).running)


class OpeningTests(InspectionTestCase):
    def test_no_spool(self) -> None:
        with self.assertRaisesRegex(SpoolError, "no spool"):
            Inspection(self.directory / "elsewhere")
        self.assertFalse((self.directory / "elsewhere").exists())

    def test_not_a_database(self) -> None:
        self.stop(self.spool)
        for name in ("spool.sqlite3-wal", "spool.sqlite3-shm"):
            (self.directory / name).unlink(missing_ok=True)
        (self.directory / "spool.sqlite3").write_bytes(b"rubbish" * 1000)
        with self.assertRaisesRegex(SpoolError, "cannot be opened"):
            Inspection(self.directory)

    def test_another_user(self) -> None:
        """Files that root makes here would lock the MSA out."""
        with (
            mock.patch("os.geteuid", return_value=os.geteuid() + 1),
            self.assertRaisesRegex(SpoolError, "belongs to the user .*sudo -u"),
        ):
            Inspection(self.directory)

    def test_a_user_without_a_name(self) -> None:
        owner = self.directory.stat().st_uid
        with (
            mock.patch("os.geteuid", return_value=owner + 1),
            mock.patch("pwd.getpwuid", side_effect=KeyError),
            self.assertRaisesRegex(SpoolError, f"the user #{owner}"),
        ):
            Inspection(self.directory)

    def test_a_folder_that_keeps_us_out(self) -> None:
        stat = Path.stat

        def kept_out(path: Path) -> os.stat_result:
            if path == self.directory:
                raise PermissionError
            return stat(path)

        with mock.patch.object(Path, "stat", kept_out):
            self.assertEqual(stat(self.directory.parent).st_uid, opening._owner(self.directory))

    def test_an_older_spool_that_is_being_worked(self) -> None:
        """A migration would break the earlier release that runs."""
        self.sql(f"PRAGMA user_version = {schema.VERSION - 1}")
        with self.assertRaisesRegex(SpoolError, "earlier release: restart the MSA first"):
            Inspection(self.directory)

    def test_a_newer_spool(self) -> None:
        self.stop(self.spool)
        self.sql(f"PRAGMA user_version = {schema.VERSION + 1}")
        with self.assertRaisesRegex(SpoolError, "later release"):
            Inspection(self.directory)

    def test_a_stopped_spool(self) -> None:
        queue_id = self.kept()
        self.stop(self.spool)
        self.inspection.close()
        copy = self.directory.parent / "copy"
        shutil.copytree(self.directory, copy)
        other = Inspection(copy)
        self.addCleanup(other.close)
        self.assertFalse(other.running)
        self.assertIsInstance(other.show(queue_id), Message)
        self.spool = self.started()
