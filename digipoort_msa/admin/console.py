"""What every command shares: the settings, and the two ways to print (a person's and a machine's).

Exit statuses are those of ``sysexits.h``: 78 where the configuration is at fault, 2 for a wrong command
line (click's own), 1 for anything else.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from digipoort_msa.config import ConfigError, Settings, load

Command = TypeVar("Command", bound=Callable[..., Any])


class NotConfigured(click.ClickException):
    """The configuration cannot be used."""

    exit_code = os.EX_CONFIG

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.problems = error.problems

    def show(self, file: IO[Any] | None = None) -> None:
        """A line for each problem, and nothing else."""
        click.echo(self.message, file=file, err=file is None)


class Console:
    """The object of click's context."""

    def __init__(self, config: Path) -> None:
        self.config = config

    @cached_property
    def settings(self) -> Settings:
        """The settings, read when a command first asks.

        Certificates and keys are not looked at: an account can be managed without them.

        :raise NotConfigured: the file has problems.
        """
        return self.load(files=False)

    def load(self, *, files: bool) -> Settings:
        """Read the settings anew; see :func:`digipoort_msa.config.load`."""
        try:
            return load(self.config, files=files)
        except ConfigError as error:
            raise NotConfigured(error) from None


pass_console = click.make_pass_decorator(Console)


def json_option(command: Command) -> Command:
    """Adds ``--json``, which the command receives as ``as_json: bool``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")(command)


def print_json(value: object) -> None:
    """Print a value as JSON: one document, keys in their own order."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their headings, in columns as wide as they need to be.

    Control characters are escaped: a stored text cannot command the terminal.
    """
    lines = [list(headings), *([_plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _plain(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
