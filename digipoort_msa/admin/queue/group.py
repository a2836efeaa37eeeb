"""The group itself, and how its commands come by an open spool."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import update_wrapper
from io import TextIOWrapper
from typing import Any

import click

from digipoort_msa.admin.console import Console, pass_console
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.schema import SpoolError


class _InOrder(click.Group):
    """Lists its commands in the order in which they were added."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
@click.pass_context
def queue(context: click.Context) -> None:
    """Show and manage the messages in the spool.

    Run it as the user of the MSA, beside the running MSA or without it.
    """
    former = os.umask(0o077)  # nothing that is made here is anybody else's business
    context.call_on_close(lambda: os.umask(former))
    if isinstance(sys.stdout, TextIOWrapper):  # an address that the terminal's character set has not
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def opened(console: Console) -> Iterator[Inspection]:
    """The spool of the configuration; what goes wrong with it ends the command with status 1."""
    settings = console.settings
    try:
        with closing(Inspection(settings.server.state_directory / "spool")) as inspection:
            yield inspection
    except SpoolError as error:
        if all(settings.delivery_of(realm).to == "through" for realm in settings.realm):
            raise click.ClickException(
                f'{error} (delivery.to = "through": nothing is kept here, and there is no queue)'
            ) from error
        raise click.ClickException(str(error)) from error


def with_spool(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command an open ``Inspection`` as its first argument."""

    @pass_console
    def wrapped(console: Console, *arguments: Any, **options: Any) -> None:
        with opened(console) as inspection:
            command(inspection, *arguments, **options)

    return update_wrapper(wrapped, command)


@contextmanager
def progress(length: int, label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's standard error, and nothing elsewhere; gives what tells it of progress."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:

        def at(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield at
