"""The operator's commands beside a real ``twistd`` that clients submit to: what is ordered comes about, what
is copied can take the spool's place, and nobody loses a message by it (D2)."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import Authority
from tests.crashing import Clients, content
from tests.installed import REALM, Server, checkout, environment, relay
from tests.recorder import Message, Recorder
from tests.requirements import proves

SUBJECT = b"\r\nSubject: "


def subjects(messages: list[Message]) -> list[str]:
    return [message.content.split(SUBJECT, 1)[1].split(b"\r\n", 1)[0].decode() for message in messages]


class QueueLiveTests(SynchronousTestCase):
    @proves("D2")
    def test_an_operators_day(self) -> None:
        folder = Path(self.mktemp()).absolute()
        away = Recorder()
        away.close()  # nobody listens on its port
        settings = {
            "realm": [
                {"name": REALM, "policy": [{"rule": "sender", "sender": {"patterns": ["*@example.nl"]}}]}
            ],
            **relay(away.port),
        }
        self.server = Server(folder / "msa", Authority(), settings, checkout())
        self.addCleanup(self.server.kill)
        self.server.add_account()
        self.server.start()
        self.hop = Recorder()
        self.addCleanup(self.hop.close)

        kept, copy = self.back_up_while_clients_submit(folder / "backup")
        here = [one["id"] for one in self.queue("list")]
        self.a_reader_that_goes(here[0])
        self.assertEqual(here, self.queue("hold", "--all")["done"])
        self.move(here[0])
        self.there_and_back(here[1], folder / "exported")
        self.give_back(here[2])

        self.server.end()
        self.assertFalse(self.queue("stats")["running"])
        self.server.spool.rename(folder / "damaged")
        shutil.copytree(copy, self.server.spool)
        self.assertEqual([], self.queue("verify")["damage"])
        self.server.start()
        self.restored(kept)

    def queue(self, *arguments: str) -> Any:
        return self.server.json("queue", *arguments)

    def back_up_while_clients_submit(self, folder: Path) -> tuple[set[str], Path]:
        """The messages that were acknowledged before the backup began, and the backup."""
        clients = Clients(self.server, pause=0.2)
        try:
            clients.await_more(30)
            kept = set(clients.acknowledged)
            made = self.queue("backup", str(folder))
            clients.await_more(1)
        finally:
            clients.stop()
        self.assertEqual([], clients.surprises)
        self.assertGreaterEqual(made["messages"], len(kept))
        self.assertGreater(made["files"], 0)
        self.assertEqual([], made["missing"])
        return kept, folder

    def a_reader_that_goes(self, first: str) -> None:
        """As ``head`` does."""
        command = [*self.server.programs.msa, "--config", str(self.server.config), "queue", "list"]
        with subprocess.Popen(
            command,
            cwd=self.server.programs.directory,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            self.assertTrue(process.stdout.readline().startswith(b"ID "))
            self.assertTrue(process.stdout.readline().startswith(first.encode()))
            process.stdout.close()
            self.assertEqual(b"", process.stderr.read())
            process.wait(60)

    def move(self, queue_id: str) -> None:
        """To a hop that is there; what is held goes when it is released."""
        due = self.server.command("queue", "cat", queue_id)
        self.assertEqual([queue_id], self.moved(queue_id))
        self.assertEqual([queue_id], self.queue("release", queue_id)["done"])
        self.assertEqual([due], self.arrived(1))

    def moved(self, *queue_ids: str) -> list[str]:
        done: list[str] = self.queue("move", *queue_ids, "--to", f"127.0.0.1:{self.hop.port}")["done"]
        return done

    def arrived(self, number: int) -> list[bytes]:
        messages = self.hop.wait(lambda messages: len(messages) >= number)
        return [message.content for message in messages]

    def there_and_back(self, queue_id: str, folder: Path) -> None:
        """Out of one spool, and into another, which here is the same."""
        self.queue("export", str(folder), queue_id)
        self.queue("remove", "--yes", queue_id)
        self.server.await_log(f"{queue_id} was removed")
        self.assertEqual([queue_id], self.queue("import", str(folder))["done"])
        self.moved(queue_id)
        self.assertEqual((folder / f"{queue_id}.eml").read_bytes(), self.arrived(2)[-1])

    def give_back(self, queue_id: str) -> None:
        """Its sender is told, once."""
        self.queue("return", "--yes", queue_id)
        self.server.await_log(f"is told what became of {queue_id}")
        (told,) = self.queue("list", "--recipient", "sender@example.nl")
        self.assertEqual("<>", told["sender"])
        self.moved(told["id"])
        self.arrived(3)
        (news,) = [message for message in self.hop.messages if message.sender.startswith("FROM:<>")]
        self.assertEqual(("TO:<sender@example.nl>",), news.recipients)
        self.assertIn(b"X-Digipoort-Queue-ID: " + queue_id.encode(), news.content)

    def restored(self, kept: set[str]) -> None:
        """All that was in the backup goes out, byte for byte."""
        here = self.queue("list")
        before = len(self.hop.messages)
        self.moved("--all")
        self.arrived(before + len(here))
        messages = self.hop.messages[before:]
        tokens = subjects(messages)
        self.assertEqual(set(), kept - set(tokens))
        self.assertEqual(len(here), len(set(tokens)), tokens)
        for token, message in zip(tokens, messages, strict=True):
            self.assertTrue(message.content.endswith(content(token)), token)
