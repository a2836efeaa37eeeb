"""End to end, beside Postfix in the same run: how many messages a second, and how long each one takes from
its 250 until the next hop has it.

    python -m benchmarks.delay [--messages 3000] [--rate 100] [--seconds 10] [--without-peer]

Two loads on ten kept connections: as fast as the server takes messages, and at a steady rate.  Client, server
and next hop share the machine; the times are of its one monotonic clock.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.scenarios import generator
from benchmarks.servers import Msa, Postfix, Sink, make_certificates

_PATIENCE = 120.0  # seconds
CONNECTIONS = 10


class StampingSink(Sink):
    """A next hop that notes when each message came."""

    name = "stamps"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.stamps", str(self.port)]

    def stamps(self) -> dict[str, float]:
        """Each message that came, with the time of its first copy."""
        found: dict[str, float] = {}
        for line in (self.directory / "output").read_text().splitlines():
            token, _, seconds = line.partition(" ")
            found.setdefault(token, float(seconds))
        return found


def load(server: Msa | Postfix, sink: StampingSink, messages: int, rate: float, mark: str) -> None:
    """Put one load on a server and print its figures."""
    arguments = [
        "paced",
        f"--connections={CONNECTIONS}",
        f"--messages={messages}",
        f"--rate={rate}",
        f"--mark={mark}",
    ]
    client = generator(arguments, server.port)
    output, _ = client.communicate(timeout=_PATIENCE)
    if client.returncode:
        raise RuntimeError(f"the load on {server.name} failed")
    times = json.loads(output)
    acknowledged: dict[str, float] = times["acknowledged"]
    until = time.monotonic() + _PATIENCE
    while not acknowledged.keys() <= (stamps := sink.stamps()).keys():
        if time.monotonic() > until:
            raise RuntimeError(f"{server.name} has not delivered all messages")
        time.sleep(0.2)
    # A hop may have a message before the client has read its 250.
    delays = sorted(max(0.0, stamps[token] - moment) for token, moment in acknowledged.items())
    last = max(stamps[token] for token in acknowledged)
    print(
        f"{server.name:14}{len(delays) / (last - times['began']):12.1f}"
        f"{1000 * statistics.median(delays):12.1f}{1000 * delays[int(len(delays) * 0.99)]:12.1f}"
        f"{1000 * delays[-1]:12.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delay")
    parser.add_argument("--messages", type=int, default=3000, help="of the load that is as fast as can be")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second of the steady load")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the steady load lasts")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without-peer", action="store_true", help="the MSA alone")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="msa-bench-"))
    directory.chmod(0o755)
    try:
        measure(options, directory)
    finally:
        shutil.rmtree(directory)


def measure(options: argparse.Namespace, directory: Path) -> None:
    certificates = make_certificates(directory / "tls")
    kinds: tuple[type[Msa | Postfix], ...] = (Msa,) if options.without_peer else (Msa, Postfix)
    with ExitStack() as running:
        pairs: list[tuple[Msa | Postfix, StampingSink]] = []
        for kind in kinds:
            sink = StampingSink(directory / f"sink-{kind.name}")
            running.callback(sink.stop)
            sink.start()
            server = kind(directory / kind.name, sink, certificates)
            running.callback(server.stop)
            server.start()
            pairs.append((server, sink))
        steady = int(options.rate * options.seconds)
        for title, messages, rate in (
            ("as fast as can be", options.messages, 0.0),
            (f"{options.rate:g} a second", steady, options.rate),
        ):
            print(f"{title}\n{'':14}{'delivered/s':>12}{'median ms':>12}{'p99 ms':>12}{'longest':>12}")
            for number in range(options.rounds):
                for server, sink in pairs:
                    load(server, sink, messages, rate, f"{title[0]}{number}-")


if __name__ == "__main__":
    main()
