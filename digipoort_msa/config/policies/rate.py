"""``[realm.policy.rate]``."""

from typing import Literal

from pydantic import Field

from digipoort_msa.config.tables import Count, Octets, Seconds, Table


class RateLimit(Table):
    """``[[realm.policy.rate.limits]]``: so much in a time; with several units, each counts by itself."""

    per: Literal["account", "realm"] = Field(
        default="account", description='"account" or "realm": whose submissions count together'
    )
    window: Seconds = Field(default=3600, description="seconds in which a full count drains to nothing")
    messages: Count | None = Field(default=None, description="messages; unset means no limit")
    octets: Octets | None = Field(default=None, description="octets of content; unset means no limit")
    recipients: Count | None = Field(default=None, description="recipients; unset means no limit")


class RateTable(Table):
    """``rule = "rate"``: how much may be submitted in a time."""

    limits: tuple[RateLimit, ...] = Field(default=(), description="[[realm.policy.rate.limits]]")
