"""The wire of the milter protocol, version 6, from the MTA's end; octets in, values out, no I/O.

There is no standard: what stands here follows libmilter, Sendmail's own library, which nearly every milter is
linked to, and agrees with Postfix. ::

    packet = length code [data]        ; length: of code and data, 32 bits, big-endian; code: one octet
    dialogue = negotiation *( [macros] step [answer] )

A milter says in the negotiation which steps it does without, and which ones it does not answer
(:class:`Negotiated`); all other steps are answered one by one.

**The message is never altered** (M2), so most requests to change it are not offered.  An offer of nothing
at all would say the opposite: libmilter takes it for an MTA of the nineties and all that one did.  What is
offered besides is what a common configuration insists on, and what can be answered without harm: header
fields that a milter wants to add are left out, and a quarantine is a refusal.

A milter is not trusted.  What it may make us keep is bounded, and whatever breaks the rules ends the
dialogue: :class:`MilterError`.
"""

import struct
from collections.abc import Iterable, Mapping
from enum import Enum

from attrs import frozen

from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.reply_parser import ProtocolError, ReplyParser, printable

VERSION = 6
#: Octets of one packet of body.
CHUNK = 65_535
#: Octets of one packet of a milter's: a header field of 64 KiB, with its name, and more.
LONGEST = 131_072

_OLDEST = 2  # version of the protocol that is still in use
_DATA_SINCE = 4  # the version that has the step DATA
_NO_ANSWER_SINCE = 6

_ADD_HEADERS, _CHANGE_HEADERS, _QUARANTINE = 1 << 0, 1 << 4, 1 << 5
_ACTIONS = _ADD_HEADERS | _CHANGE_HEADERS | _QUARANTINE

_SKIP = 1 << 10  # a milter may have seen enough of what comes in parts
_LEADING_SPACE = 1 << 20  # the body of a header field begins right behind the colon
_NO_UNKNOWN, _NO_ANSWER_TO_UNKNOWN = 1 << 8, 1 << 17  # of commands that we never tell of


class MilterError(Exception):
    """A milter cannot be asked, or does not answer as it should; the text says how, printable."""


class MilterLost(MilterError):
    """The dialogue ended while nothing was asked: the client may have kept the milter waiting."""


@frozen
class Step:
    """One moment of a transaction that a milter is told of."""

    name: str
    code: bytes
    unwanted: int = 0  # with this bit, a milter does without it
    unanswered: int = 0  # with this bit, it does not answer


CONNECT = Step("the connection", b"C", 1 << 0, 1 << 12)
HELO = Step("EHLO", b"H", 1 << 1, 1 << 13)
MAIL = Step("MAIL", b"M", 1 << 2, 1 << 14)
RCPT = Step("RCPT", b"R", 1 << 3, 1 << 15)
DATA = Step("DATA", b"T", 1 << 9, 1 << 16)
HEADER = Step("a header field", b"L", 1 << 5, 1 << 7)
END_OF_HEADER = Step("the end of the header", b"N", 1 << 6, 1 << 18)
BODY = Step("a part of the body", b"B", 1 << 4, 1 << 19)
END_OF_MESSAGE = Step("the end of the message", b"E")
STEPS = (CONNECT, HELO, MAIL, RCPT, DATA, HEADER, END_OF_HEADER, BODY, END_OF_MESSAGE)

_PROTOCOL = _SKIP | _LEADING_SPACE | _NO_UNKNOWN | _NO_ANSWER_TO_UNKNOWN
_PROTOCOL |= sum(step.unwanted | step.unanswered for step in STEPS)  # no two have a bit in common


class Kind(Enum):
    """What an answer means."""

    CONTINUE = "go on"
    ACCEPT = "accept"
    REJECT = "reject"
    TEMPFAIL = "try again later"
    DISCARD = "discard"
    SAYS = "refuse in these words"
    SKIP = "no more of these"
    PROGRESS = "still at work"
    QUARANTINE = "quarantine"
    HEADERS = "change the header"  # by adding to it, or in what annotates the message
    ALTER = "change the message"  # or its envelope


_KINDS = {
    b"c": Kind.CONTINUE,
    b"a": Kind.ACCEPT,
    b"r": Kind.REJECT,
    b"t": Kind.TEMPFAIL,
    b"4": Kind.TEMPFAIL,  # 421 to the client; the connection is ours to close, not the milter's
    b"f": Kind.TEMPFAIL,  # "connection failure", likewise
    b"d": Kind.DISCARD,
    b"y": Kind.SAYS,
    b"s": Kind.SKIP,
    b"p": Kind.PROGRESS,
    b"q": Kind.QUARANTINE,
    b"h": Kind.HEADERS,  # add
    b"i": Kind.HEADERS,  # insert
    b"m": Kind.HEADERS,  # change or remove
    b"+": Kind.ALTER,  # add a recipient
    b"2": Kind.ALTER,  # the same with parameters
    b"-": Kind.ALTER,  # remove a recipient
    b"e": Kind.ALTER,  # change the sender
    b"b": Kind.ALTER,  # replace the body
}
#: Answers that bear something, and need not be empty.
_BEARING = frozenset({Kind.SAYS, Kind.QUARANTINE, Kind.HEADERS, Kind.ALTER})
#: What is said only of a whole message.
AT_THE_END = frozenset({Kind.PROGRESS, Kind.QUARANTINE, Kind.HEADERS, Kind.ALTER})


@frozen
class Packet:
    """One packet of a milter's."""

    code: bytes
    data: bytes


class PacketReader:
    """Feed it what arrives, then take packets until there is none.  It holds what was fed last and
    :data:`LONGEST` octets besides."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def feed(self, octets: bytes) -> None:
        self._octets += octets

    def next_packet(self) -> Packet | None:
        """
        :raise MilterError: what arrived is no packet; nothing behind it can be understood.
        """
        if len(self._octets) < 4:
            return None
        length = int.from_bytes(self._octets[:4], "big")
        if not 1 <= length <= LONGEST:
            raise MilterError(f"it sent a packet of {length} octets: this is not the milter protocol")
        if len(self._octets) < 4 + length:
            return None
        packet = Packet(bytes(self._octets[4:5]), bytes(self._octets[5 : 4 + length]))
        del self._octets[: 4 + length]
        return packet


@frozen
class Negotiated:
    """What a milter wants to be told, and what it will answer."""

    version: int = VERSION
    protocol: int = 0

    def wants(self, step: Step) -> bool:
        if step is DATA and self.version < _DATA_SINCE:
            return False
        return not self.protocol & step.unwanted

    def answers(self, step: Step) -> bool:
        """The end of the message is always answered."""
        return self.version < _NO_ANSWER_SINCE or not self.protocol & step.unanswered

    @property
    def leading_space(self) -> bool:
        """Is the space behind a header field's colon part of its body?"""
        return bool(self.protocol & _LEADING_SPACE)


def negotiated(packet: Packet) -> Negotiated:
    """A milter's part of the negotiation.

    What it says of actions is no matter: some claim them all.  It counts what they ask for in the end.

    :raise MilterError: it wants something else than was offered.
    """
    if packet.code != b"O" or len(packet.data) != 12:
        raise MilterError(f"{_shown(packet)} is no answer to the negotiation")
    version, _, protocol = struct.unpack("!LLL", packet.data)
    if not _OLDEST <= version <= VERSION:
        raise MilterError(f"it speaks version {version} of the protocol, not {_OLDEST} to {VERSION}")
    if protocol & ~_PROTOCOL:
        raise MilterError(f"it wants what was not offered: {protocol & ~_PROTOCOL:#x}")
    return Negotiated(version, protocol)


@frozen
class Answer:
    """What a milter said to a step."""

    kind: Kind
    code: bytes = b""
    reply: Reply | None = None  # of SAYS: 4yz or 5yz, its lines as a peer's: printable ASCII


def answer(packet: Packet) -> Answer:
    """
    :raise MilterError: it is not one.
    """
    kind = _KINDS.get(packet.code)
    if kind is None or (packet.data and kind not in _BEARING):
        raise MilterError(f"{_shown(packet)} is no answer")
    return Answer(kind, packet.code, _reply(packet) if kind is Kind.SAYS else None)


def _reply(packet: Packet) -> Reply:
    """The reply that a milter words: SMTP's, with a NUL in place of the last line's end, and a percent sign
    doubled."""
    text = packet.data.removesuffix(b"\0").replace(b"%%", b"%")
    parser = ReplyParser()
    parser.feed(text + b"\r\n")
    try:
        reply = parser.next_reply()
    except ProtocolError as error:
        raise MilterError(f"its words are no reply: {error}") from None
    if reply is None or parser.pending or reply.positive:
        raise MilterError(f"{_shown(packet)} is not one refusal")
    return reply


def _shown(packet: Packet) -> str:
    return f'"{printable(packet.code + packet.data[:60])}"'


# -- packets out ------------------------------------------------------------------------------------


def packet(code: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!L", 1 + len(data)) + code + data


def strings(values: Iterable[bytes]) -> bytes:
    """Data that is strings, each with a NUL behind it.

    :raise ValueError: there is one inside.
    """
    ended = []
    for value in values:
        if b"\0" in value:
            raise ValueError("a string of the milter protocol cannot hold a NUL")
        ended.append(value + b"\0")
    return b"".join(ended)


def macros(step: Step, values: Mapping[str, str]) -> bytes:
    """What a milter may look up at a step, by Sendmail's names; nothing where there is nothing."""
    if not values:
        return b""
    named = (part.encode() for pair in values.items() for part in pair)
    return packet(b"D", step.code + strings(named))


NEGOTIATE = packet(b"O", struct.pack("!LLL", VERSION, _ACTIONS, _PROTOCOL))
ABORT = packet(b"A")  # forget this message
QUIT = packet(b"Q")
