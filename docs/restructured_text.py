"""Writes reStructuredText tables; the other scripts of this folder use it."""

from collections.abc import Iterable, Sequence


def literal(text: str) -> str:
    """``text`` in double backquotes; an empty text stays empty."""
    return f"``{text}``" if text else ""


def list_table(headings: Sequence[str], widths: Sequence[int], rows: Iterable[Sequence[str]]) -> str:
    """A list-table; a cell is one line."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (headings, *rows):
        for number, cell in enumerate(row):
            lines.append(f"   {'* -' if number == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"


def section(title: str, underline: str = "~") -> str:
    return f"{title}\n{underline * len(title)}\n"
