"""What the header of a message, or of a part of one, says of the body below it (RFC 2045 to 2049, 2183)."""

import re
from collections.abc import Sequence

from attrs import frozen

from digipoort_msa.policy.header_section import HeaderField
from digipoort_msa.policy.profile import parameters
from digipoort_msa.policy.profile.parameters import Parameters
from digipoort_msa.policy.profile.violation import Malformed
from digipoort_msa.policy.profile.words import charsets

#: Encodings that leave the octets as they are (RFC 2045 6.2); all that a multipart or a message may have.
IDENTITY = frozenset({"7bit", "8bit", "binary"})
ENCODINGS = IDENTITY | {"quoted-printable", "base64"}

_ONCE = ("content-type", "content-disposition", "content-transfer-encoding", "content-id", "mime-version")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1


@frozen(kw_only=True)
class Entity:
    """A message or a part of one, as its header has it."""

    number: str  # where it stands, such as 2.1: the first part of the second part; "" for the message itself
    fields: tuple[HeaderField, ...]
    content_type: str  # type/subtype in lower case
    boundary: bytes | None  # of a multipart
    charset: str | None  # in lower case
    encoding: str
    disposition: str | None
    names: tuple[str, ...]  # the file name, in each form in which there is one
    charsets: frozenset[str]  # what encoded words and extended parameters are in, in lower case

    @property
    def where(self) -> str:
        """For replies."""
        return f"part {self.number}" if self.number else "the message"


def entity(number: str, fields: Sequence[HeaderField], default_type: str) -> Entity:
    """Read a header.

    :param default_type: where there is no Content-Type.
    :raise Malformed: the header can be read in several ways, or in none.
    """
    single: dict[str, str] = {}
    written: set[str] = set()
    for one in fields:
        if not one.is_utf8:
            raise Malformed(f"octets in the field {one.name} that are not UTF-8")
        if number and one.name.startswith("--"):
            raise Malformed("a line of a part's header that begins like a boundary")
        if one.name in _ONCE:
            if one.name in single:
                raise Malformed(f"{one.name} is there twice")
            single[one.name] = one.text
        if b"=?" in one.octets:
            written.update(charsets(one.text))
    found, of_type = parameters.content_type(single.get("content-type", default_type))
    disposition, of_disposition = None, Parameters({})
    if "content-disposition" in single:
        disposition, of_disposition = parameters.disposition(single["content-disposition"])
    encoding = parameters.encoding(single.get("content-transfer-encoding", "7bit"))
    if encoding not in ENCODINGS:
        raise Malformed("an unknown Content-Transfer-Encoding")
    names: list[str] = []
    for texts, theirs in (of_disposition.texts("filename"), of_type.texts("name")):
        names += texts
        written.update(theirs)
    charset = of_type.plain("charset")
    return Entity(
        number=number,
        fields=tuple(fields),
        content_type=found,
        boundary=_boundary(found, of_type, encoding),
        charset=charset.lower() if charset is not None else None,
        encoding=encoding,
        disposition=disposition,
        names=tuple(dict.fromkeys(names)),
        charsets=frozenset(written),
    )


def _boundary(found: str, of_type: Parameters, encoding: str) -> bytes | None:
    if found.startswith(("multipart/", "message/")) and encoding not in IDENTITY:
        # RFC 2045 6.4 forbids it, and some programs decode it all the same.
        raise Malformed(f"{found.partition('/')[0]} in {encoding}")
    if not found.startswith("multipart/"):
        return None
    boundary = of_type.plain("boundary")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise Malformed("a multipart without a boundary of 1 to 70 of the characters that may be in one")
    return boundary.encode("ascii")
