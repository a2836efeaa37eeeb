"""A spool under test: its threads are real, the reactor is a queue that the test empties itself."""

import queue
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from digipoort_msa.interfaces import IDelivery
from digipoort_msa.smtp.envelope import Envelope, MailParameters, Outcome
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.store import Spool

PATIENCE = 20  # seconds for a thread to answer, far more than it needs

DELIVERED = Reply(250, "2.0.0", ("taken",))
DEFERRED = Reply(450, "4.2.1", ("not now",))
FAILED = Reply(550, "5.1.1", ("no such user",))


class ThreadCalls(Clock):
    """``callFromThread``, with calls that wait for ``run_until``; and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.Queue[Any] = queue.Queue()

    def callFromThread(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        self._calls.put((function, arguments, keywords))

    def run_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            function, arguments, keywords = self._calls.get(timeout=PATIENCE)
            function(*arguments, **keywords)


class SpoolTestCase(SynchronousTestCase):
    """``self.spool`` in a folder of its own, started."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name) / "spool"
        self.threads = ThreadCalls()
        self.spool = self.started()

    def started(self, **settings: Any) -> Spool:
        spool = Spool(self.threads, self.directory, **settings)
        self.recovery = spool.start()
        self.addCleanup(self.stop, spool)
        return spool

    def stop(self, spool: Spool) -> None:
        self.result(spool.stop())

    def result(self, deferred: "Deferred[Any]") -> Any:
        """Wait for it; raises what it fails with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.threads.run_until(lambda: bool(results))
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def kept(self, octets: bytes = b"Subject: x\r\n\r\ny\r\n", **fields: Any) -> str:
        """Spool a message; returns its queue id."""
        incoming = self.spool.receive("example.nl")
        incoming.write(octets)
        self.result(incoming.commit(envelope(incoming.queue_id, **fields)))
        return incoming.queue_id

    def rows(self, sql: str, *values: object) -> list[Any]:
        """What the database says, on the spool's own connection."""
        return self.result(
            self.spool._running.submit(
                lambda connection, _: [connection.execute(sql, values).fetchall()], None
            )
        )


def envelope(
    queue_id: str = "0000000000000001",
    recipients: tuple[str, ...] = ("one@example.nl",),
    received_at: float = 1000.0,
    parameters: MailParameters = MailParameters(size=12, body_8bitmime=True),  # noqa: B008 -- frozen
) -> Envelope:
    return Envelope(
        queue_id=queue_id,
        realm="overheidstransactiepoort.nl",
        account="bedrijf",
        session_id="S1",
        reverse_path=MailPath("sender", "example.nl"),
        recipients=tuple(MailPath.from_text(path) for path in recipients),
        received_at=received_at,
        parameters=parameters,
    )


@implementer(IDelivery)
class RecordingDelivery:
    """Keeps what it is given; answers at once from ``replies`` (a path's text to its reply, else 250), or,
    with ``held``, when the test says so."""

    def __init__(self, held: bool = False) -> None:
        self.calls: list[tuple[Envelope, Any]] = []
        self.open: dict[str, Deferred[Any]] = {}
        self.replies: dict[str, Reply] = {}
        self.held = held

    @property
    def queue_ids(self) -> list[str]:
        return [envelope.queue_id for envelope, _ in self.calls]

    def deliver(self, envelope: Envelope, content: Any) -> "Deferred[Any]":
        self.calls.append((envelope, content))
        if not self.held:
            return succeed(self.outcomes(envelope))
        self.open[envelope.queue_id] = Deferred()
        return self.open[envelope.queue_id]

    def stop(self) -> "Deferred[None]":
        return succeed(None)

    def outcomes(self, envelope: Envelope) -> dict[MailPath, Outcome]:
        return {
            path: Outcome(self.replies.get(str(path), DELIVERED), "core.example.nl:25")
            for path in envelope.recipients
        }

    def finish(self, queue_id: str) -> None:
        envelope = next(envelope for envelope, _ in self.calls if envelope.queue_id == queue_id)
        self.open.pop(queue_id).callback(self.outcomes(envelope))


def clock_at(seconds: float) -> Clock:
    clock = Clock()
    clock.advance(seconds)
    return clock
