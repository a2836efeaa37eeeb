"""Slots, and the line of those who wait for one.

A delivery holds a slot of a hop while it works there; a hop has as many as it may have connections.  Who
finds none free waits in line, of several hops at once where any of them would do: whoever came first is
served first at each.

Those who wait are woken one after the other, never one inside the other: ten thousand who leave at once
do not end in a recursion.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed


class Slots:
    """The slots of one hop; :class:`Line` gives them out.

    :ivar limit: how many there are.  It may be lowered below what is in use: nobody is sent away.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.waiting: OrderedDict[Deferred[Slots | None], None] = OrderedDict()

    @property
    def free(self) -> bool:
        return self.used < self.limit


class Line:
    """Everyone who waits at one relay."""

    def __init__(self) -> None:
        self._places: OrderedDict[Deferred[Slots | None], tuple[Slots, ...]] = OrderedDict()
        self._called: deque[tuple[Deferred[Slots | None], Slots | None]] = deque()
        self._calling = False

    def take_free(self, slots: Slots) -> bool:
        """Take a slot where nobody has to wait; a :meth:`give` is to come if there was one."""
        if slots.used < slots.limit and not slots.waiting:
            slots.used += 1
            return True
        return False

    def take(self, choices: Sequence[Slots]) -> "Deferred[Slots | None]":
        """A slot of the first of ``choices`` that has one free, or of whichever has one first.

        :return: whose slot it is; ``None`` to look around for other choices, with a :meth:`give` to come
            only in the first case.  Cancelling it leaves the line.
        """
        for slots in choices:
            if self.take_free(slots):
                return succeed(slots)
        waiting: Deferred[Slots | None] = Deferred(self._step_out)
        self._places[waiting] = tuple(choices)
        for slots in choices:
            slots.waiting[waiting] = None
        return waiting

    def give(self, slots: Slots) -> None:
        """A slot is free again."""
        slots.used -= 1
        self.serve(slots)

    def serve(self, slots: Slots) -> None:
        """Give out what is free."""
        while slots.free and slots.waiting:
            waiting = next(iter(slots.waiting))
            self._step_out(waiting)
            slots.used += 1
            self._called.append((waiting, slots))
        self._call()

    def look_around(self) -> None:
        """Things have changed: everyone who waits chooses anew, in order."""
        for waiting in list(self._places):
            self._step_out(waiting)
            self._called.append((waiting, None))
        self._call()

    def _step_out(self, waiting: "Deferred[Slots | None]") -> None:
        for slots in self._places.pop(waiting, ()):
            del slots.waiting[waiting]

    def _call(self) -> None:
        if self._calling:
            return
        self._calling = True
        try:
            while self._called:
                waiting, slots = self._called.popleft()
                if not waiting.called:
                    waiting.callback(slots)
                elif slots is not None:  # it was cancelled before it heard
                    self.give(slots)
        finally:
            self._calling = False
