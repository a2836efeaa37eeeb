"""``[realm.policy.profile]``."""

from typing import Annotated

from pydantic import Field, StringConstraints

from digipoort_msa.config.tables import Octets, Table

FieldName = Annotated[str, StringConstraints(pattern=r"^[!-9;-~]+$")]  # RFC 5322 2.2


class ProfileTable(Table):
    """``rule = "profile"``: what the message flow asks of a message."""

    required_headers: tuple[FieldName, ...] = Field(
        default=(), description="a list of header field names that a message must have"
    )
    header_patterns: dict[FieldName, str] = Field(
        default={},
        description="a table of field name = regular expression, found in every such field of a message",
    )
    maximum_header_size: Annotated[Octets, Field(le=65536)] = Field(
        default=65536, description="octets, at most 65536: the header section of a message"
    )
