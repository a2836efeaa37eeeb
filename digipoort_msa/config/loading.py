"""From a file to :class:`~digipoort_msa.config.settings.Settings`, or to every reason why not."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from digipoort_msa.config.checks import across
from digipoort_msa.config.files import in_files
from digipoort_msa.config.problems import ConfigError, Problem, from_validation, without_password
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.text import toml_document


def load(path: Path, *, files: bool = True) -> Settings:
    """Read and check a configuration file.

    :param files: also check the files that it names (certificates, keys, password files); commands that
        do not need those leave it out.
    :raise ConfigError: with every problem at once.
    """
    return settings_from(_document(path), files=files)


def settings_from(document: Mapping[str, object], *, files: bool = True) -> Settings:
    """Check a parsed document; see :func:`load`."""
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        raise ConfigError(from_validation(error, Settings)) from None
    problems = [*across(settings), *(in_files(settings) if files else ())]
    errors = [problem for problem in problems if not problem.warning]
    if errors:
        raise ConfigError(errors)
    return settings


def warnings(settings: Settings) -> tuple[Problem, ...]:
    """What is allowed in ``settings`` but unwise."""
    return tuple(problem for problem in (*across(settings), *in_files(settings)) if problem.warning)


def as_document(settings: Settings) -> dict[str, object]:
    """The effective settings as plain values, keys as in the file; passwords in URLs are masked."""
    document = settings.model_dump(mode="json", by_alias=True)
    for realm in document["realm"]:
        if realm["url"]:
            realm["url"] = without_password(realm["url"])
    return document


def as_toml(settings: Settings) -> str:
    """The effective settings as TOML text; see :func:`as_document`."""
    return toml_document(as_document(settings))


def _document(path: Path) -> dict[str, object]:
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem("", f"{path}: cannot be read: {error.strerror}")]) from None
    try:
        return tomllib.loads(octets.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        column = error.start - octets.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem("", f"{path}: line {line}, column {column}: not UTF-8 text")]) from None
    except RecursionError:
        raise ConfigError([Problem("", f"{path}: not TOML: nested too deeply")]) from None
    except ValueError as error:  # TOMLDecodeError, which tells line and column, and numbers beyond reason
        raise ConfigError([Problem("", f"{path}: not TOML: {error}")]) from None
