"""What an operator orders to be done with messages (D2): the admin process's part of it.

``retry``, ``hold``, ``release`` and ``move`` are plain transactions, some messages at a time, between which
the MSA has its turn; it sees what was changed within a second.  ``remove`` and ``return`` leave a wish,
which the process that works the queue carries out when the message is not being delivered; where no such
process holds the spool's lock, it is carried out here.

What cannot be done is said for each message, and the others are done all the same.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from attrs import Factory, define, evolve, frozen
from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool import operations, sequences
from digipoort_msa.spool.content import content_of, in_row
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.rows import Attempt, Stored
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.selection import is_queue_id
from digipoort_msa.spool.states import TABLE, Event, State, rows_in
from digipoort_msa.spool.verdicts import NobodyToTell, Verdicts

# ruff: noqa: S608 -- SQL is put together from constants alone; every value is bound.
_AT_ONCE = 250  # messages that are changed in one transaction, which takes some 5 ms
_PAUSE = 0.01  # seconds between two of them: who waits for the database looks again after 1, 2, 5, 10, ... ms

_WANTED = "queue_id IN (SELECT value FROM json_each(:wanted))"
NOT_HERE = "there is no such message"

#: Gives the verdicts of a realm, or ``None`` where this configuration has no such realm.
VerdictsOf = Callable[[str], Verdicts | None]


@define
class Done:
    """What became of an order."""

    done: list[str] = Factory(list)
    refused: dict[str, str] = Factory(dict)  # queue id: why
    pending: list[str] = Factory(list)  # of those that are done: left for the running MSA to carry out

    def add(self, wanted: Iterable[str], refused: dict[str, str]) -> None:
        self.done += [queue_id for queue_id in wanted if queue_id not in refused]
        self.refused.update(refused)


@frozen
class _Facts:
    """What an order looks at."""

    queue_id: str
    realm: str
    wish: str | None
    in_row: bool
    states: frozenset[str]

    def any(self, event: Event) -> bool:
        """Is there a recipient to which this may happen?"""
        return not self.states.isdisjoint(TABLE[event][0])


def _wished(facts: _Facts) -> str | None:
    return facts.wish and f"an operator wants it {'removed' if facts.wish == 'remove' else 'returned'}"


#: Says of a realm why something cannot be done with its messages; ``None`` where it can.
Objection = Callable[[str], str | None]


def _no_objection(realm: str) -> str | None:
    return None


def retry(inspection: Inspection, queue_ids: Sequence[str], untried: Objection = _no_objection) -> Done:
    """Have the recipients that are deferred tried now, with a new time until giving up.

    :param untried: says of a realm why its messages are not tried.
    """

    def refusal(facts: _Facts) -> str | None:
        if not facts.any(Event.RETRY):
            return "it is held: release it" if facts.any(Event.RELEASE) else "no recipient is left"
        return None

    return _order(
        inspection,
        queue_ids,
        lambda facts: _wished(facts) or untried(facts.realm) or refusal(facts),
        f"UPDATE recipient SET state = '{State.QUEUED}' WHERE {_WANTED} AND {rows_in(TABLE[Event.RETRY][0])}",
        "UPDATE message SET next_attempt = CASE WHEN next_attempt IS NOT NULL THEN :now END,"
        f" since = max(since, :now) WHERE {_WANTED}",
    )


def hold(inspection: Inspection, queue_ids: Sequence[str], reason: str) -> Done:
    """Have messages not tried until they are released."""

    def refusal(facts: _Facts) -> str | None:
        if not facts.states & {State.QUEUED, State.DEFERRED}:
            return "it is held already" if facts.any(Event.RELEASE) else "no recipient is left"
        return None

    return _order(
        inspection,
        queue_ids,
        lambda facts: _wished(facts) or refusal(facts),
        f"UPDATE recipient SET state = '{State.HELD}', reason = :reason WHERE {_WANTED}"
        f" AND {rows_in((State.QUEUED, State.DEFERRED))}",
        f"UPDATE message SET next_attempt = NULL WHERE {_WANTED}",
        reason=reason,
    )


def release(inspection: Inspection, queue_ids: Sequence[str], untried: Objection = _no_objection) -> Done:
    """Have held messages tried again, with a new time until giving up; not where the body file is missing.

    :param untried: as for :func:`retry`.
    """

    def refusal(facts: _Facts) -> str | None:
        if not facts.any(Event.RELEASE):
            return "nothing of it is held"
        if not facts.in_row and not (
            is_queue_id(facts.queue_id) and inspection.bodies.exists(facts.queue_id)
        ):
            return f"its body file {inspection.bodies.path(facts.queue_id)} is missing: put it back first"
        return None

    return _order(
        inspection,
        queue_ids,
        lambda facts: _wished(facts) or untried(facts.realm) or refusal(facts),
        f"UPDATE recipient SET state = '{State.QUEUED}', reason = NULL WHERE {_WANTED}"
        f" AND {rows_in(TABLE[Event.RELEASE][0])}",
        # In a sequence it becomes the head only where there is none.
        "UPDATE message SET next_attempt = CASE WHEN sequence IS NULL THEN :now ELSE next_attempt END,"
        f" since = max(since, :now) WHERE {_WANTED}",
    )


def move(
    inspection: Inspection,
    queue_ids: Sequence[str],
    next_hop: str | None,
    movable: Objection,
) -> Done:
    """Have messages go to another hop than their realm's, and now.

    :param next_hop: ``None`` takes the choice back.
    :param movable: says of a realm why its messages have no hop; ``None`` where they have.
    """
    return _order(
        inspection,
        queue_ids,
        lambda facts: _wished(facts) or movable(facts.realm),
        "UPDATE message SET next_hop = :next_hop,"
        f" next_attempt = CASE WHEN next_attempt IS NOT NULL THEN :now END WHERE {_WANTED}",
        next_hop=next_hop,
    )


def remove(inspection: Inspection, queue_ids: Sequence[str]) -> Done:
    """Remove messages for good; nobody is told.  One that is being delivered goes after this attempt."""
    done = _order(
        inspection,
        queue_ids,
        lambda facts: None,
        f"UPDATE message SET wish = 'remove', next_attempt = NULL WHERE {_WANTED}",
    )
    for wanted in _pieces(inspection, done.done):
        with inspection.alone() as alone:
            if alone:
                _purge(inspection, wanted)
            else:
                done.pending += wanted
    return done


def _purge(inspection: Inspection, queue_ids: Sequence[str]) -> None:
    with inspection.changing() as connection:
        in_sequence = sequences.of(connection, queue_ids)
        operations.delete(connection, queue_ids)
        sequences.promote(connection, in_sequence)
    for queue_id in filter(is_queue_id, queue_ids):
        with suppress(OSError):  # the message is gone; a file that stays is swept out at the next start
            inspection.bodies.remove(queue_id)


def return_(
    inspection: Inspection, queue_ids: Sequence[str], verdicts_of: VerdictsOf, sealing: Sealing | None
) -> Done:
    """Return messages to their senders, with a notification.

    :param sealing: for content that is encrypted.
    """
    done = Done()
    for queue_id in dict.fromkeys(queue_ids):
        try:
            with inspection.alone() as alone:
                _return(inspection, queue_id, verdicts_of, sealing, alone)
        except (_Refusal, NobodyToTell, Damaged) as error:
            done.add([queue_id], {queue_id: str(error)})
        else:
            done.add([queue_id], {})
            if not alone:
                done.pending.append(queue_id)
    return done


class _Refusal(Exception):
    """Why an order cannot be carried out for a message."""


def _return(
    inspection: Inspection, queue_id: str, verdicts_of: VerdictsOf, sealing: Sealing | None, alone: bool
) -> None:
    with inspection.reading():
        facts = _facts(inspection.connection, [queue_id]).get(queue_id)
    if facts is None:
        raise _Refusal(NOT_HERE)
    if refusal := _wished(facts):
        raise _Refusal(refusal)
    stored = inspection.stored(queue_id)
    if stored is None:
        raise _Refusal("no recipient is left")
    verdicts = verdicts_of(stored.envelope.realm)
    if verdicts is None:
        raise _Refusal(f"the realm {stored.envelope.realm} is not configured: nothing says who may be told")
    content = content_of(stored, inspection.bodies, sealing, execute)
    # Where the MSA runs, this one is thrown away: it shows that a notification can be written.
    attempt: Attempt = _now(verdicts.returned(stored, content, time.time()))
    if attempt.notification is not None:
        attempt = evolve(attempt, notification=_ready(attempt.notification, sealing))
    with inspection.changing() as connection:
        if not alone:
            connection.execute(
                f"UPDATE message SET wish = 'return', next_attempt = NULL WHERE {_WANTED} AND wish IS NULL",
                {"wanted": json.dumps([queue_id])},
            )
            return
        (recorded,) = operations.record(connection, [attempt])
    if recorded.gone:
        with suppress(OSError):
            inspection.bodies.remove(queue_id)


def _ready(notification: Stored, sealing: Sealing | None) -> Stored:
    """Its content as it goes into a row."""
    content = in_row(notification.envelope.queue_id, notification.octets or b"", sealing)
    return evolve(notification, octets=content.octets, digest=content.digest, sealed_by=content.sealed_by)


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of what waits for nothing but what is done at once: no reactor runs here."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    if not results:
        coroutine.close()
        raise _Refusal("the notification cannot be written without the MSA: start it first")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def _order(
    inspection: Inspection,
    queue_ids: Sequence[str],
    refusal: Callable[[_Facts], str | None],
    *changes: str,
    **values: object,
) -> Done:
    """Make ``changes`` to the messages for which there is no ``refusal``."""
    done = Done()
    wanted = list(dict.fromkeys(queue_ids))
    for piece in _pieces(inspection, wanted):
        try:
            done.add(piece, _ordered(inspection, piece, refusal, changes, values))
        except SpoolError as error:  # nor can it be changed for the others; but some may have been done
            done.refused.update(dict.fromkeys(wanted[len(done.done) + len(done.refused) :], str(error)))
            break
    return done


def _ordered(
    inspection: Inspection,
    piece: Sequence[str],
    refusal: Callable[[_Facts], str | None],
    changes: Sequence[str],
    values: Mapping[str, object],
) -> dict[str, str]:
    """One transaction; returns what was refused."""
    with inspection.changing() as connection:
        facts = _facts(connection, piece)
        refused = {queue_id: NOT_HERE for queue_id in piece if queue_id not in facts}
        for queue_id, known in facts.items():
            if why := refusal(known):
                refused[queue_id] = why
        wanted = [queue_id for queue_id in piece if queue_id not in refused]
        now = time.time()
        for change in changes:
            connection.execute(change, {**values, "wanted": json.dumps(wanted), "now": now})
        sequences.promote(connection, sequences.of(connection, wanted))
    return refused


def _pieces(inspection: Inspection, queue_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(queue_ids), _AT_ONCE):
        if start and inspection.running:
            time.sleep(_PAUSE)
        yield queue_ids[start : start + _AT_ONCE]


def _facts(connection: sqlite3.Connection, queue_ids: Sequence[str]) -> dict[str, _Facts]:
    rows = connection.execute(
        "SELECT queue_id, realm, wish, in_row, (SELECT json_group_array(DISTINCT state)"
        " FROM recipient AS r WHERE r.queue_id = message.queue_id)"
        f" FROM message WHERE {_WANTED}",
        {"wanted": json.dumps(list(queue_ids))},
    )
    return {
        queue_id: _Facts(queue_id, realm, wish, bool(in_row), _states(states))
        for queue_id, realm, wish, in_row, states in rows
    }


@lru_cache(100)
def _states(text: str) -> frozenset[str]:
    return frozenset(json.loads(text))
