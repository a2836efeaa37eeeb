"""The structure of a message, as it comes by: octets in, the headers and the sizes of its parts out.

A push parser (RFC 2045, 2046) that keeps no body.  A header section is gathered, within bounds; a body is
searched for the boundaries of the multiparts it stands in, by the segment, and measured.  Memory is bounded
by the header section and by the boundaries; time by the octets, and for each part by one segment more.

What stands at the beginning of a line and begins with the boundary of an enclosing multipart is a delimiter
line, or the message is refused: so is a boundary that another one begins with, a multipart that does not end
before the one around it does, one without parts, a part that follows the end of its multipart, and octets
worth reading before a first part or behind a last one.  Of all these, programs make different things.

A ``message/rfc822`` is a part like any other: what is inside is not looked at, so that there is nothing that
can be nested without end.
"""

from collections.abc import Generator, Iterator
from typing import TypeAlias

from attrs import define, field, frozen

from digipoort_msa.policy.header_section import HeaderSection, TooBig, TooMany
from digipoort_msa.policy.header_section import Malformed as MalformedHeader
from digipoort_msa.policy.profile.entity import Entity, entity
from digipoort_msa.policy.profile.measure import Measure, measure
from digipoort_msa.policy.profile.violation import Malformed, Violation

#: White space that may stand behind a boundary (RFC 2046 5.1.1), in octets.
_PADDING = 200


@frozen(kw_only=True)
class Bounds:
    """How much of what a message may have."""

    header_size: int = 65_536  # octets of each header section
    header_fields: int = 500  # of each header section
    depth: int = 5  # multiparts within one another
    parts: int = 100  # at all levels together
    outside: int = 4_096  # octets before first and behind last parts, together


@frozen
class Opened:
    """A header section was read: of the message, or of a part."""

    entity: Entity


@frozen
class Ended:
    """The body of a part that is no multipart is over."""

    entity: Entity
    size: int  # octets, decoded
    eight_bit: bool  # some octet, as it stood there, was above 127


Event: TypeAlias = Opened | Ended
_Rest: TypeAlias = Generator[Event, None, bytes | None]  # in the end, what is left to be read


@define
class _Multipart:
    """One whose end, or whose parent's next delimiter, has not come yet."""

    entity: Entity
    mark: bytes  # what its delimiter lines begin with, and the line end before
    parts: int = 0
    closed: bool = False

    def next_number(self) -> str:
        """Of the part that follows."""
        self.parts += 1
        above = f"{self.entity.number}." if self.entity.number else ""
        return f"{above}{self.parts}"


@define
class Scanner:
    """One message.  Events and faults come in the order of the octets that they are about, wherever these
    were cut; after a fault it is spent."""

    bounds: Bounds = field(factory=Bounds)
    _around: list[_Multipart] = field(factory=list, init=False)  # outermost first
    _parts: int = field(default=0, init=False)
    _outside: int = field(default=0, init=False)
    _number: str = field(default="", init=False)
    _section: HeaderSection | None = field(init=False)  # the header that is being read
    _leaf: Entity | None = field(default=None, init=False)  # whose body is being read
    _measure: Measure | None = field(default=None, init=False)  # of that body
    _held: bytes = field(default=b"", init=False)  # the end of a body so far, if a delimiter may begin in it
    _skip: int = field(default=0, init=False)  # octets of it that are no part of the body

    def __attrs_post_init__(self) -> None:
        self._section = self._fresh_section()

    def push(self, octets: bytes) -> Iterator[Event]:
        """Take a segment; the iterator has to be used up.

        :raise Violation: (from the iterator) it is not well-formed, or beyond a bound.
        """
        rest: bytes | None = octets
        try:
            while rest is not None:
                if self._section is not None:
                    rest = yield from self._read_header(rest)
                else:
                    rest = yield from self._read_body(rest)
        except Malformed as fault:
            raise Violation("well-formed", self._where(), str(fault)) from None

    def close(self) -> Iterator[Event]:
        """The message is over; as :meth:`push`."""
        try:
            yield from self._close()
        except Malformed as fault:
            raise Violation("well-formed", self._where(), str(fault)) from None

    # -- header sections -----------------------------------------------------------------------------

    def _fresh_section(self) -> HeaderSection:
        return HeaderSection(self.bounds.header_size, self.bounds.header_fields)

    def _read_header(self, octets: bytes) -> _Rest:
        assert self._section is not None  # noqa: S101 (for mypy)
        try:
            taken = self._section.push(octets)
        except (TooBig, TooMany, MalformedHeader) as fault:
            raise self._fault(fault) from None
        if taken is None:
            return None
        yield self._opened()
        return octets[taken:]

    def _fault(self, fault: Exception) -> Exception:
        if isinstance(fault, MalformedHeader):
            return Malformed(str(fault))
        rule = "header-size" if isinstance(fault, TooBig) else "header-fields"
        return Violation(rule, self._where(), str(fault))

    def _opened(self) -> Event:
        """The section is whole: what kind of body follows?"""
        assert self._section is not None  # noqa: S101 (for mypy)
        fields = self._section.fields
        assert fields is not None  # noqa: S101 (for mypy)
        in_digest = bool(self._around) and self._around[-1].entity.content_type == "multipart/digest"
        found = entity(self._number, fields, "message/rfc822" if in_digest else "text/plain")
        self._section = None
        # The header's last line end may be the one before a delimiter (RFC 2046 5.1.1).
        self._held, self._skip = b"\r\n", 2
        if found.boundary is None:
            self._leaf, self._measure = found, measure(found.encoding)
        else:
            self._enter(_Multipart(found, b"\r\n--" + found.boundary))
        return Opened(found)

    def _enter(self, multipart: _Multipart) -> None:
        if len(self._around) == self.bounds.depth:
            cause = f"over {self.bounds.depth} multiparts within one another"
            raise Violation("nesting", multipart.entity.where, cause)
        for other in self._around:
            if other.mark.startswith(multipart.mark) or multipart.mark.startswith(other.mark):
                raise Malformed(
                    "a boundary that begins with the boundary of a multipart around it, or that does"
                )
        self._around.append(multipart)

    # -- bodies --------------------------------------------------------------------------------------

    def _read_body(self, octets: bytes) -> _Rest:
        pending = self._held + octets
        at, multipart = self._delimiter(pending)
        if multipart is None:
            cut = self._possible_delimiter(pending)
            self._held = pending[cut:]
            self._take(pending[:cut])
            return None
        self._take(pending[:at])
        behind = at + len(multipart.mark)
        end = pending.find(b"\r\n", behind, behind + _PADDING + 2)
        if end < 0:
            if len(pending) - behind >= _PADDING + 2:
                raise Malformed("a line that begins with a boundary, and goes on")
            self._held = pending[at:]
            return None
        rest = pending[behind:end]
        closing = rest.startswith(b"--")
        if rest[2 if closing else 0 :].strip(b" \t"):
            raise Malformed("a line that begins with a boundary, and goes on")
        yield from self._ended()
        self._leave(multipart)
        if closing:
            self._end(multipart)
            return pending[end:]  # this line end may be the one before the next delimiter
        self._begin(multipart)
        return pending[end + 2 :]

    def _delimiter(self, pending: bytes) -> tuple[int, _Multipart | None]:
        """Where the first line that begins with a boundary is, and whose it is."""
        first, whose = len(pending), None
        for multipart in reversed(self._around):
            at = pending.find(multipart.mark, 0, first + len(multipart.mark) - 1)
            if 0 <= at < first:
                first, whose = at, multipart
        return first, whose

    def _possible_delimiter(self, pending: bytes) -> int:
        """From where on ``pending``, which has no delimiter, may be the beginning of one."""
        longest = max((len(multipart.mark) for multipart in self._around), default=1)
        at = pending.find(b"\r", max(0, len(pending) - longest + 1))
        return at if at >= 0 else len(pending)

    def _take(self, octets: bytes) -> None:
        """Octets of the body that is being read."""
        if self._skip:
            skipped = min(self._skip, len(octets))
            self._skip -= skipped
            octets = octets[skipped:]
        if self._measure is not None:
            self._measure.take(octets)
            return
        self._outside += len(octets)
        if self._outside > self.bounds.outside:
            cause = f"over {self.bounds.outside} octets before or behind the parts of a multipart"
            raise Violation("outside-parts", self._where(), cause)

    def _ended(self) -> Iterator[Event]:
        """The body that was being read is over."""
        self._held, self._skip = b"", 0
        if self._leaf is not None and self._measure is not None:
            leaf, measured = self._leaf, self._measure
            size = measured.finish()
            self._leaf = self._measure = None
            yield Ended(leaf, size, measured.eight_bit)

    def _leave(self, multipart: _Multipart) -> None:
        """A delimiter of ``multipart`` came: those within it have to be over, and itself not yet."""
        while self._around[-1] is not multipart:
            if not self._around.pop().closed:
                raise Malformed("a multipart that does not end before the one around it goes on")
        if multipart.closed:
            raise Malformed("a part behind the end of its multipart")

    def _end(self, multipart: _Multipart) -> None:
        if not multipart.parts:
            raise Malformed("a multipart without parts")
        multipart.closed = True
        self._number = multipart.entity.number
        self._skip = 2

    def _begin(self, multipart: _Multipart) -> None:
        self._number = multipart.next_number()
        self._parts += 1
        if self._parts > self.bounds.parts:
            raise Violation("parts", "the message", f"over {self.bounds.parts} parts")
        self._section = self._fresh_section()

    # -- the end -------------------------------------------------------------------------------------

    def _close(self) -> Iterator[Event]:
        if self._section is not None:
            if self._around:
                raise Malformed("a message that ends in a part's header")
            try:
                self._section.close()
            except (TooBig, TooMany, MalformedHeader) as fault:
                raise self._fault(fault) from None
            yield self._opened()
        if self._delimiter(self._held)[1] is not None:
            raise Malformed("a message that ends in a delimiter line")
        self._take(self._held)
        if not all(multipart.closed for multipart in self._around):
            raise Malformed("a message that ends before its multipart does")
        yield from self._ended()

    def _where(self) -> str:
        return f"part {self._number}" if self._number else "the message"
