"""Logins: how many a second, and what 50 clients that guess passwords do to everybody else.

    python -m benchmarks.authentication [--quick] [--without-peer]

*Logins* are connections with STARTTLS, one AUTH, and QUIT, ten at a time.  A password is *cold* where the
cache knows nothing of it, so that it costs a hash; the ceiling is what the same hashes reach in a process
that does nothing else, in as many threads.  The ceiling of all other logins is the same connection without
AUTH.  The peer is Postfix with Dovecot's SASL, which keeps the same argon2id hash.

*Guessing*: a probe asks NOOP every 5 ms on a connection that is logged in, and a business submits messages;
beside nothing, beside as many hashes in another process, which is what the machine itself makes of that, and
beside 50 clients that guess, each from a source of its own.  The longest NOOP is the worst stall of the
reactor, and of the scheduler, which has two cores for the server and all its clients.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.dovecot import DovecotPostfix
from benchmarks.logins import ACCOUNTS
from benchmarks.servers import ROOT, Msa, Server, Sink, make_certificates

_THREADS = 2  # of the server's for hashes, by default
_AT_ONCE = 10
_GUESSERS = 50
_PATIENCE = 60.0  # seconds that a client may take longer than it was told


class WarmMsa(Msa):
    """As it is set up by default, with SCRAM."""

    realm_settings = f"mechanisms = {[*ACCOUNTS]}"
    accounts = tuple(ACCOUNTS.values())


class ColdMsa(WarmMsa):
    """It remembers no password."""

    name = "msa, cold"
    more_settings = "[passwords]\ncache-seconds = 0\n"


@frozen
class Result:
    """What a client did."""

    took: Sequence[float]  # seconds, ascending
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.took) / self.seconds

    def milliseconds(self, quantile: float) -> float:
        return 1000 * self.took[min(len(self.took) - 1, int(quantile * len(self.took)))]


class Client:
    """A process of :mod:`benchmarks.logins`."""

    def __init__(self, work: str, server: Server | None, seconds: float, **options: object) -> None:
        arguments = [f"--{name}={value}" for name, value in {**options, "seconds": seconds}.items()]
        if server is not None:
            arguments.append(f"--port={server.port}")
        self._work = work
        self._seconds = seconds
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.logins", work, *arguments], cwd=ROOT, stdout=subprocess.PIPE
        )

    def result(self) -> Result:
        """:raise RuntimeError: it failed."""
        try:
            output, _ = self._process.communicate(timeout=self._seconds + _PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if self._process.returncode:
            raise RuntimeError(f"the client that should do {self._work} failed")
        found = json.loads(output)
        if not found["took"]:
            raise RuntimeError(f"the client that should do {self._work} did nothing")
        return Result(sorted(found["took"]), found["seconds"])


# -- logins ----------------------------------------------------------------------------------------------


def logins(warm: Msa, cold: Msa, peer: Server | None, seconds: float, rounds: int) -> None:
    """Every rate, in turns, and their ratios."""
    wanted: dict[str, tuple[Server | None, str]] = {
        "hashes": (None, ""),
        "cold": (cold, "PLAIN"),
        "warm": (warm, "PLAIN"),
        "bare": (warm, ""),
        "digest": (warm, "DIGEST-MD5"),
        "scram": (warm, "SCRAM-SHA-256"),
    }
    if peer is not None:
        wanted |= {
            "peer bare": (peer, ""),
            "peer plain": (peer, "PLAIN"),
            "peer digest": (peer, "DIGEST-MD5"),
            "peer scram": (peer, "SCRAM-SHA-256"),
        }
    rates: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(rounds):
        for name, (server, mechanism) in wanted.items():
            if server is None:
                client = Client("hashes", None, seconds, connections=_THREADS)
            else:
                client = Client("logins", server, seconds, connections=_AT_ONCE, mechanism=mechanism)
            rates[name].append(client.result().rate)
    _print_logins({name: median(found) for name, found in rates.items()})


def _print_logins(rates: Mapping[str, float]) -> None:
    print(f"{'':34}{'msa':>9}{'ceiling':>9}{'peer':>9}{'of ceiling':>12}{'of peer':>9}   (a second)")
    for title, ours, ceiling, peer in (
        ("PLAIN, cold; ceiling: hashes", "cold", "hashes", "peer plain"),
        ("PLAIN, warm; ceiling: no AUTH", "warm", "bare", "peer plain"),
        ("DIGEST-MD5", "digest", "bare", "peer digest"),
        ("SCRAM-SHA-256", "scram", "bare", "peer scram"),
        ("no AUTH", "bare", "bare", "peer bare"),
    ):
        theirs = rates.get(peer)
        line = f"{title:34}{rates[ours]:9.1f}{rates[ceiling]:9.1f}"
        line += f"{theirs:9.1f}" if theirs else f"{'':9}"
        line += f"{rates[ours] / rates[ceiling]:12.2f}"
        print(line + (f"{rates[ours] / theirs:9.2f}" if theirs else ""), flush=True)


# -- guessing --------------------------------------------------------------------------------------------


def guessing(server: Server, seconds: float, guessers: int, *, beside_hashes: bool) -> None:
    """What a probe and a business see in peace, beside hashes elsewhere, and beside guessers."""
    phases = ["nothing", "hashes elsewhere", f"{guessers} guessers"]
    if not beside_hashes:
        phases.remove("hashes elsewhere")
    Client("submit", server, 0.5).result()  # warm
    calm: Result | None = None
    for phase in phases:
        clients = [Client("probe", server, seconds), Client("submit", server, seconds)]
        # The others begin before and end after these two have.
        if phase == "hashes elsewhere":
            clients.append(Client("hashes", None, seconds + 1, connections=_THREADS))
        elif phase != "nothing":
            clients.append(Client("guess", server, seconds + 1, connections=guessers))
        noop, session, *others = [client.result() for client in clients]
        calm = calm or noop
        line = f"{server.name:14}{'beside ' + phase:26}"
        for result in (noop, session):
            line += "".join(f"{result.milliseconds(quantile):8.1f}" for quantile in (0.5, 0.99, 1))
            line += f"{len(result.took):7}"
        line += f"{noop.milliseconds(1) / calm.milliseconds(1):8.1f}"
        for other in others:
            if "guessers" in phase:
                line += f"   {other.rate:.0f} guesses/s; a verdict takes {other.milliseconds(0.5):.0f} ms"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.authentication")
    parser.add_argument("--quick", action="store_true", help="half a minute: one short round of each")
    parser.add_argument("--without-peer", action="store_true", help="the MSA alone")
    options = parser.parse_args()
    if os.geteuid() != 0 and not options.without_peer:
        raise SystemExit("Postfix's master wants to be root: run this as root, or with --without-peer")
    directory = Path(tempfile.mkdtemp(prefix="msa-bench-"))
    directory.chmod(0o755)
    try:
        if options.quick:
            measure(directory, peers=not options.without_peer, seconds=1.0, rounds=1, guessers=10)
        else:
            measure(directory, peers=not options.without_peer)
    finally:
        shutil.rmtree(directory)


def measure(
    directory: Path, *, peers: bool, seconds: float = 3.0, rounds: int = 3, guessers: int = _GUESSERS
) -> None:
    certificates = make_certificates(directory / "tls")
    began = time.monotonic()
    with ExitStack() as running:

        def start(server: Server) -> None:
            running.callback(server.stop)
            server.start()

        sink = Sink(directory / "sink")
        start(sink)
        warm = WarmMsa(directory / "warm", sink, certificates)
        cold = ColdMsa(directory / "cold", sink, certificates)
        peer = DovecotPostfix(directory / "peer", sink, certificates) if peers else None
        for server in (warm, cold, peer):
            if server is not None:
                start(server)
        logins(warm, cold, peer, seconds, rounds)
        header = "".join(f"{name:>8}" for name in ("p50", "p99", "longest")) + f"{'count':>7}"
        print(f"\n{'NOOP, and a session with a message':40}{header}{header}{'stall':>8}   (ms)")
        guessing(warm, 3 * seconds, guessers, beside_hashes=True)
        if peer is not None:
            guessing(peer, 3 * seconds, guessers, beside_hashes=False)
    print(f"\n{time.monotonic() - began:.0f} seconds in all; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
