"""Writing TOML, the inverse of ``tomllib``: for the effective settings and for generated files."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence


def toml_value(value: object) -> str:
    """A value as TOML writes it in one line; what TOML has no form for is shown by ``str()``."""
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return f"{value:.0f}"  # 300 and 300.0 are the same number of seconds
        case str():
            # JSON's strings are TOML's basic strings but for DEL, which TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{" + ", ".join(f"{_key(name)} = {toml_value(item)}" for name, item in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case _:
            return str(value)


def toml_document(document: Mapping[str, object]) -> str:
    """A document of tables as TOML text.  ``None``, which TOML cannot say, becomes a comment."""
    return "\n".join(_table((), document)).strip("\n") + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, object]) -> Iterator[str]:
    tables: list[tuple[str, object]] = []
    for name, value in table.items():
        if isinstance(value, Mapping) or (isinstance(value, Sequence) and _all_tables(value)):
            tables.append((name, value))
        elif value is None:
            yield f"# {_key(name)}: not set"
        else:
            yield f"{_key(name)} = {toml_value(value)}"
    for name, value in tables:
        inner = (*path, name)
        dotted = ".".join(map(_key, inner))
        if isinstance(value, Mapping):
            yield f"\n[{dotted}]"
            yield from _table(inner, value)
        else:
            assert isinstance(value, Sequence)  # noqa: S101 (for mypy; sorted out above)
            for item in value:
                yield f"\n[[{dotted}]]"
                yield from _table(inner, item)


def _all_tables(value: Sequence[object]) -> bool:
    return bool(value) and not isinstance(value, str) and all(isinstance(item, Mapping) for item in value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)
