"""Nothing that was answered 250 is lost when the server is killed, at whatever moment (D2, M6)."""

import os
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import Authority
from tests.crashing import CLIENTS, Clients, content
from tests.installed import Server, checkout, relay
from tests.recorder import Recorder
from tests.requirements import proves

#: In both tests together: a hundred in CI; DIGIPOORT_KILLS=1000 for a night.
KILLS = int(os.environ.get("DIGIPOORT_KILLS", "10")) // 2
ACTIVE = 2 * 20  # queue.active, with the hop, and as many whose outcome is being recorded


class SigkillTests(SynchronousTestCase):
    """What was acknowledged arrives, byte for byte; what was not, only where the client cannot know; and
    nothing twice but what the log has named."""

    @proves("D2", "M5", "M6")
    def test_kill(self) -> None:
        self.kill_and_reckon({})

    @proves("D2", "M5", "M6")
    def test_kill_with_encryption_and_sequence(self) -> None:
        key = Path(self.mktemp()).absolute()
        key.write_text(os.urandom(32).hex())
        self.kill_and_reckon({"spool": {"encryption-key-file": str(key)}, "queue": {"in-sequence": True}})

    def kill_and_reckon(self, settings: dict[str, object]) -> None:
        core = Recorder()
        self.addCleanup(core.close)
        folder = Path(self.mktemp()).absolute()
        server = Server(folder, Authority(), relay(core.port) | settings, checkout())
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
