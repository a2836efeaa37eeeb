"""``logins.sqlite`` in the state directory: what is known of logins, over a restart and for the operator.

- ``standing``: each count of failures, by the time at which it will have drained, and each trusted source, by
  the time at which that ends (:mod:`.throttle`).  The MSA's memory is what counts; this follows it.
- ``usage``: what each account last used, and when (:mod:`.usage`).
- ``wish``: what an operator wants forgotten, until he knows that the MSA has done so.

The MSA holds ``logins.lock`` while it runs.  Without it, whoever has a wish carries it out himself.  Times
here are seconds since the epoch.  The journal is written ahead and not synchronised: a killed process loses
nothing that was committed, a power cut may lose the last seconds, and neither damages the file.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import Factory, frozen

from digipoort_msa.accounts.counts import Key
from digipoort_msa.accounts.networks import Place, contains
from digipoort_msa.accounts.private_files import create_private
from digipoort_msa.accounts.throttle import Kind
from digipoort_msa.accounts.usage import UsageKey, Use

DATABASE = "logins.sqlite"
LOCK = "logins.lock"
BUSY_TIMEOUT = 5.0  # seconds to wait for another process's short transaction
_PATIENCE = 2.0  # seconds to wait for a command that has the lock for a moment

#: Each entry leads from the version that is its index to the next.  A released one is never changed.
_MIGRATIONS = (
    """
CREATE TABLE standing (
    kind    TEXT NOT NULL,  -- throttle.Kind
    realm   TEXT NOT NULL,  -- '' where it does not go by one
    account TEXT NOT NULL,
    source  TEXT NOT NULL,
    until   REAL NOT NULL,
    PRIMARY KEY (kind, realm, account, source)
) WITHOUT ROWID;
CREATE TABLE usage (
    realm     TEXT NOT NULL,
    account   TEXT NOT NULL,
    mechanism TEXT NOT NULL,
    first     REAL NOT NULL,
    last      REAL NOT NULL,
    source    TEXT NOT NULL,
    logins    INTEGER NOT NULL,
    PRIMARY KEY (realm, account, mechanism)
) WITHOUT ROWID;
CREATE TABLE wish (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    realm   TEXT,           -- NULL, like the others: whichever
    account TEXT,
    source  TEXT,           -- as in networks.Place
    network TEXT,           -- likewise; the one around that source
    within  TEXT,           -- a network of any size, and all in it
    trust   INTEGER NOT NULL,
    cleared INTEGER         -- NULL: the MSA has it still to do; else how much it has forgotten
);
""",
)
VERSION = len(_MIGRATIONS)

#: A row of ``standing``: what it is of, and until when; ``None``: it is to go.
Standing = tuple[Kind, Key, float | None]


class LedgerError(Exception):
    """The ledger cannot be used; the text says what, where and how to mend it."""


@frozen
class Wish:
    """What is to be forgotten: that which all of these fit, and trust only where it says so."""

    realm: str | None = None
    account: str | None = None
    place: Place | None = None  # the source, or the network around it
    within: str | None = None  # a network, and all in it
    trust: bool = False

    def fits(self, kind: Kind, key: Key) -> bool:
        realm, account, source = key
        if kind is Kind.TRUSTED and not self.trust:
            return False
        if self.realm is not None and realm != self.realm:
            return False
        if self.account is not None and account != self.account:
            return False
        if self.place is not None and source not in (self.place.source, self.place.network):
            return False
        return self.within is None or (bool(source) and contains(self.within, source))


@frozen
class Changes:
    """What is to be written."""

    standing: Sequence[Standing] = ()
    whole: bool = False  # ``standing`` is all there is: what else is written goes
    usage: Mapping[UsageKey, Use] = Factory(dict)
    wishes: Mapping[int, int] = Factory(dict)  # those that have been carried out: how much was forgotten

    def __bool__(self) -> bool:
        return bool(self.standing or self.whole or self.usage or self.wishes)


class Ledger:
    """The database.  Every method blocks; one thread at a time may call them.

    :param directory: the state directory.
    :param working: take the lock, as the one who works with it; without, the ledger is only looked at and has
        wishes left in it.
    :raise LedgerError: it cannot be used.
    """

    def __init__(self, directory: Path, *, working: bool) -> None:
        self.file = directory / DATABASE
        self._directory = directory
        self._lock: int | None = None
        self._seen: object = None  # the version of the data at the last look for wishes
        with self._explained():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if working:
                self._lock = lock(directory, _PATIENCE)
                if self._lock is None:
                    raise LedgerError(f"another MSA works with {self.file}")
            try:
                self._connection = self._connect()
            except BaseException:
                self._unlock()
                raise

    def close(self) -> None:
        self._connection.close()
        self._unlock()

    def exchange(self, changes: Changes) -> list[tuple[int, list[tuple[Kind, Key]]]]:
        """Write, and look for wishes.

        :return: the number of each wish that is not fulfilled yet, and what it wants forgotten.
        :raise LedgerError: nothing of it was written.
        """
        with self._explained():
            if changes:
                with self._writing():
                    self._write(changes)
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if version == self._seen and not changes.wishes:
                return []
            wishes = self.wishes()
            self._seen = version if not wishes else None
            return [(number, self.matching(wish)) for number, wish in wishes]

    def standing(self, kind: Kind, most: int | None = None) -> Iterator[tuple[Key, float]]:
        """What is written of a kind, by the time until which it holds, soonest first.

        :param most: not more than so many: those that hold longest.
        """
        with self._explained():
            rows = self._connection.execute(
                "SELECT realm, account, source, until FROM standing WHERE kind = ?"
                " ORDER BY until DESC LIMIT ?",
                (kind.value, -1 if most is None else most),
            ).fetchall()
        return (((realm, account, source), until) for realm, account, source, until in reversed(rows))

    def matching(self, wish: Wish) -> list[tuple[Kind, Key]]:
        """What is written that a wish fits."""
        return [(kind, key) for kind in Kind for key, _ in self.standing(kind) if wish.fits(kind, key)]

    def usage(self, realm: str, account: str | None = None) -> dict[UsageKey, Use]:
        """What the accounts of a realm used, or one of them."""
        with self._explained():
            rows = self._connection.execute(
                "SELECT account, mechanism, first, last, source, logins FROM usage"
                " WHERE realm = :realm AND (:account IS NULL OR account = :account)"
                " ORDER BY account, last DESC",
                {"realm": realm, "account": account},
            ).fetchall()
        return {
            (realm, name, mechanism): Use(first, last, source, logins)
            for name, mechanism, first, last, source, logins in rows
        }

    # -- wishes ----------------------------------------------------------------------------------------

    def wishes(self) -> list[tuple[int, Wish]]:
        """Those that are not fulfilled yet."""
        rows = self._connection.execute(
            "SELECT number, realm, account, source, network, within, trust FROM wish WHERE cleared IS NULL"
        ).fetchall()
        return [
            (number, Wish(realm, account, Place(source, network) if source else None, within, bool(trust)))
            for number, realm, account, source, network, within, trust in rows
        ]

    def leave(self, wish: Wish) -> int:
        """Leave a wish to the MSA that runs; returns its number."""
        with self._explained(), self._writing():
            inserted = self._connection.execute(
                "INSERT INTO wish (realm, account, source, network, within, trust) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(wish.realm, wish.account),
                    *((wish.place.source, wish.place.network) if wish.place else (None, None)),
                    *(wish.within, wish.trust),
                ),
            )
        return inserted.lastrowid or 0

    def outcome(self, number: int) -> int | None:
        """How much the MSA has forgotten for a wish; ``None`` while it has not.  To be asked until it has."""
        with self._explained():
            (cleared,) = self._connection.execute(
                "SELECT cleared FROM wish WHERE number = ?", (number,)
            ).fetchone() or (0,)
            if cleared is not None:
                with self._writing():
                    self._connection.execute("DELETE FROM wish WHERE number = ?", (number,))
            return None if cleared is None else int(cleared)

    def fulfil(self, wish: Wish) -> int | None:
        """Carry a wish out, unless an MSA works with the ledger.

        :return: how much was forgotten; ``None`` where it has to be left to the MSA.
        """
        with self._explained():
            held = lock(self._directory)
            if held is None:
                return None
            try:
                unwanted = self.matching(wish)
                with self._writing():
                    self._write(Changes([(kind, key, None) for kind, key in unwanted]))
            finally:
                os.close(held)
        return len(unwanted)

    def sweep(self, now: float) -> None:
        """Remove what holds no longer, and answers that nobody has waited for."""
        with self._explained(), self._writing():
            self._connection.execute("DELETE FROM wish WHERE cleared IS NOT NULL")
            self._connection.execute("DELETE FROM standing WHERE until <= ?", (now,))

    # -- the inside ------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        create_private(self.file)
        connection = sqlite3.connect(
            self.file, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if self._version(connection) < VERSION:
                connection.execute("BEGIN IMMEDIATE")
                for migration in _MIGRATIONS[self._version(connection) :]:
                    for statement in filter(str.strip, migration.split(";\n")):
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
                connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise LedgerError(
                f"{self.file} is of version {version}, made by a later release than this one, which knows "
                f"{VERSION}: install that, or move the file away"
            )
        return version

    def _write(self, changes: Changes) -> None:
        run = self._connection.executemany
        if changes.whole:
            self._connection.execute("DELETE FROM standing")
        run(
            "INSERT OR REPLACE INTO standing (kind, realm, account, source, until) VALUES (?, ?, ?, ?, ?)",
            [(kind.value, *key, until) for kind, key, until in changes.standing if until is not None],
        )
        run(
            "DELETE FROM standing WHERE kind = ? AND realm = ? AND account = ? AND source = ?",
            [(kind.value, *key) for kind, key, until in changes.standing if until is None],
        )
        run(
            "INSERT INTO usage (realm, account, mechanism, first, last, source, logins)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET first = min(first, excluded.first),"
            " source = CASE WHEN excluded.last >= last THEN excluded.source ELSE source END,"
            " last = max(last, excluded.last), logins = logins + excluded.logins",
            [(*key, use.first, use.last, use.source, use.logins) for key, use in changes.usage.items()],
        )
        run(
            "UPDATE wish SET cleared = ? WHERE number = ?",
            [(cleared, number) for number, cleared in changes.wishes.items()],
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{self.file}: {error}; where it is damaged, stop the MSA and move it away: a new one is made"
            ) from error

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def lock(directory: Path, wait: float = 0.0) -> int | None:
    """Take the lock of the one who works with the ledger.

    :param wait: seconds to try for; it blocks that long at most.
    :return: the open file that is the lock, or ``None`` where another has it.
    """
    path = directory / LOCK
    create_private(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        else:
            return descriptor
