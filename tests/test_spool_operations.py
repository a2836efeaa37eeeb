"""The state transitions of recipients, against a model."""

import sqlite3
import tempfile
from pathlib import Path

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.envelope import MailParameters, Notify, RcptParameters
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.spool import operations, rows, schema, sequences, upkeep
from digipoort_msa.spool.rows import Attempt, DueQuery, Result, Stored
from digipoort_msa.spool.states import TABLE, UNFINISHED, WAITING, Event, State
from tests.requirements import proves
from tests.spooling import DEFERRED, DELIVERED, FAILED, envelope

REPLIES = {State.DELIVERED: DELIVERED, State.DEFERRED: DEFERRED, State.RETURNED: FAILED, State.HELD: FAILED}
ID = "0000000000000001"


_WORDS = st.text("!#é'\"\\~A", min_size=1)
_REPLY_TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]))


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

    def test_the_end_of_a_head_costs_the_same_however_long_its_sequence_is(self) -> None:
        def steps(length: int) -> int:
            connection = self.opened()
            ids = [f"{number:016}" for number in range(length)]
            kept = [Stored(envelope(id), 1, False, b"x", since=0.0, sequence="r a") for id in ids]
            operations.insert(connection, kept)
            taken: list[None] = []
            connection.set_progress_handler(lambda: taken.append(None), 10)
            operations.forget(connection, kept[:1])
            connection.set_progress_handler(None, 0)
            heads = connection.execute("SELECT queue_id FROM message WHERE next_attempt IS NOT NULL")
            self.assertEqual([(ids[1],)], heads.fetchall())
            return len(taken)

        self.assertLess(steps(2000), 2 * steps(20))

    def insert(
        self, *recipients: str, queue_id: str = ID, received_at: float = 0.0, sequence: str | None = None
    ) -> Stored:
        message = Stored(
            envelope(queue_id, recipients, received_at),
            3,
            True,
            b"a\xffb",
            since=received_at,
            sequence=sequence,
            digest=b"d" * 32,
            sealed_by="key",
        )
        operations.insert(self.connection, [message])
        return message

    def due(self, now: float = 1e9, limit: int = 100, held: tuple[str, ...] = ()) -> list[Stored]:
        (page,) = operations.due(self.connection, [DueQuery(None, now, limit, frozenset(held))])
        return list(page.messages)

    def record(self, states: dict[str, State], now: float = 10.0, next_attempt: float = 70.0) -> bool:
        results = tuple(
            Result(MailPath.from_text(path), state, REPLIES[state], "hop", "why")
            for path, state in states.items()
        )
        (recorded,) = operations.record(self.connection, [Attempt(ID, results, now, next_attempt)])
        return recorded.gone

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
        operations.forget(self.connection, messages)
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
            broken = evolve(envelope(ID), account="\udc80")
            operations.insert(self.connection, [Stored(broken, 1, False, b"x", since=1.0)])

    def test_longest_due_first_and_the_held_ones_not(self) -> None:
        for number, received_at in enumerate((30.0, 10.0, 20.0, 99.0)):
            self.insert("a@b.nl", queue_id=f"{number:016}", received_at=received_at)
        self.assertEqual([10.0, 20.0, 30.0], [message.since for message in self.due(now=50)])
        self.assertEqual([10.0, 30.0], [m.since for m in self.due(now=50, held=("0000000000000002",))])
        self.assertEqual([10.0], [message.since for message in self.due(now=50, limit=1)])
        (page,) = operations.due(self.connection, [DueQuery(None, 50, 10, frozenset())])
        self.assertEqual(99.0, page.next_due)

    def test_taking_for_a_realm_goes_through_the_index(self) -> None:
        for condition in ("realm = 'r' AND next_attempt <= 5 ORDER BY next_attempt", "1 GROUP BY realm"):
            plan = self.connection.execute(
                f"EXPLAIN QUERY PLAN SELECT count(*) FROM message WHERE {condition}"
            ).fetchall()
            self.assertIn("message_due", plan[0][3])
            self.assertEqual(1, len(plan))

    def test_parameters_of_recipients_come_back(self) -> None:
        one, two = MailPath("one", "b.nl"), MailPath("two", "b.nl")
        given = {one: RcptParameters(frozenset({Notify.NEVER})), two: RcptParameters(orcpt="rfc822;two@b.nl")}
        message = Stored(
            evolve(envelope(ID, ("one@b.nl", "two@b.nl")), recipient_parameters=given, next_hop="x:25"),
            1,
            False,
            b"x",
            since=1.0,
        )
        operations.insert(self.connection, [message])
        self.assertEqual([message], self.due())

    @proves("D3")
    def test_recipients_go_their_own_ways(self) -> None:
        self.insert("one@b.nl", "two@b.nl", "three@b.nl")
        gone = self.record(
            {"one@b.nl": State.DELIVERED, "two@b.nl": State.DEFERRED, "three@b.nl": State.HELD}
        )
        self.assertFalse(gone)
        self.assertEqual([], self.due(now=69))
        (message,) = self.due(now=70)
        self.assertEqual((MailPath("two", "b.nl"),), message.envelope.recipients)
        self.assertEqual((1, False), (message.attempts, message.sole))
        self.assertFalse(self.record({"two@b.nl": State.RETURNED}))
        self.assertEqual([], self.due())
        self.assertEqual("held", self.states()["three@b.nl"])

    def test_removal_waits_for_the_delivery(self) -> None:
        self.insert("one@b.nl")
        self.connection.execute("UPDATE message SET wish = 'remove', next_attempt = NULL")
        self.assertEqual([[]], upkeep.purge(self.connection, [frozenset([ID])]))
        self.assertTrue(self.record({"one@b.nl": State.DEFERRED}))
        self.assertEqual({}, self.states())

    def test_what_an_operator_held_meanwhile_stays_held_unless_it_has_ended(self) -> None:
        self.insert("one@b.nl", "two@b.nl", "three@b.nl", "four@b.nl")
        operations.hold(self.connection, [(ID, "an operator")])
        ends = dict(
            zip(
                ("one@b.nl", "two@b.nl", "three@b.nl"),
                (State.DELIVERED, State.RETURNED, State.DEFERRED),
                strict=True,
            )
        )
        self.assertFalse(self.record(ends))
        self.assertEqual(
            ["delivered", "returned", "held", "held"], [self.states()[p] for p in (*ends, "four@b.nl")]
        )
        reasons = self.connection.execute("SELECT reason FROM recipient WHERE state = 'held'").fetchall()
        self.assertEqual([("an operator",)] * 2, reasons)

    def test_a_recipient_that_was_released_during_the_attempt_is_due_now(self) -> None:
        self.insert("one@b.nl", "two@b.nl")
        self.record({"one@b.nl": State.HELD, "two@b.nl": State.DEFERRED})
        self.connection.execute("UPDATE recipient SET state = 'queued' WHERE path = 'one@b.nl'")
        self.record({"two@b.nl": State.DEFERRED}, now=90.0, next_attempt=500.0)
        (message,) = self.due(now=90)
        self.assertEqual(2, len(message.envelope.recipients))

    def test_a_wish_to_return(self) -> None:
        self.insert("one@b.nl", "two@b.nl")
        self.connection.execute("UPDATE message SET wish = 'return', next_attempt = NULL")
        self.assertFalse(self.record({"one@b.nl": State.HELD, "two@b.nl": State.DEFERRED}))  # was under way
        ((wished,),) = upkeep.returns(self.connection, [frozenset()])
        self.assertEqual(2, len(wished.envelope.recipients))
        self.assertFalse(self.record({"one@b.nl": State.HELD, "two@b.nl": State.HELD}))  # nobody may be told
        self.assertEqual([()], upkeep.returns(self.connection, [frozenset()]))
        self.connection.execute("UPDATE message SET wish = 'return'")
        self.assertTrue(self.record({"one@b.nl": State.RETURNED, "two@b.nl": State.RETURNED}))

    def test_history(self) -> None:
        paths = [f"r{number}@b.nl" for number in range(8)]
        self.insert(*paths)
        for number in range(30):
            self.record(dict.fromkeys(paths[1:], State.DEFERRED) | {paths[0]: State.HELD}, now=float(number))
        rows = self.connection.execute("SELECT at, recipients FROM attempt ORDER BY number").fetchall()
        self.assertEqual(operations.HISTORY, len(rows))
        self.assertEqual([29.0, 29.0], [at for at, _ in rows[-2:]])
        self.assertIn('["r1@b.nl","r2@b.nl","r3@b.nl","r4@b.nl","r5@b.nl"]', {some for _, some in rows})
        self.record(dict.fromkeys(paths, State.DELIVERED))
        self.assertEqual([(0,)], self.connection.execute("SELECT count(*) FROM attempt").fetchall())

    def test_delays_are_told_once(self) -> None:
        self.insert("one@b.nl", "two@b.nl")
        one = MailPath("one", "b.nl")
        result = Result(one, State.DEFERRED, DEFERRED, "hop")
        attempt = Attempt(ID, (result,), 1.0, 2.0, told_of_delay=(one,))
        operations.record(self.connection, [attempt])
        self.assertEqual(frozenset({one}), self.due()[0].told_of_delay)

    def test_heads_are_mended(self) -> None:
        for number in range(4):
            self.insert("a@b.nl", queue_id=f"{number:016}", sequence="s" if number else None)
        for wrong in ("NULL", "5"):
            self.connection.execute(f"UPDATE message SET next_attempt = {wrong}")
            upkeep.mend(self.connection, 1.0)
            rows = self.connection.execute("SELECT next_attempt IS NOT NULL FROM message ORDER BY queue_id")
            self.assertEqual([(1,), (1,), (0,), (0,)], rows.fetchall())
        self.assertEqual(2, len(self.due(now=1.0)))  # a clock that was wrong keeps nothing back

    @proves("D2", "D3")
    @given(st.data())
    @settings(deadline=None, max_examples=80)
    def test_whatever_happens_the_invariants_hold(self, data: st.DataObject) -> None:
        """Three messages of one sequence and two of none, and any events in any order."""
        self.connection = self.opened()
        ids = [f"{number:016}" for number in range(5)]
        told = iter(range(100, 1000))
        active: dict[str, Stored] = {}
        waiting = {
            queue_id: Stored(
                envelope(queue_id, ("a@b.nl", "c@d.nl")),
                1,
                False,
                b"x",
                1.0,
                sequence="s" if number < 3 else None,
            )
            for number, queue_id in enumerate(ids)
        }
        for _ in range(data.draw(st.integers(1, 30))):
            event = data.draw(st.sampled_from(list(Event)))
            before = self.rows()
            queue_id = data.draw(st.sampled_from(ids))
            if event is Event.KEEP and queue_id in waiting:
                operations.insert(self.connection, [waiting.pop(queue_id)])
            elif event is Event.TAKE:
                page = self.due(held=tuple(active), limit=2)
                active |= {stored.envelope.queue_id: stored for stored in page}
            elif event is Event.INTERRUPT:
                active.clear()
            elif event in (Event.DELIVER, Event.DEFER, Event.RETURN) and queue_id in active:
                self.ended(data, active.pop(queue_id), f"{next(told):016}")
            elif event is Event.HOLD:
                operations.hold(self.connection, [(queue_id, "reason")])
            elif event is Event.RELEASE:
                self.release(queue_id)
            elif event is Event.RETRY:
                upkeep.flush(self.connection, [("overheidstransactiepoort.nl", 5.0)])
            elif event is Event.REMOVE:
                wish = data.draw(st.sampled_from(["remove", "return"]))
                self.connection.execute(
                    "UPDATE message SET wish = ?, next_attempt = NULL WHERE queue_id = ?", (wish, queue_id)
                )
                self.carry_out(data, active, f"{next(told):016}")
            self.check(before, self.rows())

    def ended(self, data: st.DataObject, stored: Stored, notification: str) -> None:
        results = tuple(
            Result(path, state, REPLIES[state], "hop", "why")
            for path in stored.envelope.recipients
            for state in [data.draw(st.sampled_from(list(REPLIES)))]
        )
        if stored.sole and all(result.state is State.DELIVERED for result in results):
            operations.forget(self.connection, [stored])
            return
        news = None
        if any(result.state is State.RETURNED for result in results):
            news = Stored(envelope(notification, ("sender@b.nl",)), 1, False, b"told", 1.0)
        attempt = Attempt(stored.envelope.queue_id, results, 3.0, 9.0, notification=news)
        for _ in range(data.draw(st.integers(1, 2))):
            operations.record(self.connection, [attempt])
        kept = self.connection.execute("SELECT 1 FROM message WHERE queue_id = ?", (notification,)).fetchall()
        self.assertEqual(news is not None, bool(kept))

    def release(self, queue_id: str) -> None:
        self.connection.execute(
            "UPDATE recipient SET state = 'queued', reason = NULL WHERE queue_id = ? AND state = 'held'"
            " AND EXISTS (SELECT 1 FROM message AS m"
            " WHERE m.queue_id = recipient.queue_id AND m.wish IS NULL)",
            (queue_id,),
        )
        self.connection.execute(
            "UPDATE message SET next_attempt = 2 WHERE queue_id = ? AND sequence IS NULL AND wish IS NULL AND"
            " EXISTS (SELECT 1 FROM recipient AS r WHERE r.queue_id = message.queue_id AND state = 'queued')",
            (queue_id,),
        )
        sequences.promote(self.connection, sequences.of(self.connection, [queue_id]))

    def carry_out(self, data: st.DataObject, active: dict[str, Stored], notification: str) -> None:
        if data.draw(st.booleans()):
            upkeep.purge(self.connection, [frozenset(active)])
            (wished,) = upkeep.returns(self.connection, [frozenset(active)])
            for stored in wished[:1]:
                results = tuple(
                    Result(path, State.RETURNED, FAILED, "here") for path in stored.envelope.recipients
                )
                news = Stored(envelope(notification, ("sender@b.nl",)), 1, False, b"told", 1.0)
                attempt = Attempt(stored.envelope.queue_id, results, 3.0, 9.0, notification=news)
                (recorded,) = operations.record(self.connection, [attempt])
                self.assertEqual((True, True), (recorded.gone, recorded.notified))

    def rows(self) -> dict[tuple[str, str], str]:
        rows = self.connection.execute("SELECT queue_id, path, state FROM recipient").fetchall()
        return {(queue_id, path): state for queue_id, path, state in rows}

    def check(self, before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> None:
        messages = self.connection.execute(
            "SELECT queue_id, next_attempt, sequence, wish FROM message"
        ).fetchall()
        ids = {queue_id for queue_id, *_ in messages}
        self.assertEqual(ids, {queue_id for queue_id, _ in after}, "no message and no recipient is alone")
        attempts = self.connection.execute("SELECT DISTINCT queue_id FROM attempt").fetchall()
        self.assertLessEqual({queue_id for (queue_id,) in attempts}, ids)
        heads: list[str] = []
        blocked = in_line = False
        for queue_id, next_attempt, sequence, wish in messages:
            states = {state for (owner, _), state in after.items() if owner == queue_id}
            self.assertTrue(states.intersection(UNFINISHED), "a message that has ended has gone")
            waits = bool(states.intersection(WAITING))
            if sequence is None:
                self.assertEqual(waits and wish is None, next_attempt is not None)
            else:
                self.assertTrue(next_attempt is None or (waits and wish is None))
                heads += [queue_id] if next_attempt is not None else []
                blocked = blocked or (waits and wish is not None)
                in_line = in_line or (waits and wish is None)
        self.assertLessEqual(len(heads), 1)
        self.assertTrue(heads or blocked or not in_line, "a sequence has its head")
        for key in before.keys() & after.keys():
            self.assertIn(after[key], reachable(before[key]))

    @given(
        st.builds(
            MailParameters,
            st.none() | st.integers(0, 2**40),
            st.booleans(),
            st.booleans(),
            st.none() | _WORDS,
            st.sampled_from([None, "FULL", "HDRS"]),
            st.none() | _WORDS,
        ),
        st.builds(
            RcptParameters,
            st.none() | st.frozensets(st.sampled_from(list(Notify)), min_size=1),
            st.none() | _WORDS,
        ),
        st.builds(
            Reply, st.integers(200, 599), st.none() | st.just("4.2.1"), st.tuples(_REPLY_TEXTS, _REPLY_TEXTS)
        ),
    )
    def test_what_is_encoded_comes_back(
        self, parameters: MailParameters, of_recipient: RcptParameters, reply: Reply
    ) -> None:
        text = rows.encode_parameters(parameters)
        self.assertEqual(parameters, rows.decode_parameters(text))
        again = rows.decode_recipient_parameters(rows.encode_recipient_parameters(of_recipient))
        self.assertEqual(of_recipient, again or RcptParameters())
        text = rows.encode_reply(reply)
        self.assertTrue(text.isascii())
        self.assertEqual(reply, rows.decode_reply(text))

    def test_version_1_knew_four_parameters_of_mail(self) -> None:
        self.assertEqual(
            MailParameters(12, True, False, "a"), rows.decode_parameters('[12, true, false, "a"]')
        )


def reachable(state: str) -> set[str]:
    """The states of a row that TABLE leads to from this one, active in between or not, in any number of steps
    of one operation: what an operator held may have been active."""
    found: set[State] = {State(state)}
    while True:
        more = {end for starts, end in TABLE.values() if end and starts & found} | found
        if State.HELD in found:
            more |= {State.DELIVERED, State.RETURNED}
        if more == found:
            return {str(each) for each in found}
        found = more
