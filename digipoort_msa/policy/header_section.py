"""The header section of a streamed message, or of a part of one: octets in, fields out, within bounds.

Nothing is guessed at.  A section that two programs may read in two ways is refused as malformed, since what
a rule then passes is not what the receiver sees: a line that is no field, white space before the colon, a
first line that is a continuation, a continuation of white space alone (to some the end of the header), a NUL,
a bare CR or LF.  Fields may be UTF-8 (RFC 6532); other octets above 127 are kept as they are, for the caller
to judge (:attr:`HeaderField.is_utf8`).

The section's size is looked at before anything else, and its fields only when it is whole: what is found does
not depend on where the octets were cut.
"""

import re

from attrs import define, field, frozen

#: Octets of a section and fields in it, unless its reader says otherwise.
SIZE, FIELDS = 65_536, 1_000

_END = b"\r\n\r\n"
# A continuation line holds something besides white space.  Where one is given up because what is behind it
# fits nothing, it begins no field either, and the section is malformed at its line.  No group is possessive:
# tests/test_possessive.py says why.
_FIELD = re.compile(rb"([!-9;-~]++):([^\r\n\0]*+(?:\r\n[ \t]++[^ \t\r\n\0][^\r\n\0]*+)*)\r\n")


class HeaderFault(Exception):
    """Why a header section cannot be taken."""


class TooBig(HeaderFault):
    """It has more octets than it may."""


class TooMany(HeaderFault):
    """It has more fields than it may."""


class Malformed(HeaderFault):
    """A line of it is no part of a field (RFC 5322 2.2)."""


@frozen
class HeaderField:
    """One field; ``octets`` is its unfolded body (RFC 5322 2.2.3) without the white space around it."""

    name: str  # in lower case, ASCII
    octets: bytes
    #: Name, colon and body as they stand, folds and all.
    written: bytes = field(default=b"", eq=False, repr=False)

    @property
    def is_utf8(self) -> bool:
        if self.octets.isascii():
            return True
        try:
            self.octets.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    @property
    def text(self) -> str:
        """The body as text; octets that are no UTF-8 are U+FFFD."""
        return self.octets.decode("utf-8", "replace")


@define
class HeaderSection:
    """Takes octets until the empty line that ends the section.

    :ivar fields: once the section is whole, its fields in their order; ``None`` until then.
    """

    maximum_size: int = SIZE  # octets, the empty line not among them
    maximum_fields: int = FIELDS
    fields: tuple[HeaderField, ...] | None = field(default=None, init=False)
    # What comes before the first line counts as a line end, so that a section without fields is no exception.
    _octets: bytearray = field(factory=lambda: bytearray(b"\r\n"), init=False, repr=False)

    def push(self, octets: bytes) -> int | None:
        """Take a segment; not after the section was whole, or a fault was raised.

        :return: how many of its octets belong to the section, empty line included, once that is whole;
            ``None`` while it lasts.
        :raise HeaderFault: the section cannot be taken.
        """
        held = len(self._octets)
        most = self.maximum_size + len(_END)  # what a section of the largest size takes in the buffer
        self._octets += octets[: most - held]
        end = self._octets.find(_END, max(0, held - len(_END) + 1))
        if end >= 0:
            self._whole(end)
            return end + len(_END) - held
        if held + len(octets) >= most:
            raise TooBig(f"over {self.maximum_size} octets")
        return None

    def close(self) -> None:
        """The message ended, and there was no empty line (RFC 5322 2.1: it has no body then)."""
        size = len(self._octets) - 2
        if size > self.maximum_size:
            raise TooBig(f"over {self.maximum_size} octets")
        if not self._octets.endswith(b"\r\n"):
            raise Malformed("its last line does not end")
        self._whole(size)

    def _whole(self, size: int) -> None:
        section = bytes(self._octets[2 : size + 2])
        self._octets.clear()
        fields: list[HeaderField] = []
        at = 0
        while at < len(section):
            match = _FIELD.match(section, at)
            if match is None:
                line = section.count(b"\r\n", 0, at) + 1
                raise Malformed(f"no field at line {line}")
            if len(fields) == self.maximum_fields:
                raise TooMany(f"over {self.maximum_fields} fields")
            body = match[2].replace(b"\r\n", b"").strip(b" \t")
            fields.append(HeaderField(match[1].decode("ascii").lower(), body, match[0][:-2]))
            at = match.end()
        self.fields = tuple(fields)
