"""What can become of one recipient, and by which events alone (D2).

:data:`TABLE` is the whole of it: the operations on the spool take the states they may start from out of it,
and the diagram in the documentation is drawn from it.  A message ends when its last recipient has: it is
``delivered``, its sender has been told that it is ``returned``, or an operator has ``removed`` it.  Until
then it is in the spool; ``held`` is the state in which an operator has to decide.

``received`` and ``active`` are states of the running process alone: a crash makes nothing of the first,
since nothing was acknowledged, and of the second what it was before.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """A recipient's state."""

    RECEIVED = "received"  # content is still coming in; never in a row
    QUEUED = "queued"  # durable, and to be tried as soon as may be
    ACTIVE = "active"  # being delivered; never in a row
    DEFERRED = "deferred"  # refused temporarily; tried again at next_attempt
    HELD = "held"  # not tried until an operator says so
    DELIVERED = "delivered"
    RETURNED = "returned"  # failed, and the sender is told by a notification in the same transaction
    REMOVED = "removed"  # by an operator; never in a row


class Event(StrEnum):
    """What moves a recipient from state to state."""

    KEEP = "keep"  # end of data: the message is on stable storage, and 250 is said
    TAKE = "take"  # its turn has come
    INTERRUPT = "interrupt"  # the process stopped meanwhile: a crash, or a stop that could not wait
    DELIVER = "deliver"  # 2yz
    DEFER = "defer"  # 4yz
    RETURN = "return"  # 5yz, or given up, or at an operator's word; the sender may be told
    HOLD = "hold"  # by an operator; or a failure of which nobody may be told; or damage
    RELEASE = "release"  # by an operator
    RETRY = "retry"  # by an operator, or its hop has come back
    REMOVE = "remove"  # by an operator


_S = State
_WAITING = frozenset({State.QUEUED, State.DEFERRED})

#: For each event: the states it may start from, and where it leads (``None``: back to where it was).
TABLE: Mapping[Event, tuple[frozenset[State], State | None]] = MappingProxyType(
    {
        Event.KEEP: (frozenset({_S.RECEIVED}), _S.QUEUED),
        Event.TAKE: (_WAITING, _S.ACTIVE),
        Event.INTERRUPT: (frozenset({_S.ACTIVE}), None),
        Event.DELIVER: (frozenset({_S.ACTIVE, _S.HELD}), _S.DELIVERED),  # held while it was under way
        Event.DEFER: (frozenset({_S.ACTIVE}), _S.DEFERRED),
        Event.RETURN: (frozenset({_S.ACTIVE, _S.HELD}) | _WAITING, _S.RETURNED),
        Event.HOLD: (frozenset({_S.ACTIVE}) | _WAITING, _S.HELD),
        Event.RELEASE: (frozenset({_S.HELD}), _S.QUEUED),
        Event.RETRY: (_WAITING, _S.QUEUED),
        Event.REMOVE: (frozenset({_S.HELD}) | _WAITING, _S.REMOVED),
    }
)

#: The states that a row can have, in the order in which the operator's tools show them.
STORED = (State.QUEUED, State.DEFERRED, State.HELD, State.DELIVERED, State.RETURNED)
#: Those of them that the queue works on.
WAITING = (State.QUEUED, State.DEFERRED)
#: Those of them that keep a message in the spool.
UNFINISHED = (State.QUEUED, State.DEFERRED, State.HELD)


def rows_in(states: Iterable[State]) -> str:
    """SQL that is true for a recipient's row in one of these states."""
    return f"state IN ({', '.join(repr(str(state)) for state in STORED if state in states)})"


def rows_before(event: Event) -> str:
    """SQL that is true for a recipient's row from whose state ``event`` may start.

    The row of an active recipient says what it was before, or that an operator has held it meanwhile.
    """
    states, _ = TABLE[event]
    if State.ACTIVE in states:
        states |= TABLE[Event.TAKE][0] | {State.HELD}
    return rows_in(states)
