"""The ledger of logins, as the operator's commands open it and have things forgotten in it."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import click

from digipoort_msa.accounts.ledger import DATABASE, Ledger, LedgerError, Wish
from digipoort_msa.admin.console import Console

_PATIENCE = 5.0  # seconds that a command waits for the MSA, which looks once a second
_PAUSE = 0.05  # seconds between two looks


@contextmanager
def opened(console: Console) -> Iterator[Ledger | None]:
    """The ledger; ``None`` where there is none yet.  What is wrong with it ends the command."""
    directory = console.settings.server.state_directory
    try:
        if not (directory / DATABASE).exists():
            yield None
            return
        with closing(Ledger(directory, working=False)) as ledger:
            yield ledger
    except (LedgerError, OSError) as error:
        raise click.ClickException(str(error)) from error


def have_forgotten(ledger: Ledger | None, wish: Wish) -> int | None:
    """Have something forgotten, by the MSA where one runs.

    :return: how many counts there were; ``None`` where the MSA has it still to do.
    """
    if ledger is None:
        return 0
    cleared = ledger.fulfil(wish)
    if cleared is not None:
        return cleared
    number = ledger.leave(wish)
    until = time.monotonic() + _PATIENCE
    while (cleared := ledger.outcome(number)) is None and time.monotonic() < until:
        time.sleep(_PAUSE)
    return cleared
