"""A copy that is made while the MSA works, and is whole."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from digipoort_msa.spool import backup, orders
from digipoort_msa.spool.backup import Backup, back_up
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.integrity import Verification
from digipoort_msa.spool.schema import SpoolError
from tests.inspecting import BIG, InspectionTestCase
from tests.requirements import proves


class BackupTests(InspectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        self.folder = self.place / "copy"

    def back_up(self, **settings: Any) -> Backup:
        return back_up(self.inspection, self.folder, **settings)

    def copied(self) -> Inspection:
        copy = Inspection(self.folder)
        self.addCleanup(copy.close)
        self.assertEqual([], list(Verification(copy).findings()))
        return copy

    @proves("D2")
    def test_it_takes_the_spools_place(self) -> None:
        small, big = self.kept(b"small\r\n"), self.kept(BIG)
        self.assertEqual(Backup(self.folder, 2, 1, 0, ()), self.back_up())
        self.assertEqual(["bodies", "spool.sqlite3"], sorted(os.listdir(self.folder)))
        self.assertEqual(0o700, self.folder.stat().st_mode & 0o777)
        self.assertEqual(0o600, (self.folder / "spool.sqlite3").stat().st_mode & 0o777)
        self.assertEqual(["copy"], os.listdir(self.place))
        self.kept()
        self.stop(self.spool)
        self.inspection.close()
        shutil.rmtree(self.directory)
        shutil.copytree(self.folder, self.directory)
        self.spool = self.started()
        self.assertEqual((2, 0, ()), (self.recovery.messages, self.recovery.orphans, self.recovery.missing))
        copy = self.copied()
        for queue_id, octets in ((small, b"small\r\n"), (big, BIG)):
            stored = copy.stored(queue_id)
            assert stored is not None
            self.assertEqual(octets, b"".join(copy.content(stored, None)))

    def test_linked_or_copied(self) -> None:
        queue_id = self.kept(BIG)
        source = self.directory / "bodies" / queue_id
        self.back_up()
        copy = self.folder / "bodies" / queue_id
        self.assertTrue(source.samefile(copy))
        shutil.rmtree(self.folder)
        with mock.patch("os.link", side_effect=OSError(errno.EXDEV, "Invalid cross-device link")):
            self.back_up()
        self.assertFalse(source.samefile(copy))
        self.assertEqual((BIG, 0o600), (copy.read_bytes(), copy.stat().st_mode & 0o777))
        self.copied()

    def test_the_msa_goes_on(self) -> None:
        """What comes in meanwhile is not in it; the copy is of one moment, and does not begin anew."""
        kept = [self.kept(b"x" * 3000 + b"\r\n") for _ in range(20)]
        steps: list[tuple[int, int]] = []

        def step(done: int, total: int) -> None:
            steps.append((done, total))
            self.kept()

        with mock.patch.object(backup, "_PAGES", 2):
            self.assertEqual(20, self.back_up(progress=step).messages)
        self.assertGreater(len(steps), 5)
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(kept, self.copied().queue_ids())

    @proves("D2")
    def test_what_ends_meanwhile(self) -> None:
        """Its file is gone; so are its rows then, and the next of its sequence has its turn in the copy."""
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: f"{realm} {account}")
        first, second, third = self.kept(BIG), self.kept(BIG), self.kept()

        linked = backup._copied

        def ended_first(inspection: Inspection, queue_id: str, made: Path) -> bool:
            for table in ("message", "content", "recipient", "attempt"):
                self.sql(f"DELETE FROM {table} WHERE queue_id = ?", first)
            (self.directory / "bodies" / first).unlink(missing_ok=True)
            return linked(inspection, queue_id, made)

        with mock.patch.object(backup, "_copied", ended_first):
            self.assertEqual(Backup(self.folder, 2, 1, 1, ()), self.back_up())
        copy = self.copied()
        self.assertEqual([second, third], copy.queue_ids())
        heads = copy.connection.execute("SELECT queue_id FROM message WHERE next_attempt IS NOT NULL")
        self.assertEqual([(second,)], heads.fetchall())

    @proves("D2")
    def test_what_is_missing_in_the_spool_itself(self) -> None:
        """Its rows stay: an operator still has to decide."""
        queue_id = self.kept(BIG)
        (self.directory / "bodies" / queue_id).unlink()
        self.assertEqual(Backup(self.folder, 1, 0, 0, (queue_id,)), self.back_up())
        shutil.rmtree(self.folder)
        (self.directory / "bodies" / queue_id).symlink_to("/etc/passwd")
        self.assertEqual((queue_id,), self.back_up().missing)
        self.assertEqual([], os.listdir(self.folder / "bodies"))

    def test_a_stopped_spool(self) -> None:
        queue_id = self.kept()
        self.stop(self.spool)
        self.back_up()
        self.assertEqual([queue_id], self.copied().queue_ids())

    def test_where_it_cannot_be(self) -> None:
        self.kept(BIG)
        (self.place / "link").symlink_to(self.directory / "bodies")
        (self.place / "file").touch()
        for folder, text in (
            (self.directory / "copy", "inside the spool"),
            (self.directory / "bodies" / "copy", "inside the spool"),
            (self.place / "link" / "copy", "inside the spool"),
            (self.place / "link", "there already"),
            (self.place / "file", "there already"),
            (self.place, "there already"),
            (self.place / "none" / "copy", "cannot be used"),
            (self.place / "file" / "copy", "cannot be used|there already|no folder"),
        ):
            with self.assertRaisesRegex(SpoolError, text):
                back_up(self.inspection, folder)
        with self.assertRaisesRegex(SpoolError, "octets free.*spool.watermark"):
            back_up(self.inspection, self.place / "copy", watermark=2**62)
        self.assertEqual(["file", "link"], sorted(os.listdir(self.place)))

    def test_nothing_is_left_of_one_that_fails(self) -> None:
        self.kept(BIG)
        for place, error in (
            ("os.fsync", OSError(5, "Input/output error")),
            ("os.link", OSError(28, "No space left on device")),
            ("pathlib.Path.rename", OSError(39, "Directory not empty")),
        ):
            with (
                mock.patch(place, side_effect=error),
                self.assertRaisesRegex(SpoolError, str(error.strerror)),
            ):
                self.back_up()
            self.assertEqual([], os.listdir(self.place))
        with self.assertRaises(KeyboardInterrupt):
            self.back_up(progress=mock.Mock(side_effect=KeyboardInterrupt))
        self.assertEqual([], os.listdir(self.place))
        orders.remove(self.inspection, self.inspection.queue_ids())  # no view is left open
