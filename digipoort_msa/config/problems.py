"""What is wrong with a configuration: values, and the sentences that an operator reads.

A problem names the key, the value that was given, and what would be right.  All problems of a file are
told at once, in one :class:`ConfigError`.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from attrs import frozen
from pydantic import BaseModel

from digipoort_msa.config.text import toml_value

MISSING = object()
_LONGEST = 200  # characters of a value that are shown
_SECRET = re.compile("password|passwd|secret|token|(private|encryption)[-_]?key")

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a string in quotes",
    "path_type": "a string in quotes",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "string_pattern_mismatch": "it has characters that cannot be there",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "string_too_long": ("max_length", "characters: at most"),
}


@frozen
class Problem:
    """One thing that is wrong, or (``warning``) allowed but unwise."""

    key: str  # such as "listener[1].tls", indices from 0; empty for the file as a whole
    right: str  # what would be right
    value: object = MISSING
    warning: bool = False

    def __str__(self) -> str:
        given = "" if self.value is MISSING else f" = {_shown(self.key, self.value)}"
        return f"{self.key}{given}: {self.right}" if self.key else self.right


class ConfigError(Exception):
    """A configuration cannot be used.  Its text has a line for each problem.

    :ivar problems: every error found.
    """

    def __init__(self, problems: Iterable[Problem], path: Path | None = None) -> None:
        """:param path: the file, where there is one."""
        self.problems = tuple(problems)
        source = f"{path}: " if path else ""
        super().__init__("\n".join(f"{source}{problem}" for problem in self.problems))


def from_validation(details: Iterable[Any], model: type[BaseModel]) -> list[Problem]:
    """The problems that pydantic found, in our words.

    :param details: of ``ValidationError.errors()``.
    """
    return [
        _problem(detail, model)
        for detail in details
        # A list whose items are at fault is reported as empty too; only an empty one is.
        if not (detail["type"] == "too_short" and detail["input"])
    ]


def without_password(url: str) -> str:
    """A database URL, or what was meant as one, as it may be shown.

    The password is all from the colon behind the user's name to the last ``@``: it may hold anything, and
    so may the name but for a colon.  Parameters can be passwords too.
    """
    masked = re.sub(r"(?s)^([^:/]*[:/]+[^:]*:).*(?=@)", r"\1***", url)
    return re.sub(r"(?is)([?&][^=&]*(?:pass(?!file)|pwd|secret|odbc_connect)[^=&]*=)[^&]*", r"\1***", masked)


def without_secrets(value: Any) -> Any:
    """Settings that are not ours to know, as they may be shown: what is called a secret is none to see."""
    if isinstance(value, Mapping):
        return {
            name: "***" if _SECRET.search(name.lower()) else without_secrets(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return without_password(value) if isinstance(value, str) and "://" in value else value


def _problem(detail: Any, model: type[BaseModel]) -> Problem:
    location, kind = detail["loc"], detail["type"]
    table, description = _place(location, model)
    key = key_path(location)
    if kind == "missing":
        return Problem(key, f"missing; should be {description}")
    if kind == "extra_forbidden":
        return Problem(key, _nearest(str(location[-1]), table), detail["input"])
    right = f"should be {description}"
    if kind == "value_error":
        right = f"should be {detail['ctx']['error']}"
    elif kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        right += f" ({words} {toml_value(detail['ctx'][name])})"
    elif kind in _TYPES:
        right += f" ({_TYPES[kind]})"
    return Problem(key, right, detail["input"])


def key_path(location: tuple[int | str, ...]) -> str:
    """A place in the file as an operator reads it, such as ``listener[1].tls``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":  # pydantic's mark for the key of a table, rather than its value
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            path += ("." if path else "") + (part if bare else toml_value(part))
    return path


def _nearest(name: str, table: type[BaseModel]) -> str:
    moved: Mapping[str, str] = getattr(table, "moved", {})
    if name in moved:
        return f"unknown key; now it is {moved[name]}"
    known = [field.alias or key for key, field in table.model_fields.items()]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
    return "unknown key; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}")


def _place(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[type[BaseModel], str]:
    """The innermost table that a location lies in, and the description of its innermost known key."""
    description = "a table"
    for part in location:
        if isinstance(part, int):
            continue
        field = next((field for field in model.model_fields.values() if field.alias == part), None)
        if field is None:
            break
        description = field.description or "a table"
        inner = [field.annotation, *get_args(field.annotation)]
        tables = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not tables:
            break
        model = tables[0]
    return model, description


def _shown(key: str, value: object) -> str:
    """A value in one line, and nothing of a password: one may stand under a key that is not for it."""
    name = key.rpartition(".")[2].lower()
    if isinstance(value, Mapping):
        return "a table"
    # A path may be shown; what was written instead of one may be the secret itself.
    if not isinstance(value, Path) and _SECRET.search(name):
        return '"***"'
    text = toml_value(str(value) if isinstance(value, Path) else value)
    if "://" in text or name.startswith("url"):
        text = without_password(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
