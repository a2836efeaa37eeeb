"""Guesses that are made at once: no more of them are judged than failures are left."""

from collections import deque
from datetime import date

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.interfaces import Throttled, Unavailable
from digipoort_msa.sasl.registry import MECHANISMS
from tests.account_doubles import (
    CountingHashing,
    MemoryStore,
    Submitter,
    UnevenStore,
    account,
    password_credential,
)
from tests.requirements import proves

HERE, ELSEWHERE = "192.0.2.1", "198.51.100.1"


class Later:
    """``Threads`` that run a call when the test has them."""

    def __init__(self):
        self.calls = deque()

    def call(self, work, *arguments):
        answer = Deferred()
        self.calls.append((answer, work, arguments))
        return answer

    def run(self):
        """:return: how many calls there were."""
        done = 0
        while self.calls:
            answer, work, arguments = self.calls.popleft()
            answer.callback(work(*arguments))
            done += 1
        return done


@proves("A8")
class AtOnceTests(SynchronousTestCase):
    """A hundred connections from one address, with a limit of three failures in 30 seconds."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1e6)
        self.hashing = CountingHashing()
        self.threads = Later()
        self.piet = account("piet", "one.nl", password_hash=self.hashing.hash("right"))
        self.throttle = Throttle(
            self.clock.seconds, per_account_and_source=3, per_source=1000, window=30.0, longest_delay=0
        )

    def serve(self, store):
        self.store = store
        passwords = Passwords(self.hashing, self.threads, VerifiedPasswords(self.clock.seconds))
        realm = Realm(
            RealmRules(name="one.nl", mechanisms=frozenset({"PLAIN"})),
            GuardedStore(store, "one.nl", self.clock),
            passwords,
            Submitter,
            self.clock,
            lambda: date(2026, 1, 5),
        )
        self.realms = Realms([realm], self.throttle, self.clock, MECHANISMS, b"nobody")

    def login(self, password, name="piet", source=HERE):
        login = self.realms.login(password_credential(name, password), source, "PLAIN")
        return login.addErrback(lambda failure: failure.value)

    def guess(self, right_one):
        """The hundred; the right password is one of them."""
        return [self.login("right" if number == right_one else f"x{number}") for number in range(100)]

    def verdicts(self, logins):
        return [type(self.successResultOf(login)) for login in logins]

    def test_a_right_one_is_known_before_the_others_are_refused(self):
        """Where refusals are levelled, they come half a second after a yes."""
        self.serve(UnevenStore(self.piet))
        logins = self.guess(50)
        self.threads.run()
        self.assertNoResult(logins[50])
        self.clock.advance(0.6)
        self.assertEqual(self.verdicts(logins), [UnauthorizedLogin] * 3 + [Throttled] * 97)
        self.clock.advance(10)  # there is room for one more
        logins = self.guess(1)
        self.threads.run()
        self.clock.advance(0.6)
        self.assertEqual(self.verdicts(logins), [UnauthorizedLogin] + [Throttled] * 99)

    def test_the_cache_knows_a_right_one_before_the_others_are_refused(self):
        self.serve(MemoryStore(self.piet))
        owner = self.login("right", source=ELSEWHERE)
        self.threads.run()
        self.assertEqual(self.verdicts([owner]), [Submitter])
        logins = self.guess(50)
        self.threads.run()
        self.assertEqual(self.verdicts(logins), [UnauthorizedLogin] * 3 + [Throttled] * 97)

    def test_a_botnet_leaves_room_for_those_who_are_trusted(self):
        """Far from all limits still, strangers could fill the queue of the threads that verify."""
        self.serve(MemoryStore(self.piet))
        self.throttle.attempt("one.nl", "piet", HERE).succeeded()
        bots = [
            self.login("x", f"name{number}", f"10.{number // 250}.{number % 250}.1") for number in range(1000)
        ]
        self.assertEqual(len(self.threads.calls), 50)
        owner = self.login("right")
        self.assertEqual(len(self.threads.calls), 51)
        colleague = self.login("x", "jan")  # whose source is known
        self.assertEqual(len(self.threads.calls), 52)
        self.threads.run()
        self.assertEqual(self.verdicts([owner, colleague]), [Submitter, UnauthorizedLogin])
        self.assertEqual(self.verdicts(bots), [UnauthorizedLogin] * 1000)

    def test_right_ones_wait_for_one_another_and_come_in(self):
        """A program with many connections: none of it is a failure, so none is refused."""
        for store in (UnevenStore(self.piet), MemoryStore(self.piet)):
            self.serve(store)
            logins = [self.login("right") for _ in range(1000)]
            self.threads.run()
            self.assertEqual(set(self.verdicts(logins)), {Submitter})

    def test_whose_turn_does_not_come(self):
        """The store says nothing: who waits for those that wait for it is told so, too."""
        self.serve(UnevenStore())
        self.store.account = lambda username: Deferred()
        for _ in range(2):  # all turns are there again
            logins = [self.login("right") for _ in range(100)]
            self.clock.advance(10.1)
            self.assertEqual(sum(login.called for login in logins), 97)
            self.clock.advance(10.1)
            self.assertEqual(self.verdicts(logins), [Unavailable] * 100)

    def test_who_gives_up_has_no_turn(self):
        self.serve(UnevenStore(self.piet))
        answers = []
        self.store.account = lambda username: answers.append(Deferred()) or answers[-1]
        logins = [self.login("right") for _ in range(3)]
        leaving, staying = self.login("right"), self.login("right")
        leaving.cancel()
        self.assertEqual(self.verdicts([leaving]), [CancelledError])
        for answer in answers:  # the last of them is asked for meanwhile
            answer.callback(self.piet)
            self.threads.run()
        self.assertEqual(self.verdicts([*logins, staying]), [Submitter] * 4)
        self.assertEqual(len(answers), 4)


@proves("A8")
class TurnsTests(SynchronousTestCase):
    """The limits, as several of them bear on an attempt."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1e6)
        self.throttle = Throttle(
            self.clock.seconds,
            per_account_and_source=2,
            per_source=3,
            per_network=5,
            per_account=4,
            strangers=6,
            window=60.0,
        )

    def begin(self, name="piet", source=HERE):
        attempt = self.throttle.attempt("one.nl", name, source)
        return attempt, attempt.begin()

    def test_each_limit_has_turns(self):
        for limit, whose in (
            (2, [("piet", HERE)] * 9),
            (3, [(f"name{number}", HERE) for number in range(9)]),
            (5, [(f"name{number}", f"192.0.2.{number}") for number in range(9)]),
            (4, [("piet", f"10.{number}.0.1") for number in range(9)]),
            (6, [(f"name{number}", f"10.{number}.0.1") for number in range(9)]),
        ):
            begun = [self.begin(*who) for who in whose]
            self.assertEqual([turn.called for _, turn in begun], [True] * limit + [False] * (9 - limit))
            for number, (attempt, turn) in enumerate(begun):
                self.successResultOf(turn)
                attempt.end()
                attempt.end()  # once is enough
                self.assertTrue(all(turn.called for _, turn in begun[: number + limit + 1]))

    def test_who_is_trusted_waits_for_his_own_alone(self):
        self.throttle.attempt("one.nl", "piet", HERE).succeeded()
        strangers = [self.begin(f"name{number}", f"192.0.2.{number + 2}") for number in range(9)]
        self.assertEqual(sum(turn.called for _, turn in strangers), 5)
        self.successResultOf(self.begin()[1])

    def test_the_strangers_of_a_realm(self):
        """The store of another may be slow."""
        self.throttle = Throttle(self.clock.seconds, strangers=0)
        begun = [
            self.throttle.attempt(realm, f"name{number}", f"10.{number}.0.1").begin()
            for realm in ("one.nl", "two.nl")
            for number in range(60)
        ]
        self.assertEqual([turn.called for turn in begun], ([True] * 50 + [False] * 10) * 2)

    def test_failures_take_the_turns_of_those_who_wait(self):
        begun = [self.begin() for _ in range(9)]
        for attempt, turn in begun[:2]:
            self.successResultOf(turn)
            attempt.failed()
            attempt.end()
        for attempt, turn in begun[2:]:
            self.failureResultOf(turn, Throttled)
            attempt.end()  # which it has none of
        self.clock.advance(30)
        (first, turn), (_, waiting) = self.begin(), self.begin()
        self.successResultOf(turn)
        self.assertNoResult(waiting)
        first.end()
        self.successResultOf(waiting)

    def test_who_waits_for_one_limit_may_have_to_wait_for_another(self):
        pair = [self.begin() for _ in range(3)]
        others = [self.begin(f"name{number}") for number in range(2)]  # the source's last, and one too many
        self.assertEqual([turn.called for _, turn in (*pair, *others)], [True, True, False, True, False])
        pair[0][0].end()  # the pair's third has a turn of the pair, and of the source's three
        self.assertEqual([turn.called for _, turn in (*pair, *others)], [True, True, True, True, False])
        others[0][0].end()
        self.successResultOf(others[1][1])

    def test_nothing_is_left_behind(self):
        for _ in range(3):
            begun = [self.begin(f"name{number % 3}") for number in range(30)]
            for attempt, turn in begun:
                self.successResultOf(turn)
                attempt.end()
        turns = self.throttle.turns
        self.assertFalse(turns._taken or turns._waiting or turns._given_back)
