"""The configuration: one TOML file, read into frozen settings and checked as a whole."""

from digipoort_msa.config.loading import as_document, as_toml, load, settings_from, warnings
from digipoort_msa.config.problems import ConfigError, Problem
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.tables import host_and_port
from digipoort_msa.config.text import toml_document

__all__ = [
    "ConfigError",
    "Problem",
    "Settings",
    "as_document",
    "as_toml",
    "host_and_port",
    "load",
    "settings_from",
    "toml_document",
    "warnings",
]
