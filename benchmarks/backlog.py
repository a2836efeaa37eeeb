"""A long queue: what 200,000 waiting messages cost at a start, beside new ones, and to send off.

    python -m benchmarks.backlog [--messages 200000] [--size 4096]

The spool is filled beforehand, through its own operations, with messages that were deferred while the next
hop was away.  Each figure stands beside the same one of an empty spool in the same run; the drain stands
beside the relay alone, with made-up messages, into a next hop of the same kind.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from benchmarks import usage
from benchmarks.load import RECIPIENT, SENDER, message
from benchmarks.scenarios import Figures, Load, run
from benchmarks.servers import ROOT, Msa, Sink, make_certificates
from digipoort_msa.smtp.envelope import Envelope
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.spool import operations, schema
from digipoort_msa.spool.content import in_row
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.rows import Stored

MIB = 1024 * 1024
REALM = "overheidstransactiepoort.nl"
_TOGETHER = 1000  # messages in one transaction
_SUBMISSIONS = Load("submissions", "stream", connections=10, messages=2000, rounds=1)
_PATIENCE = 600.0  # seconds


def fill(spool: Path, messages: int, size: int) -> None:
    """Put messages into a spool, deferred for an hour."""
    schema.prepare(spool)
    connection = schema.connect(spool)
    queue_ids = QueueIds()
    content = message(size)[: -len(b".\r\n")]
    recipients = (MailPath.from_text(RECIPIENT.decode()),)
    now = time.time()
    for start in range(0, messages, _TOGETHER):
        batch = []
        for _ in range(min(_TOGETHER, messages - start)):
            queue_id = queue_ids()
            sender = MailPath.from_text(SENDER.decode())
            envelope = Envelope(queue_id, REALM, "business", "benchmark", sender, recipients, now)
            kept = in_row(queue_id, content, None)
            batch.append(Stored(envelope, len(content), False, kept.octets, now, digest=kept.digest))
        connection.execute("BEGIN IMMEDIATE")
        operations.insert(connection, batch)
        connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE message SET next_attempt = ?", (now + 3600,))
    connection.execute("UPDATE recipient SET state = 'deferred', attempts = 1")
    connection.execute("COMMIT")
    connection.close()


@frozen
class Cost:
    """What one spool costs."""

    start: float  # seconds until the server greets
    memory: int  # octets, then
    rate: float  # messages submitted and delivered in a second
    memory_busy: int  # octets, afterwards

    def print(self, title: str) -> None:
        print(
            f"{title:24}{self.start:9.2f} s{self.memory / MIB:9.1f} MiB{self.rate:12.1f}/s"
            f"{self.memory_busy / MIB:9.1f} MiB",
            flush=True,
        )


def cost(server: Msa, sink: Sink) -> Cost:
    """Start the server and submit to it."""
    began = time.monotonic()
    server.start()
    start = time.monotonic() - began
    memory = usage.memory(server.pid)
    run(_SUBMISSIONS, server, sink, Figures())  # warm
    figures = Figures()
    run(_SUBMISSIONS, server, sink, figures)
    return Cost(start, memory, figures.rate, usage.memory(server.pid))


def drain(server: Msa, sink: Sink, messages: int) -> None:
    """Retry everything, and wait until the sink has it."""
    before, began = sink.messages, time.monotonic()
    retry = "from digipoort_msa.admin.commands import main; main()"
    subprocess.run(
        [sys.executable, "-c", retry, "--config", server.config, "queue", "retry", "--all"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    asked = time.monotonic() - began
    peak = 0
    while sink.messages - before < messages:
        if time.monotonic() - began > _PATIENCE:
            raise RuntimeError(f"only {sink.messages - before} of {messages} messages have gone")
        peak = max(peak, usage.memory(server.pid))
        time.sleep(0.2)
    took = time.monotonic() - began
    rate = messages / took
    print(f"queue retry --all: {asked:.1f} s; drained at {rate:,.0f}/s, {peak / MIB:.1f} MiB at most")
    print(f"the relay alone: {relay_alone()}", flush=True)


def relay_alone() -> str:
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.relay"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    found = re.search(r"([\d,]+) messages a second;", output)
    return f"{found[1]}/s" if found else output


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=4096, help="octets of each")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="msa-bench-"))
    directory.chmod(0o755)
    try:
        measure(directory, options.messages, options.size)
    finally:
        shutil.rmtree(directory)


def measure(directory: Path, messages: int, size: int) -> None:
    certificates = make_certificates(directory / "tls")
    with ExitStack() as running:
        sink = Sink(directory / "sink")
        running.callback(sink.stop)
        sink.start()
        empty = Msa(directory / "empty", sink, certificates)
        running.callback(empty.stop)
        full = Msa(directory / "full", sink, certificates)
        running.callback(full.stop)
        began = time.monotonic()
        fill(directory / "full" / "state" / "spool", messages, size)
        print(f"{messages:,} messages put in, in {time.monotonic() - began:.0f} s\n")
        print(f"{'':24}{'start':>11}{'memory':>13}{'submitted':>14}{'memory then':>13}")
        nothing = cost(empty, sink)
        nothing.print("an empty spool")
        empty.stop()
        backlog = cost(full, sink)
        backlog.print(f"{messages:,} messages")
        print(f"{'ratio':24}{'':>24}{backlog.rate / nothing.rate:12.2f}\n")
        drain(full, sink, messages)


if __name__ == "__main__":
    main()
