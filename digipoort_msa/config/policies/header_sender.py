"""``[realm.policy.header-sender]``."""

from pydantic import Field

from digipoort_msa.config.tables import AddressPattern, Flag, Table


class HeaderSenderTable(Table):
    """``rule = "header-sender"``: the header's From and Sender name only the account's own addresses, or ones
    that a pattern lists."""

    own: Flag = Field(
        default=True,
        description="true or false: an account may name its own addresses (its name where that is an "
        "address, realm.addresses, and what its store says)",
    )
    patterns: tuple[AddressPattern, ...] = Field(
        default=(), description="a list of patterns: addresses that every account may name"
    )
