"""How many durable 4 KiB messages a second the bare spool takes, beside what SQLite gives one by one.

    python -m benchmarks.spool [--folder FOLDER] [--seconds SECONDS]

``ceiling`` is one thread that commits each message by itself (WAL, synchronous=FULL, the spool's own
statements): what a spool without group commit could reach at best.  The others go through ``Spool`` in a
running reactor, with 1, 10 and 100 messages under way, and are given as ratios to that.  ``delivered``
has the queue deliver each message at once to a back end that says 250.  ``busy`` has the reactor burn half
its time in pure Python, in slices of 2 ms, with the interpreter's own switch interval and with 0.5 ms: a
thread that waited for the disk has to wait for the interpreter's lock afterwards.  Give a folder on the
disk that counts.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, succeed
from twisted.internet.task import LoopingCall, react
from zope.interface import implementer

from digipoort_msa.interfaces import IContent, IDelivery, INotifications
from digipoort_msa.smtp.envelope import Envelope, Fate, Outcome
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import operations, schema
from digipoort_msa.spool.operations import Stored
from digipoort_msa.spool.queue import Queue
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.queues import Queues
from digipoort_msa.spool.store import Spool

REALM = "overheidstransactiepoort.nl"
OCTETS = os.urandom(4096)
SENDER, RECIPIENT = MailPath("sender", "example.nl"), MailPath("recipient", "example.nl")
TAKEN = Outcome(Reply(250, "2.0.0", ("taken",)), "nowhere")


def envelope(queue_id: str) -> Envelope:
    return Envelope(queue_id, REALM, "bedrijf", "S1", SENDER, (RECIPIENT,), time.time())


@implementer(IDelivery)
class Nowhere:
    def deliver(self, envelope: Envelope, content: IContent) -> "Deferred[dict[MailPath, Outcome]]":
        return succeed(dict.fromkeys(envelope.recipients, TAKEN))

    def stop(self) -> "Deferred[None]":
        return succeed(None)


@implementer(INotifications)
class Silence:
    """Nobody is told: nothing fails here."""

    def may_tell(self, envelope: Envelope) -> str:
        return "this is a benchmark"

    def write(
        self,
        envelope: Envelope,
        content: IContent,
        fates: Sequence[Fate],
        queue_id: str,
        now: float,
        retry_until: float,
    ) -> "Deferred[bytes]":
        raise NotImplementedError


def ceiling(folder: Path, seconds: float) -> float:
    schema.prepare(folder)
    connection = schema.connect(folder)
    queue_ids = QueueIds()
    kept, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        message = Stored(envelope(queue_ids()), len(OCTETS), True, OCTETS, since=0.0)
        connection.execute("BEGIN IMMEDIATE")
        operations.insert(connection, [message])
        connection.execute("COMMIT")
        kept += 1
    connection.close()
    return kept / (time.perf_counter() - start)


class Run:
    """One run: so many messages under way for so long."""

    def __init__(self, folder: Path, seconds: float, at_once: int) -> None:
        self.kept = 0
        self._at_once = at_once
        self._seconds = seconds
        self.spool = Spool(reactor, folder)

    async def rate(self, *, deliver: bool = False) -> str:
        self.spool.start()
        queue = Queue(REALM, self.spool, Nowhere(), Silence(), reactor)
        queues = Queues(self.spool, reactor, [queue])
        if deliver:
            queues.start()
        start, processor = time.perf_counter(), time.process_time()
        until = start + self._seconds
        await gatherResults([ensureDeferred(self._submit(until)) for _ in range(self._at_once)])
        elapsed, processor = time.perf_counter() - start, time.process_time() - processor
        transactions = self.spool.transactions
        await queues.stop()
        await self.spool.stop()
        self.per_second = self.kept / elapsed
        return (
            f"{self.per_second:8.0f}/s  {self.kept / transactions:6.1f} a transaction"
            f"  {processor / self.kept * 1e6:6.0f} us processor each"
        )

    async def _submit(self, until: float) -> None:
        while time.perf_counter() < until:
            incoming = self.spool.receive(REALM)
            incoming.write(OCTETS)
            await incoming.commit(envelope(incoming.queue_id))
            self.kept += 1


def burn() -> None:
    until = time.perf_counter() + 0.002
    while time.perf_counter() < until:
        pass


async def measure(folder: Path, seconds: float) -> None:
    number = iter(range(100))

    def fresh() -> Path:
        return folder / str(next(number))

    async def line(name: str, at_once: int, base: float, *, deliver: bool = False) -> None:
        run = Run(fresh(), seconds, at_once)
        text = await run.rate(deliver=deliver)
        print(f"{name:<28}{text}  {run.per_second / base:6.2f} x ceiling", flush=True)

    base = ceiling(fresh(), seconds)
    print(f"{'ceiling':<28}{base:8.0f}/s", flush=True)
    for at_once in (1, 10, 100):
        await line(f"{at_once} at once", at_once, base)
    await line("100 at once, delivered", 100, base, deliver=True)
    interval = sys.getswitchinterval()
    for shorter in (interval, 0.0005):
        sys.setswitchinterval(shorter)
        busy = LoopingCall(burn)
        busy.start(0.004)
        await line(f"100 at once, busy, {shorter * 1000:g} ms", 100, base)
        busy.stop()
    sys.setswitchinterval(interval)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=None, help="where to make the spools")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        react(lambda _: ensureDeferred(measure(Path(folder), arguments.seconds)))


if __name__ == "__main__":
    main()
