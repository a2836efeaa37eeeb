import hashlib
import random
import sys
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool.rows import DueQuery, Stored
from digipoort_msa.spool.sealing import (
    CHUNK,
    HEADER,
    KeyMissing,
    Opener,
    Sealing,
    key_name,
    sealed_size,
)
from tests.requirements import proves
from tests.spooling import SpoolTestCase, envelope

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
QUEUE_ID = "co6o1r29g9kubhk7"
SEALED_CHUNK = CHUNK + 17


def octets(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def opened(sealing: Sealing, sealed: bytes, queue_id: str = QUEUE_ID) -> bytes:
    """All of it at once."""
    return sealing.opener(queue_id, sealing.name).open(sealed, last=True)


class SealingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sealing = Sealing(KEY)

    @settings(max_examples=60, deadline=None)
    @given(
        st.one_of(
            st.integers(0, 3 * CHUNK),
            st.builds(lambda chunks, by: max(0, chunks * CHUNK + by), st.integers(0, 3), st.integers(-2, 2)),
        ),
        st.lists(st.integers(0, 3 * CHUNK), max_size=6),
    )
    def test_what_is_sealed_opens_however_it_came(self, size: int, cuts: list[int]) -> None:
        content = octets(size)
        sealer = self.sealing.sealer(QUEUE_ID)
        ends = [0, *sorted(min(cut, size) for cut in cuts), size]
        pieces = [sealer.seal(content[a:b]) for a, b in pairwise(ends)]
        sealed = b"".join([*pieces, sealer.end()])
        self.assertEqual(len(sealed), sealed_size(size))
        self.assertEqual(opened(self.sealing, sealed), content)

    def test_the_format(self) -> None:
        """What the module's docstring says, read by nothing but libsodium."""
        for size in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5):
            sealed = self.sealing.sealed(QUEUE_ID, octets(size))
            state = bindings.crypto_secretstream_xchacha20poly1305_state()
            bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, sealed[:24], KEY)
            chunks = [sealed[at : at + SEALED_CHUNK] for at in range(24, len(sealed), SEALED_CHUNK)]
            read = [
                bindings.crypto_secretstream_xchacha20poly1305_pull(state, chunk, QUEUE_ID.encode())
                for chunk in chunks
            ]
            self.assertEqual(b"".join(content for content, _ in read), octets(size))
            self.assertEqual([tag for _, tag in read], [0] * (len(read) - 1) + [3])

    def test_nothing_shows(self) -> None:
        content = b"Subject: the secret\r\n" * 5000
        first, second = (self.sealing.sealed(QUEUE_ID, content) for _ in range(2))
        self.assertNotIn(b"secret", first)
        self.assertNotEqual(first, second)

    def test_memory_is_a_chunk(self) -> None:
        sealer = self.sealing.sealer(QUEUE_ID)
        for _ in range(40):
            sealer.seal(bytes(50_000))
            self.assertLessEqual(len(sealer._pending), CHUNK)


class KeyTests(SynchronousTestCase):
    def test_a_name_tells_keys_apart_and_nothing_more(self) -> None:
        self.assertEqual(key_name(KEY), "59b52b4f8337f2d7")  # rows bear it: it may never change
        self.assertNotEqual(key_name(KEY), key_name(OTHER))
        self.assertFalse(hashlib.sha256(KEY).hexdigest().startswith(key_name(KEY)))
        self.assertNotIn(key_name(KEY), KEY.hex())
        self.assertNotIn(str(KEY), repr(Sealing(KEY)))

    def test_rotation(self) -> None:
        """The new key seals; the former still opens what it has sealed."""
        old, new = Sealing(OTHER), Sealing(KEY, OTHER)
        sealed = old.sealed(QUEUE_ID, b"before")
        self.assertEqual(new.opener(QUEUE_ID, old.name).open(sealed, last=True), b"before")
        self.assertEqual(new.name, Sealing(KEY).name)
        self.assertEqual(opened(Sealing(KEY), new.sealed(QUEUE_ID, b"after")), b"after")

    def test_a_key_that_is_gone_is_named(self) -> None:
        with self.assertRaisesRegex(KeyMissing, key_name(OTHER)):
            Sealing(KEY).opener(QUEUE_ID, key_name(OTHER))

    def test_32_octets(self) -> None:
        for key in (b"", KEY[:31], KEY + b"x"):
            self.assertRaisesRegex(ValueError, "32 octets", Sealing, key)
            self.assertRaisesRegex(ValueError, "32 octets", Sealing, KEY, key)

    def test_without_the_library(self) -> None:
        with mock.patch.dict(sys.modules, {"nacl": None}):
            self.assertRaisesRegex(ValueError, r"digipoort-msa\[encryption\]", Sealing, KEY)


class AttackTests(SynchronousTestCase):
    """On three chunks, the last of them full."""

    def setUp(self) -> None:
        self.sealing = Sealing(KEY)
        self.sealed = self.sealing.sealed(QUEUE_ID, octets(3 * CHUNK))
        ends = [HEADER + number * SEALED_CHUNK for number in range(4)]
        self.header = self.sealed[:HEADER]
        self.chunks = [self.sealed[a:b] for a, b in pairwise(ends)]

    def assert_damaged(self, *parts: bytes, queue_id: str = QUEUE_ID) -> None:
        self.assertRaises(Damaged, opened, self.sealing, b"".join(parts), queue_id)

    def test_another_message_s(self) -> None:
        self.assert_damaged(self.sealed, queue_id="co6o1r29g9kubhk8")

    def test_another_key_s(self) -> None:
        with self.assertRaises(Damaged):
            Opener(bindings, OTHER, QUEUE_ID).open(self.sealed, last=True)

    def test_chunks_in_another_order(self) -> None:
        one, two, three = self.chunks
        for order in ((two, one, three), (one, three, two), (one, one, three), (one, two, two)):
            self.assert_damaged(self.header, *order)

    def test_chunks_left_out_or_added(self) -> None:
        one, two, three = self.chunks
        for parts in ((one, two), (one, three), (two, three), (three,), (one, two, three, three)):
            self.assert_damaged(self.header, *parts)

    def test_chunks_of_another_content_of_the_same_message(self) -> None:
        other = self.sealing.sealed(QUEUE_ID, octets(3 * CHUNK))
        self.assert_damaged(self.header, *self.chunks[:2], other[-SEALED_CHUNK:])
        self.assert_damaged(self.sealed, other)

    def test_an_end_that_comes_too_early_or_late(self) -> None:
        opener = self.sealing.opener(QUEUE_ID, self.sealing.name)
        self.assertRaises(Damaged, opener.open, self.sealed, last=False)
        opener = self.sealing.opener(QUEUE_ID, self.sealing.name)
        self.assertRaises(Damaged, opener.open, self.header + self.chunks[0], last=True)

    def test_cut_anywhere_in_a_small_one(self) -> None:
        sealed = self.sealing.sealed(QUEUE_ID, b"small")
        for length in range(len(sealed)):
            self.assert_damaged(sealed[:length])

    def test_every_bit_of_a_small_one(self) -> None:
        sealed = self.sealing.sealed(QUEUE_ID, b"small")
        for bit in range(len(sealed) * 8):
            altered = bytearray(sealed)
            altered[bit // 8] ^= 1 << bit % 8
            self.assert_damaged(bytes(altered))


@proves("D2", "M6")
class SealedSpoolTests(SpoolTestCase):
    """A spool with a key: in rows and in files, while it runs and after a restart."""

    SMALL = b"Subject: the secret\r\n\r\nof a row\r\n"
    BIG = b"Subject: the secret\r\n\r\n" + b"of a file\r\n" * 30_000

    def setUp(self) -> None:
        super().setUp()
        self.restart(Sealing(KEY))

    def restart(self, sealing: Sealing | None) -> None:
        self.stop(self.spool)
        self.spool = self.started(sealing=sealing)

    def contents(self) -> list[bytes]:
        """Of every message that is due."""
        due = self.result(self.spool.due(DueQuery(envelope().realm, 1e12, 10, frozenset())))
        return [self.read(stored) for stored in due.messages]

    def read(self, stored: Stored) -> bytes:
        reader = self.spool.content(stored).open()
        try:
            return b"".join(iter(lambda: self.result(reader.read()), b""))
        finally:
            reader.close()

    def test_nothing_is_on_the_disk_in_clear(self) -> None:
        for content in (self.SMALL, self.BIG):
            self.kept(content)
        self.assertEqual(self.contents(), [self.SMALL, self.BIG])
        files = [path for path in self.directory.rglob("*") if path.is_file()]
        self.assertGreaterEqual(len(files), 3)  # the database, its log, and one body
        for path in files:
            self.assertNotIn(b"secret", path.read_bytes(), path)
        self.assertEqual(self.rows("SELECT DISTINCT sealed_by FROM message"), [(key_name(KEY),)])
        self.assertEqual(
            self.rows("SELECT size FROM message ORDER BY size"), [(len(self.SMALL),), (len(self.BIG),)]
        )

    def test_a_message_that_has_just_arrived(self) -> None:
        arrived: list[Stored] = []
        self.spool.arrived = arrived.append
        for content in (self.SMALL, self.BIG):
            self.kept(content)
        self.assertEqual([self.read(stored) for stored in arrived], [self.SMALL, self.BIG])

    def test_after_a_restart_with_a_new_key(self) -> None:
        self.kept(self.SMALL)
        self.restart(Sealing(OTHER, KEY))
        self.kept(self.BIG)
        self.assertEqual(sorted(self.contents()), sorted([self.SMALL, self.BIG]))
        names = self.rows("SELECT sealed_by FROM message ORDER BY size")
        self.assertEqual(names, [(key_name(KEY),), (key_name(OTHER),)])

    def test_after_a_restart_without_the_key(self) -> None:
        for content in (self.SMALL, self.BIG):
            self.kept(content)
            for sealing in (None, Sealing(OTHER)):
                self.restart(sealing)
                self.assertRaisesRegex(KeyMissing, key_name(KEY), self.contents)
            self.restart(Sealing(KEY))
            self.assertIn(content, self.contents())

    def test_what_was_kept_in_clear_before(self) -> None:
        self.restart(None)
        for content in (self.SMALL, self.BIG):
            self.kept(content)
        self.restart(Sealing(KEY))
        self.assertEqual(self.contents(), [self.SMALL, self.BIG])

    def test_the_files_of_two_messages_exchanged(self) -> None:
        one, other = (self.directory / "bodies" / self.kept(self.BIG) for _ in range(2))
        one.rename(one.with_name("aside"))
        other.rename(one)
        one.with_name("aside").rename(other)
        self.assertRaises(Damaged, self.contents)
