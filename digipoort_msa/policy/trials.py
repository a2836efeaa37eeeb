"""What the rules on trial would have refused: counted, kept over a restart, and shown by ``policy report``.

One row stands for all that is alike: the same rule, account, moment and reply, but for the seconds to wait in
it; the last of them is the example.  So a business whose every message would be refused is one row with a
number.  A milter's replies may differ each time, and so both rows and texts are bounded.  Rows are gathered
in memory and written about once a second, in a thread; a killed process loses that second.  Neither a full
disk nor a damaged file is a reason to stop a message: it is logged, and the report is what suffers.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.policy.applied import WouldRefuse
from digipoort_msa.threads import Threads

DATABASE = "trials.sqlite"
_INTERVAL = 1.0  # seconds between two writes
_MOST = 10_000  # rows in memory, and in the file; what is new beyond them is counted together
_LONGEST = 500  # characters of a reply or a reason
_SECONDS = re.compile(r"\b[0-9]+(?= seconds\b)")
_BUSY = 5.0  # seconds to wait for a command that writes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trial (
    realm TEXT NOT NULL, rule TEXT NOT NULL, since REAL NOT NULL, transactions INTEGER NOT NULL,
    PRIMARY KEY (realm, rule)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusal (
    realm TEXT NOT NULL, rule TEXT NOT NULL, account TEXT NOT NULL, moment TEXT NOT NULL, reply TEXT NOT NULL,
    times INTEGER NOT NULL, first REAL NOT NULL, last REAL NOT NULL, session TEXT NOT NULL, reason TEXT NOT
    NULL, PRIMARY KEY (realm, rule, account, moment, reply)
) WITHOUT ROWID;
"""
_VERSION = 1
_TRIALS = """
SELECT realm, rule, since, transactions FROM trial
WHERE (:realm IS NULL OR realm = :realm) AND (:rule IS NULL OR rule = :rule) ORDER BY realm, rule
"""
_REFUSALS = """
SELECT realm, rule, account, moment, reply, times, first, last, session, reason FROM refusal
WHERE (:realm IS NULL OR realm = :realm) AND (:rule IS NULL OR rule = :rule)
ORDER BY times DESC, account, moment, reply
"""
_FORGET_TRIALS = """
DELETE FROM trial WHERE (:realm IS NULL OR realm = :realm) AND (:rule IS NULL OR rule = :rule)
"""
_FORGET_REFUSALS = """
DELETE FROM refusal WHERE (:realm IS NULL OR realm = :realm) AND (:rule IS NULL OR rule = :rule)
"""
_ADD_TRIAL = """
INSERT INTO trial (realm, rule, since, transactions) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET transactions = transactions + excluded.transactions
"""
_ADD_REFUSALS = """
INSERT INTO refusal (realm, rule, account, moment, reply, times, first, last, session, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
times = times + excluded.times, last = excluded.last, session = excluded.session, reason = excluded.reason
"""

#: realm, rule, account, moment, reply
Key = tuple[str, str, str, str, str]


class TrialsError(Exception):
    """The report's file cannot be used; the text says what, where and how to mend it."""


@frozen(kw_only=True)
class Refusals:
    """All that is alike; times are seconds since the epoch."""

    realm: str
    rule: str
    account: str  # "" for those beyond the bound
    moment: str
    reply: str  # likewise
    times: int
    first: float
    last: float
    session: str  # of the last
    reason: str  # of the last


@frozen(kw_only=True)
class Trial:
    """One rule on trial."""

    realm: str
    rule: str
    since: float  # seconds since the epoch
    transactions: int  # that it has been asked about


class Trials:
    """Takes what the rules on trial say; for the reactor's thread."""

    def __init__(self, folder: Path, threads: Threads, reactor: Any, now: Callable[[], float]) -> None:
        """
        :param folder: the state directory.
        :param now: seconds since the epoch.
        """
        self._file = folder / DATABASE
        self._threads = threads
        self._reactor = reactor
        self._now = now
        self._trials: dict[tuple[str, str], Trial] = {}
        self._refusals: dict[Key, Refusals] = {}
        self._due: IDelayedCall | None = None

    def begun(self, realm: str, rule: str) -> None:
        """A transaction that a rule on trial is asked about."""
        trial = self._trials.get((realm, rule))
        if trial is None:
            trial = Trial(realm=realm, rule=rule, since=self._now(), transactions=0)
        self._trials[realm, rule] = evolve(trial, transactions=trial.transactions + 1)
        self._write_soon()

    def would_refuse(self, would: WouldRefuse) -> None:
        """What would have been a refusal: to the log as well."""
        said, reason = str(would.refused.reply)[:_LONGEST], would.refused.cause[:_LONGEST]
        log.emit(
            log.WOULD_REFUSE,
            session=would.trace.session_id,
            rule=would.rule,
            account=would.identity.name,
            realm=would.identity.realm,
            moment=would.moment,
            reply=said,
            reason=reason,
        )
        identity, now = would.identity, self._now()
        said = _SECONDS.sub("...", said)
        key = (identity.realm, would.rule, identity.name, would.moment, said)
        if key not in self._refusals and len(self._refusals) >= _MOST:
            key = (identity.realm, would.rule, "", would.moment, "")
        alike = self._refusals.get(key)
        realm, rule, account, moment, reply = key
        self._refusals[key] = Refusals(
            realm=realm,
            rule=rule,
            account=account,
            moment=moment,
            reply=reply,
            times=alike.times + 1 if alike else 1,
            first=alike.first if alike else now,
            last=now,
            session=would.trace.session_id,
            reason=reason,
        )
        self._write_soon()

    def stop(self) -> "Deferred[None]":
        """Write what is left."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        return self._write() if self._trials or self._refusals else succeed(None)

    def _write_soon(self) -> None:
        if self._due is None:
            self._due = self._reactor.callLater(_INTERVAL, self._write)

    def _write(self) -> "Deferred[None]":
        self._due = None
        trials, self._trials = list(self._trials.values()), {}
        refusals, self._refusals = list(self._refusals.values()), {}
        return self._threads.call(_add, self._file, trials, refusals).addErrback(self._lost)

    def _lost(self, failure: Failure) -> None:
        log.emit(log.TRIALS_LOST, file=str(self._file), reason=failure.getErrorMessage())


def report(
    folder: Path, realm: str | None = None, rule: str | None = None
) -> list[tuple[Trial, list[Refusals]]]:
    """The trials, each with what it would have refused, the most frequent first.  Blocking.

    :param realm: only this one's; ``None`` for all, and likewise ``rule``.
    :raise TrialsError: the file cannot be used.
    """
    if not (folder / DATABASE).exists():
        return []
    with _open(folder / DATABASE) as connection:
        given = {"realm": realm, "rule": rule}
        trials = connection.execute(_TRIALS, given).fetchall()
        refusals = connection.execute(_REFUSALS, given).fetchall()
    found = [Refusals(**dict(row)) for row in refusals]
    return [
        (
            Trial(**dict(row)),
            [each for each in found if (each.realm, each.rule) == (row["realm"], row["rule"])],
        )
        for row in trials
    ]


def forget(folder: Path, realm: str | None = None, rule: str | None = None) -> int:
    """Begin anew, with the MSA running or not; see :func:`report`.

    :return: how many trials are forgotten.
    """
    if not (folder / DATABASE).exists():
        return 0
    with _open(folder / DATABASE) as connection:
        given = {"realm": realm, "rule": rule}
        connection.execute(_FORGET_REFUSALS, given)
        return connection.execute(_FORGET_TRIALS, given).rowcount


def _add(file: Path, trials: list[Trial], refusals: list[Refusals]) -> None:
    """In a thread."""
    with _open(file) as connection:
        connection.executemany(
            _ADD_TRIAL,
            [(trial.realm, trial.rule, trial.since, trial.transactions) for trial in trials],
        )
        (room,) = connection.execute("SELECT ? - count(*) FROM refusal", (_MOST,)).fetchone()
        for each in refusals:
            account, said = each.account, each.reply
            if not _is_known(connection, each):
                if room <= 0:
                    account = said = ""
                room -= 1
            connection.execute(
                _ADD_REFUSALS,
                (
                    *(each.realm, each.rule, account, each.moment, said),
                    *(each.times, each.first, each.last, each.session, each.reason),
                ),
            )


def _is_known(connection: sqlite3.Connection, each: Refusals) -> bool:
    key = (each.realm, each.rule, each.account, each.moment, each.reply)
    found = connection.execute(
        "SELECT 1 FROM refusal WHERE (realm, rule, account, moment, reply) = (?, ?, ?, ?, ?)", key
    )
    return found.fetchone() is not None


@contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on the file, which is made where it is missing."""
    try:
        with closing(sqlite3.connect(file, timeout=_BUSY, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise TrialsError(
                    f"{file} is of version {version}, made by a later release than this one, which knows "
                    f"{_VERSION}: install that, or move the file away"
                )
            if version < _VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA + f"PRAGMA user_version = {_VERSION};")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise TrialsError(f"{file}: {error}; where it is damaged, move it away: a new one is made") from error
