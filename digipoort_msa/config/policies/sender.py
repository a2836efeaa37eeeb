"""``[realm.policy.sender]``."""

from pydantic import Field

from digipoort_msa.config.tables import AddressPattern, Flag, Table


class SenderTable(Table):
    """``rule = "sender"``: the sender is one of the account's own addresses, or one that a pattern
    lists."""

    own: Flag = Field(
        default=True,
        description="true or false: an account may send from its own addresses (its name where that is an "
        "address, realm.addresses, and what its store says)",
    )
    patterns: tuple[AddressPattern, ...] = Field(
        default=(), description="a list of patterns: addresses from which every account may send"
    )
    null_sender: Flag = Field(
        default=False, description="true or false: messages without a sender (<>) are taken"
    )
