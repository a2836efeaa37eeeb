"""Content as it arrives: one small receiver per framing, and the check that both share.

Work is done by the segment, never by the line: one search for a dot that begins a line and, only where there
is one, ``find`` for the end mark and ``replace`` for the stuffed dots.  End of data is CRLF ``.`` CRLF and
nothing else (RFC 5321 4.1.1.4, M5), whatever looks like it: a lone CR or LF anywhere refuses the whole
message, and is never read as a line end (SMTP smuggling, CVE-2023-51764).
"""

import re
import sys
from typing import ClassVar

from attrs import define, field

from digipoort_msa.smtp import reply
from digipoort_msa.smtp.line_ends import LineEnds
from digipoort_msa.smtp.reply import Reply

_END = b"\r\n.\r\n"
_LEADING_DOT = re.compile(rb"\r\n\.")  # for one search, twice as fast as find


@define
class DataReceiver:
    """DATA: up to CRLF . CRLF, with the dots unstuffed (RFC 5321 4.5.2)."""

    left: ClassVar[int] = sys.maxsize  # octets to come, at most

    # The DATA command's own CRLF counts as the line end before the first line; it is not content.
    _held: bytes = field(default=b"\r\n", init=False)
    _at_start: bool = field(default=True, init=False)

    def receive(self, octets: bytes) -> tuple[bytes, bytes | None]:
        """Return the content in ``octets`` and what follows the end of data, ``None`` while it lasts."""
        pending = self._held + octets
        dot = _LEADING_DOT.search(pending)
        end = pending.find(_END, dot.start()) if dot else -1
        if end >= 0:
            stuffed, rest = pending[: end + 2], pending[end + 5 :]
        else:
            held = _possible_end(pending)
            stuffed, rest = pending[: len(pending) - held], None
            self._held = pending[len(pending) - held :]
        content = stuffed.replace(b"\r\n.", b"\r\n") if dot else stuffed
        if self._at_start and content:
            self._at_start = False
            content = content[2:]
        return content, rest


def _possible_end(pending: bytes) -> int:
    """How many of the last octets may be the start of the end mark, and have to wait for more."""
    if b"\r" not in pending[1 - len(_END) :]:
        return 0  # nearly always
    for length in range(len(_END) - 1, 0, -1):
        if pending.endswith(_END[:length]):
            return length
    return 0


@define
class ChunkReceiver:
    """BDAT: a number of octets (RFC 3030 2)."""

    left: int

    def receive(self, octets: bytes) -> tuple[bytes, bytes | None]:
        """As :meth:`DataReceiver.receive`."""
        if len(octets) < self.left:
            self.left -= len(octets)
            return octets, None
        return octets[: self.left], octets[self.left :]


@define
class ContentCheck:
    """What is known of a message's content so far, over any number of segments."""

    limit: int  # octets
    size: int = field(default=0, init=False)  # octets
    bare_line_end: bool = field(default=False, init=False)
    _line_ends: LineEnds = field(factory=LineEnds, init=False)
    _last: bytes = field(default=b"\r\n", init=False)  # an empty content counts as terminated

    def take(self, octets: bytes) -> None:
        if not octets:
            return
        self.size += len(octets)
        if self.bare_line_end:
            return
        self.bare_line_end = not self._line_ends.canonical(octets)
        self._last = (self._last + octets[-2:])[-2:]

    @property
    def refusal(self) -> Reply | None:
        """Why this content cannot be taken, whatever follows."""
        if self.size > self.limit:
            return reply.TOO_BIG
        return reply.BARE_CR_OR_LF if self.bare_line_end else None

    @property
    def final_refusal(self) -> Reply | None:
        """The same when it is complete: its last line must end with CRLF, or the DATA of the next hop
        could only pass it on with one added (M2)."""
        return self.refusal or (None if self._last == b"\r\n" else reply.UNTERMINATED)
