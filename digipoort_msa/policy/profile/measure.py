"""Bodies, measured as they come by: how many octets they are when decoded, and whether they can be.

Nothing decoded is kept.  The octets of base64 follow from its characters, and those of quoted-printable from
its escapes: some passes of C over each segment.  What is wrong is told at the end alone, in one order, so
that it does not depend on where the octets were cut.
"""

from binascii import a2b_qp
from typing import Protocol

from attrs import define, field

from digipoort_msa.policy.profile.violation import Malformed

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SPACE = b" \t\r\n"


class Measure(Protocol):
    """One body."""

    eight_bit: bool  # some octet was above 127

    def take(self, octets: bytes) -> None:
        """The next octets of the body."""

    def finish(self) -> int:
        """The body is over.

        :return: its octets, decoded.
        :raise Malformed: it is not what its encoding says.
        """


@define
class Plain:
    """Not encoded: 7bit, 8bit and binary (RFC 2045 2.7 to 2.9)."""

    encoding: str
    eight_bit: bool = field(default=False, init=False)
    _size: int = field(default=0, init=False)
    _nul: bool = field(default=False, init=False)

    def take(self, octets: bytes) -> None:
        self._size += len(octets)
        self.eight_bit = self.eight_bit or not octets.isascii()
        self._nul = self._nul or b"\0" in octets

    def finish(self) -> int:
        if self.eight_bit and self.encoding == "7bit":
            raise Malformed("octets above 127 in 7bit")
        if self._nul and self.encoding != "binary":
            raise Malformed(f"a NUL in {self.encoding}")
        return self._size


@define
class Base64:
    """RFC 2045 6.8, without the characters that it has a reader skip: to one program they are nothing, to
    another the end.  White space may stand anywhere."""

    eight_bit: bool = field(default=False, init=False)
    _letters: int = field(default=0, init=False)
    _padding: int = field(default=0, init=False)
    _broken: bool = field(default=False, init=False)

    def take(self, octets: bytes) -> None:
        if self._broken:
            return
        others = octets.translate(None, _LETTERS)
        letters = len(octets) - len(others)
        self._letters += letters
        if self._padding:
            self._broken = bool(letters)
        padding = others.translate(None, _SPACE)
        if padding:
            behind = octets[octets.index(padding[:1]) :].translate(None, _SPACE)
            self._broken = self._broken or bool(behind.strip(b"="))
            self._padding += len(padding)

    def finish(self) -> int:
        if self._broken or self._padding > 2 or (self._letters + self._padding) % 4:
            raise Malformed("a body that is not base64")
        return self._letters * 3 // 4


@define
class QuotedPrintable:
    """RFC 2045 6.7.  White space at the end of a line counts, although it is none to a reader."""

    eight_bit: bool = field(default=False, init=False)
    _size: int = field(default=0, init=False)
    _nul: bool = field(default=False, init=False)
    _broken: bool = field(default=False, init=False)
    _held: bytes = field(default=b"", init=False)  # an escape that is not whole yet

    def take(self, octets: bytes) -> None:
        octets = self._held + octets
        cut = octets.find(b"=", max(0, len(octets) - 2))
        self._held = octets[cut:] if cut >= 0 else b""
        if cut >= 0:
            octets = octets[:cut]
        escapes, breaks = octets.count(b"="), octets.count(b"=\r\n")
        size = len(octets) - 2 * escapes - breaks
        # The decoder makes more of an escape that is none, and would skip what follows a CR or LF alone.
        self._broken = (
            self._broken or octets.count(b"=\r") != breaks or b"=\n" in octets or len(a2b_qp(octets)) != size
        )
        self._size += size
        self.eight_bit = self.eight_bit or not octets.isascii()
        self._nul = self._nul or b"\0" in octets

    def finish(self) -> int:
        # A soft line break may be the last of it: its line end is the boundary's then.
        if self._broken or self._held not in (b"", b"=") or self.eight_bit or self._nul:
            raise Malformed("a body that is not quoted-printable")
        return self._size


def measure(encoding: str) -> Measure:
    """:param encoding: one of :data:`~digipoort_msa.policy.profile.entity.ENCODINGS`."""
    if encoding == "base64":
        return Base64()
    if encoding == "quoted-printable":
        return QuotedPrintable()
    return Plain(encoding)
