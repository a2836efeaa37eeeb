"""``[[realm.policy]]``: one rule on what a realm's accounts may submit; the rules are asked in their
order."""

from typing import Literal

from pydantic import Field

from digipoort_msa.config.policies.external import ExternalTable
from digipoort_msa.config.policies.header_sender import HeaderSenderTable
from digipoort_msa.config.policies.plugin import PluginTable
from digipoort_msa.config.policies.profile import ProfileTable
from digipoort_msa.config.policies.rate import RateTable
from digipoort_msa.config.policies.recipients import RecipientsTable
from digipoort_msa.config.policies.sender import SenderTable
from digipoort_msa.config.tables import Table, Text


class Policy(Table):
    """``[[realm.policy]]``: one rule; its own settings stand in the table of its name."""

    rule: Literal["sender", "header-sender", "recipients", "profile", "rate", "external", "plugin"] = Field(
        description='"sender", "header-sender", "recipients", "profile", "rate", "external" or "plugin"'
    )
    name: Text | None = Field(
        default=None, description="how the log and reports call this rule; unset means as rule"
    )
    mode: Literal["enforce", "audit"] = Field(
        default="enforce",
        description='"enforce", or "audit": what it would refuse passes, and is reported instead',
    )
    accounts: tuple[Text, ...] = Field(
        default=(), description="a list of account names, * for any run of characters: whom the rule is about"
    )
    groups: tuple[Text, ...] = Field(
        default=(),
        description="a list of groups, as the store says them: the rule is about their members",
    )
    sender: SenderTable = SenderTable()
    header_sender: HeaderSenderTable = HeaderSenderTable()
    recipients: RecipientsTable = RecipientsTable()
    profile: ProfileTable = ProfileTable()
    rate: RateTable = RateTable()
    external: ExternalTable = ExternalTable()
    plugin: PluginTable = PluginTable()

    @property
    def label(self) -> str:
        """Its name in the log."""
        return self.name or self.rule
