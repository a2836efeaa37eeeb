import json
from typing import Any

from click.testing import CliRunner, Result
from twisted.internet.task import Clock

from digipoort_msa.admin.commands import main
from digipoort_msa.spool.queue import Queue
from tests.requirements import proves
from tests.spooling import DEFERRED, FAILED, RecordingDelivery, SpoolTestCase, clock_at

CONFIGURATION = """
[server]
hostname = "msa.example.nl"
state-directory = "{directory}"

[[listener]]
endpoint = "tcp:0:interface=127.0.0.1"
tls = "starttls"

[tls]
certificate = "{directory}/certificate.pem"
private-key = "{directory}/key.pem"

[[realm]]
name = "overheidstransactiepoort.nl"
store = "sql"

[delivery]
to = "maildir"

[delivery.maildir]
directory = "{directory}/core"
"""


class QueueCommandTests(SpoolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.config = self.directory.parent / "msa.toml"
        self.config.write_text(CONFIGURATION.format(directory=self.directory.parent))
        self.queue_id = self.kept(b"12345", recipients=("one@b.nl", "later@b.nl", "never@b.nl"))

    def run_command(self, *arguments: str, code: int = 0, answer: str = "") -> str:
        result: Result = CliRunner().invoke(
            main, ["--config", str(self.config), "queue", *arguments], input=answer
        )
        self.assertEqual(code, result.exit_code, result.output)
        return result.output

    def document(self, *arguments: str) -> Any:
        return json.loads(self.run_command(*arguments, "--json"))

    def tried(self) -> None:
        clock: Clock = clock_at(1000.0)
        delivery = RecordingDelivery()
        delivery.replies = {"later@b.nl": DEFERRED, "never@b.nl": FAILED}
        queue = Queue(self.spool, delivery, clock, random=lambda: 0.5)
        queue.start()
        self.threads.run_until(lambda: bool(delivery.calls) and not queue.active)
        queue.stop()

    def test_list(self) -> None:
        output = self.run_command("list")
        self.assertIn(self.queue_id, output)
        self.assertIn("3 queued", output)
        self.assertIn("1970-01-01 00:16:40Z", output)
        (message,) = self.document("list")
        self.assertEqual(
            {
                "id": self.queue_id,
                "received": "1970-01-01 00:16:40Z",
                "size": 5,
                "sender": "<sender@example.nl>",
                "account": "bedrijf",
                "recipients": {"queued": 3},
                "next-try": "1970-01-01 00:16:40Z",
                "body-missing": False,
            },
            message,
        )

    @proves("D2", "M6")
    def test_show(self) -> None:
        self.tried()
        output = self.run_command("show", self.queue_id)
        for text in ("<one@b.nl>", "delivered", "550 5.1.1 no such user", "core.example.nl:25", "00:17:40Z"):
            self.assertIn(text, output)
        recipients = self.document("show", self.queue_id)["recipients"]
        self.assertEqual(["delivered", "deferred", "failed"], [each["state"] for each in recipients])
        self.assertEqual([1, 1, 1], [each["attempts"] for each in recipients])

    def test_retry(self) -> None:
        self.tried()
        self.assertIn("1 message to be tried", self.run_command("retry", self.queue_id))
        self.assertEqual({"retry": [self.queue_id]}, self.document("retry", "--all"))
        states = [each["state"] for each in self.document("show", self.queue_id)["recipients"]]
        self.assertEqual(["delivered", "deferred", "queued"], states)
        self.run_command("retry", code=2)
        self.run_command("retry", "--all", self.queue_id, code=2)

    def test_remove(self) -> None:
        self.run_command("remove", self.queue_id, code=1, answer="n\n")
        self.assertIn(self.queue_id, self.run_command("list"))
        self.assertIn("1 message removed", self.run_command("remove", self.queue_id, answer="y\n"))
        self.assertEqual([], self.document("list"))

    def test_remove_without_asking(self) -> None:
        self.assertEqual({"removed": [self.queue_id]}, self.document("remove", self.queue_id, "--yes"))

    def test_unknown(self) -> None:
        for arguments in (("show", "NONE"), ("retry", "NONE"), ("remove", "NONE")):
            self.assertIn("no message NONE", self.run_command(*arguments, code=1))

    def test_no_spool(self) -> None:
        elsewhere = self.directory.parent / "elsewhere"
        self.config.write_text(CONFIGURATION.format(directory=elsewhere))
        self.assertIn("no spool", self.run_command("list", code=1))
