"""Text for a terminal, row by row, and JSON, value by value: neither grows in memory with the spool."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import click

_ROWS = 200  # that are looked at for the widths of the columns, and are printed at once


def printable(value: object) -> str:
    """A text that cannot command a terminal, whoever wrote it."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def moment(seconds: float | None) -> str:
    """A time in UTC, for a person and as JSON has it."""
    if seconds is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).isoformat(' ', 'seconds')[:19]}Z"
    except (ValueError, OverflowError, OSError):  # a row can say anything
        return repr(seconds)


def span(seconds: float) -> str:
    """A time span, roughly."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def stream_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their headings; a column grows where a later row needs more room."""
    iterator: Iterator[Sequence[object]] = iter(rows)
    widths = [0] * len(headings)
    piece = [list(headings)]
    while True:
        piece += [list(map(printable, row)) for row in islice(iterator, _ROWS)]
        if not piece:
            return
        widths = [
            max(width, *map(len, column))
            for width, column in zip(widths, zip(*piece, strict=True), strict=True)
        ]
        line = "  ".join(f"{{:{width}}}" for width in widths).format
        click.echo("\n".join(line(*row).rstrip() for row in piece))
        piece = []


def stream_json(values: Iterable[object]) -> None:
    """Print one array, a value on each line."""
    iterator = iter(values)
    first = True
    while piece := list(islice(iterator, _ROWS)):
        lines = ",\n".join(json.dumps(value) for value in piece)
        click.echo(("[\n" if first else ",\n") + lines, nl=False)
        first = False
    click.echo("[]" if first else "\n]")


def print_document(value: object) -> None:
    """Print one JSON document; ASCII, so that it commands no terminal either."""
    click.echo(json.dumps(value, indent=2))


def counted(number: int, what: str = "message") -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def complain(complaints: Iterable[tuple[str, str]], most: int = 20) -> None:
    """Say on standard error what could not be done, and of what."""
    listed = list(complaints)
    for what, why in listed[:most]:
        click.echo(f"{printable(what)}: {printable(why)}", err=True)
    if len(listed) > most:
        click.echo(f"... and {len(listed) - most} more", err=True)
