"""A next hop that dies at every step of its dialogue, under load: nothing acknowledged is lost, and nothing
comes twice but what the log has named (D2)."""

import random

from tests.crashing import FAULTS, SEED, CrashCase, MortalHop
from tests.requirements import proves

#: So often does it die at each step.
DEATHS = 5 * FAULTS


class MortalHopTests(CrashCase):
    @proves("D2", "D3", "M6")
    def test_death_at_each_step(self) -> None:
        hop = MortalHop(random.Random(SEED), DEATHS)
        self.addCleanup(hop.close)
        self.serve(hop, {"relay": {"messages-per-connection": 5}})
        clients = self.clients()
        self.until(lambda: hop.behaves, hop.deaths)
        clients.await_more()
        arrived = self.reckon()
        twice = [queue_ids for queue_ids in arrived.values() if len(queue_ids) > 1]
        self.assertGreaterEqual(len(twice), 1, "no death came between the keeping and the reply")
