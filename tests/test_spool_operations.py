"""The state transitions of recipients, against a model."""

import sqlite3
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.envelope import MailParameters
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import operations, schema
from digipoort_msa.spool.operations import Attempt, DueQuery, Result, Stored
from digipoort_msa.spool.schema import State
from tests.requirements import proves
from tests.spooling import DEFERRED, DELIVERED, FAILED, envelope

REPLIES = {State.DELIVERED: DELIVERED, State.DEFERRED: DEFERRED, State.FAILED: FAILED}
ID = "0000000000000001"


_REPLY_TEXTS = st.text(st.characters(exclude_categories=["Cc"]))


class OperationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.connection = self.opened()

    def opened(self) -> sqlite3.Connection:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        schema.prepare(Path(folder.name))
        connection = schema.connect(Path(folder.name))
        connection.execute("PRAGMA synchronous = OFF")
        self.addCleanup(connection.close)
        return connection

    def insert(self, *recipients: str, queue_id: str = ID, received_at: float = 0.0) -> Stored:
        message = Stored(envelope(queue_id, recipients, received_at), 3, True, b"a\xffb", since=received_at)
        operations.insert(self.connection, [message])
        return message

    def due(self, now: float = 1e9, limit: int = 100, held: tuple[str, ...] = ()) -> list[Stored]:
        (page,) = operations.due(self.connection, [DueQuery(None, now, limit, frozenset(held))])
        return list(page.messages)

    def record(self, states: dict[str, State], now: float = 10.0, next_attempt: float = 70.0) -> bool:
        results = tuple(
            Result(MailPath.from_text(path), state, REPLIES[state], "hop") for path, state in states.items()
        )
        (gone,) = operations.record(self.connection, [Attempt(ID, results, now, next_attempt)])
        return gone

    def states(self) -> dict[str, str]:
        return dict(self.connection.execute("SELECT path, state FROM recipient"))

    def test_a_message_comes_back_as_it_went_in(self) -> None:
        message = self.insert("one@example.nl", '"odd @ one"@example.nl', "postmaster", "é@bücher.example")
        self.assertEqual([message], self.due())

    @given(st.integers(1, 300))
    @settings(deadline=None, max_examples=20)
    def test_any_number_at_once(self, count: int) -> None:
        self.connection = self.opened()
        messages = [
            Stored(envelope(f"{number:016}", ("a@b.nl", "c@d.nl")), 1, False, b"%d" % number, since=1000.0)
            for number in range(count)
        ]
        operations.insert(self.connection, messages)
        self.assertEqual(messages, self.due(limit=1000))
        operations.forget(self.connection, [message.envelope.queue_id for message in messages])
        self.assertEqual({}, self.states())

    def test_a_path_given_twice_is_served_once(self) -> None:
        self.insert("one@example.nl", "two@example.nl", "one@example.nl")
        paths = [str(path) for path in self.due()[0].envelope.recipients]
        self.assertEqual(["one@example.nl", "two@example.nl"], paths)

    def test_a_queue_id_cannot_be_used_twice(self) -> None:
        self.insert("one@example.nl")
        with self.assertRaises(sqlite3.IntegrityError):
            self.insert("two@example.nl")

    def test_what_is_no_text_is_refused_rather_than_stored(self) -> None:
        with self.assertRaises(UnicodeEncodeError):
            self.insert("\udc80@example.nl")

    def test_longest_due_first_and_the_held_ones_not(self) -> None:
        for number, received_at in enumerate((30.0, 10.0, 20.0, 99.0)):
            self.insert("a@b.nl", queue_id=f"{number:016}", received_at=received_at)
        self.assertEqual([10.0, 20.0, 30.0], [message.since for message in self.due(now=50)])
        self.assertEqual([10.0, 30.0], [m.since for m in self.due(now=50, held=("0000000000000002",))])
        self.assertEqual([10.0], [message.since for message in self.due(now=50, limit=1)])
        (page,) = operations.due(self.connection, [DueQuery(None, 50, 10, frozenset())])
        self.assertEqual(99.0, page.next_due)

    def test_taking_goes_through_the_index(self) -> None:
        plan = self.connection.execute(
            "EXPLAIN QUERY PLAN SELECT queue_id FROM message WHERE next_attempt <= 5 ORDER BY next_attempt"
        ).fetchall()
        self.assertIn("message_due", plan[0][3])
        self.assertEqual(1, len(plan))

    @proves("D3")
    def test_recipients_go_their_own_ways(self) -> None:
        self.insert("one@b.nl", "two@b.nl", "three@b.nl")
        gone = self.record(
            {"one@b.nl": State.DELIVERED, "two@b.nl": State.DEFERRED, "three@b.nl": State.FAILED}
        )
        self.assertFalse(gone)
        self.assertEqual([], self.due(now=69))
        (message,) = self.due(now=70)
        self.assertEqual((MailPath("two", "b.nl"),), message.envelope.recipients)
        self.assertEqual((1, False), (message.attempts, message.sole))
        self.assertFalse(self.record({"two@b.nl": State.DELIVERED}))
        self.assertEqual([], self.due())
        self.assertEqual("failed", self.states()["three@b.nl"])

    def test_removal_waits_for_the_delivery(self) -> None:
        self.insert("one@b.nl")
        self.connection.execute("UPDATE message SET removing = 1, next_attempt = NULL")
        self.assertEqual([[]], operations.purge(self.connection, [frozenset([ID])]))
        self.assertTrue(self.record({"one@b.nl": State.DEFERRED}))
        self.assertEqual({}, self.states())

    def test_a_retry_during_the_delivery_of_others_is_not_lost(self) -> None:
        self.insert("one@b.nl", "two@b.nl")
        self.record({"one@b.nl": State.FAILED, "two@b.nl": State.DEFERRED})
        self.assertEqual([ID], operations.retry(self.connection, [ID], now=80.0))
        self.record({"two@b.nl": State.DELIVERED}, now=90.0)
        (message,) = self.due(now=90)
        self.assertEqual((MailPath("one", "b.nl"),), message.envelope.recipients)

    def test_retry_starts_the_time_until_giving_up_anew(self) -> None:
        self.insert("one@b.nl")
        self.record({"one@b.nl": State.FAILED})
        self.assertEqual([], operations.retry(self.connection, ["0000000000000009"], now=500.0))
        self.assertEqual([ID], operations.retry(self.connection, [ID], now=500.0))
        self.assertEqual([500.0], [message.since for message in self.due()])

    @proves("D2", "D3")
    @given(
        st.lists(
            st.one_of(
                st.lists(st.sampled_from(list(REPLIES)), min_size=3, max_size=3),
                st.sampled_from(["retry", "remove", "purge"]),
            ),
            max_size=8,
        )
    )
    @settings(deadline=None, max_examples=60)
    def test_transitions_are_those_of_the_model(self, steps: list[object]) -> None:
        self.connection = self.opened()
        paths = ["a@b.nl", "c@b.nl", "d@b.nl"]
        self.insert(*paths)
        model: dict[str, State] = dict.fromkeys(paths, State.QUEUED)
        removing = False
        for step in steps:
            opened = {path for path, state in model.items() if state in (State.QUEUED, State.DEFERRED)}
            due = self.due()
            if removing or not opened:
                self.assertEqual([], due)
            else:
                self.assertEqual(opened, {str(path) for path in due[0].envelope.recipients})
                self.assertEqual(State.FAILED not in model.values(), due[0].sole)
            if step == "retry" and model and not removing:
                operations.retry(self.connection, [ID], now=1.0)
                model = {p: State.QUEUED if s is State.FAILED else s for p, s in model.items()}
            elif step == "remove":
                self.connection.execute("UPDATE message SET removing = 1, next_attempt = NULL")
                removing = bool(model)
            elif step == "purge":
                operations.purge(self.connection, [frozenset()])
                model = {} if removing else model
            elif isinstance(step, list) and opened:
                made = {path: state for path, state in zip(paths, step, strict=True) if path in opened}
                gone = self.record(made)
                model |= made
                over = removing or set(model.values()) == {State.DELIVERED}
                self.assertEqual(over, gone)
                model = {} if over else model
            self.assertEqual(model, self.states())
            messages = self.connection.execute("SELECT count(*) FROM message").fetchone()[0]
            self.assertEqual(bool(model), bool(messages))

    @given(
        st.builds(
            MailParameters,
            st.none() | st.integers(0, 2**40),
            st.booleans(),
            st.booleans(),
            st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        ),
        st.builds(
            Reply, st.integers(200, 599), st.none() | st.just("4.2.1"), st.tuples(_REPLY_TEXTS, _REPLY_TEXTS)
        ),
    )
    def test_what_is_encoded_comes_back(self, parameters: MailParameters, reply: Reply) -> None:
        text = operations.encode_parameters(parameters)
        self.assertEqual(parameters, operations.decode_parameters(text))
        text = operations.encode_reply(reply)
        self.assertTrue(text.isascii())
        self.assertEqual(reply, operations.decode_reply(text))
