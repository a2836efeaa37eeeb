"""Queues under test: a real spool, a clock that the test moves, a way out that the test holds in its hand."""

import sqlite3
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.logger import globalLogPublisher

from digipoort_msa import log
from digipoort_msa.spool import schema
from digipoort_msa.spool.queue import Queue
from digipoort_msa.spool.queues import Queues
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.store import Spool
from tests.notification_doubles import ListedNotifications
from tests.spooling import RecordingDelivery, SpoolTestCase, clock_at, envelope

REALM = "overheidstransactiepoort.nl"  # of the messages of ``spooling.envelope``


class QueueTestCase(SpoolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = clock_at(1000.0)  # when the messages of kept() were received
        self.turned = 0.0  # seconds by which the wall clock has been set wrong
        self.delivery = RecordingDelivery()
        self.notifications = ListedNotifications()
        self.events: list[dict[str, Any]] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def now(self) -> float:
        return self.clock.seconds() + self.turned

    def made(self, realm: str = REALM, **settings: Any) -> Queue:
        settings = {"random": lambda: 0.5, "schedule": Schedule(), "now": self.now, **settings}
        delivery = settings.pop("delivery", self.delivery)
        return Queue(realm, self.spool, delivery, self.notifications, self.clock, **settings)

    def queue(self, **settings: Any) -> Queue:
        """The one queue, started."""
        self.working = self.made(**settings)
        self.run_queues(self.working)
        return self.working

    def run_queues(self, *queues: Queue) -> Queues:
        self.queues = Queues(self.spool, self.clock, queues, now=self.now)
        self.queues.start()
        self.addCleanup(self.queues.stop)
        return self.queues

    def keep(self, octets: bytes = b"Subject: x\r\n\r\ny\r\n", **changes: Any) -> str:
        """Spool a message with any field of its envelope changed; returns its queue id."""
        incoming = self.spool.receive(changes.get("realm", REALM))
        incoming.write(octets)
        self.result(incoming.commit(evolve(envelope(incoming.queue_id), **changes)))
        return incoming.queue_id

    def started(self, **settings: Any) -> Spool:
        """With one thread for body files, so that ``settle`` knows what comes after what."""
        return super().started(**{"io_threads": 1, **settings})

    def settle(self) -> None:
        """Until the queues have nothing under way in the spool: each step of it has had its turn there."""
        for _ in range(12):
            self.result(self.spool._in_thread(int))
            try:
                self.result(self.spool.data_version())
            except sqlite3.OperationalError:  # it was in one transaction with what the test has fail
                continue

    def until(self, condition: Callable[[], bool]) -> None:
        self.threads.run_until(condition)

    def advance(self, seconds: float) -> None:
        """Let the clock reach a time, and the queue have its look at it."""
        self.clock.advance(seconds)
        self.settle()

    def logged(self, event: log.Event) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("event") == event.name]

    def states(self) -> dict[str, str]:
        return dict(self.rows("SELECT path, state FROM recipient"))

    def other_process(self, sql: str, *values: object) -> None:
        """Change the spool as ``digipoort-msa queue`` does."""
        connection: sqlite3.Connection = schema.connect(self.directory)
        try:
            connection.execute(sql, values)
        finally:
            connection.close()
