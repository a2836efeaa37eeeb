"""What the crash tests share: clients that submit whatever happens, a next hop that dies, faults of the
disk, and the reckoning at the end."""

import itertools
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from contextlib import suppress as suppressed
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, sleep
from typing import Any, Self

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import Authority
from tests.installed import ROOT, Programs, Server, checkout, relay
from tests.raw_client import ConnectionLost, RawClient
from tests.recorder import Message, Recorder

#: What chance decides in a test; another number is another run.
SEED = int(os.environ.get("DIGIPOORT_SEED", "1"))
#: So many times as much of everything, for a run by hand.
FAULTS = int(os.environ.get("DIGIPOORT_FAULTS", "1"))
CLIENTS = 20
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

    :ivar pause: seconds between each client's messages.
    :ivar acknowledged: the messages that got their 250.
    :ivar unsure: those whose end of data was sent, but whose reply never came.
    :ivar refused: those whose end of data got a 4yz that is allowed.
    :ivar refusals: how often each such reply came, to whichever command.
    :ivar surprises: what went otherwise than well, or by a lost connection.
    """

    def __init__(self, server: Server, *, allowed: tuple[int, ...] = (), pause: float = 0.0) -> None:
        """
        :param allowed: the codes with which the server may refuse for now.
        :param pause: to begin with.
        """
        self.acknowledged: set[str] = set()
        self.unsure: set[str] = set()
        self.refused: set[str] = set()
        self.refusals: Counter[str] = Counter()
        self.surprises: list[Exception] = []
        self._server = server
        self._allowed = allowed
        self.pause = pause
        self._stop = Event()
        self._lock = Lock()
        self._threads = [Thread(target=self._work, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def await_more(self, messages: int = CLIENTS, seconds: float = 60) -> None:
        """:raise AssertionError: so many more are not acknowledged after so long."""
        enough = len(self.acknowledged) + messages
        self._await(lambda: len(self.acknowledged) >= enough, f"{messages} more messages", seconds)

    def await_refusals(self, number: int = 1, seconds: float = 60) -> None:
        """:raise AssertionError: so many more replies are not refusals after so long."""
        enough = self.refusals.total() + number
        self._await(lambda: self.refusals.total() >= enough, f"{number} more refusals", seconds)

    def _await(self, done: Callable[[], bool], what: str, seconds: float) -> None:
        end = monotonic() + seconds
        while not done():
            if monotonic() > end or self.surprises:
                raise AssertionError(f"no {what}: {self.surprises}\n{self._server.logged()[-10_000:]}")
            sleep(0.005)

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

    def _submit(self, client: RawClient, tokens: Iterator[str], *, pipelined: bool) -> None:
        """Message after message; pipelined, the next one's commands come right behind the end of data."""
        together = b"".join(command + b"\r\n" for command, _ in COMMANDS)
        ahead = b""  # what was sent before its time
        for token in tokens:
            while not self._begin(client, together if pipelined else b"", ahead):
                ahead = b""
                sleep(0.02)
                if self._stop.is_set():
                    return
            octets = content(token)
            half = len(octets) // 2
            client.send(octets[:half])
            with self._lock:
                self.unsure.add(token)  # from here on it may arrive
            ahead = together if pipelined else b""
            client.send(octets[half:] + b".\r\n" + ahead)
            kept = self._expect(client, 250)
            with self._lock:
                self.unsure.remove(token)
                (self.acknowledged if kept else self.refused).add(token)
            if self._stop.wait(self.pause):
                return

    def _begin(self, client: RawClient, together: bytes, ahead: bytes) -> bool:
        """The commands up to DATA; has the server taken them all?"""
        if together and not ahead:
            client.send(together)
        begun = True
        for command, code in COMMANDS:
            if not together and begun:
                client.send(command + b"\r\n")
            if begun:
                begun = self._expect(client, code)
            elif together:
                client.expect(503)
        return begun

    def _expect(self, client: RawClient, code: int) -> bool:
        """Did the server say this, and not no for now?"""
        reply = client.expect(code, *self._allowed)
        if int(reply[:3]) == code:
            return True
        with self._lock:
            self.refusals[reply.decode().rstrip()] += 1
        return False


class MortalHop(Recorder):
    """A next hop that dies at any step of its dialogue, a number of times at each.

    :ivar deaths: how often it has died, by step.
    """

    STEPS = ("connect", "greeting", "EHLO", "MAIL", "RCPT", "DATA", "content", "end of data", "reply", "QUIT")

    def __init__(self, chance: random.Random, deaths: int, *, lmtp: bool = False) -> None:
        """:param deaths: so many at each step, and then it behaves."""
        self.deaths: Counter[str] = Counter()
        self._chance = chance
        self._most = deaths
        self._counting = Lock()
        super().__init__(lmtp=lmtp)

    @property
    def behaves(self) -> bool:
        return all(self.deaths[step] >= self._most for step in self.STEPS)

    def last_octets(self, step: str, octets: int) -> int | None:
        with self._counting:
            if step not in self.STEPS or self.deaths[step] >= self._most or self._chance.random() > 0.2:
                return None
            self.deaths[step] += 1
            return self._chance.choice((0, octets // 2, octets))


class CrashCase(SynchronousTestCase):
    """One server, one hop, and the clients; at the end, the reckoning."""

    def serve(
        self,
        hop: Recorder,
        tables: Mapping[str, Any] | None = None,
        *,
        programs: Programs | None = None,
        folder: Path | None = None,
    ) -> Server:
        """A server that relays to the hop, and has started.

        :param tables: of the settings; those of the relay join ours.
        :param programs: how it is run.
        :param folder: for all that is its own.
        """
        self.logs: list[str] = []  # of lives that have ended
        self.hop = hop
        tables = dict(tables or {})
        more = tables.pop("relay", {})
        settings = relay(hop.port, **{"first-rest": 0.2, "longest-rest": 0.4, **more})
        quick = {
            "limits": {"login-first-delay": 0, "errors": 10**6},
            "queue": {"first-delay": 0.3, "delay-factor": 1.5, "maximum-delay": 1.0},
        }
        folder = folder or Path(self.mktemp()).absolute()
        self.server = Server(folder, Authority(), {**quick, **settings, **tables}, programs or checkout())
        self.addCleanup(self.server.kill)
        self.server.add_account()
        self.server.start()
        return self.server

    def clients(self, *allowed: int, pause: float = 0.05) -> Clients:
        self.submitting = Clients(self.server, allowed=allowed, pause=pause)
        self.addCleanup(self.submitting.stop)
        return self.submitting

    def kill(self) -> None:
        """SIGKILL, and a new life."""
        self.server.kill()
        self.logs.append(self.server.logged())
        self.server.start()

    def until(self, done: Callable[[], bool], state: object, seconds: float = 60) -> None:
        """Wait, while the clients submit.

        :raise AssertionError: ``done`` is not true after so long; ``state`` tells more.
        """
        end = monotonic() + seconds
        while not done():
            if monotonic() > end or self.submitting.surprises:
                logged = self.server.logged()[-10_000:]
                raise AssertionError(f"not so far: {state}; {self.submitting.surprises}\n{logged}")
            sleep(0.05)

    def reckon(
        self, *, unsure: frozenset[str] = frozenset(), sweep: bool = False, seconds: float = 60
    ) -> dict[str, list[str]]:
        """Stop the clients, wait until all has arrived, and compare.

        :param unsure: the names of messages that may arrive besides.
        :param sweep: there may be files that could not be removed; another start does that.
        :return: the queue ids of what arrived, by the message's name.
        """
        clients = self.submitting
        clients.stop()
        where = f"DIGIPOORT_SEED={SEED}"
        self.assertEqual(clients.surprises, [], where)
        self.hop.wait(lambda messages: len(messages) >= len(clients.acknowledged), seconds)
        self.server.await_empty_queue(seconds)
        arrived = arrivals(self.hop.messages)
        self.assertEqual(clients.acknowledged - set(arrived), set(), f"acknowledged, and lost; {where}")
        known = clients.acknowledged | clients.unsure | unsure
        self.assertEqual(set(arrived) - known, set(), f"arrived, though nobody can expect it; {where}")
        self.server.end()
        self.logs.append(self.server.logged())
        twice = {queue_ids[0] for queue_ids in arrived.values() if len(queue_ids) > 1}
        self.assertEqual(twice - self.named(), set(), f"delivered twice, and not named in the log; {where}")
        if sweep:
            self.server.start()
            self.server.end()
        self.assert_sound()
        return arrived

    def named(self) -> set[str]:
        """The queue ids of what may have been delivered twice, as the log says."""
        return set(re.findall(r"([0-9A-V]{16}) .*may duplicate it", "".join(self.logs)))

    def assert_sound(self) -> None:
        """The spool of the server, which has ended, is empty and consistent."""
        self.assertEqual(list((self.server.spool / "bodies").iterdir()), [])
        copy = Path(self.mktemp()).absolute()  # SQLite would follow /proc/PID/root out of a small disk
        copy.mkdir(parents=True)
        for file in self.server.spool.glob("spool.sqlite3*"):
            shutil.copy(file, copy)
        with closing(sqlite3.connect(copy / "spool.sqlite3")) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            self.assertEqual(database.execute("SELECT count(*) FROM message").fetchall(), [(0,)])
            self.assertEqual(database.execute("SELECT count(*) FROM recipient").fetchall(), [(0,)])


def arrivals(messages: list[Message]) -> dict[str, list[str]]:
    """What arrived: its queue ids, in order, by its name.

    :raise AssertionError: something is not as it was sent.
    """
    arrived: dict[str, list[str]] = {}
    for message in messages:
        trace, found, rest = message.content.partition(b"Subject: ")
        token = rest.split(b"\r\n", 1)[0].decode()
        if found + rest != content(token):
            raise AssertionError(f"{token} is not as it was sent: {message.content[:2000]!r}")
        (queue_id,) = re.findall(rb"\n\tby localhost with ESMTPSA id ([A-Z0-9]+)\r", trace)
        arrived.setdefault(token, []).append(queue_id.decode())
    return arrived


class Faults:
    """System calls of a running process fail, for as long as the context lasts."""

    def __init__(self, pid: int, calls: str, error: str, when: str = "1+", path: Path | None = None) -> None:
        """
        :param calls: their names, with commas between.
        :param error: its name, such as EIO.
        :param when: which of each thread's calls: ``3``, ``3+`` (all that follow too), ``3+2`` (every other).
        :param path: only calls that concern this file.
        """
        which = () if path is None else ("-P", str(path))
        inject = f"inject={calls}:error={error}:when={when}"
        self._command = ["strace", "-f", "-p", str(pid), *which, "-e", f"trace={calls}", "-e", inject]

    def __enter__(self) -> Self:
        self._strace = subprocess.Popen(
            [*self._command, "-e", "signal=none", "-o", "/dev/null"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._strace.stderr is not None
        said = self._strace.stderr.readline()
        if b"attached" not in said:
            self._end()
            raise AssertionError(f"strace cannot trace the server: {said!r}")
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._strace.send_signal(signal.SIGINT)
        self._strace.communicate(timeout=30)


class Limit:
    """No file of a running process grows beyond so many octets, for as long as the context lasts (EFBIG)."""

    def __init__(self, pid: int, octets: int) -> None:
        self._pid = pid
        self._octets = octets

    def __enter__(self) -> Self:
        self._before = resource.prlimit(self._pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (self._octets, self._before[1]))
        return self

    def __exit__(self, *_: object) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, self._before)


class SmallDisk:
    """A file system of its own, in memory, that only the programs run :meth:`inside` see at their path."""

    def __init__(self, directory: Path, octets: int) -> None:
        """:param directory: where it is mounted; made."""
        directory.mkdir(parents=True)
        self._as = () if os.geteuid() == 0 else ("--map-root-user",)
        mount = 'mount -t tmpfs -o size=$1,mode=0700 tmpfs "$0" && echo mounted && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", *self._as, "sh", "-c", mount, directory, str(octets)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self.close()
            raise AssertionError("no file system can be mounted here")
        #: The same from outside.
        self.path = Path(f"/proc/{self._holder.pid}/root{directory}")
        self._filler = self.path / "filler"

    def inside(self, programs: Programs) -> Programs:
        users = ("--user", "--preserve-credentials") if self._as else ()
        enter = ("nsenter", f"--target={self._holder.pid}", "--mount", *users, f"--wd={ROOT}")
        return Programs((*enter, *programs.twistd), (*enter, *programs.msa), ROOT)

    @property
    def free(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def fill(self, free: int = 0) -> None:
        """Leave no more than so many octets free, whatever others do meanwhile."""
        with self._filler.open("ab", 0) as file, suppressed(OSError):
            while (octets := self.free - free) > 0:
                file.write(bytes(min(octets, 2**20)))

    def clear(self) -> None:
        self._filler.unlink()

    def close(self) -> None:
        self._holder.communicate()
