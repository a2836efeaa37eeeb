"""The trace table is whole: every requirement has a test, and no test names one that does not exist."""

import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))

import trace_table


class TraceTableTests(SynchronousTestCase):
    def test_every_requirement_is_proven(self) -> None:
        proven = {identifier for identifier, _ in trace_table.proofs()}
        self.assertEqual(set(trace_table.requirements()) - proven, set())

    def test_no_test_names_an_unknown_requirement(self) -> None:
        unknown = [pair for pair in trace_table.proofs() if pair[0] not in trace_table.requirements()]
        self.assertEqual(unknown, [])

    def test_the_table_has_a_row_for_each(self) -> None:
        table = trace_table.table()
        for identifier in trace_table.requirements():
            self.assertIn(f"   * - {identifier}\n", table)
