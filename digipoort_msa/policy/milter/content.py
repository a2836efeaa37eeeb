"""A content as a milter is told it: header fields one by one, then the body in parts; octets in, values out.

A milter gets a field as a name and a body, and builds from those what it looks at.  A header section that it
could read in another way than the message's receiver is none that it can judge: such a section is refused, as
:mod:`~digipoort_msa.policy.header_section` rules, whatever is done where the milter itself fails.
"""

from collections.abc import Iterator

from attrs import define, field

from digipoort_msa.policy.header_section import HeaderField, HeaderSection
from digipoort_msa.policy.milter.packets import CHUNK, strings


@define
class Content:
    """One message's content.

    :ivar fields: the header section's fields once it is whole; ``None`` until then.
    :ivar size: octets so far.
    """

    fields: tuple[HeaderField, ...] | None = field(default=None, init=False)
    size: int = field(default=0, init=False)
    _section: HeaderSection = field(factory=HeaderSection, init=False)
    _body: bytearray = field(factory=bytearray, init=False, repr=False)

    def push(self, octets: bytes) -> None:
        """
        :raise HeaderFault: the header section cannot be told.
        """
        self.size += len(octets)
        if self.fields is None:
            length = self._section.push(octets)
            if length is None:
                return
            self.fields = self._section.fields
            octets = octets[length:]
        self._body += octets

    def close(self) -> None:
        """The content has come to its end.

        :raise HeaderFault: as :meth:`push`.
        """
        if self.fields is None:
            self._section.close()
            self.fields = self._section.fields

    @property
    def has_part(self) -> bool:
        return len(self._body) >= CHUNK

    def parts(self) -> Iterator[bytes]:
        """What there is of the body in parts of :data:`CHUNK`; what is yielded is forgotten."""
        while self.has_part:
            yield bytes(self._body[:CHUNK])
            del self._body[:CHUNK]

    def rest(self) -> bytes:
        """What is left of the body, less than :data:`CHUNK`, once the content is closed."""
        return bytes(self._body)


def told(written: HeaderField, *, leading_space: bool) -> bytes:
    """A header field, as the data of its packet.

    Lines of its body end in LF, as Sendmail has them; one space behind the colon goes without saying, unless
    it was agreed upon.
    """
    name, _, body = written.written.partition(b":")
    if not leading_space:
        body = body.removeprefix(b" ")
    return strings([name, body.replace(b"\r\n", b"\n")])
