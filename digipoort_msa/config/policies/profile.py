"""``[realm.policy.profile]``: a message flow's profile (``docs/policies/profile.rst``)."""

from typing import Annotated, Literal

import re2
from pydantic import AfterValidator, Field, StringConstraints

from digipoort_msa.config.tables import Octets, Table


def _expression(pattern: str) -> str:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except (re2.error, UnicodeError) as error:
        detail = error.args[0].decode("utf-8", "replace") if isinstance(error, re2.error) else "not UTF-8"
        raise ValueError(f"a regular expression as RE2 has them ({detail})") from None
    return pattern


FieldName = Annotated[str, StringConstraints(pattern=r"^[!-9;-~]+$")]  # RFC 5322 2.2
Expression = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_expression)]
_TOKEN = r"[!#$%&'+.0-9A-Z^_`a-z{|}~-]+"  # noqa: S105 (RFC 2045 5.1's word for it, without *)
TypePattern = Annotated[str, StringConstraints(pattern=rf"^(?:\*/\*|{_TOKEN}/(?:\*|{_TOKEN}))$")]
Charset = Annotated[str, StringConstraints(pattern=rf"^{_TOKEN}$")]
Number = Annotated[int, Field(strict=True, ge=0, le=1000)]


class AttachmentsTable(Table):
    """``[realm.policy.profile.attachments]``: every part that is no text of the message's own, or that has a
    file name."""

    minimum: Number = Field(default=0, description="how many there have to be")
    maximum: Number | None = Field(default=None, description="how many there may be; unset means any number")
    types: tuple[TypePattern, ...] = Field(
        default=("*/*",),
        description='a list of types such as "application/xml" or "image/*": what each may be',
    )
    names: Expression | None = Field(
        default=None,
        description="a regular expression, found in the file name that each has to have; unset means that "
        "none is asked for",
    )
    maximum_size: Octets | None = Field(
        default=None, description="octets: the largest one, decoded; unset means any size"
    )
    maximum_total: Octets | None = Field(
        default=None, description="octets: all together, decoded; unset means any size"
    )


class ProfileTable(Table):
    """``rule = "profile"``: what the message flow asks of a message.

    Regular expressions are those of RE2; they are searched for, so that ``^`` and ``$`` are to be written.
    """

    required_headers: tuple[FieldName, ...] = Field(
        default=(), description="a list of header field names that a message must have"
    )
    forbidden_headers: tuple[FieldName, ...] = Field(
        default=(), description="a list of header field names that a message may not have"
    )
    single_headers: tuple[FieldName, ...] = Field(
        default=(
            *("Date", "From", "Sender", "Reply-To", "To", "Cc", "Bcc"),
            *("Message-ID", "In-Reply-To", "References", "Subject"),
        ),
        description="a list of header field names that a message has once at most; by default RFC 5322's",
    )
    header_patterns: dict[FieldName, Expression] = Field(
        default={},
        description="a table of field name = regular expression, found in every such field of a message, "
        "unfolded and otherwise as it stands",
    )
    decoded_header_patterns: dict[FieldName, Expression] = Field(
        default={},
        description="the same of fields in which encoded words (RFC 2047) are decoded first",
    )
    maximum_header_size: Annotated[Octets, Field(le=2**20)] = Field(
        default=65536, description="octets, at most 1 MiB: the header of a message, and that of each part"
    )
    maximum_fields: Annotated[int, Field(strict=True, ge=1, le=10_000)] = Field(
        default=500, description="header fields of a message, and of each part"
    )
    maximum_depth: Annotated[int, Field(strict=True, ge=0, le=20)] = Field(
        default=5, description="multiparts within one another; 0 means that a message has no parts"
    )
    maximum_parts: Annotated[int, Field(strict=True, ge=0, le=1000)] = Field(
        default=100, description="parts of a message, those that have parts among them"
    )
    maximum_outside: Annotated[int, Field(strict=True, ge=0, le=2**20)] = Field(
        default=4096,
        description="octets that may stand before the first and behind the last part of multiparts, in all",
    )
    content_types: tuple[TypePattern, ...] = Field(
        default=("*/*",),
        description='a list of types such as "multipart/mixed" or "text/*": what a message itself may be',
    )
    multipart_types: tuple[TypePattern, ...] = Field(
        default=("*/*",), description="a list of types: what each multipart in a message may be"
    )
    text_types: tuple[TypePattern, ...] = Field(
        default=("text/plain", "text/html"),
        description="a list of types: parts of these, without a file name, are no attachments",
    )
    charsets: tuple[Charset, ...] = Field(
        default=(),
        description="a list of character sets such as us-ascii, utf-8; empty means any",
    )
    encodings: tuple[Literal["7bit", "8bit", "binary", "quoted-printable", "base64"], ...] = Field(
        default=("7bit", "8bit", "binary", "quoted-printable", "base64"),
        min_length=1,
        description="a list of content transfer encodings",
    )
    attachments: AttachmentsTable = AttachmentsTable()
