"""``[realm.policy.plugin]``."""

from typing import Any

from pydantic import Field

from digipoort_msa.config.tables import Table, Text


class PluginTable(Table):
    """``rule = "plugin"``: a rule of an installed package."""

    name: Text | None = Field(
        default=None,
        description="the plug-in's name, as its package registers it",
    )
    settings: dict[str, Any] = Field(default={}, description="a table: the plug-in's own settings")
