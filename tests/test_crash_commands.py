"""An operator's command that is killed while it works on the spool of a running server: the spool stays
whole, the server goes on, and nothing is lost (D2)."""

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep

from tests.crashing import CLIENTS, FAULTS, SEED, CrashCase
from tests.installed import environment
from tests.recorder import Recorder
from tests.requirements import proves

SOON = 0.1  # seconds: within these after it has opened the spool a command is killed


class KilledCommandTests(CrashCase):
    def setUp(self) -> None:
        self.chance = random.Random(SEED)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.killed: list[int] = []  # how they ended

    @proves("D2")
    def test_kill_commands(self) -> None:
        hop = Recorder()
        self.addCleanup(hop.close)
        hop.refusing = b"451 4.3.0 later"
        server = self.serve(hop, {"queue": {"first-delay": 1.0, "delay-factor": 1.0}})
        clients = self.clients()
        clients.await_more(5 * CLIENTS)
        clients.pause = 3.0
        for number in range(FAULTS):
            everything = [("queue", verb, "--all") for verb in ("hold", "release", "retry")]
            self.kill_amid(*everything, ("queue", "backup", str(self.folder / f"backup{number}")))
            clients.await_more(1)
        server.command("queue", "verify")

        exported = self.folder / "exported"
        server.command("queue", "hold", "--all")
        server.command("queue", "export", str(exported), "--state", "held")
        queue_ids = sorted(file.stem for file in exported.glob("*.json"))
        self.assertGreaterEqual(len(queue_ids), 5 * CLIENTS)
        server.command("queue", "remove", "--yes", *queue_ids)
        self.until(lambda: "was removed by an operator" in server.logged(), "nothing was removed")
        self.kill_amid(*[("queue", "import", "--hold", str(exported))] * 2 * FAULTS)
        server.command("queue", "import", "--hold", str(exported))
        hop.refusing = None
        clients.pause = 0.1
        clients.await_more()
        server.command("queue", "release", "--all")
        self.assertIn(-9, self.killed, "every command was done before it was killed")
        self.reckon(sweep=True)

    def kill_amid(self, *commands: tuple[str, ...]) -> None:
        """Run these at once, and kill each at a moment of its work."""
        moments = [self.chance.random() * SOON for _ in commands]
        with ThreadPoolExecutor(len(commands)) as threads:
            self.killed += threads.map(self.kill_one, commands, moments)

    def kill_one(self, command: tuple[str, ...], moment: float) -> int:
        programs, config = self.server.programs, self.server.config
        process = subprocess.Popen(
            [*programs.msa, "--config", str(config), *command],
            cwd=programs.directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = monotonic() + 60
        while process.poll() is None and not self.at_work(process.pid) and monotonic() < end:
            sleep(0.005)
        sleep(moment)
        process.kill()
        return process.wait()

    def at_work(self, pid: int) -> bool:
        """Has it opened the spool?"""
        try:
            files = [file.readlink() for file in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            return False
        return any(self.server.spool in file.parents for file in files)
