"""``queue list``, ``show``, ``cat`` and ``stats``; and what all commands have in common."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from attrs import evolve
from click.testing import CliRunner

from digipoort_msa.admin.commands import main
from digipoort_msa.admin.queue import queue
from digipoort_msa.smtp.envelope import MailParameters, Notify, RcptParameters
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import orders
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.states import State
from tests.inspecting import BIG
from tests.queue_commands import QueueCommandTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED, DELIVERED, FAILED, envelope

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "list", "show", "cat", "retry", "hold", "release", "return", "remove", "move", "export", "import",
    "stats", "verify", "backup",
)  # fmt: skip


class ListTests(QueueCommandTestCase):
    def test_table_and_document(self) -> None:
        queue_id = self.kept(b"12345", recipients=("one@b.nl", "two@b.nl", "three@b.nl"))
        output = self.printed("list")
        self.assertIn("NEXT TRY", output)
        for text in (queue_id, "3 queued", "1970-01-01 00:16:40Z", "<sender@example.nl>"):
            self.assertIn(text, output)
        (message,) = self.document("list")
        self.assertEqual(
            {
                "id": queue_id,
                "received": "1970-01-01 00:16:40Z",
                "size": 5,
                "sender": "<sender@example.nl>",
                "realm": "overheidstransactiepoort.nl",
                "account": "bedrijf",
                "recipients": {"queued": 3},
                "recipient": "one@b.nl",
                "reply": None,
                "reason": None,
                "next-try": "1970-01-01 00:16:40Z",
                "wish": None,
                "next-hop": None,
                "encrypted": False,
            },
            message,
        )

    def test_nothing(self) -> None:
        self.assertEqual([], self.document("list"))
        self.assertEqual(1, len(self.printed("list").splitlines()))

    def test_filters(self) -> None:
        first = self.kept(recipients=("one@b.nl",))
        second = self.kept(recipients=("two@b.nl",), received_at=4e9)
        self.tried(first, one=(State.DEFERRED, DEFERRED))
        for words, expected in (
            ((), [first, second]),
            (("--state", "deferred"), [first]),
            (("--state", "deferred", "--state", "queued"), [first, second]),
            (("--realm", "x.nl"), []),
            (("--account", "bedrijf"), [first, second]),
            (("--sender", "*@example.nl", "--recipient", "two@"), [second]),
            (("--older-than", "2d"), [first]),
            (("--newer-than", "30m"), [second]),
            (("--limit", "1"), [first]),
        ):
            self.assertEqual(expected, [one["id"] for one in self.document("list", *words)], words)
        for words in (
            ("--state", "lost"),
            ("--older-than", "soon"),
            ("--older-than", "-1h"),
            ("--older-than", "1e3h"),
            ("--limit", "0"),
            ("--columns", "id,colour"),
        ):
            self.assertIn("Invalid value", self.complaint("list", *words, code=2))

    def test_columns(self) -> None:
        queue_id = self.kept(recipients=("one@b.nl", "two@b.nl"))
        self.tried(queue_id, one=(State.DEFERRED, DEFERRED))
        heading, row = self.printed("list", "--columns", "id,recipient,reply,realm,age").splitlines()
        self.assertEqual(["ID", "RECIPIENT", "REPLY", "REALM", "AGE"], heading.split())
        for text in ("<one@b.nl> and 1 more", "450 4.2.1 not now", "overheidstransactiepoort.nl"):
            self.assertIn(text, row)

    def test_what_stands_in_the_way(self) -> None:
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: realm)
        held, removed, returned, waiting = (self.kept() for _ in range(4))
        orders.hold(self.inspection, [held], "by telephone")
        for queue_id, wish in ((removed, "remove"), (returned, "return")):
            self.sql("UPDATE message SET wish = ?, next_attempt = NULL WHERE queue_id = ?", wish, queue_id)
        rows = dict(
            line.split(maxsplit=1) for line in self.printed("list", "--columns", "id,next-try").splitlines()
        )
        self.assertEqual(
            ["none", "to be removed", "to be returned", "waits in its sequence"],
            [rows[queue_id] for queue_id in (held, removed, returned, waiting)],
        )
        self.assertIn("by telephone", self.printed("list", "--columns", "id,reason"))

    def test_hostile_text(self) -> None:
        """Nothing that a peer or a damaged row says reaches the terminal as it is."""
        queue_id = self.kept(recipients=("one@b.nl",))
        # A reply may hold C1 controls; a row, anything.
        self.tried(queue_id, one=(State.DEFERRED, Reply(450, None, ("\x9b2J\u202egpj",))))
        self.sql("UPDATE message SET account = 'a' || char(27) || '[2Jb', next_hop = char(155)")
        broken = self.kept()
        self.sql("UPDATE recipient SET state = char(27) || '[31m' WHERE queue_id = ?", broken)
        evil = self.kept()
        for table in ("message", "recipient"):
            self.sql(f"UPDATE {table} SET queue_id = '../' || char(27) WHERE queue_id = ?", evil)
        for words in (
            ("list",),
            ("list", "--columns", "id,account,reply,next-hop"),
            ("list", "--json"),
            ("show", queue_id),
            ("show", queue_id, "--json"),
            ("stats",),
            ("stats", "--json"),
        ):
            output = self.run_command(*words).output
            self.assertTrue(all(char == "\n" or char.isprintable() for char in output), words)
        self.assertIn("unreadable: '\\x1b[31m' is not a valid State", self.printed("list"))
        self.assertIn("unreadable", self.complaint("show", broken))
        for output in (self.complaint("show", "\x1b[2J"), self.complaint("retry", "\x1b[2J\udcff")):
            self.assertNotIn("\x1b", output)

    def test_a_terminal_of_another_character_set(self) -> None:
        self.kept(recipients=("\u0142@b.nl",), parameters=MailParameters(smtputf8=True))
        program = "from digipoort_msa.admin.commands import main; main()"
        words = ["--config", str(self.config), "queue", "list", "--columns", "recipient"]
        result = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            check=False,
        )
        self.assertEqual(
            (0, b"RECIPIENT\n<\\u0142@b.nl>\n", b""), (result.returncode, result.stdout, result.stderr)
        )

    def test_a_later_row_needs_more_room(self) -> None:
        for number in (1, 1, 1000):
            self.kept(b"x" * number)
        with mock.patch("digipoort_msa.admin.queue.printing._ROWS", 1):
            rows = self.printed("list", "--columns", "octets,id").splitlines()
            self.assertEqual(["OCTETS", "1", "1", "1000"], [row.split()[0] for row in rows])
            self.assertEqual(3, len(self.document("list")))


class ShowTests(QueueCommandTestCase):
    @proves("D2", "M6")
    def test_show(self) -> None:
        path = MailPath("never", "b.nl")
        incoming = self.spool.receive("overheidstransactiepoort.nl")
        incoming.write(b"12345")
        given = evolve(
            envelope(incoming.queue_id, recipients=("one@b.nl", "later@b.nl", "never@b.nl")),
            parameters=MailParameters(ret="HDRS", envid="E1", body_8bitmime=True),
            recipient_parameters={path: RcptParameters(frozenset({Notify.NEVER}), "rfc822;x@y.nl")},
        )
        self.result(incoming.commit(given))
        queue_id = incoming.queue_id
        self.tried(
            queue_id,
            one=(State.DELIVERED, DELIVERED),
            later=(State.DEFERRED, DEFERRED),
            never=(State.HELD, FAILED),
        )
        output = self.printed("show", queue_id)
        for text in (
            "<one@b.nl>", "delivered", "550 5.1.1 no such user", "core.example.nl:25", "00:17:40Z",
            "RET=HDRS", "ENVID=E1", "BODY=8BITMIME", "NOTIFY=NEVER; ORCPT=rfc822;x@y.nl", "SHA-256",
            "spool.sqlite3", "ATTEMPT",
        ):  # fmt: skip
            self.assertIn(text, output)
        document = self.document("show", queue_id)
        self.assertEqual(["delivered", "deferred", "held"], [one["state"] for one in document["recipients"]])
        self.assertEqual(["NEVER"], document["recipients"][2]["notify"])
        self.assertEqual(3, len(document["attempts"]))
        self.assertEqual("E1", document["parameters"]["envid"])

    def test_in_sequence(self) -> None:
        self.stop(self.spool)
        self.spool = self.started(sequences=lambda realm, account: realm)
        first, second = self.kept(), self.kept()
        self.assertIn(f"after {first}", self.printed("show", second))
        self.assertEqual(first, self.document("show", second)["waits-for"])

    def test_unknown(self) -> None:
        for command in ("show", "cat"):
            for queue_id in ("NONE", "../../etc/passwd", "\udcff"):
                self.assertIn("There is no message", self.complaint(command, queue_id))


class CatTests(QueueCommandTestCase):
    @proves("M2")
    def test_octets(self) -> None:
        for octets in (b"A: b\r\n\r\n\xff\x00\r\n", BIG):
            queue_id = self.kept(octets)
            self.assertEqual(octets, self.run_command("cat", queue_id).stdout_bytes)
            header = octets[: octets.index(b"\r\n\r\n") + 2]
            self.assertEqual(header, self.run_command("cat", "--headers", queue_id).stdout_bytes)

    def test_the_end_of_the_header_wherever_it_is_cut(self) -> None:
        octets = b"A: b\r\nC: d\r\n\r\nbody\r\n\r\n"
        for content in (octets, b"A: b\r\n"):
            queue_id = self.kept(content)
            header = content.partition(b"\r\n\r\n")[0].removesuffix(b"\r\n") + b"\r\n"
            for cut in range(len(content) + 1):
                pieces = [content[:cut], content[cut:]]
                with mock.patch(
                    "digipoort_msa.spool.inspection.Inspection.content", return_value=iter(pieces)
                ):
                    result = self.run_command("cat", "--headers", queue_id)
                self.assertEqual(header, result.stdout_bytes, cut)

    @proves("D2")
    def test_damage(self) -> None:
        """It is said, and the end is not written."""
        row, file, gone = self.kept(b"abc\r\n"), self.kept(BIG), self.kept(BIG)
        self.sql("UPDATE content SET octets = CAST('abd  ' AS BLOB) WHERE queue_id = ?", row)
        (self.directory / "bodies" / file).write_bytes(b"!" + BIG[1:])
        (self.directory / "bodies" / gone).unlink()
        for queue_id, text in ((row, "SHA-256"), (file, "SHA-256"), (gone, "missing")):
            result = self.run_command("cat", queue_id, code=1)
            self.assertIn(text, result.stderr)
            self.assertEqual(b"", result.stdout_bytes)

    def test_encrypted(self) -> None:
        key = self.directory.parent / "key"
        key.write_text("00" * 32)
        self.stop(self.spool)
        self.spool = self.started(sealing=Sealing(bytes(32)))
        queue_id = self.kept(BIG)
        self.assertIn("not configured", self.complaint("cat", queue_id))
        self.configure(spool=f'encryption-key-file = "{key}"')
        self.assertEqual(BIG, self.run_command("cat", queue_id).stdout_bytes)
        self.assertIn("encrypted with", self.printed("show", queue_id))
        key.write_text("00")
        self.assertIn("encryption-key-file", self.complaint("cat", queue_id))
        key.unlink()
        self.assertIn("cannot be read", self.complaint("cat", queue_id))


class StatsTests(QueueCommandTestCase):
    def test_stats(self) -> None:
        queue_id = self.kept(b"12345", recipients=("one@b.nl", "two@b.nl"))
        self.tried(queue_id, one=(State.DEFERRED, DEFERRED))
        output = self.printed("stats")
        for text in ("queued", "deferred", "watermark 1048576", "running", "next due", "now"):
            self.assertIn(text, output)
        document = self.document("stats")
        self.assertEqual((1, 5, True), (document["messages"], document["octets"], document["running"]))
        self.assertEqual(
            [("queued", 1, 1), ("deferred", 1, 1)],
            [(one["state"], one["messages"], one["recipients"]) for one in document["states"]],
        )
        self.stop(self.spool)
        self.assertIn("not running", self.printed("stats"))

    def test_nothing(self) -> None:
        self.assertEqual([], self.document("stats")["states"])
        self.assertIn("none", self.printed("stats"))


class EveryCommandTests(QueueCommandTestCase):
    def arguments(self, command: str) -> tuple[str, ...]:
        place = str(self.directory.parent / "place")
        return {
            "show": ("show", "NONE"),
            "cat": ("cat", "NONE"),
            "move": ("move", "--all", "--to", "a.nl:25"),
            "export": ("export", place, "--all"),
            "import": ("import", place),
            "backup": ("backup", place),
        }.get(command, (command, *(["--all"] if command not in ("list", "stats", "verify") else [])))

    def test_there_are_these(self) -> None:
        self.assertEqual(COMMANDS, tuple(queue.commands))
        for command in COMMANDS:
            self.assertEqual(0, CliRunner().invoke(main, ["queue", command, "--help"]).exit_code)

    def test_no_spool(self) -> None:
        self.configure(directory=self.directory.parent / "elsewhere")
        for command in COMMANDS:
            output = self.complaint(*self.arguments(command))
            self.assertIn("there is no spool in", output, command)
        self.assertFalse((self.directory.parent / "elsewhere").exists())

    def test_through(self) -> None:
        """There never will be one."""
        self.configure(directory=self.directory.parent / "elsewhere", to="through")
        text = self.config.read_text().replace(
            '[realm.delivery]\nto = "maildir"', '[realm.delivery]\nto = "through"'
        )
        self.config.write_text(text)
        self.assertIn('"through": nothing is kept here', self.complaint("list"))

    def test_another_user(self) -> None:
        with mock.patch("os.geteuid", return_value=os.geteuid() + 1):
            for command in COMMANDS:
                self.assertIn("run this as that user, sudo -u", self.complaint(*self.arguments(command)))

    def test_not_configured(self) -> None:
        self.config.write_text("[server]\n")
        for command in COMMANDS:
            self.complaint(*self.arguments(command), code=os.EX_CONFIG)

    def test_what_is_made_is_nobody_elses(self) -> None:
        former = os.umask(0o022)
        try:
            self.kept(BIG)
            self.printed("export", self.directory.parent / "out", "--all")
            self.printed("backup", self.directory.parent / "copy")
            for folder in ("out", "copy"):
                for path in (self.directory.parent / folder, *(self.directory.parent / folder).rglob("*")):
                    self.assertEqual(0, path.stat().st_mode & 0o077, path)
            self.assertEqual(0o022, os.umask(0o022), "as it was before")
        finally:
            os.umask(former)

    def test_a_reader_that_goes(self) -> None:
        """``queue list | head``: without a word."""
        for _ in range(300):
            self.kept()
        program = "from digipoort_msa.admin.commands import main; main()"
        for words in (["list"], ["list", "--json"]):
            with subprocess.Popen(
                [sys.executable, "-c", program, "--config", str(self.config), "queue", *words],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                process.stdout.close()
                self.assertEqual(b"", process.stderr.read())
