"""A week of messages, with a core that is down for three days, slow for one, and refuses a tenth (D2).

The spool is the real one, on disk; so are the queues and the notifications.  Only the clock and the core are
the test's.  At the end every recipient of every message is asked for: it was delivered, or its sender was
told that it was not, or an operator has it.
"""

import email
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from attrs import Factory, define, evolve
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.interfaces import IContent, IDelivery
from digipoort_msa.notification.notifications import Notifications
from digipoort_msa.notification.templates import Texts
from digipoort_msa.smtp.envelope import NULL_PATH, Arrival, Envelope, Notify, Outcome, Path, RcptParameters
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool.queue import Queue
from digipoort_msa.spool.queues import Queues
from digipoort_msa.spool.schedule import Schedule
from tests.queueing import QueueTestCase
from tests.requirements import proves
from tests.spooling import envelope

HOUR = 3600.0
DAY = 24 * HOUR
START = 1_800_000_000.0
DOWN = (START + 1 * DAY, START + 4 * DAY)
SLOW = (START + 5 * DAY, START + 6 * DAY)
WEEK = START + 7 * DAY
MESSAGES = 1000
STEP = 900.0  # seconds: how finely time passes while no delivery is under way
FINE_STEP = 90.0  # the same while some are
FINEST_STEP = 10.0  # the same unless the core is slow

TAKEN = Reply(250, "2.0.0", ("taken",))
UNREACHABLE = Reply(451, "4.4.1", ("core.example.nl:25 cannot be reached: connection refused",))
BUSY = Reply(452, "4.3.1", ("try again later",))
UNKNOWN = Reply(550, "5.1.1", ("no such user",))
HOP = "core.example.nl:25"

PLAIN, IN_SEQUENCE, IMPATIENT = "gewoon.nl", "volgorde.nl", "ongeduldig.nl"
SCHEDULES = {
    PLAIN: Schedule(),
    IN_SEQUENCE: Schedule(),
    IMPATIENT: Schedule(maximum_delay=4 * HOUR, give_up_after=48 * HOUR),
}

FAILURE, SUCCESS, DELAY = Notify.FAILURE, Notify.SUCCESS, Notify.DELAY
WISHES = (
    None,
    None,
    RcptParameters(frozenset({Notify.NEVER})),
    RcptParameters(frozenset({FAILURE})),
    RcptParameters(frozenset({SUCCESS})),
    RcptParameters(frozenset({SUCCESS, FAILURE, DELAY})),
)


@define
class Told:
    """One notification, as the core got it."""

    envelope: Envelope
    fates: dict[str, str]  # recipient: action


@define
class Core:
    """What the core has seen; whether it takes a recipient stands in the recipient's name."""

    clock: Clock
    random: random.Random
    taken: Counter[tuple[str, Path]] = Factory(Counter)
    attempts: list[Envelope] = Factory(list)
    told: dict[str, Told] = Factory(dict)
    busy: Counter[tuple[str, Path]] = Factory(Counter)
    last: dict[tuple[str, Path], float] = Factory(dict)  # when a recipient was last asked for
    open: int = 0
    most_open: int = 0

    @property
    def down(self) -> bool:
        return DOWN[0] <= self.clock.seconds() < DOWN[1]

    def reply(self, queue_id: str, path: Path) -> Reply:
        if self.down:
            return UNREACHABLE
        if path.local_part.startswith("refused"):
            return UNKNOWN
        if path.local_part.startswith("busy") and self.busy[queue_id, path] < 3:
            self.busy[queue_id, path] += 1
            return BUSY
        self.taken[queue_id, path] += 1
        return TAKEN

    @property
    def slow(self) -> bool:
        return SLOW[0] <= self.clock.seconds() < SLOW[1]

    def patience(self) -> float:
        return self.random.uniform(10, 900) if self.slow else self.random.uniform(0.1, 3)


@implementer(IDelivery)
class WayOut:
    """A realm's way to the core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def deliver(self, envelope: Envelope, content: IContent) -> "Deferred[Any]":
        return Deferred.fromCoroutine(self._deliver(envelope, content))

    async def _deliver(self, envelope: Envelope, content: IContent) -> dict[Path, Outcome]:
        core = self._core
        core.attempts.append(envelope)
        if envelope.reverse_path.is_null and envelope.queue_id not in core.told:
            told = await _read_notification(envelope, content)
            if told is not None:
                core.told[envelope.queue_id] = told
        if not core.down:
            await self._wait(core.patience())
        outcomes = {}
        for path in envelope.recipients:
            core.last[envelope.queue_id, path] = core.clock.seconds()
            if core.random.random() < 0.002:
                continue  # a defect: nothing is said of this one
            arrival = Arrival.PASSED_ON if path.domain == "passed-on.nl" else Arrival.RELAYED
            outcomes[path] = Outcome(core.reply(envelope.queue_id, path), HOP, arrival)
        return outcomes

    async def _wait(self, seconds: float) -> None:
        waited: Deferred[None] = Deferred()
        call = self._core.clock.callLater(seconds, waited.callback, None)
        self._core.open += 1
        self._core.most_open = max(self._core.most_open, self._core.open)
        try:
            await waited
        except CancelledError:
            call.cancel()
            raise
        finally:
            self._core.open -= 1

    def stop(self) -> "Deferred[None]":
        return succeed(None)


async def _read_notification(envelope: Envelope, content: IContent) -> Told | None:
    """What a message says if it is a notification (RFC 3464), by the standard library's reading."""
    octets = b""
    reader = content.open()
    while segment := await reader.read():
        octets += segment
    reader.close()
    message = email.message_from_bytes(octets)
    if message.get_content_type() != "multipart/report":
        return None
    fates = {}
    for part in message.walk():
        if part.get_content_type() == "message/delivery-status":
            groups: Any = part.get_payload()
            for fields in groups[1:]:
                recipient = fields["Final-Recipient"].partition(";")[2].strip()
                assert recipient not in fates
                fates[recipient] = fields["Action"].strip()
    return Told(envelope, fates)


@define
class Submitted:
    at: float
    envelope: Envelope  # without its queue id
    octets: bytes
    stranger: bool


def week(draw: random.Random) -> Iterator[Submitted]:
    """Every message that is submitted, in the order of time."""
    for at in sorted(draw.uniform(START, WEEK) for _ in range(MESSAGES)):
        number = draw.randrange(10**9)
        account = f"bedrijf{draw.randrange(12)}"
        kind = draw.random()
        stranger = 0.03 <= kind < 0.1
        if kind < 0.03:
            sender = NULL_PATH
        elif kind < 0.13:
            sender = Path(("stranger" if stranger else "refused") + str(number), "b.nl")
        else:
            sender = Path(f"sender{number}", "b.nl")
        recipients = tuple(
            Path(
                f"{draw.choices(('refused', 'busy', 'taken'), (10, 10, 80))[0]}{number}.{n}",
                draw.choice(("core.nl", "core.nl", "passed-on.nl")),
            )
            for n in range(draw.choice((1, 1, 1, 2, 5)))
        )
        wishes = {path: draw.choice(WISHES) for path in recipients}
        yield Submitted(
            at,
            evolve(
                envelope(),
                realm=draw.choices((PLAIN, IN_SEQUENCE, IMPATIENT), (1, 2, 1))[0],
                account=account,
                reverse_path=sender,
                recipients=recipients,
                received_at=at,
                recipient_parameters={path: wish for path, wish in wishes.items() if wish is not None},
            ),
            b"Subject: x\r\n\r\n" + b"y" * draw.choice((10, 10, 10, 10, 500, 100_000)) + b"\r\n",
            stranger,
        )


class SimulatedWeekTests(QueueTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stop(self.spool)
        self.draw = random.Random(20260)
        self.clock = Clock()
        self.clock.advance(START)
        self.core = Core(self.clock, self.draw)
        self.sent: dict[str, Submitted] = {}
        texts = Texts.read(("nl", "en"))
        self.writer = Notifications(
            "msa.example.nl", texts, lambda of: "stranger" not in of.reverse_path.local_part
        )
        self.begin()

    def begin(self) -> None:
        self.spool = self.started(
            sequences=lambda realm, account: f"{realm} {account}" if realm == IN_SEQUENCE else None
        )
        # Nothing crashes here: the week need not wait for the disk.
        self.spool._running._connection.execute("PRAGMA synchronous = OFF")
        self.queues = Queues(
            self.spool,
            self.clock,
            [
                Queue(
                    realm,
                    self.spool,
                    WayOut(self.core),
                    self.writer,
                    self.clock,
                    schedule=schedule,
                    active=5,
                    random=self.draw.random,
                )
                for realm, schedule in SCHEDULES.items()
            ],
        )
        self.queues.start()

    def restart(self) -> None:
        stopped = self.queues.stop()
        self.clock.advance(30)  # the grace of those that are being delivered
        self.result(stopped)
        self.stop(self.spool)
        self.begin()

    def settle(self) -> None:
        """Until all that is left to do is to wait for the core or the clock."""
        rounds = 3
        while rounds:
            self.result(self.spool.data_version())
            rounds = 3 if self.queues.active != self.core.open else rounds - 1

    def pass_until(self, end: float) -> None:
        while self.clock.seconds() < end:
            self.clock.advance(min(self.next_event(), end) - self.clock.seconds())
            self.settle()

    def next_event(self) -> float:
        """When something may happen, and not sooner than in a step."""
        now = self.clock.seconds()
        if self.core.open:
            return now + (FINE_STEP if self.core.slow else FINEST_STEP)
        ((due,),) = self.rows("SELECT min(next_attempt) FROM message")
        return max(now + STEP, due or now + DAY)

    def submit(self, message: Submitted) -> None:
        incoming = self.spool.receive(message.envelope.realm)
        incoming.write(message.octets)
        self.result(incoming.commit(evolve(message.envelope, queue_id=incoming.queue_id)))
        self.sent[incoming.queue_id] = message

    def live_through_the_week(self) -> None:
        moments: list[tuple[float, Any]] = [
            (message.at, lambda message=message: self.submit(message)) for message in week(self.draw)
        ]
        moments.append((DOWN[1] + 1, lambda: self.queues.flush(PLAIN)))  # as the relay does
        moments.append((SLOW[0] + DAY / 2, self.restart))
        for at, happens in sorted(moments, key=lambda moment: moment[0]):
            self.pass_until(at)
            happens()
            self.settle()
        self.pass_until(WEEK + 4 * DAY)

    @proves("D2", "D3")
    def test_every_end_is_accounted_for(self) -> None:
        self.live_through_the_week()
        self.assertEqual(0, self.queues.active)
        held = {
            (queue_id, Path.from_text(path)): reason
            for queue_id, path, reason in self.rows(
                "SELECT queue_id, path, reason FROM recipient WHERE state = 'held'"
            )
        }
        self.assertEqual([], self.rows("SELECT * FROM recipient WHERE state IN ('queued', 'deferred')"))
        self.assertEqual(
            sorted({queue_id for queue_id, _ in held}),
            [queue_id for (queue_id,) in self.rows("SELECT queue_id FROM message ORDER BY queue_id")],
        )
        ends = self.ends(held)
        self.check_notifications(held)
        self.check_sequences()
        self.check_extent(ends)
        self.assertEqual([], self.logged(log.DEFECT))
        self.result(self.queues.stop())

    def ends(self, held: dict[tuple[str, Path], str]) -> Counter[str]:
        """Each recipient's one end, and that it is the right one."""
        told: dict[tuple[str, str], list[str]] = defaultdict(list)
        for each in self.core.told.values():
            for recipient, action in each.fates.items():
                told[each.envelope.session_id, recipient].append(action)
        ends: Counter[str] = Counter()
        for queue_id, message in self.sent.items():
            for path in message.envelope.recipients:
                news = Counter(told.pop((queue_id, str(path)), []))
                taken = self.core.taken[queue_id, path]
                reason = held.get((queue_id, path))
                wishes = message.envelope.parameters_of(path)
                may_tell = not message.stranger and not message.envelope.reverse_path.is_null
                self.assertEqual(1, taken + news["failed"] + (reason is not None), (queue_id, path))
                self.assertLessEqual(news["delayed"], may_tell and wishes.wants(DELAY))
                passed_on = path.domain == "passed-on.nl"
                asked = may_tell and wishes.wants(SUCCESS) and not passed_on
                self.assertEqual(news["relayed"], taken and asked)
                if path.local_part.startswith("refused"):
                    self.assertFalse(taken)
                elif not taken:
                    lasted = self.core.last[queue_id, path] - message.at
                    self.assertGreaterEqual(lasted, SCHEDULES[message.envelope.realm].give_up_after)
                    ends["given up"] += 1
                if news["failed"]:
                    self.assertTrue(may_tell and wishes.wants(FAILURE))
                elif reason is not None:
                    expected = self.expected_reason(message, path)
                    self.assertIn(expected, reason)
                    ends["held: " + expected] += 1
                ends.update(("taken" if taken else "returned" if news["failed"] else "held", *news))
        self.assertEqual({}, dict(told))
        return ends

    def expected_reason(self, message: Submitted, path: Path) -> str:
        if message.envelope.reverse_path.is_null:
            return "null"
        if not message.envelope.parameters_of(path).wants(FAILURE):
            return "NOTIFY"
        self.assertTrue(message.stranger)
        return "not known to be an address"

    def check_notifications(self, held: dict[tuple[str, Path], str]) -> None:
        """Each goes to the sender, from nobody, and has an end of its own; none is about another."""
        for queue_id, told in self.core.told.items():
            original = self.sent[told.envelope.session_id].envelope
            self.assertEqual(
                (NULL_PATH, (original.reverse_path,), original.realm, original.account),
                (
                    told.envelope.reverse_path,
                    told.envelope.recipients,
                    told.envelope.realm,
                    told.envelope.account,
                ),
            )
            end = (queue_id, original.reverse_path)
            self.assertEqual(1, self.core.taken[end] + (end in held))
            if end in held:
                lasted = self.core.last[end] - told.envelope.received_at
                given_up = lasted >= SCHEDULES[original.realm].give_up_after
                self.assertTrue(given_up or original.reverse_path.local_part.startswith("refused"))
                self.assertIn("null", held[end])
        self.assertEqual(set(), {queue_id for queue_id, _ in held} - self.sent.keys() - self.core.told.keys())

    def check_sequences(self) -> None:
        """Of an account, a message is tried only when the one before it has ended."""
        tried: dict[str, list[str]] = defaultdict(list)
        for attempt in self.core.attempts:
            if attempt.realm == IN_SEQUENCE and attempt.queue_id in self.sent:
                tried[attempt.account].append(attempt.queue_id)
        for queue_ids in tried.values():
            self.assertEqual(sorted(queue_ids), queue_ids)
        self.assertGreater(sum(map(len, tried.values())), MESSAGES / 4)

    def check_extent(self, ends: Counter[str]) -> None:
        """The week was one in which everything happened."""
        for end, least in {
            "taken": 1000,
            "returned": 100,
            "held": 30,
            "delayed": 50,
            "relayed": 100,
            "given up": 20,
            "held: null": 3,
            "held: NOTIFY": 10,
            "held: not known to be an address": 3,
        }.items():
            self.assertGreaterEqual(ends[end], least, end)
        self.assertGreaterEqual(self.core.most_open, 10)
        self.assertEqual(MESSAGES, len(self.sent))
