import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.interfaces import Damaged, IContent, IContentReader
from digipoort_msa.spool.bodies import Bodies, BodyFile
from digipoort_msa.spool.content import SEGMENT, Content, begin_reading, check, content_of, in_row
from digipoort_msa.spool.rows import Stored
from digipoort_msa.spool.sealing import CHUNK, KeyMissing, Sealing, key_name, sealed_size
from tests.requirements import proves
from tests.spooling import envelope

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
SEALINGS = (None, Sealing(KEY))
QUEUE_ID = "0000000000000001"

#: Around every boundary, and between.
SIZES = st.one_of(
    st.integers(1, 3 * SEGMENT),
    st.builds(
        lambda segments, chunks, by: max(1, segments * SEGMENT + chunks * CHUNK + by),
        st.integers(0, 2),
        st.integers(0, 3),
        st.integers(-2, 2),
    ),
)


def octets_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def at_once(function: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
    return succeed(None).addCallback(lambda _: function(*arguments))


class ContentTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bodies = Bodies(Path(folder.name))
        self.path = self.bodies.path(QUEUE_ID)

    def in_file(self, octets: bytes, sealing: Sealing | None, cuts: list[int] | None = None) -> Stored:
        self.path.unlink(missing_ok=True)
        file = BodyFile(self.bodies, QUEUE_ID, sealing and sealing.sealer(QUEUE_ID))
        ends = [0, *sorted(min(cut, len(octets)) for cut in cuts or []), len(octets)]
        for start, end in pairwise(ends):
            file.write(octets[start:end])
        return self.stored(octets, None, file.keep(), sealing and sealing.name)

    def in_row(self, octets: bytes, sealing: Sealing | None) -> Stored:
        row = in_row(QUEUE_ID, octets, sealing)
        return self.stored(octets, row.octets, row.digest, row.sealed_by)

    def stored(self, octets: bytes, row: bytes | None, digest: bytes, sealed_by: str | None) -> Stored:
        size = len(octets)
        return Stored(envelope(QUEUE_ID), size, True, row, 0.0, digest=digest, sealed_by=sealed_by)

    def each(self, octets: bytes, cuts: list[int] | None = None) -> Iterator[tuple[Stored, Sealing | None]]:
        """In a row and in a file, in clear and sealed."""
        for sealing in SEALINGS:
            yield self.in_row(octets, sealing), sealing
            yield self.in_file(octets, sealing, cuts), sealing

    def content(self, stored: Stored, sealing: Sealing | None = SEALINGS[1]) -> Content:
        return content_of(stored, self.bodies, sealing, at_once)

    def read(self, reader: Any) -> list[bytes]:
        return list(iter(lambda: self.successResultOf(reader.read()), b""))

    def assert_damaged(self, stored: Stored, message: str = "", error: type[Exception] = Damaged) -> None:
        """No reading gives out the last segment, not even one that goes on after the failure."""
        reader = self.content(stored).open()
        given_out = 0
        for _ in range(10):
            found: list[Any] = []
            reader.read().addBoth(found.append)
            if not isinstance(found[0], bytes):
                break
            given_out += len(found[0])
            self.assertNotEqual(b"", found[0])
        self.assertIsInstance(found[0].value, error)
        self.assertIn(message, str(found[0].value))
        self.assertLess(given_out, max(1, stored.size))
        self.failureResultOf(reader.read(), Damaged)
        reader.close()

    def alter(self, stored: Stored, change: Callable[[bytes], bytes]) -> Stored:
        """Change what is stored."""
        if stored.octets is not None:
            return evolve(stored, octets=change(stored.octets))
        self.path.write_bytes(change(self.path.read_bytes()))
        return stored

    def length(self, stored: Stored) -> int:
        return self.path.stat().st_size if stored.octets is None else len(stored.octets)


class ContentTests(ContentTestCase):
    @settings(max_examples=40, deadline=None)
    @given(SIZES, st.lists(st.integers(0, 3 * SEGMENT), max_size=5))
    def test_what_was_written_is_read(self, size: int, cuts: list[int]) -> None:
        """In segments, as often as needed, whatever the splits of the writes."""
        octets = octets_of(size)
        for stored, sealing in self.each(octets, cuts):
            content = self.content(stored, sealing)
            verifyObject(IContent, content)
            verifyObject(IContentReader, content.open())
            self.assertEqual((size, True), (content.size, content.eight_bit))
            for reader in (content.open(), content.open()):
                segments = self.read(reader)
                self.assertEqual(octets, b"".join(segments))
                self.assertLessEqual(max(map(len, segments)), SEGMENT)
                self.assertEqual(b"", self.successResultOf(reader.read()))
                reader.close()
                reader.close()
            check(stored, self.bodies)

    def test_an_empty_content(self) -> None:
        for sealing in SEALINGS:
            stored = self.in_row(b"", sealing)
            self.assertEqual([], self.read(self.content(stored).open()))
            check(stored, self.bodies)
        self.assertRaises(Damaged, check, self.alter(stored, lambda octets: octets[:-1]), self.bodies)

    def test_a_tool_reads_without_a_reactor(self) -> None:
        for stored, sealing in self.each(octets_of(SEGMENT + 1)):
            reading = begin_reading(stored, self.bodies, sealing)
            self.assertEqual([SEGMENT, 1, 0], [len(reading.segment()) for _ in range(3)])
            reading.close()

    def test_closing_during_a_read_closes_after_it(self) -> None:
        waiting: Deferred = Deferred()
        functions: list[Callable[[], bytes]] = []
        stored = self.in_file(octets_of(SEGMENT + 1), None)

        def later(function: Callable[[], bytes]) -> Deferred:
            functions.append(function)
            return waiting

        reader = content_of(stored, self.bodies, None, later).open()
        segment = reader.read()
        self.failureResultOf(reader.read(), ValueError)
        octets = functions[0]()
        file = reader._reading._file
        reader.close()
        self.assertFalse(file.closed)
        waiting.callback(octets)
        self.assertEqual(SEGMENT, len(self.successResultOf(segment)))
        self.assertTrue(file.closed)
        self.failureResultOf(reader.read(), ValueError)

    def test_a_read_that_is_cancelled_while_a_thread_is_at_it(self) -> None:
        """A hop that closes its connection does this.  To close the file under the thread would have it read
        from whatever is opened next under the same number."""
        waiting: Deferred = Deferred()
        functions: list[Callable[[], bytes]] = []

        def later(function: Callable[[], bytes]) -> Deferred:
            functions.append(function)
            return waiting

        reader = content_of(self.in_file(b"x", None), self.bodies, None, later).open()
        segment = reader.read()
        segment.cancel()
        self.failureResultOf(segment, CancelledError)
        reader.close()
        octets = functions[0]()
        file = reader._reading._file
        self.assertFalse(file.closed)
        waiting.callback(octets)
        self.assertTrue(file.closed)

    def test_50_mib_take_a_few_segments_of_memory(self) -> None:
        block = random.Random(1).randbytes(SEGMENT)

        def memory(key: str) -> int:
            found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
            assert found is not None
            return int(found[1])

        for sealing in SEALINGS:
            for times in (4, 200):  # what the first few segments take is no growth
                Path("/proc/self/clear_refs").write_text("5")
                before = memory("VmRSS")
                file = BodyFile(self.bodies, QUEUE_ID, sealing and sealing.sealer(QUEUE_ID))
                for _ in range(times):
                    file.write(block)
                digest = file.keep()
                size = times * SEGMENT
                stored = Stored(
                    envelope(QUEUE_ID),
                    size,
                    True,
                    None,
                    0.0,
                    digest=digest,
                    sealed_by=sealing and sealing.name,
                )
                reader = self.content(stored).open()
                read = sum(map(len, iter(lambda reader=reader: self.successResultOf(reader.read()), b"")))
                reader.close()
                self.assertEqual(size, read)
            self.assertLess(memory("VmHWM") - before, 8 * 1024)


class DamageTests(ContentTestCase):
    @proves("D2")
    @settings(max_examples=40, deadline=None)
    @given(SIZES, st.floats(0, 1, exclude_max=True), st.integers(0, 7))
    def test_one_bit(self, size: int, where: float, bit: int) -> None:
        for stored, _ in self.each(octets_of(size)):
            position = int(where * self.length(stored))

            def flip(octets: bytes, position: int = position) -> bytes:
                return octets[:position] + bytes([octets[position] ^ 1 << bit]) + octets[position + 1 :]

            altered = self.alter(stored, flip)
            self.assert_damaged(altered)
            self.assertRaises(Damaged, check, altered, self.bodies)

    @proves("D2")
    @settings(max_examples=40, deadline=None)
    @given(SIZES, st.floats(0, 1, exclude_max=True))
    def test_cut_short(self, size: int, where: float) -> None:
        for stored, _ in self.each(octets_of(size)):
            altered = self.alter(stored, lambda octets: octets[: int(where * len(octets))])
            self.assert_damaged(altered, "octets where")
            self.assertRaises(Damaged, check, altered, self.bodies)

    def test_longer(self) -> None:
        for size in (10, CHUNK, SEGMENT, SEGMENT + 1):
            for stored, _ in self.each(octets_of(size)):
                for more in (b"x", bytes(CHUNK + 17), octets_of(size)):
                    self.assert_damaged(
                        self.alter(stored, lambda octets, more=more: octets + more), "octets where"
                    )

    def test_cut_short_while_it_is_read(self) -> None:
        for sealing in SEALINGS:
            stored = self.in_file(octets_of(3 * SEGMENT), sealing)
            reader = self.content(stored).open()
            self.successResultOf(reader.read())
            os.truncate(self.path, SEGMENT + 1000)
            self.failureResultOf(reader.read(), Damaged)
            reader.close()

    def test_altered_while_it_is_read(self) -> None:
        for sealing in SEALINGS:
            stored = self.in_file(octets_of(2 * SEGMENT), sealing)
            reader = self.content(stored).open()
            self.successResultOf(reader.read())
            self.alter(stored, lambda octets: octets[:-1] + bytes([octets[-1] ^ 1]))
            self.failureResultOf(reader.read(), Damaged)
            reader.close()

    def test_the_row_is_what_was_altered(self) -> None:
        for size in (10, SEGMENT + 1):
            for stored, _ in self.each(octets_of(size)):
                for altered in (
                    evolve(stored, size=size - 1),
                    evolve(stored, size=size + CHUNK),
                    evolve(stored, size=0),
                    evolve(stored, size=-1),
                    evolve(stored, digest=bytes(32)),
                    evolve(stored, digest=b""),
                    evolve(stored, sealed_by=key_name(KEY) if stored.sealed_by is None else None),
                ):
                    self.assert_damaged(altered)

    def test_a_size_that_makes_a_sealed_content_nothing(self) -> None:
        stored = evolve(self.in_row(b"content", SEALINGS[1]), octets=b"", size=-41)
        self.assertEqual(sealed_size(stored.size), 0)
        self.failureResultOf(self.content(stored).open().read(), Damaged)

    def test_a_row_of_other_types(self) -> None:
        """A damaged database may give anything."""
        for stored, _ in self.each(b"content"):
            for fields in (
                {"size": "7"},
                {"size": 7.0},
                {"size": None},
                {"size": 10**30},
                {"octets": "content"},
                {"octets": 7},
                {"digest": "7"},
                {"digest": 7},
                {"sealed_by": 7},
                {"sealed_by": ""},
                {"sealed_by": b"\xff"},
            ):
                altered = evolve(stored, **fields)
                self.failureResultOf(self.content(altered).open().read(), Damaged)

    def test_another_message_s_file(self) -> None:
        """Whose digest somebody has put into the row besides."""
        sealing = Sealing(KEY)
        other = in_row("0000000000000002", octets_of(100), sealing)
        stored = self.in_row(octets_of(100), sealing)
        self.assert_damaged(evolve(stored, octets=other.octets, digest=other.digest), "another message's")

    @proves("D2")
    def test_what_is_in_the_file_s_place(self) -> None:
        stored = self.in_file(b"content", None)
        self.path.rename(self.path.with_name("elsewhere"))
        self.assert_damaged(stored, "missing")
        self.path.symlink_to("elsewhere")
        self.assert_damaged(stored, "missing")
        self.path.unlink()
        self.path.mkdir()
        self.assert_damaged(stored, "not a file")
        self.path.rmdir()
        os.mkfifo(self.path)
        self.assert_damaged(stored, "not a file")

    def test_the_first_version_s_have_their_size_alone(self) -> None:
        for stored in (self.in_row(b"content", None), self.in_file(b"content", None)):
            old = evolve(stored, digest=None)
            self.assertEqual([b"content"], self.read(self.content(old).open()))
            self.assert_damaged(self.alter(old, lambda octets: octets[:-1]))

    def test_a_file_is_let_go_of(self) -> None:
        before = os.listdir("/proc/self/fd")
        stored = self.in_file(octets_of(SEGMENT + 1), Sealing(KEY))
        self.assert_damaged(evolve(stored, digest=bytes(32)))
        self.assert_damaged(evolve(stored, size=5))
        self.assertRaises(Damaged, check, evolve(stored, digest=bytes(32)), self.bodies)
        self.assertEqual(before, os.listdir("/proc/self/fd"))


class KeyTests(ContentTestCase):
    def test_a_key_that_is_not_configured_is_named(self) -> None:
        """Without any key, and with others; whether it is damaged can be told all the same."""
        for stored in (self.in_row(b"content", Sealing(OTHER)), self.in_file(b"content", Sealing(OTHER))):
            for sealing in SEALINGS:
                reader = content_of(stored, self.bodies, sealing, at_once).open()
                failure = self.failureResultOf(reader.read(), KeyMissing)
                self.assertIn(key_name(OTHER), str(failure.value))
                reader.close()
            check(stored, self.bodies)

    def test_what_is_in_clear_is_read_with_a_key_configured(self) -> None:
        for stored in (self.in_row(b"content", None), self.in_file(b"content", None)):
            self.assertEqual([b"content"], self.read(self.content(stored, Sealing(KEY)).open()))

    def test_a_former_key(self) -> None:
        for stored in (self.in_row(b"content", Sealing(OTHER)), self.in_file(b"content", Sealing(OTHER))):
            self.assertEqual([b"content"], self.read(self.content(stored, Sealing(KEY, OTHER)).open()))
