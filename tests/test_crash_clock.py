"""A clock that jumps while messages come in, wait and are put off: none is lost or given up, none is tried
without end, and nothing stands still (D2, D3).

The server's clock is that of ``libfaketime``, which reads how far it is off from a file, once a second; its
monotonic clock is left alone, as in a machine whose clock is set.
"""

import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from time import monotonic, time

from tests.crashing import CLIENTS, FAULTS, CrashCase
from tests.installed import Programs, checkout
from tests.recorder import Recorder
from tests.requirements import proves

HOUR, DAY = 3600, 86400
#: Seconds; the first three while the hop refuses everything for now.
JUMPS = (DAY, -DAY, -HOUR, HOUR, -DAY, DAY)
DELAY = 5.0  # seconds between attempts


class ClockTests(CrashCase):
    @proves("D2", "D3")
    def test_jumps(self) -> None:
        """Messages would be given up after half a day, and after twelve attempts: no jump makes that true."""
        hop = Recorder()
        self.addCleanup(hop.close)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        self.clock = folder / "clock"
        self.offset = 0
        self.jump(0)
        queue = {"first-delay": DELAY, "delay-factor": 1.0, "jitter": 0.0, "give-up-after": 12 * HOUR}
        began = monotonic()
        self.serve(hop, {"queue": queue}, programs=self.fooled(checkout()), folder=folder)
        clients = self.clients(pause=0.5)
        hop.refusing = b"451 4.3.0 later"
        for jump in JUMPS[:3]:
            clients.await_more()
            enough = hop.refused + CLIENTS
            self.until(lambda enough=enough: hop.refused >= enough, "no attempts")
            self.jump(jump)
            self.until(self.jumped, "no jump")
        self.kill()
        clients.await_more()
        hop.refusing = None
        for jump in JUMPS[3:] * FAULTS:
            clients.await_more()
            self.jump(jump)
            self.until(self.jumped, "no jump")
        clients.await_more()
        self.reckon()
        attempts = Counter(re.findall(r" (\S+) for \S+ deferred by", "".join(self.logs)))
        self.assertGreater(len(attempts), 3 * CLIENTS)
        most = (monotonic() - began) / DELAY + len(JUMPS) * FAULTS + 2
        self.assertLess(max(attempts.values()), most, "tried without end")

    def fooled(self, programs: Programs) -> Programs:
        """The server, with a clock that can be set."""
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        clock = (
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={self.clock}",
            "FAKETIME_CACHE_DURATION=1",
        )
        real = ("FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1")
        return Programs(("env", *clock, *real, *programs.twistd), programs.msa, programs.directory)

    def jump(self, seconds: int) -> None:
        self.offset += seconds
        new = self.clock.with_suffix(".new")
        new.write_text(f"{self.offset:+d}\n")
        new.rename(self.clock)

    def jumped(self) -> bool:
        """Does the server log by the clock that was set last?  It looks at it once a second."""
        lines = self.server.log.read_text().splitlines()
        times = [line[:24] for line in lines[-20:] if re.match(r"\d{4}-", line)]
        if not times:
            return False
        shown = datetime.strptime(times[-1], "%Y-%m-%dT%H:%M:%S%z").timestamp()
        return abs(shown - time() - self.offset) < HOUR / 2
