"""The options by which an operator says which messages are meant."""

import re
import time
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar

import click
from attrs import evolve

from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.selection import EVERY, Selection
from digipoort_msa.spool.states import STORED, State

Command = TypeVar("Command", bound=Callable[..., Any])

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Age(click.ParamType):
    """A time span such as ``30m``, in seconds."""

    name = "AGE"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        match = re.fullmatch(r"([0-9]{1,9})([smhdw])", str(value), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not an age such as 90s, 30m, 4h, 2d or 1w", parameter, context)
        return float(match[1]) * _UNITS[match[2]]


def filters(command: Command) -> Command:
    """Adds the filters, which the command receives as ``selection: Selection``."""

    def wrapped(
        *arguments: Any,
        states: tuple[str, ...],
        realm: str | None,
        account: str | None,
        sender: str | None,
        recipient: str | None,
        older_than: float | None,
        newer_than: float | None,
        **options: Any,
    ) -> Any:
        now = time.time()
        selection = Selection(
            states=frozenset(map(State, states)),
            realm=realm,
            account=account,
            sender=sender,
            recipient=recipient,
            received_before=None if older_than is None else now - older_than,
            received_after=None if newer_than is None else now - newer_than,
        )
        return command(*arguments, selection=selection, **options)

    result: Any = update_wrapper(wrapped, command)
    for option in (
        click.option("--newer-than", type=Age(), help="Received so long ago or less: 30m, 4h, 2d."),
        click.option("--older-than", type=Age(), help="Received longer ago than this."),
        click.option("--recipient", metavar="TEXT", help="As --sender, of some recipient."),
        click.option(
            "--sender", metavar="TEXT", help="A part of the sender's address, or a pattern such as '*@a.nl'."
        ),
        click.option("--account", metavar="NAME", help="Submitted by this account."),
        click.option("--realm", metavar="NAME", help="Submitted in this realm."),
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice([str(state) for state in STORED]),
            help="With a recipient in this state; may be given more than once.",
        ),
    ):
        result = option(result)
    return result


def messages(command: Command) -> Command:
    """Adds IDs, ``--all`` and the filters, which the command receives as ``chosen: Chosen``."""

    def wrapped(
        *arguments: Any, queue_ids: tuple[str, ...], every: bool, selection: Selection, **options: Any
    ) -> Any:
        if queue_ids and (every or selection != EVERY):
            raise click.UsageError("Give IDs, or filters, or --all: not IDs with the others.")
        if not queue_ids and not every and selection == EVERY:
            raise click.UsageError("Give the IDs of messages, or filters, or --all.")
        return command(*arguments, chosen=Chosen(queue_ids, selection), **options)

    result: Any = filters(update_wrapper(wrapped, command))
    result = click.option("--all", "every", is_flag=True, help="Every message in the spool.")(result)
    return click.argument("queue_ids", metavar="[ID]...", nargs=-1)(result)


class Chosen:
    """The messages that a command is about."""

    def __init__(self, queue_ids: tuple[str, ...], selection: Selection) -> None:
        self.named = bool(queue_ids)  # by their ids: then each has to be there
        self._queue_ids = queue_ids
        self._selection = selection

    def queue_ids(self, inspection: Inspection, states: tuple[State, ...] = ()) -> list[str]:
        """Their ids, as the operator gave them or oldest first.

        :param states: that filters mean where they do not say which.
        """
        if self.named:
            return list(dict.fromkeys(self._queue_ids))
        selection = self._selection
        if not selection.states:
            selection = evolve(selection, states=frozenset(states))
        return inspection.queue_ids(selection)
