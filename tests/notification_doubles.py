"""Notifications that say who is told what, and no more."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from digipoort_msa.interfaces import IContent, INotifications
from digipoort_msa.smtp.envelope import Envelope, Fate


@implementer(INotifications)
class ListedNotifications:
    """Each notification is a line for each fate.  ``why_not`` is what ``may_tell`` answers; ``answer``, if it
    is set, is what ``write`` returns, or raises."""

    def __init__(self) -> None:
        self.why_not: str | None = None
        self.answer: Any = None
        self.written: list[tuple[str, Sequence[Fate], str, float, float]] = []

    def may_tell(self, envelope: Envelope) -> str | None:
        return self.why_not

    def write(
        self,
        envelope: Envelope,
        content: IContent,
        fates: Sequence[Fate],
        queue_id: str,
        now: float,
        retry_until: float,
    ) -> "Deferred[bytes]":
        self.written.append((envelope.queue_id, tuple(fates), queue_id, now, retry_until))
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            answer: Deferred[bytes] = self.answer
            return answer
        lines = "".join(f"{fate.path} {fate.action}: {fate.reply}\r\n" for fate in fates)
        return succeed(f"Subject: news of {envelope.queue_id}\r\n\r\n{lines}".encode())

    @property
    def told(self) -> list[dict[str, str]]:
        """Of each notification: what it says of whom."""
        return [{str(fate.path): str(fate.action) for fate in fates} for _, fates, *_ in self.written]
