"""The sending side's transparency: a content on its way into DATA (RFC 5321 4.5.2).

A dot that begins a line is doubled and the end of data is a line of one dot.  The content itself goes
out as it is, so it has to be canonical: every CR is followed by LF, every LF preceded by CR, and its last
line ended.  One that is not is refused here, never repaired: what a lone CR or LF means is for the next
hop to guess, and a wrong guess is a smuggled message (CVE-2023-51764).

Content comes by the segment, cut anywhere.  All that is kept between segments is their last two octets.
"""

import re

_LINE_END = b"\r\n"
_CR, _LF, _DOT = b"\r", b"\n", b"."
_ALL_BUT_MARKS = bytes(octet for octet in range(256) if octet not in b"\r\n.")
_BARE_CR = re.compile(rb"\r[^\n]")


class NotCanonical(ValueError):
    """The content cannot be sent unaltered with DATA; the text says why."""


class DotStuffing:
    """Doubles the dots of one content."""

    def __init__(self) -> None:
        self._tail = _LINE_END  # the last two octets so far; the first octet begins a line

    def stuff(self, segment: bytes) -> bytes:
        """The segment as it goes onto the wire.

        :raise NotCanonical: it holds a CR or LF on its own.
        """
        if not segment:
            return b""
        # Much cheaper than a search for each pair: what is left of a segment when all else is taken out.
        marks = segment.translate(None, _ALL_BUT_MARKS)
        self._check(segment, marks.replace(_DOT, b""))
        stuffed = segment.replace(b"\r\n.", b"\r\n..") if b"\n." in marks else segment
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

    def _check(self, segment: bytes, line_ends: bytes) -> None:
        if self._tail.endswith(_CR):
            if not segment.startswith(_LF):
                raise NotCanonical("a CR without LF")
            line_ends = _CR + line_ends
        if segment.endswith(_CR):
            line_ends = line_ends[:-1]
        # CR and LF take turns, and no CR is followed by anything but LF: so they come in pairs.  The turns
        # alone would pass CR X LF.
        if line_ends != _LINE_END * (len(line_ends) // 2) or _BARE_CR.search(segment):
            raise NotCanonical("a CR or LF on its own")
