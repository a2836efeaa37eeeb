"""Nothing that was answered 250 is lost when the server is killed, at whatever moment (D2, M6)."""

import itertools
import os
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, sleep

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import Authority
from tests.installed import Server, checkout, relay
from tests.raw_client import ConnectionLost, RawClient
from tests.recorder import Recorder
from tests.requirements import proves

#: A hundred in CI; DIGIPOORT_KILLS=1000 for a night.
KILLS = int(os.environ.get("DIGIPOORT_KILLS", "10"))
CLIENTS = 20
ACTIVE = 20  # queue.active
COMMANDS = (
    (b"MAIL FROM:<sender@example.nl>", 250),
    (b"RCPT TO:<recipient@core.example>", 250),
    (b"DATA", 354),
)


def content(token: str) -> bytes:
    """The message of this name; one in three is larger than what the spool keeps in its database."""
    chance = random.Random(token)
    size = chance.randrange(70_000, 400_000) if chance.random() < 0.33 else chance.randrange(20, 5000)
    line = b"%064x\r\n" % chance.getrandbits(256)
    return b"Subject: %b\r\n\r\n" % token.encode() + line * (size // len(line) + 1)


class Clients:
    """Submit until told to stop, whatever becomes of the server.

    :ivar acknowledged: the messages that got their 250.
    :ivar unsure: those whose end of data was sent, but whose reply never came.
    :ivar surprises: what went otherwise than well, or by a lost connection.
    """

    def __init__(self, server: Server) -> None:
        self.acknowledged: set[str] = set()
        self.unsure: set[str] = set()
        self.surprises: list[Exception] = []
        self._server = server
        self._stop = Event()
        self._lock = Lock()
        self._threads = [Thread(target=self._work, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def _work(self, number: int) -> None:
        tokens = (f"{number}-{message}" for message in itertools.count())
        while not self._stop.is_set():
            try:
                with RawClient(self._server, implicit=number % 2 == 0) as client:
                    self._submit(client, tokens, pipelined=number % 3 == 0)
            except ConnectionLost:
                sleep(0.02)
            except Exception as error:  # noqa: BLE001 - the test shows it
                self.surprises.append(error)
                return

    def _submit(self, client: RawClient, tokens: "itertools.Iterator[str]", *, pipelined: bool) -> None:
        """Message after message; pipelined, the next one's commands come right behind the end of data."""
        together = b"".join(command + b"\r\n" for command, _ in COMMANDS)
        if pipelined:
            client.send(together)
        for token in tokens:
            for command, code in COMMANDS:
                if not pipelined:
                    client.send(command + b"\r\n")
                client.expect(code)
            octets = content(token)
            half = len(octets) // 2
            client.send(octets[:half])
            with self._lock:
                self.unsure.add(token)  # from here on it may arrive
            client.send(octets[half:] + b".\r\n" + (together if pipelined else b""))
            client.expect(250)
            with self._lock:
                self.unsure.remove(token)
                self.acknowledged.add(token)
            if self._stop.is_set():
                return


class SigkillTests(SynchronousTestCase):
    @proves("D2", "M5", "M6")
    def test_kill(self) -> None:
        """What was acknowledged arrives, byte for byte; what was not, only where the client cannot know; and
        nothing twice but what the log has named."""
        core = Recorder()
        self.addCleanup(core.close)
        folder = Path(self.mktemp()).absolute()
        server = Server(folder, Authority(), relay(core.port), checkout())
        self.addCleanup(server.kill)
        server.add_account()
        server.start()
        clients = Clients(server)
        self.addCleanup(clients.stop)
        half_received, logs = 0, []
        for _ in range(KILLS):
            enough = len(clients.acknowledged) + CLIENTS
            end = monotonic() + 20
            while len(clients.acknowledged) < enough and monotonic() < end:
                sleep(0.005)
            sleep(random.random() * 0.3)
            server.kill()
            logs.append(server.logged())
            server.start()
            found = server.await_log(r"messages, (\d+) half-received removed")
            half_received += int(found[1])
        clients.stop()
        self.assertEqual(clients.surprises, [])
        self.assertGreaterEqual(len(clients.acknowledged), KILLS * CLIENTS)

        server.await_empty_queue(60)
        arrived: dict[str, list[str]] = {}
        for message in core.messages:
            trace, found, rest = message.content.partition(b"Subject: ")
            token = rest.split(b"\r\n", 1)[0].decode()
            self.assertEqual(found + rest, content(token))
            (queue_id,) = re.findall(rb"\n\tby localhost with ESMTPSA id ([A-Z0-9]+)\r", trace)
            arrived.setdefault(token, []).append(queue_id.decode())
        self.assertEqual(clients.acknowledged - set(arrived), set(), "acknowledged, and lost")
        self.assertEqual(set(arrived) - clients.acknowledged - clients.unsure, set(), "never sent whole")

        server.end()
        named = set(re.findall(r"([0-9A-V]{16}) .*may duplicate it", "".join([*logs, server.logged()])))
        twice = {queue_ids[0] for queue_ids in arrived.values() if len(queue_ids) > 1}
        self.assertEqual(twice - named, set(), "delivered twice, and not named in the log")
        self.assertLessEqual(len(named), KILLS * ACTIVE, "more are named than can have been under way")

        self.assertGreater(half_received, 0, "a kill met no body file on its way in")
        self.assertEqual(list((server.spool / "bodies").iterdir()), [])
        with closing(sqlite3.connect(server.spool / "spool.sqlite3")) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
