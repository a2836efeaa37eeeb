"""A disk that fails or fills up under load: the clients get a 4yz, the spool stays whole, and the server is
back by itself when the disk is (D2, M6).

The faults are real: system calls that fail (``strace``), files that may not grow, a file system that is full.
"""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.crashing import CLIENTS, FAULTS, SEED, CrashCase, Faults, Limit, SmallDisk
from tests.installed import checkout
from tests.recorder import Recorder
from tests.requirements import proves

MIB = 2**20
WAL = "spool.sqlite3-wal"
#: What fails, how, which calls of each thread, and of which file; all but the last keep messages out.
DISK_FAULTS = (
    ("fsync", "EIO", "1+", ""),  # body files, and their folder
    ("fsync", "ENOSPC", "2+3", ""),
    ("rename", "ENOSPC", "1+", ""),
    ("openat", "EIO", "1+2", ""),
    ("fchmod,unlink", "EIO", "1+2", ""),
    ("fdatasync", "EIO", "1+", WAL),
    ("fdatasync", "ENOSPC", "2+3", WAL),
    ("pwrite64", "ENOSPC", "1+", WAL),
    ("pwrite64", "EIO", "5+11", WAL),
    ("pwrite64", "EIO", "1+", "underway"),
)
REFUSED, FULL = (451, 454), 452


class DiskFaultTests(CrashCase):
    def setUp(self) -> None:
        self.chance = random.Random(SEED)

    @proves("D2", "M6")
    def test_system_calls_that_fail(self) -> None:
        """Refused as long as it fails, and only then; nothing that was refused arrives."""
        hop = Recorder()
        self.addCleanup(hop.close)
        server = self.serve(hop)
        clients = self.clients(*REFUSED, FULL)
        for calls, error, when, name in DISK_FAULTS * FAULTS:
            clients.await_more(self.chance.randrange(5, 50))
            with Faults(server.pid, calls, error, when, server.spool / name if name else None):
                if name != "underway":
                    clients.await_refusals()
                else:
                    clients.await_more()
            with closing(sqlite3.connect(server.spool / "spool.sqlite3")) as database:
                self.assertEqual(database.execute("PRAGMA quick_check").fetchall(), [("ok",)])
        with Limit(server.pid, 60_000):
            clients.await_refusals(2 * CLIENTS)
        clients.await_more()
        server.command("queue", "verify")
        self.assertIn("cannot be written", server.logged())
        self.assertIn("can be written again", server.logged())
        self.reckon(sweep=True)

    @proves("D2", "M6")
    def test_killed_while_the_disk_fails(self) -> None:
        """Nothing acknowledged is lost; what was refused just then may arrive, since nobody could take back
        what the disk did not take."""
        hop = Recorder()
        self.addCleanup(hop.close)
        server = self.serve(hop)
        clients = self.clients(*REFUSED, FULL)
        for calls, when in (("fdatasync", "1+"), ("pwrite64", "3+5")) * FAULTS:
            clients.await_more()
            with Faults(server.pid, calls, "EIO", when, server.spool / WAL):
                clients.await_refusals(self.chance.randrange(1, 2 * CLIENTS))
                self.kill()
        clients.await_more()
        self.reckon(unsure=frozenset(clients.refused))

    @proves("D2", "M6")
    def test_full_disk(self) -> None:
        """Below the watermark nothing is begun, and nothing breaks; filled to the brim, nothing is lost."""
        hop = Recorder()
        self.addCleanup(hop.close)
        folder = Path(self.mktemp()).absolute()
        disk = SmallDisk(folder / "state" / "spool", 48 * MIB)
        self.addCleanup(disk.close)
        tables = {"spool": {"watermark": 8 * MIB}}
        server = self.serve(hop, tables, programs=disk.inside(checkout()), folder=folder)
        server.spool = disk.path
        clients = self.clients(FULL)
        clients.await_more()
        disk.fill(7 * MIB)
        server.await_log("no message is taken below")
        clients.await_refusals()
        disk.clear()
        clients.await_more()
        self.assertNotIn("cannot be written", server.logged(), "it broke before it was full")
        for free in (0, *(self.chance.randrange(5 * MIB) for _ in range(1, FAULTS))):
            disk.fill(free)
            clients.await_refusals(2 * CLIENTS)
            server.command("queue", "verify", "--quick")
            disk.clear()
            clients.await_more()
        self.assertIn("messages are taken", server.logged())
        self.assertEqual({reply[:9] for reply in clients.refusals}, {"452 4.3.1"})
        self.reckon()
