"""From a file to :class:`~digipoort_msa.config.settings.Settings`, or to every reason why not."""

import codecs
import re
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from digipoort_msa.config.checks import across
from digipoort_msa.config.files import in_files
from digipoort_msa.config.problems import (
    ConfigError,
    Problem,
    from_validation,
    key_path,
    without_password,
    without_secrets,
)
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.text import toml_document

_LARGEST = 2**20  # octets of a file
_MEASURED_TOGETHER = ("delivery", "passwords", "queue")


def load(path: Path, *, files: bool = True) -> Settings:
    """Read and check a configuration file.

    :param files: also check the files that it names (certificates, keys, password files); commands that
        do not need those leave it out.
    :raise ConfigError: with every problem at once.
    """
    try:
        return settings_from(_document(path), files=files)
    except ConfigError as error:
        raise ConfigError(error.problems, path) from None


def settings_from(document: Mapping[str, object], *, files: bool = True) -> Settings:
    """Check a parsed document; see :func:`load`."""
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_all_problems(document, error, files)) from None
    errors = [problem for problem in _examined(settings, files) if not problem.warning]
    if errors:
        raise ConfigError(errors)
    return settings


def warnings(settings: Settings) -> tuple[Problem, ...]:
    """What is allowed in ``settings`` but unwise."""
    return tuple(problem for problem in _examined(settings, files=True) if problem.warning)


def as_document(settings: Settings) -> dict[str, object]:
    """The effective settings as plain values, keys as in the file; passwords in URLs, and whatever is called
    one in a plug-in's settings, are masked."""
    document = settings.model_dump(mode="json", by_alias=True)
    for realm in document["realm"]:
        if realm["sql"]["url"]:
            realm["sql"]["url"] = without_password(realm["sql"]["url"])
        realm["plugin"] = without_secrets(realm["plugin"])
        for policy in realm["policy"]:
            policy["plugin"]["settings"] = without_secrets(policy["plugin"]["settings"])
    return document


def as_toml(settings: Settings) -> str:
    """The effective settings as TOML text; see :func:`as_document`."""
    return toml_document(as_document(settings))


def _examined(settings: Settings, files: bool) -> list[Problem]:
    return [*across(settings), *(in_files(settings) if files else ())]


def _all_problems(document: Mapping[str, object], error: ValidationError, files: bool) -> list[Problem]:
    """The keys that are wrong, and what the rules across keys say about the rest.

    For those rules every wrong key is left out, and a stand-in is put where a key has to be.  A problem that
    would only echo a wrong key is not told.
    """
    told = {detail["loc"] for detail in error.errors()}
    details = [
        detail
        for detail in error.errors()
        if not (detail["loc"][2:] in told and _inherited(document, detail["loc"]))
    ]
    problems = from_validation(details, Settings)
    wrong = [key_path(detail["loc"]) for detail in details if detail["type"] != "extra_forbidden"]
    mended = deepcopy(dict(document))
    for detail in details:
        if detail["type"] != "missing":
            _leave_out(mended, detail["loc"])
    _stand_in(mended)
    try:
        examined = _examined(Settings.model_validate(mended), files)
    except ValidationError:
        return problems
    return problems + [
        problem
        for problem in examined
        if not problem.warning and not any(_echoes(problem.key, key) for key in wrong)
    ]


def _inherited(document: Mapping[str, object], location: tuple[int | str, ...]) -> bool:
    """Does a realm have this only from the general table of the same name?"""
    own = _reach(document, location)
    return location[0] == "realm" and own > 2 and _reach(document, location[2:]) > own - 2


def _reach(document: Any, location: tuple[int | str, ...]) -> int:
    """How many parts of a location are there in the document."""
    here = document
    for number, part in enumerate(location):
        in_list = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if not (in_list or (isinstance(here, Mapping) and part in here)):
            return number
        here = here[part]
    return len(location)


def _echoes(key: str, wrong: str) -> bool:
    """Does a problem of ``key`` only say again that ``wrong`` is?

    That is so for the same key, for one inside the other, and in tables whose keys are measured together.
    """
    parts, wrong_parts = (re.split(r"[.\[]", path) for path in (key, wrong))
    if parts[0] == wrong_parts[0] and parts[0] in _MEASURED_TOGETHER:
        return True
    return all(one == other for one, other in zip(parts, wrong_parts, strict=False))


def _leave_out(document: dict[str, Any], location: tuple[int | str, ...]) -> None:
    """Delete the innermost key on the way to ``location``; the items of a list stay where they are."""
    here: Any = document
    keys: list[tuple[dict[str, Any], str]] = []
    for part in location:
        if isinstance(here, dict) and part in here:
            keys.append((here, str(part)))
        elif not (isinstance(here, list) and isinstance(part, int) and part < len(here)):
            break
        here = here[part]
    if keys:
        table, key = keys[-1]
        del table[key]


def _stand_in(document: dict[str, Any]) -> None:
    """Put something right where a key has no default."""
    document.setdefault("server", {}).setdefault("hostname", "localhost")
    for listener in document.setdefault("listener", [{}]):
        listener.setdefault("endpoint", "tcp:0")
        listener.setdefault("tls", "implicit")
    for realm in document.setdefault("realm", [{}]):
        realm.setdefault("name", "-")


def _document(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            octets = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError([Problem("", f"cannot be read: {error.strerror}")]) from None
    if len(octets) > _LARGEST:
        raise ConfigError([Problem("", f"not a configuration: larger than {_LARGEST} octets")])
    octets = octets.removeprefix(codecs.BOM_UTF8)  # which some editors write
    try:
        return tomllib.loads(octets.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        column = error.start - octets.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem("", f"line {line}, column {column}: not UTF-8 text")]) from None
    except RecursionError:
        raise ConfigError([Problem("", "not TOML: nested too deeply")]) from None
    except ValueError as error:  # TOMLDecodeError, which tells line and column, and numbers beyond reason
        raise ConfigError([Problem("", f"not TOML: {error}")]) from None
