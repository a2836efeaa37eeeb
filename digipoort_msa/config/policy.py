"""``[[realm.policy]]``: one rule on what a realm's accounts may submit; the rules are asked in their
order."""

from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints

from digipoort_msa.config.policies.external import ExternalTable
from digipoort_msa.config.policies.header_sender import HeaderSenderTable
from digipoort_msa.config.policies.plugin import PluginTable
from digipoort_msa.config.policies.profile import ProfileTable
from digipoort_msa.config.policies.rate import RateTable
from digipoort_msa.config.policies.recipients import RecipientsTable
from digipoort_msa.config.policies.sender import SenderTable
from digipoort_msa.config.tables import AccountName, Table, Text

RuleName = Literal["sender", "header-sender", "recipients", "profile", "rate", "external", "plugin"]
RULES: tuple[str, ...] = get_args(RuleName)


class Policy(Table):
    """``[[realm.policy]]``: one rule; its own settings stand in the table of its name."""

    rule: RuleName = Field(
        description='"sender", "header-sender", "recipients", "profile", "rate", "external" or "plugin"'
    )
    name: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,100}$")] | None = Field(
        default=None,
        description="ASCII, at most 100 characters: how the log, reports and replies call this rule; unset "
        "means as rule",
    )
    mode: Literal["enforce", "audit"] = Field(
        default="enforce",
        description='"enforce", or "audit": what it would refuse passes, and is reported instead',
    )
    accounts: tuple[AccountName, ...] = Field(
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
