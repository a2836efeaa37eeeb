"""How much is in a spool, and how old it is."""

import os
from array import array

from attrs import Factory, define, frozen

from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.states import STORED, WAITING, State, rows_in
from digipoort_msa.spool.views import NO_SENSE, STATES, states_of

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.


@define
class Tally:
    """The messages of one realm that have a recipient in one state.  Times are seconds since the epoch."""

    realm: str
    state: State
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    _received: array = Factory(lambda: array("d"))  # eight octets a message

    def add(self, recipients: int, size: int, received_at: float) -> None:
        self.messages += 1
        self.recipients += recipients
        self.octets += size
        self._received.append(received_at)

    @property
    def oldest(self) -> float:
        return min(self._received)

    @property
    def median(self) -> float:
        """Half of the messages came in before this moment, and half at it or later."""
        received: float = sorted(self._received)[len(self._received) // 2]
        return received


@frozen
class Statistics:
    """What a spool holds at one moment."""

    messages: int
    octets: int
    tallies: tuple[Tally, ...]  # by realm, and state in the order of STORED
    unreadable: int  # messages whose row makes no sense
    next_due: float | None  # when the next message is to be tried
    in_line: int  # messages that wait for an earlier one of their sequence
    wishes: int  # orders to remove or return a message that the MSA has not carried out yet
    disk_free: int  # octets
    running: bool  # does a process work the spool?


def statistics(inspection: Inspection) -> Statistics:
    """Count; one pass over the rows, in one view of them, a few seconds where there are very many."""
    tallies: dict[tuple[str, State], Tally] = {}
    unreadable = 0
    connection = inspection.connection
    with inspection.reading(), inspection.one_view():
        messages, octets, next_due, wishes = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0), min(next_attempt), count(wish) FROM message"
        ).fetchone()
        (in_line,) = connection.execute(
            "SELECT count(*) FROM message AS m WHERE sequence IS NOT NULL AND next_attempt IS NULL"
            " AND wish IS NULL AND EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = m.queue_id"
            f" AND {rows_in(WAITING)})"
        ).fetchone()
        rows = connection.execute(f"SELECT realm, received_at, size, {STATES} FROM message AS m")
        for realm, received_at, size, text in rows:
            try:
                states = states_of(text)
                received, length = float(received_at), int(size)
            except NO_SENSE:
                unreadable += 1
                continue
            for state, count in states.items():
                key = (str(realm), state)
                tallies.setdefault(key, Tally(*key)).add(count, length, received)
    disk = os.statvfs(inspection.directory)
    return Statistics(
        messages=messages,
        octets=octets,
        tallies=tuple(
            tallies[key] for key in sorted(tallies, key=lambda key: (key[0], STORED.index(key[1])))
        ),
        unreadable=unreadable,
        next_due=next_due,
        in_line=in_line,
        wishes=wishes,
        disk_free=disk.f_bavail * disk.f_frsize,
        running=inspection.running,
    )
