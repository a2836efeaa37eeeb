"""What a client has sent and nobody has acted upon yet: lines and pieces of content come out of it.

A line ends with CRLF and nothing else; one that ends with LF alone is said to, one that is too long is read
past in bounded memory, and not for ever.
"""

from enum import Enum

from attrs import define, field, frozen

#: Octets of a command or SASL line without its CRLF.  RFC 4954 4 asks for 12,288 in an AUTH exchange;
#: the rest is room for the verb.  It is far above what MAIL and RCPT need with all their parameters.
MAX_LINE = 12_288 + 32
#: Octets of an over-long line that are read past before it counts as endless.
_MAX_OVERLONG = 1 << 20
#: Octets of an over-long line that are kept: enough to tell what verb it was.
_KEPT = 4


class Fault(Enum):
    """What is wrong with a line as a line."""

    BARE_LF = "a line that ends with LF alone"
    TOO_LONG = "a line that is too long"
    ENDLESS = "a line without end"


@frozen
class Line:
    """A line without its CRLF; of a faulty one, some of its first octets."""

    octets: bytes
    fault: Fault | None = None


@define(eq=False)
class Input:
    """The octets received and not yet acted upon."""

    _octets: bytes = field(default=b"", init=False)
    _read: int = field(default=0, init=False)  # of them, done with
    _skip: int = field(default=0, init=False)  # still to be read past
    _overlong: int = field(default=0, init=False)  # of an over-long line, read past so far

    def __len__(self) -> int:
        return len(self._octets) - self._read

    def receive(self, octets: bytes) -> None:
        self._octets = self._octets[self._read :] + octets
        self._read = 0

    def clear(self) -> None:
        self._octets, self._read, self._skip, self._overlong = b"", 0, 0, 0

    def compact(self) -> None:
        """Let go of what is done with: an idle session keeps nothing."""
        if self._read:
            self._octets, self._read = self._octets[self._read :], 0

    def startswith(self, prefix: bytes) -> bool:
        return self._octets.startswith(prefix, self._read)

    @property
    def skipping(self) -> bool:
        return self._skip > 0

    def skip(self, octets: int) -> None:
        """Read past ``octets`` more before the next line."""
        self._skip = octets

    def piece(self, most: int) -> bytes:
        """What is there, ``most`` octets at the most; :meth:`take` says how many of them are done with."""
        return self._octets[self._read : self._read + most]

    def take(self, octets: int) -> None:
        self._read += octets

    def line(self) -> Line | None:
        """The next whole line, ``None`` where there is none yet."""
        if self._skip and not self._skipped():
            return None
        end = self._octets.find(b"\n", self._read)
        if end < 0:
            return self._read_past_overlong()
        line = self._octets[self._read : end]
        self._read = end + 1
        if not line.endswith(b"\r"):
            return Line(line, Fault.BARE_LF)
        if self._overlong or len(line) > MAX_LINE + 1:
            self._overlong = 0
            return Line(line[:_KEPT], Fault.TOO_LONG)
        return Line(line[:-1])

    def _read_past_overlong(self) -> Line | None:
        if len(self) > MAX_LINE + 1 or self._overlong:
            first = self._read + _KEPT
            cr = b"\r" if self._octets.endswith(b"\r", first) else b""
            kept = self._octets[self._read : first] + cr
            self._overlong += len(self) - len(kept)
            self._octets, self._read = kept, 0
            if self._overlong > _MAX_OVERLONG:
                return Line(kept[:_KEPT], Fault.ENDLESS)
        return None

    def _skipped(self) -> bool:
        """Read past what is to be skipped; False while more of it is to come."""
        skipped = min(self._skip, len(self))
        self._skip -= skipped
        self._read += skipped
        return not self._skip
