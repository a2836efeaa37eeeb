"""Whether every CR and every LF of a content stands in a CRLF pair (RFC 5321 2.3.8, CVE-2023-51764).

This is looked at for every octet that comes in and for every octet that goes out, so it has to be fast:
Python's own newline decoder, told to translate nothing, sees in one pass of C which kinds of line ends there
are, and keeps a CR at the end of a segment for the next one.  Three ``count`` take four times as long.
"""

from io import IncrementalNewlineDecoder

_CANONICAL = (None, "\r\n")


class LineEnds:
    """The line ends of one content, segment by segment."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = IncrementalNewlineDecoder(None, translate=False)

    def canonical(self, segment: bytes) -> bool:
        """Take the next segment; False from the first bare CR or LF on.

        A CR that is the last octet so far is judged with the next segment."""
        self._decoder.decode(segment.decode("latin-1"))
        return self._decoder.newlines in _CANONICAL
