"""The throttle, as attackers would use it: to guess, and to keep others out."""

from collections import Counter

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.accounts.throttle import Kind, Throttle
from digipoort_msa.interfaces import Throttled
from tests.requirements import proves

HOME = "203.0.113.5"  # where the business has logged in before
ELSEWHERE = "198.51.100.9"  # an honest stranger
WINDOW = 900.0


def bot(number):
    """One of 10,000, three in each network."""
    network, host = divmod(number, 3)
    return f"10.{network // 256}.{network % 256}.{host + 1}"


@proves("A8")
class AttackTests(SynchronousTestCase):
    """With the limits that are the default."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1e6)
        self.throttle = Throttle(self.clock.seconds)
        self.verdicts = Counter()
        self.attempt("business", HOME).succeeded()

    def attempt(self, name, source):
        return self.throttle.attempt("one.nl", name, source)

    def guess(self, name, source):
        """One guess; was there a verdict?"""
        attempt = self.attempt(name, source)
        try:
            attempt.admit()
            attempt.failed()
        except Throttled:
            return False
        self.verdicts[name] += 1
        return True

    def assert_looked_at(self, name, source, longest=0.0):
        self.assertLessEqual(self.attempt(name, source).admit(), longest)

    def assert_refused(self, which, name, source):
        with self.assertRaisesRegex(Throttled, which):
            self.attempt(name, source).admit()

    def test_a_botnet_at_one_account(self):
        """10,000 sources, three guesses each, for a window: the account's limit, twice at most."""
        for number in range(30_000):
            self.clock.advance(WINDOW / 30_000)
            self.guess("business", bot(number % 10_000))
        self.assertLessEqual(self.verdicts["business"], 2 * 100)
        self.assert_looked_at("business", HOME)
        self.assert_refused("to this account, by strangers", "business", ELSEWHERE)
        self.assert_looked_at("another", ELSEWHERE)  # it is about one account alone

    def test_a_botnet_at_many_accounts(self):
        """10,000 sources, another account each time: the strangers' limit, twice at most."""
        for number in range(30_000):
            self.clock.advance(WINDOW / 30_000)
            self.guess(f"account{number}", bot(number % 10_000))
        self.assertLessEqual(self.verdicts.total(), 2 * 5000)
        self.assert_looked_at("business", HOME)
        self.assert_looked_at("a new account of that office", HOME)
        self.assert_refused("of strangers, in all", "another", ELSEWHERE)
        self.clock.advance(10)  # as soon as the botnet rests
        self.assert_looked_at("another", ELSEWHERE)

    def test_without_the_strangers_limit(self):
        self.throttle = Throttle(self.clock.seconds, strangers=0)
        for number in range(10_000):
            self.assertTrue(self.guess(f"account{number}", bot(number)))
        self.assert_looked_at("another", ELSEWHERE)

    def test_a_password_sprayed_from_one_place(self):
        for number in range(1000):
            self.guess(f"account{number}", "192.0.2.1")
        self.assertEqual(self.verdicts.total(), 50)
        self.assert_refused("from this source", "another", "192.0.2.1")
        self.assert_looked_at("another", "192.0.2.2")

    def test_a_hosters_network(self):
        """All of a /24: the network's limit.  Its other strangers wait; who is known there goes on."""
        self.attempt("neighbour", "192.0.2.200").succeeded()
        for number in range(5000):
            self.guess(f"account{number}", f"192.0.2.{number % 199}")
        self.assertEqual(self.verdicts.total(), 200)
        self.assert_refused("from this network", "another", "192.0.2.201")
        self.assert_looked_at("neighbour", "192.0.2.200")
        self.assert_looked_at("the neighbour's second", "192.0.2.200")
        self.assert_looked_at("another", ELSEWHERE)

    def test_an_ipv6_customer(self):
        """65,536 sources for the asking: the /48's limit."""
        for number in range(0, 65_536, 4):
            self.guess(f"account{number}", f"2001:db8:1:{number:x}::1")
        self.assertEqual(self.verdicts.total(), 200)
        self.assert_looked_at("another", "2001:db8:2::1")

    def test_one_address_for_a_whole_office(self):
        """One wrong password in one program, for ever: it alone is stopped, and who is trusted goes on."""
        self.attempt("colleague", HOME).succeeded()
        for _ in range(1000):
            self.guess("business", HOME)
        self.assertEqual(self.verdicts["business"], 10)
        self.assert_refused("to this account from this source", "business", HOME)
        self.assert_looked_at("colleague", HOME)
        self.assert_looked_at("a new one", HOME, longest=8)
        self.assert_looked_at("business", ELSEWHERE, longest=8)

    def test_a_trusted_source_that_is_broken_into(self):
        """Guesses at others from there are a stranger's, within the source's limit; the business goes on."""
        for number in range(1000):
            self.guess(f"account{number % 20}", HOME)
        self.assertEqual(self.verdicts.total(), 50)
        self.assert_refused("from this source", "another", HOME)
        self.assert_looked_at("business", HOME)

    def test_one_account_gives_no_licence(self):
        """A login between the guesses forgives none of them."""
        for number in range(1000):
            self.guess(f"account{number % 20}", HOME)
            self.attempt("business", HOME).succeeded()
        self.assertEqual(self.verdicts.total(), 50)

    def test_the_trusted_do_not_use_up_what_strangers_have(self):
        for _ in range(10):
            self.guess("business", HOME)
        strangers = self.throttle.counts[Kind.STRANGERS]
        self.assertEqual(strangers.value(("", "", "")), 0)

    def test_a_count_cannot_be_pushed_out_by_others(self):
        """Names and sources without end, to have the account's own count dropped: there is room for all."""
        for number in range(100):
            self.guess("business", bot(number))
        for number in range(30_000):
            self.guess(f"account{number}", f"2001:{number:x}::1")
        self.assert_refused("by strangers", "business", ELSEWHERE)
        for record in self.throttle.records.values():
            self.assertLessEqual(len(record), 20_000)

    def test_a_stranger_is_not_slowed_by_strangers(self):
        for number in range(1000):
            self.guess(f"account{number}", bot(number))
        self.assertEqual(self.attempt("another", ELSEWHERE).admit(), 0)


@proves("A8")
class ToldTests(SynchronousTestCase):
    """What the log says of limits that are reached: once in a window, not once for each guess."""

    def setUp(self):

        self.clock = Clock()
        self.clock.advance(1e6)
        self.throttle = Throttle(
            self.clock.seconds,
            per_account_and_source=2,
            per_source=4,
            per_network=6,
            per_account=8,
            strangers=12,
            window=60.0,
        )
        self.told = []
        self.patch(log, "emit", lambda event, **fields: self.told.append(event.sentence.format(**fields)))

    def guess(self, name, source):
        attempt = self.throttle.attempt("one.nl", name, source)
        try:
            attempt.admit()
            attempt.failed()
        except Throttled:
            pass

    def test_each_limit(self):
        for _ in range(5):
            self.guess("a", "192.0.2.1")
        for name in "bcdef":
            self.guess(name, "192.0.2.1")
        for name in "ghi":
            self.guess(name, "192.0.2.2")
        for number in range(10):
            self.guess("j", f"10.0.{number}.1")
        self.assertEqual(
            self.told,
            [
                "192.0.2.1 has used up its 2 failed logins to one account, a in realm one.nl: "
                "the next is looked at in 30 s",
                "192.0.2.1 has used up its 4 failed logins: the next of a stranger is looked at in 15 s",
                "192.0.2.0/24 has used up its 6 failed logins: the next of a stranger is looked at in 10 s",
                "strangers have used up the 12 failed logins to all accounts: their next is looked at in 5 s",
            ],
        )

    def test_an_account(self):
        for number in range(20):
            self.guess("a", f"10.0.{number}.1")
            self.clock.advance(1)
        (told,) = self.told
        self.assertIn("the 8 failed logins to a in realm one.nl: their next is looked at in", told)
        self.clock.advance(60)
        for number in range(20):
            self.guess("a", f"10.0.{number}.1")
        self.assertEqual(len(self.told), 2)

    def test_what_was_cleared_is_told_again(self):
        for _ in range(2):
            self.guess("a", "192.0.2.1")
            self.guess("a", "192.0.2.1")
            self.throttle.forget(Kind.PAIR, ("one.nl", "a", "192.0.2.1"))
        self.assertEqual(sum("to one account" in line for line in self.told), 2)

    def test_what_is_remembered_of_it_is_bounded(self):
        self.throttle = Throttle(self.clock.seconds, per_source=1, per_network=10**6, strangers=0)
        for number in range(2000):
            self.guess(f"account{number}", f"10.{number // 250}.{number % 250}.1")
        self.assertEqual(len(self.throttle._told), 1000)
