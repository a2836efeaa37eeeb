"""``[realm.policy.recipients]``."""

from pydantic import Field

from digipoort_msa.config.tables import AccountName, AddressPattern, Table


class RecipientsTable(Table):
    """``rule = "recipients"``: only recipients that a pattern lists."""

    patterns: tuple[AddressPattern, ...] = Field(
        default=(), description="a list of patterns: to whom every account may send"
    )
    by_account: dict[AccountName, tuple[AddressPattern, ...]] = Field(
        default={}, description="a table of account = [patterns]: to whom that account may send besides"
    )
