"""What is known of logins, in step with its ledger: read at the start, written once a second, and at the end.

The memory is what counts: nobody who logs in waits for a disk.  A killed process loses what it learnt in its
last second.  Where the ledger cannot be used, the log says so, and all goes on in memory.

The throttle's clock knows no date; the ledger has dates, by the machine's clock:

- A clock that was set back while the MSA was down holds nobody for longer than a whole window, and makes no
  trust longer than a login of now would.
- One that was set ahead is as if that time had passed: counts have drained by it.  Whoever can set the
  clock need not guess.

While the MSA runs, no change of the machine's clock matters to it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.accounts.counts import Key
from digipoort_msa.accounts.ledger import Changes, Ledger, LedgerError, Standing
from digipoort_msa.accounts.throttle import Kind, Throttle
from digipoort_msa.accounts.usage import Usage
from digipoort_msa.threads import Threads

INTERVAL = 1.0  # seconds between two looks at what has changed, here and in the ledger
_REST = 30.0  # seconds after a failure
_NEVER = 86_400.0 * 365  # seconds; the ledger's thread is waited for, and holds nobody up

_Wishes = list[tuple[int, list[tuple[Kind, Key]]]]


class Logins:
    """Keeps a throttle and the usage.  For the reactor's thread."""

    def __init__(
        self,
        throttle: Throttle,
        usage: Usage,
        directory: Path,
        reactor: Any,
        *,
        now: Callable[[], float] = time.time,
        threads: Threads | None = None,
    ) -> None:
        """
        :param directory: the state directory.
        :param reactor: provides ``IReactorTime`` and ``IReactorFromThreads``.
        :param now: seconds since the epoch.
        :param threads: a single one; for the tests.
        """
        self.throttle = throttle
        self.usage = usage
        self._directory = directory
        self._reactor = reactor
        self._now = now
        self._threads = threads or Threads(reactor, "logins", size=1, waiting=1, patience=_NEVER)
        self._ledger: Ledger | None = None
        self._next: Any = None  # the delayed call
        self._failing = False
        self._fulfilled: dict[int, int] = {}  # wishes carried out, and not yet written down as such

    def start(self) -> None:
        """Read what was known; blocks for a moment.  Before anybody logs in."""
        ledger: Ledger | None = None
        try:
            ledger = Ledger(self._directory, working=True)
            ledger.sweep(self._now())
            read(ledger, self.throttle, self._now())
        except (LedgerError, TypeError, ValueError) as error:
            if ledger is not None:
                ledger.close()
            self._failing = True
            reason = str(error)
            if ledger is not None and not isinstance(error, LedgerError):  # a row can hold anything
                reason = f"{ledger.file} holds what makes no sense ({error}): stop the MSA and move it away"
            log.emit(log.LEDGER_UNUSABLE, reason=reason)
            return
        self._ledger = ledger
        self._next = self._reactor.callLater(0, self._exchange)

    def stop(self) -> None:
        """Write what is left to be written; blocks for a moment.  Nobody logs in any more."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._threads.stop()
        ledger, self._ledger = self._ledger, None
        if ledger is None:
            return
        try:
            ledger.exchange(self._take())
        except LedgerError as error:
            log.emit(log.LEDGER_UNUSABLE, reason=str(error))
        ledger.close()

    def _exchange(self) -> None:
        if self._ledger is not None:
            changes = self._take()
            written = self._threads.call(self._ledger.exchange, changes)
            written.addCallbacks(self._written, self._not_written, errbackArgs=(changes,))

    def _take(self) -> Changes:
        now = self._now()
        records = self.throttle.records
        changed = {kind: record.take_changes() for kind, record in records.items()}
        whole = None in changed.values()
        standing: list[Standing] = []
        for kind, record in records.items():
            for key in record.current() if whole else changed[kind] or ():
                remaining = record.remaining(key)
                standing.append((kind, key, now + remaining if remaining else None))
        wishes, self._fulfilled = self._fulfilled, {}
        return Changes(standing, whole, self.usage.take(), wishes)

    def _written(self, wishes: _Wishes) -> None:
        if self._ledger is None:
            return  # stopped meanwhile
        if self._failing:
            self._failing = False
            log.emit(log.LEDGER_USABLE, file=str(self._ledger.file))
        for number, unwanted in wishes:
            for kind, key in unwanted:
                self.throttle.forget(kind, key)
            self._fulfilled[number] = len(unwanted)
            log.emit(log.THROTTLE_CLEARED, cleared=len(unwanted))
        self._next = self._reactor.callLater(0 if wishes else INTERVAL, self._exchange)

    def _not_written(self, failure: Failure, changes: Changes) -> None:
        """It stays in memory, and is tried again."""
        self.usage.give_back(changes.usage)
        self._fulfilled.update(changes.wishes)
        for kind, record in self.throttle.records.items():
            record.give_back(
                None if changes.whole else [key for of, key, _ in changes.standing if of is kind]
            )
        if not failure.check(LedgerError):
            log.failure(log.DEFECT, failure, where="the ledger of logins")
        elif not self._failing:
            log.emit(log.LEDGER_UNUSABLE, reason=failure.getErrorMessage())
        self._failing = True
        if self._ledger is not None:
            self._next = self._reactor.callLater(_REST, self._exchange)


def read(ledger: Ledger, throttle: Throttle, now: float) -> None:
    """Take up what is written; blocks.

    :param now: seconds since the epoch.
    """
    for kind, record in throttle.records.items():
        for key, until in ledger.standing(kind, record.entries):
            record.restore(key, until - now)
        record.take_changes()
