"""The scenarios: what one load does to one server, and what that took."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from attrs import define, field, frozen

from benchmarks import usage
from benchmarks.servers import ROOT, Server, Sink

_PATIENCE = 120.0  # seconds that a scenario may take on one server


@frozen
class Load:
    """A scenario of messages."""

    title: str
    work: str  # of benchmarks.load
    connections: int
    messages: int  # in each round
    rounds: int = 2
    size: int = 4096  # octets
    mechanism: str = "PLAIN"

    @property
    def command(self) -> list[str]:
        return [
            self.work,
            f"--connections={self.connections}",
            f"--messages={self.messages}",
            f"--size={self.size}",
            f"--mechanism={self.mechanism}",
        ]


@define
class Figures:
    """What all rounds of a load took on one server; times in seconds."""

    messages: int = 0
    accepted: float = 0.0  # from the first connection to the last 250
    delivered: float = 0.0  # from the first connection until the sink had all
    cpu: float = 0.0  # the server's whole tree, until then
    client_cpu: float = 0.0
    memory_idle: int = 0  # octets, before
    memory_peak: int = 0  # octets
    rates: list[float] = field(factory=list)  # delivered, of each round

    @property
    def rate(self) -> float:
        """Messages delivered in a second."""
        return self.messages / self.delivered

    @property
    def cpu_each(self) -> float:
        """Milliseconds of the server's processor time for a message."""
        return 1000 * self.cpu / self.messages


def run(load: Load, server: Server, sink: Sink, figures: Figures) -> None:
    """One round: put the load on the server and wait until the sink has all of it.

    :raise RuntimeError: the load failed, or messages are missing.
    """
    before, cpu = sink.messages, usage.cpu_seconds(server.pid)
    with _Peak(server, watching=load.size > 1 << 20) as peak:
        result = generator(load.command, server.port)
        output, _ = result.communicate(timeout=_PATIENCE)
        if result.returncode:
            raise RuntimeError(f"{load.title}: the load on {server.name} failed")
        until = time.monotonic() + _PATIENCE
        while sink.messages - before < load.messages:
            if time.monotonic() > until:
                raise RuntimeError(f"{load.title}: {server.name} has not delivered all messages")
            time.sleep(0.005)
        all_there = time.monotonic()
    times = json.loads(output)
    time.sleep(0.1)  # for what the server does when the hop has answered
    figures.messages += load.messages
    figures.accepted += times["ended"] - times["began"]
    figures.delivered += max(all_there, times["ended"]) - times["began"]
    figures.cpu += usage.cpu_seconds(server.pid) - cpu
    figures.client_cpu += times["cpu"]
    figures.memory_idle, figures.memory_peak = peak.idle, max(figures.memory_peak, peak.octets)
    figures.rates.append(load.messages / (max(all_there, times["ended"]) - times["began"]))


def idle_memory(server: Server, connections: int, implicit: bool = False, warm: int = 20) -> float:
    """Octets of the server for each connection that has done its handshake and login, and waits.

    :param warm: connections that are made before, and closed: they pay for what is made once.
    """
    flags = ["--implicit"] if implicit else []
    for count in (warm, connections):
        idle = generator(["idle", f"--connections={count}", *flags], server.port, stdin=subprocess.PIPE)
        before = usage.memory(server.pid)
        assert idle.stdout is not None
        if idle.stdout.readline() != b"open\n":
            raise RuntimeError(f"{connections} connections to {server.name} could not be opened")
        time.sleep(0.3)
        after = usage.memory(server.pid)
        idle.communicate(b"", timeout=_PATIENCE)
        time.sleep(0.3)
    return (after - before) / connections


def generator(
    arguments: Sequence[str], port: int, stdin: int = subprocess.DEVNULL
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", *arguments, f"--port={port}"],
        cwd=ROOT,
        stdin=stdin,
        stdout=subprocess.PIPE,
    )


class _Peak:
    """Looks at a server's memory five times a second."""

    def __init__(self, server: Server, watching: bool) -> None:
        self._server = server
        self._thread = threading.Thread(target=self._watch) if watching else None
        self._over = threading.Event()
        self.idle = self.octets = usage.memory(server.pid)

    def __enter__(self) -> "_Peak":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.octets = max(self.octets, usage.memory(self._server.pid))
