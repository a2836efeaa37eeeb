"""The wire of the milter protocol."""

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.policy.milter import packets
from digipoort_msa.policy.milter.packets import (
    END_OF_MESSAGE,
    LONGEST,
    STEPS,
    Answer,
    Kind,
    MilterError,
    Negotiated,
    Packet,
    PacketReader,
    answer,
    macros,
    negotiated,
    packet,
    strings,
)
from digipoort_msa.smtp.reply import Refused, Reply, passed_on
from tests.milter import agreed

PACKETS = st.builds(Packet, st.binary(min_size=1, max_size=1), st.binary(max_size=300))


def read(reader: PacketReader) -> list[Packet]:
    found = []
    while (one := reader.next_packet()) is not None:
        found.append(one)
    return found


class ReaderTests(SynchronousTestCase):
    SENT = (Packet(b"c", b""), Packet(b"y", b"550 5.7.1 no\0"), Packet(b"h", b"\0" * 300), Packet(b"a", b""))

    def test_cut_at_every_octet(self) -> None:
        octets = b"".join(packet(one.code, one.data) for one in self.SENT)
        for cut in range(len(octets) + 1):
            reader = PacketReader()
            reader.feed(octets[:cut])
            found = read(reader)
            reader.feed(octets[cut:])
            self.assertEqual((*found, *read(reader)), self.SENT, cut)

    @given(st.lists(PACKETS, max_size=8), st.lists(st.integers(0, 2_500), max_size=10))
    def test_cut_anywhere(self, sent: list[Packet], cuts: list[int]) -> None:
        octets = b"".join(packet(one.code, one.data) for one in sent)
        reader, found, last = PacketReader(), [], 0
        for cut in [*sorted(cuts), len(octets)]:
            reader.feed(octets[last:cut])
            last = max(last, cut)
            found += read(reader)
        self.assertEqual(found, sent)

    def test_lengths(self) -> None:
        for length in (0, LONGEST + 1, 0x485454, 2**32 - 1):
            reader = PacketReader()
            reader.feed(struct.pack("!L", length))
            with self.assertRaisesRegex(MilterError, "not the milter protocol"):
                reader.next_packet()
        reader = PacketReader()
        reader.feed(packet(b"b", bytes(LONGEST - 1)))
        self.assertEqual(read(reader), [Packet(b"b", bytes(LONGEST - 1))])

    @given(st.binary(max_size=600))
    def test_whatever_comes(self, octets: bytes) -> None:
        """There are packets, or one clear error; a packet is an answer or an error."""
        reader = PacketReader()
        reader.feed(octets)
        try:
            for one in read(reader):
                for understand in (answer, negotiated):
                    try:
                        understand(one)
                    except MilterError as error:
                        self.assertTrue(str(error).isprintable())
        except MilterError as error:
            self.assertTrue(str(error).isprintable())


class NegotiationTests(SynchronousTestCase):
    def test_offer(self) -> None:
        """As Postfix writes it but for the actions: to add and change header fields, and to quarantine; every
        step may be left out or unanswered, and no refused recipients are shown."""
        self.assertEqual(packets.NEGOTIATE, b"\0\0\0\rO" + struct.pack("!LLL", 6, 0x31, 0x1FFFFF & ~0x800))

    def of(self, octets: bytes) -> Negotiated:
        reader = PacketReader()
        reader.feed(octets)
        (one,) = read(reader)
        return negotiated(one)

    def test_each_step(self) -> None:
        for step in STEPS:
            everything = self.of(agreed())
            self.assertTrue(everything.wants(step) and everything.answers(step))
            if step is not END_OF_MESSAGE:
                self.assertFalse(self.of(agreed(step.unwanted)).wants(step))
                self.assertFalse(self.of(agreed(step.unanswered)).answers(step))
            for other in STEPS:
                if other is not step:
                    self.assertTrue(self.of(agreed(step.unwanted)).wants(other))
                    self.assertTrue(self.of(agreed(step.unanswered)).answers(other))

    def test_leading_space(self) -> None:
        self.assertFalse(self.of(agreed()).leading_space)
        self.assertTrue(self.of(agreed(1 << 20)).leading_space)

    def test_older_versions(self) -> None:
        old = self.of(agreed(version=2))
        self.assertFalse(old.wants(packets.DATA))
        self.assertTrue(old.wants(packets.MAIL))
        self.assertTrue(self.of(agreed(version=4)).wants(packets.DATA))

    def test_refused(self) -> None:
        for octets, words in {
            agreed(version=1): "version 1",
            agreed(version=7): "version 7",
            agreed(0x800): "not offered: 0x800",
            agreed(1 << 29): "not offered: 0x20000000",
            packet(b"c"): "no answer to the negotiation",
            packet(b"O", bytes(11)): "no answer to the negotiation",
            packet(b"O", bytes(16)): "no answer to the negotiation",
        }.items():
            with self.assertRaisesRegex(MilterError, words):
                self.of(octets)

    def test_claimed_actions_are_no_matter(self) -> None:
        """rspamd claims them all."""
        everything = packet(b"O", struct.pack("!LLL", 6, 0x1FF, 0xFF080))
        self.assertFalse(self.of(everything).answers(packets.BODY))


class AnswerTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        for code, kind in {
            b"c": Kind.CONTINUE,
            b"a": Kind.ACCEPT,
            b"r": Kind.REJECT,
            b"t": Kind.TEMPFAIL,
            b"4": Kind.TEMPFAIL,
            b"f": Kind.TEMPFAIL,
            b"d": Kind.DISCARD,
            b"s": Kind.SKIP,
            b"p": Kind.PROGRESS,
        }.items():
            self.assertEqual(answer(Packet(code, b"")), Answer(kind, code))
            with self.assertRaisesRegex(MilterError, "no answer"):
                answer(Packet(code, b"x"))
        for code, kind in {
            b"q": Kind.QUARANTINE,
            b"h": Kind.HEADERS,
            b"i": Kind.HEADERS,
            b"m": Kind.HEADERS,
            b"+": Kind.ALTER,
            b"2": Kind.ALTER,
            b"-": Kind.ALTER,
            b"e": Kind.ALTER,
            b"b": Kind.ALTER,
        }.items():
            self.assertEqual(answer(Packet(code, b"some\0thing\0")), Answer(kind, code))
        for code in (b"l", b"O", b"X", b"\0", b"\xff"):
            with self.assertRaisesRegex(MilterError, "no answer"):
                answer(Packet(code, b""))

    def words(self, text: bytes) -> Reply:
        reply = answer(Packet(b"y", text)).reply
        assert reply is not None
        return reply

    def test_words(self) -> None:
        self.assertEqual(self.words(b"550 5.7.1 A virus\0"), Reply(550, "5.7.1", ("A virus",)))
        self.assertEqual(self.words(b"451 Later"), Reply(451, None, ("Later",)))
        self.assertEqual(self.words(b"550 5.7.1 100%% sure\0").lines, ("100% sure",))
        lines = self.words(b"554-5.7.1 one\r\n554 5.7.1 two\0")
        self.assertEqual(lines, Reply(554, "5.7.1", ("one", "two")))

    def test_no_words_are_too_wild(self) -> None:
        """Controls and 8-bit octets are shown, never passed on."""
        said = self.words(b"550 5.7.1 \x1b[2J\xe9\0x\0")
        self.assertEqual(said.lines, ("\\x1b[2J\\xe9\\x00x",))
        long = passed_on(self.words(b"550 5.7.1 " + b"x" * 1_500), "The content filter")
        self.assertLess(len(long.octets), 512)
        self.assertEqual(
            str(passed_on(self.words(b"550\0"), "The content filter")),
            "550 5.0.0 The content filter gives no reason",
        )
        self.assertEqual(passed_on(self.words(b"421 4.3.2 Bye\0")).code, 451)

    def test_words_that_are_no_refusal(self) -> None:
        for text in (
            b"",
            b"\0",
            b"250 2.0.0 Ok\0",
            b"354 go on\0",
            b"55\0",
            b"550\n",
            b"550-5.7.1 one\0",
            b"550-one\r\n551 two\0",
            b"550 one\r\n550 two\0",
            b"550 one\r\n\0",
            b"550-one\n550 two\0",
            b"550 " + b"x" * 3_000,
            b"650 5.7.1 no\0",
        ):
            with self.assertRaises(MilterError, msg=text):
                answer(Packet(b"y", text))

    @given(st.binary(max_size=200))
    def test_any_words(self, text: bytes) -> None:
        try:
            reply = self.words(b"550" + text)
        except MilterError:
            return
        shown = passed_on(reply)
        self.assertTrue(shown.octets.replace(b"\r\n", b"").isascii())
        self.assertTrue(Refused(shown).reply.permanent)


class OutTests(SynchronousTestCase):
    def test_packets(self) -> None:
        self.assertEqual(packets.QUIT, b"\0\0\0\1Q")
        self.assertEqual(packets.ABORT, b"\0\0\0\1A")
        self.assertEqual(strings([b"<a>", b""]), b"<a>\0\0")
        self.assertEqual(macros(packets.MAIL, {}), b"")
        self.assertEqual(
            macros(packets.MAIL, {"i": "Q1", "{mail_addr}": "é"}),
            packet(b"D", b"Mi\0Q1\0{mail_addr}\0\xc3\xa9\0"),
        )

    def test_no_string_ends_early(self) -> None:
        with self.assertRaises(ValueError):
            strings([b"a\0b"])
