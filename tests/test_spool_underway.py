"""The file that names what is being delivered (D2)."""

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.underway import Underway, left_underway
from tests.requirements import proves


class UnderwayTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "underway"

    @proves("D2")
    def test_what_a_crash_leaves(self) -> None:
        """Whatever began and did not end is named, without the process having closed anything."""
        underway = Underway(self.path)
        self.addCleanup(underway.close)
        queue_ids = QueueIds()
        names = [queue_ids() for _ in range(50)]
        for name in names:
            underway.begin(name)
        for name in names[::3]:
            underway.end(name)
        left = sorted(set(names) - set(names[::3]))
        self.assertEqual(left_underway(self.path), tuple(left))
        underway.begin(names[0])
        self.assertEqual(left_underway(self.path), tuple(sorted([names[0], *left])))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.path.stat().st_size, 50 * 17, "free lines are used again")

    def test_an_id_that_is_none(self) -> None:
        """A damaged row may hold any: a delivery of it goes on, and ends."""
        underway = Underway(self.path)
        self.addCleanup(underway.close)
        underway.begin("\u20ac\ud800" * 20)
        underway.end("\u20ac\ud800" * 20)
        self.assertEqual(left_underway(self.path), ())

    @given(st.lists(st.integers(0, 9)))
    def test_any_order(self, numbers: list[int]) -> None:
        """Each number begins its message, or ends it where it has begun."""
        underway = Underway(self.path)
        active: set[str] = set()
        try:
            for number in numbers:
                name = f"{number:016}"
                if name in active:
                    underway.end(name)
                else:
                    underway.begin(name)
                active ^= {name}
                self.assertEqual(left_underway(self.path), tuple(sorted(active)))
        finally:
            underway.close()

    def test_a_file_that_cannot_be_written(self) -> None:
        """Deliveries go on; the log says it once, and again after it has worked."""
        underway = Underway(self.path)
        descriptor, underway._descriptor = underway._descriptor, os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, underway._descriptor)
        for name in ("0" * 16, "1" * 16):
            underway.begin(name)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        read_only, underway._descriptor = underway._descriptor, descriptor
        underway.begin("2" * 16)
        underway._descriptor = read_only
        underway.end("2" * 16)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        os.close(descriptor)

    def test_nothing_there(self) -> None:
        self.assertEqual(left_underway(self.path), ())

    def test_rubbish(self) -> None:
        """A file that is not ours names nothing that could not be a queue id."""
        self.path.write_bytes(b"\0\xff\n../../etc\n" + b"0" * 16 + b"\n\x1b[2J\n")
        self.assertEqual(left_underway(self.path), ("0" * 16,))

    def test_a_new_start_is_empty(self) -> None:
        first = Underway(self.path)
        first.begin("0" * 16)
        first.close()
        Underway(self.path).close()
        self.assertEqual(left_underway(self.path), ())
