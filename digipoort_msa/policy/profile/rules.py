"""A profile: what its operator declared, and the reading of one message by it.

Rules are looked at in the order of the message: its header, then each part as it comes, then the whole.  The
first that is violated is the one that is told.

Patterns are regular expressions of RE2, not Python's.  Some of Python's take exponential time on some texts,
and hold the interpreter's lock while they do, so that no thread could save the reactor from them; the time
that RE2 takes grows with the text alone.
"""

from collections.abc import Iterable, Mapping

import re2
from attrs import define, field, frozen
from attrs.converters import optional

from digipoort_msa.policy.header_section import HeaderField
from digipoort_msa.policy.profile.entity import ENCODINGS, Entity
from digipoort_msa.policy.profile.scanner import Bounds, Ended, Event, Opened, Scanner
from digipoort_msa.policy.profile.violation import Malformed, Violation
from digipoort_msa.policy.profile.words import decoded_words

#: Fields that RFC 5322 3.6 has once at most.
SINGLE_HEADERS = (
    *("Date", "From", "Sender", "Reply-To", "To", "Cc", "Bcc"),
    *("Message-ID", "In-Reply-To", "References", "Subject"),
)


@frozen
class Pattern:
    """A regular expression (RE2), found anywhere in a text unless it has anchors of its own."""

    text: str
    _compiled: "re2._Regexp" = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """:raise ValueError: it is none."""
        options = re2.Options()
        options.log_errors = False
        try:
            object.__setattr__(self, "_compiled", re2.compile(self.text, options))
        except re2.error as error:
            raise ValueError(f"not a regular expression: {error}") from None

    def found_in(self, text: str) -> bool:
        return self._compiled.search(text) is not None


def _in_lower_case(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


@frozen
class Types:
    """Content types: each type/subtype, or type/* for all of a type, or */*."""

    patterns: frozenset[str] = field(converter=_in_lower_case)

    def include(self, content_type: str) -> bool:
        """:param content_type: in lower case."""
        patterns = self.patterns
        return (
            "*/*" in patterns or content_type in patterns or f"{content_type.partition('/')[0]}/*" in patterns
        )


ANY = Types(["*/*"])


@frozen(kw_only=True)
class Attachments:
    """What is asked of attachments: of all parts that are no text of the message's own."""

    minimum: int = 0
    maximum: int | None = None
    types: Types = ANY
    names: Pattern | None = None  # found in each one's file name, which it must have then
    maximum_size: int | None = None  # octets, decoded, of each
    maximum_total: int | None = None  # and of all together


def _patterns(patterns: Mapping[str, str]) -> Mapping[str, Pattern]:
    return {name: Pattern(pattern) for name, pattern in patterns.items()}


@frozen(kw_only=True)
class Profile:
    """One message flow's rules; names of fields are as the operator wrote them."""

    name: str
    required_headers: tuple[str, ...] = ()
    forbidden_headers: tuple[str, ...] = ()
    single_headers: tuple[str, ...] = SINGLE_HEADERS
    header_patterns: Mapping[str, Pattern] = field(factory=dict, converter=_patterns)
    decoded_header_patterns: Mapping[str, Pattern] = field(factory=dict, converter=_patterns)
    bounds: Bounds = field(factory=Bounds)
    content_types: Types = ANY  # of the message itself
    multipart_types: Types = ANY  # of every multipart in it
    text_types: Types = Types(["text/plain", "text/html"])  # that are the message's own text
    charsets: frozenset[str] | None = field(default=None, converter=optional(_in_lower_case))
    encodings: frozenset[str] = field(default=ENCODINGS, converter=_in_lower_case)
    attachments: Attachments = Attachments()

    def is_text(self, part: Entity) -> bool:
        """Is a part the message's own text, rather than an attachment?"""
        return (
            self.text_types.include(part.content_type)
            and not part.names
            and part.disposition in (None, "inline")
        )


@define
class Reading:
    """One message, read by a profile.  Its methods may run in any thread, one at a time."""

    profile: Profile
    _scanner: Scanner = field(init=False)
    _attachments: int = field(default=0, init=False)
    _total: int = field(default=0, init=False)  # octets of all attachments that have ended

    def __attrs_post_init__(self) -> None:
        self._scanner = Scanner(self.profile.bounds)

    def take(self, octets: bytes) -> None:
        """The next segment; none after a violation.

        :raise Violation: this is not allowed.
        """
        self._look_at(self._scanner.push(octets))

    def finish(self) -> None:
        """The message is over; as :meth:`take`."""
        self._look_at(self._scanner.close())
        minimum = self.profile.attachments.minimum
        if self._attachments < minimum:
            cause = f"{self._attachments} attachments, where there should be {minimum}"
            raise Violation("attachment-count", "the message", cause)

    def _look_at(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Opened):
                self._opened(event.entity)
            else:
                self._ended(event)

    def _opened(self, found: Entity) -> None:
        profile = self.profile
        if not found.number:
            self._header(found.fields)
            if not profile.content_types.include(found.content_type):
                raise Violation("content-type", "the message", found.content_type)
        if found.boundary is not None and not profile.multipart_types.include(found.content_type):
            raise Violation("multipart-type", found.where, found.content_type)
        where = found.where
        if found.boundary is None and not profile.is_text(found):
            self._attachments += 1
            where = f"attachment {self._attachments}"
            self._attachment(found, where)
        if found.encoding not in profile.encodings:
            raise Violation("encoding", where, found.encoding)
        self._charsets(found, where)

    def _header(self, fields: tuple[HeaderField, ...]) -> None:
        profile = self.profile
        counts: dict[str, int] = {}
        for one in fields:
            counts[one.name] = counts.get(one.name, 0) + 1
        for name in profile.required_headers:
            if name.lower() not in counts:
                raise Violation("required-header", name, "it is not there")
        for name in profile.forbidden_headers:
            if name.lower() in counts:
                raise Violation("forbidden-header", name, "it is there")
        for name in profile.single_headers:
            if counts.get(name.lower(), 0) > 1:
                raise Violation("single-header", name, f"it is there {counts[name.lower()]} times")
        for name, pattern in profile.header_patterns.items():
            for one in fields:
                if one.name == name.lower() and not pattern.found_in(one.text):
                    raise Violation("header-pattern", name, f"it does not match {pattern.text}")
        for name, pattern in profile.decoded_header_patterns.items():
            for one in fields:
                if one.name == name.lower() and not pattern.found_in(_decoded(name, one)):
                    raise Violation("header-pattern", name, f"decoded, it does not match {pattern.text}")

    def _attachment(self, found: Entity, where: str) -> None:
        asked = self.profile.attachments
        if asked.maximum is not None and self._attachments > asked.maximum:
            raise Violation("attachment-count", "the message", f"over {asked.maximum} attachments")
        if not asked.types.include(found.content_type):
            raise Violation("attachment-type", where, found.content_type)
        if asked.names is not None:
            if not found.names:
                raise Violation("attachment-name", where, "it has no file name")
            for name in found.names:
                if not asked.names.found_in(name):
                    raise Violation(
                        "attachment-name", where, f"{name[:200]!r} does not match {asked.names.text}"
                    )

    def _charsets(self, found: Entity, where: str) -> None:
        allowed = self.profile.charsets
        if allowed is None:
            return
        used = set(found.charsets)
        if (charset := _charset(found)) is not None:
            used.add(charset)
        if used - allowed:
            raise Violation("charset", where, ", ".join(sorted(used - allowed)))

    def _ended(self, event: Ended) -> None:
        profile, found = self.profile, event.entity
        if profile.charsets is not None and event.eight_bit and _charset(found) == "us-ascii":
            raise Violation("charset", found.where, "octets above 127 in us-ascii")
        if profile.is_text(found):
            return
        self._total += event.size
        most, most_in_all = profile.attachments.maximum_size, profile.attachments.maximum_total
        where = f"attachment {self._attachments}"
        if most is not None and event.size > most:
            raise Violation("attachment-size", where, f"{event.size} octets, where {most} are allowed")
        if most_in_all is not None and self._total > most_in_all:
            raise Violation("attachment-total", where, f"over {most_in_all} octets up to here")


def _decoded(name: str, one: HeaderField) -> str:
    try:
        return decoded_words(one.text)
    except Malformed as fault:
        raise Violation("well-formed", name, str(fault)) from None


def _charset(found: Entity) -> str | None:
    """The character set of a body: that of plain text is US-ASCII where none is named (RFC 2046 4.1.2)."""
    if found.charset is None and found.content_type == "text/plain":
        return "us-ascii"
    return found.charset
