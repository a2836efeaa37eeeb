"""No login is refused more slowly for one reason than for another (A5).

The work is counted, which no noise disturbs; and the clock is looked at, for what nobody thought of
counting.  Each has to find a planted mistake as well.  The long version is ``python -m benchmarks.timing``.
"""

import random
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

from sqlalchemy import event
from twisted.internet import reactor
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.accounts import seal
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.sasl.credentials import DigestCredential, ScramCredential
from digipoort_msa.threads import Threads
from tests.equality import Verdict, difference
from tests.login_timing import REALM, SLOW, Cause, Door, Way, accounts, plant
from tests.requirements import proves

SHARE = 0.25  # of the time that a refusal takes: no other may differ by more
ROUNDS = 60  # in a batch; as many batches as it takes to tell
SEED = 5


class _DoorsTestCase(TestCase):
    """Doors to accounts in our own tables, on SQLite."""

    timeout = 120

    def setUp(self):
        directory = mkdtemp()
        self.addCleanup(FilePath(directory).remove)
        # Enough of a hash to be seen beside all the rest.
        self.hashing = PasswordHashing(memory_kib=4096, time_cost=1)
        self.accounts = open_accounts(realm=REALM, url=None, state_directory=Path(directory))
        self.addCleanup(self.accounts.close)
        for account in accounts(self.hashing):
            self.accounts.insert(account)
        self.threads = [Threads(reactor, name, size=2, waiting=10) for name in ("accounts", "passwords")]
        for threads in self.threads:
            self.addCleanup(threads.stop)

    async def door(self, *, warm=True):
        store = self.accounts.for_reactor(self.threads[0])
        door = Door(reactor, store, self.threads[1], self.hashing, cache_seconds=300.0 if warm else 0.0)
        if warm:
            await door.warm()
        return door


class WorkTests(_DoorsTestCase):
    async def work(self, door, way):
        """What is done for each cause."""
        done = Counter()

        def counted(what, function):
            def wrapped(*arguments, **options):
                done[what] += 1
                return function(*arguments, **options)

            return wrapped

        self.patch(self.hashing, "verify", counted("hashes", PasswordHashing().verify))
        self.patch(seal, "_opened", counted("fields opened", seal._opened))
        self.patch(VerifiedPasswords, "_tag", counted("tags", VerifiedPasswords._tag))
        self.patch(DigestCredential, "verify", counted("digests", DigestCredential.verify))
        self.patch(ScramCredential, "verify", counted("proofs", ScramCredential.verify))
        for threads in self.threads:
            self.patch(threads, "call", counted("calls of threads", threads.call))

        def executed(*_):
            done["statements"] += 1

        engine = self.accounts._database.engine
        event.listen(engine, "before_cursor_execute", executed)
        found = {}
        for cause in Cause:
            done.clear()
            await door.refuse(way, cause.names[0], cause.password)
            found[cause] = dict(done)
        event.remove(engine, "before_cursor_execute", executed)
        return found

    async def check(self, way, *, warm=True, **expected):
        named = {name.replace("_", " "): count for name, count in expected.items()}
        work = await self.work(await self.door(warm=warm), way)
        for cause in Cause:
            self.assertEqual(work[cause], named, cause)
        door = await self.door()
        plant(door, way)
        work = await self.work(door, way)
        self.assertNotEqual(work[Cause.WRONG], work[Cause.UNKNOWN])

    @proves("A5")
    async def test_passwords(self):
        for way in SLOW:
            for warm in (False, True):
                work = {"hashes": 1, "tags": 2, "fields_opened": 2, "calls_of_threads": 2, "statements": 1}
                await self.check(way, warm=warm, **work)

    @proves("A5")
    async def test_digest(self):
        await self.check(Way.DIGEST, digests=8, fields_opened=2, calls_of_threads=1, statements=1)

    @proves("A5")
    async def test_scram(self):
        await self.check(Way.CHALLENGE, fields_opened=2, calls_of_threads=1, statements=1)
        await self.check(Way.SCRAM, proofs=1, fields_opened=4, calls_of_threads=2, statements=2)


class ClockTests(_DoorsTestCase):
    """It fails where the clock tells; a machine too busy to tell by is no failure.

    The chance of a false alarm is that of an interval that misses: :data:`tests.equality.MISS`, some forty
    times.
    """

    async def verdict(self, door, way, batches, *causes):
        """What the clock tells of ``causes``, beside a wrong password."""
        turns = random.Random(SEED)
        times = {cause: [] for cause in (Cause.WRONG, *causes)}
        found = {Verdict.OPEN}
        for _ in range(batches):
            for cause, seconds in (await door.times(way, ROUNDS, turns, tuple(times))).items():
                times[cause] += seconds
            wrong = times[Cause.WRONG]
            differences = [difference(times[cause], wrong, quantile=0.25) for cause in causes]
            found = {each.verdict(SHARE * median(wrong)) for each in differences}
            if found != {Verdict.OPEN}:
                break
        return found

    async def check(self, way):
        door = await self.door()
        found = await self.verdict(door, way, 2, Cause.UNKNOWN, Cause.DISABLED, Cause.BARE)
        self.assertNotIn(Verdict.LEAK, found)
        plant(door, way, times=8)
        found = await self.verdict(door, way, 10, Cause.UNKNOWN)
        self.assertEqual(found, {Verdict.LEAK}, "the statistics do not find what was planted")

    @proves("A5")
    async def test_plain(self):
        await self.check(Way.PLAIN)

    @proves("A5")
    async def test_digest(self):
        await self.check(Way.DIGEST)

    @proves("A5")
    async def test_scram_challenge(self):
        await self.check(Way.CHALLENGE)

    @proves("A5")
    async def test_scram(self):
        await self.check(Way.SCRAM)


class StatisticsTests(SynchronousTestCase):
    """On samples whose truth is known, such as a busy machine gives: a tail of interruptions."""

    def setUp(self):
        self.random = random.Random(SEED)

    def samples(self, count, quickest=100.0):
        interruption = self.random.paretovariate
        return [quickest + self.random.expovariate(0.2) + interruption(1.1) for _ in range(count)]

    def pair(self, count, longer=0.0):
        return difference(self.samples(count, 100.0 + longer), self.samples(count))

    def test_even(self):
        self.assertIs(self.pair(1000).verdict(5.0), Verdict.EVEN)

    def test_leak(self):
        self.assertIs(self.pair(1000, longer=10.0).verdict(5.0), Verdict.LEAK)
        self.assertIs(self.pair(1000, longer=-10.0).verdict(5.0), Verdict.LEAK)

    def test_a_difference_within_the_bound_is_shown(self):
        found = self.pair(3000, longer=2.0)
        self.assertIs(found.verdict(5.0), Verdict.EVEN)
        self.assertTrue(found.shows)
        self.assertFalse(self.pair(3000).shows)

    def test_too_few_samples_tell_nothing(self):
        for longer in (0.0, 10.0):
            self.assertIs(self.pair(15, longer).verdict(5.0), Verdict.OPEN)

    def test_what_shows_among_the_quickest_alone(self):
        """A back end that is quicker for unknown names, but only where its own cache has them."""
        quicker = [self.random.choices((seconds, 80.0), (4, 1))[0] for seconds in self.samples(4000)]
        found = difference(quicker, self.samples(4000))
        self.assertFalse(found.median.beyond(5.0))
        self.assertIs(found.verdict(5.0), Verdict.LEAK)

    def test_intervals_miss_as_seldom_as_they_say(self):
        """Exactly known from tables: of 20 samples, the 6th and the 15th enclose the median in 95.9 %."""
        samples = [float(number) for number in range(1, 21)]
        found = difference(samples, [0.0] * 20, miss=0.05).median
        self.assertEqual((found.low, found.high), (6.0, 15.0))
        runs = [difference(self.samples(60), self.samples(60), quantile=0.25, miss=0.05) for _ in range(400)]
        for missed in (
            sum(run.median.excludes_zero for run in runs),
            sum(run.quick.excludes_zero for run in runs),
        ):
            self.assertLess(missed, 40)

    def test_samples_come_in_pairs(self):
        for one, other in (([], []), ([1.0], [1.0, 2.0])):
            with self.assertRaisesRegex(ValueError, "pairs"):
                difference(one, other)
