"""``queue export``, ``import``, ``verify`` and ``backup``."""

import json
import os
import tempfile
from pathlib import Path

from digipoort_msa.spool import orders
from tests.inspecting import BIG
from tests.queue_commands import QueueCommandTestCase
from tests.requirements import proves


class CopiesTests(QueueCommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = Path(place.name) / "out"

    def gone(self, *queue_ids: str) -> None:
        self.stop(self.spool)
        orders.remove(self.inspection, list(queue_ids))
        self.spool = self.started()

    @proves("D2")
    def test_there_and_back(self) -> None:
        small, big = self.kept(), self.kept(BIG)
        before = [self.document("show", queue_id) for queue_id in (small, big)]
        self.assertIn("2 messages exported", self.printed("export", self.folder, "--all"))
        self.gone(small, big)
        self.assertEqual("2 messages imported\n", self.printed("import", self.folder))
        self.assertEqual(before, [self.document("show", queue_id) for queue_id in (small, big)])
        self.assertEqual(BIG, self.run_command("cat", big).stdout_bytes)
        result = self.run_command("import", self.folder, "--json")
        self.assertEqual({"done": [], "refused": [], "skipped": [small, big]}, json.loads(result.stdout))
        self.assertEqual(2, result.stderr.count("skipped: "))

    def test_export(self) -> None:
        first, second = self.kept(), self.kept()
        self.assertIn("1 message exported", self.printed("export", self.folder, first))
        result = self.run_command("export", self.folder, first, second, "NONE", "--json", code=1)
        document = json.loads(result.stdout)
        self.assertEqual([second], document["done"])
        self.assertEqual([first, "NONE"], [one["what"] for one in document["refused"]])
        self.assertIn("--force replaces it", result.stderr)
        self.assertIn("2 messages exported", self.printed("export", self.folder, "--all", "--force"))
        self.complaint("export", self.folder, code=2)
        self.assertIn("inside the spool", self.complaint("export", self.directory / "x", "--all"))

    def test_import(self) -> None:
        """What is no good is said, by file and key; the rest is imported."""
        good, bad, held = self.kept(), self.kept(), self.kept()
        self.printed("export", self.folder, "--all")
        self.gone(good, bad, held)
        path = self.folder / f"{bad}.json"
        document = json.loads(path.read_text())
        for key, value, text in (
            ("realm", "gone.nl", "is not configured here; there is overheidstransactiepoort.nl, maildir.nl"),
            ("next-hop", "x", 'next-hop = x: should be "host:port"'),
            ("sender", "\x1b[2J", "sender = "),
        ):
            path.write_text(json.dumps({**document, key: value}))
            result = self.run_command("import", self.folder / f"{good}.eml", path, code=1)
            self.assertIn(f"{path}: ", result.stderr)
            self.assertIn(text, result.stderr)
            self.assertNotIn("\x1b", result.stderr)
        self.assertEqual([good], [one["id"] for one in self.document("list")])
        path.write_text(json.dumps({**document, "realm": "maildir.nl", "next-hop": "a.nl:25"}))
        self.assertIn('delivery.to = "maildir"', self.complaint("import", path))
        self.assertIn("1 message imported", self.printed("import", "--hold", self.folder / f"{held}.json"))
        self.assertEqual(["held"], self.states(held))
        self.assertIn("No such file", self.complaint("import", self.folder / "none"))
        self.complaint("import", code=2)

    def test_import_in_sequence(self) -> None:
        first, second = self.kept(), self.kept()
        self.printed("export", self.folder, "--all")
        self.gone(first, second)
        self.config.write_text(self.config.read_text() + "\n[queue]\nin-sequence = true\n")
        self.printed("import", self.folder)
        self.assertEqual(first, self.document("show", second)["waits-for"])

    @proves("D2")
    def test_verify(self) -> None:
        self.kept()
        queue_id = self.kept(BIG)
        self.assertEqual("2 messages checked, nothing damaged\n", self.printed("verify"))
        quick = "2 messages checked, nothing damaged; contents were not read\n"
        self.assertEqual(quick, self.printed("verify", "--quick"))
        (self.directory / "bodies" / queue_id).write_bytes(b"!" + BIG[1:])
        output = self.printed("verify", code=1)
        self.assertIn(f"{queue_id}: its stored content has been altered", output)
        self.assertIn("2 messages checked, 1 damaged", output)
        document = self.document("verify", code=1)
        self.assertEqual(
            (2, [queue_id], []),
            (document["checked"], [one["where"] for one in document["damage"]], document["notes"]),
        )
        self.printed("verify", "--quick")
        orphan = self.directory / "bodies" / "CO6O1R29G9KUBHK7"
        orphan.write_bytes(b"x")
        orphan.chmod(0o600)
        os.utime(orphan, times=(0, 0))
        self.assertIn(f"note: {orphan}: of no message", self.printed("verify", "--quick"))

    @proves("D2")
    def test_backup(self) -> None:
        queue_id = self.kept(BIG)
        self.assertEqual(f"1 message in {self.folder}, 1 with a file\n", self.printed("backup", self.folder))
        self.assertIn("there already", self.complaint("backup", self.folder))
        (self.directory / "bodies" / queue_id).unlink()
        other = self.folder.parent / "other"
        result = self.run_command("backup", other, "--json", code=1)
        self.assertEqual([queue_id], json.loads(result.stdout)["missing"])
        self.assertIn("missing in the spool, too", result.stderr)
