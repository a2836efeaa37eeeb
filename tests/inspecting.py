"""A spool under test, and an operator who looks into it."""

from typing import Any

from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import operations
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.rows import Attempt, Result
from digipoort_msa.spool.states import State
from digipoort_msa.spool.views import Message
from tests.spooling import SpoolTestCase

BIG = b"Subject: big\r\n\r\n" + b"x" * 98 + b"\r\n" + (b"y" * 998 + b"\r\n") * 100  # more than a row takes


class InspectionTestCase(SpoolTestCase):
    """``self.inspection`` of ``self.spool``."""

    def setUp(self) -> None:
        super().setUp()
        self.inspection = Inspection(self.directory)
        self.addCleanup(self.inspection.close)

    def sql(self, text: str, *values: object) -> list[Any]:
        """On a connection of its own, as damage or another process would."""
        return self.inspection.connection.execute(text, values).fetchall()

    def tried(self, queue_id: str, next_attempt: float = 1060.0, **states: tuple[State, Reply]) -> None:
        """Record an attempt: the local-part of each recipient at b.nl and its state and reply."""
        results = tuple(
            Result(MailPath(name, "b.nl"), state, reply, "core.example.nl:25")
            for name, (state, reply) in states.items()
        )
        with self.inspection.changing() as connection:
            operations.record(connection, [Attempt(queue_id, results, 1000.0, next_attempt)])

    def shown(self, queue_id: str) -> Message:
        message = self.inspection.show(queue_id)
        assert isinstance(message, Message), message
        return message

    def states(self, queue_id: str) -> list[str]:
        return [str(recipient.state) for recipient in self.shown(queue_id).recipients]
