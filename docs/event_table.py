"""Makes the tables of every log event and its fields from :mod:`digipoort_msa.log` and from the calls that
emit them.

``python docs/event_table.py`` prints them as reStructuredText; the documentation build runs it.  An event's
fields are those of its sentence, and those that a call of ``log.emit`` adds.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from restructured_text import list_table, literal, section  # noqa: E402

from digipoort_msa import log  # noqa: E402

_GROUP = re.compile(r"^# -- (.+?) -*$|^([A-Z_]+) = Event\(", re.MULTILINE)


def groups() -> dict[str, list[str]]:
    """The names of the constants under each heading of the catalogue."""
    found: dict[str, list[str]] = {}
    heading = ""
    for match in _GROUP.finditer(Path(log.__file__).read_text(encoding="utf-8")):
        if match[1]:
            heading = match[1]
        else:
            found.setdefault(heading, []).append(match[2])
    return found


def sentence_fields(event: log.Event) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(event.sentence) if name]


def added_fields() -> dict[str, set[str]]:
    """For each constant, the fields that calls give it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "digipoort_msa").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for constant, fields in _emitted(node):
                found.setdefault(constant, set()).update(fields)
    return found


def text() -> str:
    added = added_fields()
    sections = []
    for heading, constants in groups().items():
        rows = []
        for constant in constants:
            event: log.Event = getattr(log, constant)
            own = sentence_fields(event)
            fields = [*own, *sorted(added.get(constant, set()) - set(own))]
            shown = ", ".join(map(literal, dict.fromkeys(fields)))
            rows.append((literal(event.name), event.level.name, literal(event.sentence), shown))
        title = heading[:1].upper() + heading[1:]
        sections.append(section(title))
        sections.append(list_table(("Event", "Level", "Line in the log", "Fields"), (14, 8, 48, 30), rows))
    return "\n".join(sections)


def _emitted(node: ast.AST) -> Iterator[tuple[str, set[str]]]:
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "emit"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.args
        and isinstance(node.args[0], ast.Attribute)
    ):
        yield node.args[0].attr, {keyword.arg for keyword in node.keywords if keyword.arg}


if __name__ == "__main__":
    print(text())
