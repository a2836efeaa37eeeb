"""Makes the table of every configuration key from the settings' own models, so that it cannot differ from
the program.

``python docs/settings_table.py`` prints it as reStructuredText; the documentation build runs it.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from restructured_text import list_table, literal, section

from digipoort_msa.config import toml_document
from digipoort_msa.config.settings import Settings

_UNIT = re.compile(r"\b(seconds|octets|KiB)\b")


def tables() -> Iterator[tuple[str, type[BaseModel]]]:
    """Each table's header as the file has it, such as ``[[realm]]``, with its model."""
    yield from _below(Settings, "")


def text() -> str:
    """A section for each table of the file."""
    sections = []
    for header, model in tables():
        rows = [_row(name, field) for name, field in model.model_fields.items() if not _inner(field)]
        about = " ".join((model.__doc__ or "").split())
        sections.append(f"{section(header)}\n{about}\n")
        if rows:
            sections.append(list_table(("Key", "Default", "Unit", "Meaning"), (22, 22, 8, 48), rows))
    return "\n".join(sections)


def default(field: FieldInfo) -> str:
    """As it would stand in the file; empty where there is none."""
    value = field.get_default(call_default_factory=True)
    if field.is_required() or value is None:
        return ""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return toml_document({"key": value}).strip().removeprefix("key = ")


def unit(field: FieldInfo) -> str:
    found = _UNIT.search(field.description or "")
    return found[1] if found else ""


def _row(name: str, field: FieldInfo) -> tuple[str, ...]:
    shown = "**must be set**" if field.is_required() else literal(default(field)) or "unset"
    meaning = (field.description or "").replace("*", r"\*")
    return literal(field.alias or name), shown, unit(field), meaning


def _below(model: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        inner = _inner(field)
        if inner is not None:
            key = f"{place}{field.alias or name}"
            yield (f"[[{key}]]" if inner is not field.annotation else f"[{key}]"), inner
            yield from _below(inner, f"{key}.")


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a table, or an array of tables; a realm's own table is told of where the
    general one is."""
    kinds: list[Any] = [field.annotation]
    if get_origin(field.annotation) is tuple:
        items = get_args(field.annotation)
        kinds = [get_args(item)[0] if get_origin(item) is Annotated else item for item in items]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


if __name__ == "__main__":
    print(text())
