"""The messages that a queue has at hand: those that have just been kept, and a page of older ones."""

from collections import deque
from collections.abc import Iterable

from digipoort_msa.spool.rows import Stored

MESSAGES = 256  # just kept, at most
OCTETS = 4 * 1024 * 1024  # of those that have just been kept, at most


class WaitingRoom:
    """Bounded; new messages and old ones take turns, so that neither can starve the other."""

    def __init__(self) -> None:
        self._fresh: deque[Stored] = deque()
        self._fresh_octets = 0
        self._paged: deque[Stored] = deque()
        self._turn = False

    def __len__(self) -> int:
        return len(self._fresh) + len(self._paged)

    @property
    def queue_ids(self) -> frozenset[str]:
        return frozenset(stored.envelope.queue_id for room in (self._fresh, self._paged) for stored in room)

    @property
    def paged(self) -> int:
        """How many of those that were read back are still here."""
        return len(self._paged)

    def admit(self, stored: Stored) -> bool:
        """Take in a message that has just been kept, if there is room for it."""
        octets = self._fresh_octets + len(stored.octets or b"")
        if len(self._fresh) >= MESSAGES or octets > OCTETS:
            return False
        self._fresh.append(stored)
        self._fresh_octets = octets
        return True

    def add_page(self, messages: Iterable[Stored]) -> None:
        """Take in messages that were read back."""
        self._paged.extend(messages)

    def next(self) -> Stored | None:
        """Whose turn it is; ``None`` where nobody is here."""
        self._turn = not self._turn
        if self._paged and (self._turn or not self._fresh):
            return self._paged.popleft()
        if not self._fresh:
            return None
        stored = self._fresh.popleft()
        self._fresh_octets -= len(stored.octets or b"")
        return stored

    def drop(self, queue_ids: Iterable[str]) -> None:
        """Let go of these."""
        dropped = frozenset(queue_ids)
        self._fresh = deque(stored for stored in self._fresh if stored.envelope.queue_id not in dropped)
        self._paged = deque(stored for stored in self._paged if stored.envelope.queue_id not in dropped)
        self._fresh_octets = sum(len(stored.octets or b"") for stored in self._fresh)

    def clear(self) -> None:
        """Let go of all."""
        self._fresh.clear()
        self._paged.clear()
        self._fresh_octets = 0
