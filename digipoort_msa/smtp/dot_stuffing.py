"""The sending side's transparency: a content on its way into DATA (RFC 5321 4.5.2).

A dot that begins a line is doubled and the end of data is a line of one dot.  The content itself goes
out as it is, so it has to be canonical: every CR is followed by LF, every LF preceded by CR, and its last
line ended.  One that is not is refused here, never repaired: what a lone CR or LF means is for the next
hop to guess, and a wrong guess is a smuggled message (CVE-2023-51764).

Content comes by the segment, cut anywhere.  All that is kept between segments is their last two octets.
"""

import re

from digipoort_msa.smtp.line_ends import LineEnds

_LINE_END = b"\r\n"
_CR, _DOT = b"\r", b"."
_LEADING_DOT = re.compile(rb"\r\n\.")  # for one search, twice as fast as find


class NotCanonical(ValueError):
    """The content cannot be sent unaltered with DATA; the text says why."""


class DotStuffing:
    """Doubles the dots of one content."""

    def __init__(self) -> None:
        self._tail = _LINE_END  # the last two octets so far; the first octet begins a line
        self._line_ends = LineEnds()

    def stuff(self, segment: bytes) -> bytes:
        """The segment as it goes onto the wire.

        :raise NotCanonical: it holds a CR or LF on its own.
        """
        if not segment:
            return b""
        if not self._line_ends.canonical(segment):
            raise NotCanonical("a CR or LF on its own")
        stuffed = segment.replace(b"\r\n.", b"\r\n..") if _LEADING_DOT.search(segment) else segment
        if self._tail == _LINE_END and segment.startswith(_DOT):
            stuffed = _DOT + stuffed
        elif self._tail.endswith(_CR) and segment.startswith(b"\n."):
            stuffed = b"\n." + stuffed[1:]
        self._tail = (self._tail + segment[-2:])[-2:]
        return stuffed

    def end(self) -> bytes:
        """The end of data.  Its CR LF is the content's own last one (RFC 5321 4.1.1.4).

        :raise NotCanonical: the content's last line has no end.
        """
        if self._tail != _LINE_END:
            raise NotCanonical("the last line does not end in CR LF")
        return b".\r\n"
