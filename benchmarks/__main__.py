"""``python -m benchmarks``: the MSA and Postfix, in turns, on the same machine at the same time of day."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from attrs import evolve

from benchmarks.scenarios import Figures, Load, idle_memory, run
from benchmarks.servers import ROOT, CertificateFiles, Msa, Postfix, Server, Sink, make_certificates

MIB = 1024 * 1024

LOADS = (
    Load("full sessions, 1 at a time", "sessions", connections=1, messages=120),
    Load("full sessions, 10 at a time", "sessions", connections=10, messages=400),
    Load("full sessions, 50 at a time", "sessions", connections=50, messages=500),
    Load("the same with DIGEST-MD5", "sessions", connections=10, messages=300, mechanism="DIGEST-MD5"),
    Load("messages on 1 connection", "stream", connections=1, messages=600),
    Load("messages on 10 connections", "stream", connections=10, messages=2000),
    Load("50 MiB messages, 20 at once", "stream", connections=20, messages=20, rounds=1, size=50 * MIB),
)
IDLE = 1000  # connections
IDLE_PEER = 40  # a process each


class Ceiling(Server):
    """Bare TLS: see :mod:`benchmarks.ceiling`."""

    name = "bare OpenSSL"

    def __init__(self, directory: Path, certificates: CertificateFiles) -> None:
        super().__init__(directory)
        self._certificates = certificates

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(), cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def command(self) -> list[str]:
        files = [str(self._certificates.certificate), str(self._certificates.private_key)]
        return [sys.executable, "-m", "benchmarks.ceiling", *files]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="half a minute: one short round of each")
    parser.add_argument("--only", default="", help="only the scenarios whose title holds this text")
    parser.add_argument("--without-peer", action="store_true", help="the MSA alone")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder, with the logs")
    options = parser.parse_args()
    if os.geteuid() != 0 and not options.without_peer:
        raise SystemExit("Postfix's master wants to be root: run this as root, or with --without-peer")
    directory = Path(tempfile.mkdtemp(prefix="msa-bench-"))
    directory.chmod(0o755)
    try:
        measure(options, directory)
    finally:
        if options.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory)


def measure(options: argparse.Namespace, directory: Path) -> None:
    certificates = make_certificates(directory / "tls")
    with ExitStack() as running:
        pairs: list[tuple[Server, Sink]] = []
        kinds: tuple[type[Msa | Postfix], ...] = (Msa,) if options.without_peer else (Msa, Postfix)
        for kind in kinds:
            sink = Sink(directory / f"sink-{kind.name}")
            running.callback(sink.stop)
            sink.start()
            server: Msa | Postfix = kind(directory / kind.name, sink, certificates)
            running.callback(server.stop)
            server.start()
            pairs.append((server, sink))
        began = time.monotonic()
        # Idle connections first: a heap that has seen a load has room to spare.
        if options.only in "idle connections":
            report_idle(directory, pairs, certificates, running, options.quick)
        print(
            f"{'':32}{'':14}{'accepted/s':>11}{'delivered/s':>12}{'CPU ms each':>12}"
            f"{'rate':>8}{'CPU':>8}  (ratios: ours to the peer's)"
        )
        for load in LOADS:
            if options.only in load.title:
                report(load, pairs, options.quick)
        print(f"\n{time.monotonic() - began:.0f} seconds in all; load average {os.getloadavg()[0]:.1f}")


def report(load: Load, pairs: list[tuple[Server, Sink]], quick: bool) -> None:
    if quick:
        load = evolve(load, rounds=1, messages=max(load.messages // 3, 20 if load.size > MIB else 50))
    if quick and load.size > MIB:
        load = evolve(load, title="50 MiB messages, 4 at once", connections=4, messages=4)
    figures = [Figures() for _ in pairs]
    warm = evolve(load, messages=load.connections, size=4096)
    for _ in range(load.rounds):
        for (server, sink), figure in zip(pairs, figures, strict=True):
            run(warm, server, sink, Figures())
            run(load, server, sink, figure)
    for number, ((server, _), figure) in enumerate(zip(pairs, figures, strict=True)):
        ratios = ""
        if number == 0 and len(figures) > 1:
            peer = figures[1]
            ratios = f"{figure.rate / peer.rate:8.2f}{figure.cpu_each / peer.cpu_each:8.2f}"
        print(
            f"{load.title if number == 0 else '':32}{server.name:14}{figure.messages / figure.accepted:11.1f}"
            f"{figure.rate:12.1f}{figure.cpu_each:12.2f}{ratios}"
        )
        if load.size > MIB:
            octets = load.size * figure.messages / MIB
            print(
                f"{'':46}{octets / figure.accepted:.0f} MiB/s accepted, "
                f"{octets / figure.delivered:.0f} delivered; "
                f"memory {figure.memory_idle / MIB:.0f} MiB idle, {figure.memory_peak / MIB:.0f} at its peak"
            )
    sys.stdout.flush()


def report_idle(
    directory: Path,
    pairs: list[tuple[Server, Sink]],
    certificates: CertificateFiles,
    running: ExitStack,
    quick: bool,
) -> None:
    count = IDLE // 4 if quick else IDLE
    ceiling = Ceiling(directory / "ceiling", certificates)
    running.callback(ceiling.stop)
    ceiling.start()
    ours = idle_memory(pairs[0][0], count)
    bare = idle_memory(ceiling, count, implicit=True)
    print(f"{f'{count} idle connections':32}{Msa.name:14}{ours / 1024:8.1f} KiB each")
    print(f"{'':32}{ceiling.name:14}{bare / 1024:8.1f} KiB each; ratio {ours / bare:.2f}")
    if len(pairs) > 1:
        peer = idle_memory(pairs[1][0], IDLE_PEER, warm=1)
        print(
            f"{'':32}{Postfix.name:14}{peer / 1024:8.1f} KiB each ({IDLE_PEER} connections, a process each)"
        )


if __name__ == "__main__":
    main()
