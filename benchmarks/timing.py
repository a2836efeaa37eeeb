"""Does the time of a refusal tell why it was one?  Every store, every mechanism, every reason (A5).

    python -m benchmarks.timing [--quick] [--only STORE] [--memory-kib 64]

For each way to log in, refusals of an unknown name, of a disabled account with the right password, and of an
account that keeps nothing for the mechanism are compared with that of a wrong password, in turns without
order.  The clock is the server's own (:mod:`tests.login_timing`), the statistics are those of
:mod:`tests.equality`, and what a difference is worth is said beforehand: see :data:`BOUND` and the others.

Each way is measured once more with a mistake: in our own tables one that is planted, in other stores refusals
that are given as soon as they are known.  If the planted one is not found, or any of ours is, the command
fails.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner

from benchmarks.timed_stores import STORES, Place, Stocked
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.log_lines import Lines
from digipoort_msa.threads import Threads
from tests.equality import Difference, Interval, Verdict, difference
from tests.login_timing import SLOW, Cause, Door, Way, plant

#: Seconds.  A client has a hundred failures with one name in a quarter of an hour, from wherever it comes
#: (``login-failures-per-account``); on a path whose delay varies by half a millisecond, the median of so many
#: is known to 60 microseconds.
BOUND = 50e-6
#: Where a password is hashed: two hashes of the same cost differ by more.
BOUND_OF_HASHES = 1e-3
#: Where refusals are given at a fixed time, which the reactor keeps to a millisecond (epoll's).
BOUND_OF_LEVELLED = 0.5e-3

# Seconds; the default, 0.5, would only make the benchmark longer.  It has to be more than a refusal takes.
_REFUSAL_TIME = 0.02
_REFUSAL_TIME_OF_HASHES = 0.12
_CHEAP = 1024  # KiB: a hash of less hides nothing, and has to meet the bound of everything else
_SEED = 20261122


@frozen
class Plan:
    """How many rounds."""

    cheap: int = 2000
    hashed: int = 200


QUICK = Plan(cheap=300, hashed=100)


class Measurement:
    """All there is to measure of one store."""

    def __init__(
        self,
        reactor: Any,
        plan: Plan,
        name: str,
        stocked: Stocked,
        passwords: Threads,
        hashing: PasswordHashing,
        *,
        cheap: bool,
    ) -> None:
        """:param cheap: a hash costs next to nothing."""
        self._reactor = reactor
        self._plan = plan
        self._name = name
        self._stocked = stocked
        self._passwords = passwords
        self._hashing = hashing
        self._cheap = cheap
        self._turns = Random(_SEED)
        self.defects: list[str] = []

    async def run(self) -> None:
        self._even = self._door(Way.PLAIN).guarded.is_even
        for way in Way:
            # LOGIN is PLAIN in another order, which one store shows as well as all would.
            if self._door(way).offers(way) and (self._even or way is not Way.LOGIN):
                await self._run(way)

    async def _run(self, way: Way) -> None:
        title = f"{self._name}, {way.value}"
        for warm in (False, True) if way is Way.PLAIN and self._even else (True,):
            door = self._door(way, warm=warm)
            if warm and way in SLOW:
                await door.warm()
            found = await self._compare(door, way, title + ("" if warm else ", cold cache"))
            self.defects += [
                f"{title}: {cause.value}" for cause, verdict in found.items() if verdict is Verdict.LEAK
            ]
        if self._even:
            door = self._door(way)
            plant(door, way)
            found = await self._compare(door, way, f"{title}, with a mistake planted")
            if found[Cause.UNKNOWN] is not Verdict.LEAK:
                self.defects.append(f"{title}: what was planted is not found")
        else:
            await self._compare(self._door(way, levelled=False), way, f"{title}, were it not levelled")

    def _door(self, way: Way, *, warm: bool = True, levelled: bool = True) -> Door:
        refusal_time = _REFUSAL_TIME_OF_HASHES if way in SLOW else _REFUSAL_TIME
        return Door(
            self._reactor,
            self._stocked.store,
            self._passwords,
            self._hashing,
            cache_seconds=1e6 if warm else 0.0,
            refusal_time=refusal_time if levelled else 0.0,
        )

    async def _compare(self, door: Door, way: Way, title: str) -> dict[Cause, Verdict]:
        slow = way in SLOW and not self._cheap
        rounds = self._plan.hashed if slow or not self._even else self._plan.cheap
        bound = BOUND_OF_LEVELLED if not self._even else BOUND_OF_HASHES if slow else BOUND
        times = await door.times(way, rounds, self._turns, self._stocked.causes)
        wrong = times.pop(Cause.WRONG)
        print(f"{title}: {_ms(median(wrong))} ms, {rounds} times; bound {bound * 1e6:.0f}", flush=True)
        verdicts = {}
        for cause, seconds in times.items():
            found = difference(seconds, wrong)
            verdicts[cause] = found.verdict(bound)
            print(f"    {cause.value:42}{_us(found.median)}{_us(found.quick)}  {_told(found, bound)}")
        return verdicts


def _told(found: Difference, bound: float) -> str:
    verdict = found.verdict(bound)
    return "open, but it shows" if verdict is Verdict.OPEN and found.shows else verdict.value


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _us(interval: Interval) -> str:
    low, high = interval.low * 1e6, interval.high * 1e6
    return f"{interval.estimate * 1e6:9.1f} {f'[{low:.1f}, {high:.1f}]':>20}"


async def measure(reactor: Any, options: argparse.Namespace) -> None:
    began = monotonic()
    plan = QUICK if options.quick else Plan()
    hashing = PasswordHashing(memory_kib=options.memory_kib)
    lookups, passwords = (Threads(reactor, name, size=2, waiting=100) for name in ("accounts", "passwords"))
    defects = []
    print(f"{'microseconds more than a wrong password:':46}{'median':>9}{'':21}{'quickest tenth':>9}")
    for threads in (lookups, passwords):
        reactor.addSystemEventTrigger("during", "shutdown", threads.stop)  # on SIGTERM as well
    for name, stock in STORES.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="msa-timing-") as folder:
            stocked = stock(Place(reactor, Path(folder), lookups, hashing))
            try:
                cheap = options.memory_kib < _CHEAP
                measurement = Measurement(reactor, plan, name, stocked, passwords, hashing, cheap=cheap)
                await measurement.run()
                defects += measurement.defects
            finally:
                await maybeDeferred(stocked.stop)
    print(f"{monotonic() - began:.0f} seconds")
    if defects:
        raise SystemExit("\n".join(defects))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timing")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, so that intervals are wider")
    parser.add_argument("--only", default="", help="only the stores whose name holds this text")
    parser.add_argument(
        "--memory-kib",
        type=int,
        default=19_456,
        help="of a password's hash: with little, what is around the hash is seen sharper",
    )
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as the service has it
    with open("/dev/null", "w", encoding="utf-8") as nowhere:  # it costs what it costs
        globalLogBeginner.beginLoggingTo([Lines(nowhere, journal=True)], redirectStandardIO=False)
        react(lambda reactor: Deferred.fromCoroutine(measure(reactor, options)))


if __name__ == "__main__":
    main()
