"""What an attempt's outcomes come to: each recipient's next state, and what its sender is told (D2, D3).

A recipient that has failed is ``returned`` only together with the notification that tells so; where nobody
may be told, or the notification cannot be written, it is ``held`` for an operator.  All that is to be told
of one attempt is one notification, an ordinary message in the spool: from the null reverse-path to the
sender, with ``NOTIFY=NEVER``, of the original's realm and account, in no sequence.  Its session id is the
original's queue id, so that the log leads from the one to the other.

If the notification cannot be written, which is a defect or damage, news of success is dropped and news of a
delay is for the next attempt.  If the process stops while it is being written, what was delivered is known,
and what has failed is tried once more.
"""

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.interfaces import Damaged, IContent, INotifications
from digipoort_msa.smtp.envelope import (
    NULL_PATH,
    Action,
    Arrival,
    Envelope,
    Fate,
    MailParameters,
    Notify,
    Outcome,
    Path,
    RcptParameters,
)
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.rows import Attempt, Result, Stored
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.states import State

HERE = "here"  # the hop of a reply of our own
#: What is recorded of a recipient of which the delivery said nothing.
NO_OUTCOME = Outcome(Reply(451, "4.3.0", ("The delivery met an unexpected error",)), HERE)
#: What the sender reads where an operator returns a message.
RETURNED_BY_OPERATOR = Reply(554, "5.7.0", ("An operator has returned the message",))

NULL_SENDER = "its reverse-path is null: there is nobody to tell"
NOT_WANTED = "its sender wants no notification of failures (NOTIFY)"

_ACTIONS = {Arrival.DELIVERED: Action.DELIVERED, Arrival.RELAYED: Action.RELAYED}
_NEVER = RcptParameters(notify=frozenset({Notify.NEVER}))


class NobodyToTell(Exception):
    """A message cannot be returned, since its sender may not or would not be told; the text says why."""


@frozen
class _Verdict:
    """What became of one recipient."""

    result: Result
    fate: Fate | None = None  # what there is to tell

    @classmethod
    def of(cls, path: Path, state: State, outcome: Outcome, action: Action | None = None) -> "_Verdict":
        reply, hop = outcome.reply, outcome.hop
        fate = Fate(path, action, reply, None if hop == HERE else hop) if action else None
        return cls(Result(path, state, reply, hop), fate)

    def untold(self, reason: str) -> "_Verdict":
        """The same where the sender cannot be told: a failure is then an operator's to deal with."""
        if self.result.state is State.RETURNED:
            return _Verdict(evolve(self.result, state=State.HELD, reason=reason))
        return _Verdict(self.result)

    def postponed(self) -> "_Verdict":
        """The same where there was no time to tell: a failure is found out once more."""
        if self.result.state is State.RETURNED:
            return _Verdict(evolve(self.result, state=State.DEFERRED))
        return _Verdict(self.result)


class Verdicts:
    """The verdicts of one realm.

    :param queue_ids: gives a fresh queue id, for a notification.
    """

    def __init__(
        self,
        notifications: INotifications,
        schedule: Schedule,
        queue_ids: Callable[[], str] | None = None,
    ) -> None:
        self._notifications = notifications
        self._schedule = schedule
        self._queue_ids = queue_ids or QueueIds()

    async def attempt(
        self,
        stored: Stored,
        content: IContent,
        outcomes: Mapping[Path, Outcome],
        now: float,
        random: Callable[[], float],
    ) -> Attempt:
        """What is to be recorded of an attempt to deliver ``stored``.

        :param outcomes: a recipient that is not in it counts as refused temporarily.
        :param now: seconds since the epoch.
        :param random: for the schedule's jitter.
        """
        number = stored.attempts + 1
        over = self._schedule.given_up(stored.since, now, number)
        takes_long = self._schedule.takes_long(stored.since, now, number)
        verdicts = [
            self._verdict(stored, path, outcomes.get(path, NO_OUTCOME), over, takes_long)
            for path in stored.envelope.recipients
        ]
        attempt = Attempt(
            queue_id=stored.envelope.queue_id,
            results=(),
            now=now,
            next_attempt=now + self._schedule.delay(number, random),
        )
        if any(verdict.fate for verdict in verdicts):
            reason = self._why_not(stored.envelope)
            if reason is None:
                return await self._telling(attempt, stored, content, verdicts)
            verdicts = [verdict.untold(reason) for verdict in verdicts]
        return evolve(attempt, results=tuple(verdict.result for verdict in verdicts))

    async def returned(
        self, stored: Stored, content: IContent, now: float, reply: Reply = RETURNED_BY_OPERATOR
    ) -> Attempt:
        """Return a message to its sender before its time, at an operator's word.

        A recipient of whose failure the sender wants no news is held instead, beside others of which it does.

        :param stored: its envelope has the recipients to return: every one that is not finished.
        :param now: seconds since the epoch.
        :param reply: a 5yz: what the sender is told.
        :raise NobodyToTell: the sender may not be told, or wants no news of any of them.
        :raise Damaged: the content cannot be quoted.  Whatever else is raised is a defect.
        """
        envelope = stored.envelope
        reason = self._why_not(envelope)
        if reason is None and not any(
            envelope.parameters_of(path).wants(Notify.FAILURE) for path in envelope.recipients
        ):
            reason = NOT_WANTED
        if reason is not None:
            raise NobodyToTell(reason)
        verdicts = [_failed(envelope, path, Outcome(reply, HERE)) for path in envelope.recipients]
        return Attempt(
            queue_id=envelope.queue_id,
            results=tuple(verdict.result for verdict in verdicts),
            now=now,
            next_attempt=now,
            notification=await self._notification(stored, content, verdicts, now),
        )

    def _verdict(
        self, stored: Stored, path: Path, outcome: Outcome, over: bool, takes_long: bool
    ) -> _Verdict:
        code, parameters = outcome.reply.code, stored.envelope.parameters_of(path)
        if 200 <= code < 300:
            wanted = parameters.wants(Notify.SUCCESS)
            return _Verdict.of(
                path, State.DELIVERED, outcome, _ACTIONS.get(outcome.arrival) if wanted else None
            )
        if outcome.reply.permanent or over:
            return _failed(stored.envelope, path, outcome)
        tell = takes_long and path not in stored.told_of_delay and parameters.wants(Notify.DELAY)
        return _Verdict.of(path, State.DEFERRED, outcome, Action.DELAYED if tell else None)

    async def _telling(
        self, attempt: Attempt, stored: Stored, content: IContent, verdicts: Sequence[_Verdict]
    ) -> Attempt:
        notification: Stored | None = None
        try:
            notification = await self._notification(stored, content, verdicts, attempt.now)
        except CancelledError:
            verdicts = [verdict.postponed() for verdict in verdicts]
        except Damaged as damage:
            log.emit(log.CONTENT_DAMAGED, queue_id=attempt.queue_id, reason=str(damage))
            verdicts = [verdict.untold(damaged(damage)) for verdict in verdicts]
        except Exception as error:  # noqa: BLE001 -- whatever it is, the outcomes have to be recorded
            log.failure(log.DEFECT, Failure(), where=f"writing a notification of {attempt.queue_id}")
            reason = _words(f"its notification could not be written: {error}")
            verdicts = [verdict.untold(reason) for verdict in verdicts]
        return evolve(
            attempt,
            results=tuple(verdict.result for verdict in verdicts),
            told_of_delay=tuple(
                verdict.fate.path
                for verdict in verdicts
                if verdict.fate and verdict.fate.action is Action.DELAYED
            ),
            notification=notification,
        )

    def _why_not(self, envelope: Envelope) -> str | None:
        """Why the sender may not be told; ``None`` where it may."""
        if envelope.reverse_path.is_null:  # whatever is plugged in: no notification of a notification
            return NULL_SENDER
        try:
            reason: str | None = self._notifications.may_tell(envelope)
        except Exception as error:  # noqa: BLE001 -- as in _telling
            log.failure(log.DEFECT, Failure(), where=f"asking whether to notify of {envelope.queue_id}")
            return _words(f"whether its sender may be told is not known: {error}")
        return reason

    async def _notification(
        self, stored: Stored, content: IContent, verdicts: Sequence[_Verdict], now: float
    ) -> Stored:
        fates = [verdict.fate for verdict in verdicts if verdict.fate]
        fates.sort(key=lambda fate: fate.action is not Action.FAILED)  # should there be no room for all
        queue_id = self._queue_ids()
        retry_until = self._schedule.gives_up_at(stored.since, now)
        octets = await self._notifications.write(stored.envelope, content, fates, queue_id, now, retry_until)
        if not isinstance(octets, bytes) or not octets:
            raise TypeError(f"a notification is octets, and some, not {type(octets).__name__}")
        return _notification(stored.envelope, queue_id, octets, now)


def not_returned(stored: Stored, reason: str, now: float) -> Attempt:
    """What is to be recorded where an operator's wish to return ``stored`` cannot be done: it is held."""
    results = tuple(
        Result(path, State.HELD, RETURNED_BY_OPERATOR, HERE, _words(f"it cannot be returned: {reason}"))
        for path in stored.envelope.recipients
    )
    return Attempt(stored.envelope.queue_id, results, now, next_attempt=now)


def damaged(damage: Damaged) -> str:
    """Why a message is held of which the content turned out to be damaged."""
    return _words(f"its content is damaged: {damage}")


def _words(text: str) -> str:
    """An error's words, such as a row and a log can bear."""
    return text.encode("ascii", "backslashreplace").decode("ascii")[:500]


def _failed(envelope: Envelope, path: Path, outcome: Outcome) -> _Verdict:
    verdict = _Verdict.of(path, State.RETURNED, outcome, Action.FAILED)
    if envelope.reverse_path.is_null:
        return verdict.untold(NULL_SENDER)
    return verdict if envelope.parameters_of(path).wants(Notify.FAILURE) else verdict.untold(NOT_WANTED)


def _notification(original: Envelope, queue_id: str, octets: bytes, now: float) -> Stored:
    """A notification as a message to be delivered."""
    sender = original.reverse_path
    eight_bit = not octets.isascii()
    envelope = Envelope(
        queue_id=queue_id,
        realm=original.realm,
        account=original.account,
        session_id=original.queue_id,
        reverse_path=NULL_PATH,
        recipients=(sender,),
        received_at=now,
        parameters=MailParameters(body_8bitmime=eight_bit, smtputf8=not sender.is_ascii),
        recipient_parameters={sender: _NEVER},
    )
    return Stored(envelope, len(octets), eight_bit, octets, since=now)
