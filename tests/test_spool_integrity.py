"""Damage is found, whatever it is; a healthy spool has none, whatever goes on."""

import os
import time
from pathlib import Path
from unittest import mock

from digipoort_msa.spool import integrity
from digipoort_msa.spool.bodies import Bodies
from digipoort_msa.spool.integrity import Finding, Verification
from digipoort_msa.spool.rows import Stored
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.states import State
from tests.inspecting import BIG, InspectionTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED


class IntegrityTests(InspectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.bodies = self.directory / "bodies"

    def findings(self, quick: bool = False) -> list[Finding]:
        return list(Verification(self.inspection, quick=quick).findings())

    def damage(self, quick: bool = False) -> list[tuple[str, str]]:
        return [(each.where, each.text) for each in self.findings(quick) if each.damage]

    @proves("D2")
    def test_a_healthy_spool(self) -> None:
        kept = [self.kept(), self.kept(BIG), self.kept(b"\xe9\r\n")]
        self.tried(kept[0], one=(State.DEFERRED, DEFERRED))
        for quick in (False, True):
            for _ in range(2):
                self.assertEqual([], self.findings(quick))
            self.stop(self.spool)
            self.assertEqual([], self.findings(quick))
            self.spool = self.started()

    def test_a_healthy_spool_that_is_encrypted(self) -> None:
        """Without the key."""
        self.stop(self.spool)
        self.spool = self.started(sealing=Sealing(bytes(32)))
        for octets in (b"x\r\n", BIG):
            self.kept(octets)
        self.assertEqual([], self.findings())
        self.assertEqual([], self.findings(quick=True))

    def test_progress(self) -> None:
        self.kept()
        self.kept()
        steps: list[tuple[int, int]] = []
        verification = Verification(self.inspection, progress=lambda done, total: steps.append((done, total)))
        with mock.patch.object(integrity, "_PAGE", 1):
            self.assertEqual([], list(verification.findings()))
        self.assertEqual([(1, 2), (2, 2)], steps)
        self.assertEqual((2, 0), (verification.checked, verification.without_digest))

    @proves("D2")
    def test_contents(self) -> None:
        altered, short, gone, row = self.kept(BIG), self.kept(BIG), self.kept(BIG), self.kept(b"abc\r\n")
        (self.bodies / altered).write_bytes(b"!" + BIG[1:])
        (self.bodies / short).write_bytes(BIG[:-1])
        (self.bodies / gone).unlink()
        self.sql("UPDATE content SET octets = CAST('abd' || char(13, 10) AS BLOB) WHERE queue_id = ?", row)
        found = dict(self.damage())
        self.assertEqual([altered, short, gone, row], list(found))
        for queue_id, text in ((altered, "SHA-256"), (short, "octets"), (gone, "missing"), (row, "SHA-256")):
            self.assertIn(text, found[queue_id])
        self.assertEqual([short, gone], list(dict(self.damage(quick=True))))

    def test_a_link_in_the_place_of_a_file(self) -> None:
        queue_id = self.kept(BIG)
        aside = self.directory / "aside"
        (self.bodies / queue_id).rename(aside)
        (self.bodies / queue_id).symlink_to(aside)
        self.assertIn((queue_id, "its body file is missing"), self.damage())

    def test_rows(self) -> None:
        unreadable, lost, none = self.kept(), self.kept(), self.kept()
        self.sql("UPDATE recipient SET state = 'lost' WHERE queue_id = ?", unreadable)
        self.sql("DELETE FROM message WHERE queue_id = ?", lost)
        self.sql("UPDATE message SET queue_id = x'00' WHERE queue_id = ?", none)
        self.sql("DELETE FROM recipient WHERE queue_id = ?", none)
        self.sql("DELETE FROM content WHERE queue_id = ?", none)
        for quick in (False, True):
            texts = [f"{where}: {text}" for where, text in self.damage(quick)]
            self.assertEqual(4, len(texts), texts)
            self.assertIn("'lost' is not a valid State", texts[0])
            self.assertIn("queue id is blob", texts[1])
            self.assertEqual(f"{lost}: it has rows in the table content, and no message", texts[2])
            self.assertEqual(f"{lost}: it has rows in the table recipient, and no message", texts[3])

    def test_the_database(self) -> None:
        for _ in range(20):
            self.kept(b"x" * 3000 + b"\r\n")
        self.stop(self.spool)
        self.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        path = self.directory / "spool.sqlite3"
        octets = bytearray(path.read_bytes())
        for start in range(8 * 4096, len(octets), 4096):
            octets[start : start + 100] = b"\xff" * 100
        path.write_bytes(octets)
        for quick in (False, True):
            found = self.damage(quick)
            self.assertIn("database", [where for where, _ in found])

    def test_modes(self) -> None:
        queue_id = self.kept(BIG)
        for path, mode in ((self.bodies / queue_id, 0o644), (self.bodies, 0o755), (self.directory, 0o710)):
            former = path.stat().st_mode
            path.chmod(mode)
            ((where, text),) = self.damage()
            self.assertEqual(str(path), where)
            self.assertIn(f"mode is {mode:04o}", text)
            path.chmod(former)

    def test_orphans(self) -> None:
        """Of a running MSA a young file may be about to have its row; what is half received is its own."""
        orphan, half, other = "CO6O1R29G9KUBHK7", "CO6O1R29G9KUBHK8.incoming", "core.1234"
        for name in (orphan, half, other):
            (self.bodies / name).write_bytes(b"x")
            (self.bodies / name).chmod(0o600)
        self.assertEqual([], self.findings())
        for name in (orphan, half, other):
            os.utime(self.bodies / name, times=(0, time.time() - 61))
        self.assertEqual({orphan, other}, {Path(each.where).name for each in self.findings()})
        self.assertEqual([], self.damage(), "a start removes it")
        self.stop(self.spool)
        self.assertEqual({orphan, half, other}, {Path(each.where).name for each in self.findings()})
        (self.bodies / "folder").mkdir()
        (self.bodies / "\udcff").symlink_to("/etc/passwd")
        self.assertEqual(2, len(self.damage()))
        (self.bodies / "folder").rmdir()
        (self.bodies / "\udcff").unlink()
        self.spool = self.started()
        self.assertEqual([], self.findings())

    def test_a_message_that_goes_meanwhile(self) -> None:
        """It looks damaged when its file is gone, and its row is gone as well when it is looked at again."""
        queue_id = self.kept(BIG)
        check = integrity.check

        def gone_and_checked(stored: Stored, bodies: Bodies) -> None:
            for table in ("message", "recipient"):
                self.sql(f"DELETE FROM {table} WHERE queue_id = ?", queue_id)
            (self.bodies / queue_id).unlink()
            check(stored, bodies)

        with mock.patch.object(integrity, "check", gone_and_checked):
            self.assertEqual([], self.findings())
        self.assertEqual([], self.sql("SELECT * FROM message"))

    def test_no_digest(self) -> None:
        """What an earlier release has kept is checked by its size."""
        row, file = self.kept(), self.kept(BIG)
        self.sql("UPDATE message SET digest = NULL")
        verification = Verification(self.inspection)
        self.assertEqual([], list(verification.findings()))
        self.assertEqual(2, verification.without_digest)
        (self.bodies / file).write_bytes(b"x")
        self.assertEqual([file], [where for where, _ in self.damage()])
        self.assertNotEqual(row, file)

    def test_the_msa_goes_on(self) -> None:
        """Between two findings, messages are kept."""
        for _ in range(3):
            self.sql("UPDATE message SET size = 1 WHERE queue_id = ?", self.kept(BIG))
        with mock.patch.object(integrity, "_PAGE", 1):
            found = Verification(self.inspection).findings()
            for _ in range(3):
                self.assertIn("octets", next(found).text)
                self.kept()
        self.assertEqual([], list(found))
