"""``retry``, ``hold``, ``release``, ``return``, ``remove`` and ``move``: what an operator orders."""

from typing import Any

import click

from digipoort_msa.admin.console import Console, json_option, pass_console
from digipoort_msa.admin.queue.group import opened, with_spool
from digipoort_msa.admin.queue.printing import complain, counted, print_document
from digipoort_msa.admin.queue.selecting import Chosen, messages
from digipoort_msa.admin.queue.wiring import movable, sealing, untried, verdicts_of
from digipoort_msa.config.tables import host_and_port
from digipoort_msa.spool import orders
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.orders import NOT_HERE, Done
from digipoort_msa.spool.states import UNFINISHED, WAITING, State


@click.command()
@messages
@json_option
@pass_console
def retry(console: Console, chosen: Chosen, as_json: bool) -> None:
    """Try deferred messages now, with a new time until giving up.

    Those that are held are for `release`.
    """
    with opened(console) as inspection:
        queue_ids = chosen.queue_ids(inspection, WAITING)
        done = orders.retry(inspection, queue_ids, untried(console.settings))
    _report(done, chosen, "to be tried now", as_json)


@click.command()
@messages
@click.option(
    "--reason", metavar="TEXT", default="an operator holds it", help="For whoever looks at it later."
)
@json_option
@with_spool
def hold(inspection: Inspection, chosen: Chosen, reason: str, as_json: bool) -> None:
    """Have messages not tried any more until `release`.

    An attempt that is under way still delivers what it can.
    """
    done = orders.hold(inspection, chosen.queue_ids(inspection, WAITING), reason)
    _report(done, chosen, "held", as_json)


@click.command()
@messages
@json_option
@pass_console
def release(console: Console, chosen: Chosen, as_json: bool) -> None:
    """Try held messages again, with a new time until giving up.

    A message whose body file is missing is released once the file is back, and one whose realm is not
    configured once the realm is.
    """
    with opened(console) as inspection:
        queue_ids = chosen.queue_ids(inspection, (State.HELD,))
        done = orders.release(inspection, queue_ids, untried(console.settings))
    _report(done, chosen, "released", as_json)


@click.command("return")
@messages
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_console
def return_(console: Console, chosen: Chosen, yes: bool, as_json: bool) -> None:
    """Return messages to their senders, with a notification that they were not delivered.

    A message of which nobody may be told stays.  One that is being delivered is returned after this attempt.
    """
    with opened(console) as inspection:
        verdicts = verdicts_of(console.settings)
        key = sealing(console.settings)
        queue_ids = _asked(inspection, chosen, "Return", "to the sender", yes)
        _report(orders.return_(inspection, queue_ids, verdicts, key), chosen, "returned", as_json)


@click.command()
@messages
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_spool
def remove(inspection: Inspection, chosen: Chosen, yes: bool, as_json: bool) -> None:
    """Remove messages for good.

    Nobody is told of it.  A message that is being delivered goes after this attempt.
    """
    queue_ids = _asked(inspection, chosen, "Remove", "for good", yes)
    _report(orders.remove(inspection, queue_ids), chosen, "removed", as_json)


def _hop(context: click.Context, parameter: click.Parameter, value: str) -> str | None:
    if value == "-":
        return None
    try:
        host_and_port(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} should be {error}, or - for the realm's own") from None
    return value


@click.command()
@messages
@click.option(
    "--to",
    "next_hop",
    metavar="HOST:PORT",
    required=True,
    callback=_hop,
    help="The hop; - takes an earlier choice back.",
)
@json_option
@pass_console
def move(console: Console, chosen: Chosen, next_hop: str | None, as_json: bool) -> None:
    """Have messages go to another hop than their realm's, and now.

    How its TLS is checked, and the login, are as for the realm's own hops.
    """
    with opened(console) as inspection:
        queue_ids = chosen.queue_ids(inspection, UNFINISHED)
        done = orders.move(inspection, queue_ids, next_hop, movable(console.settings))
    _report(done, chosen, f"to go to {next_hop or 'the hops of their realm'}", as_json)


def _asked(inspection: Inspection, chosen: Chosen, verb: str, how: str, yes: bool) -> list[str]:
    """The ids that are meant, once the operator has agreed to their number."""
    queue_ids = chosen.queue_ids(inspection)
    if not yes:
        here = len(queue_ids) - (len(inspection.unknown(tuple(queue_ids))) if chosen.named else 0)
        if here:
            which = ", ".join(queue_ids) if chosen.named and here == len(queue_ids) <= 3 else counted(here)
            click.confirm(f"{verb} {which} {how}?", abort=True, err=True)
    return queue_ids


def _report(done: Done, chosen: Chosen, what: str, as_json: bool) -> None:
    """Say what was done; ends with status 1 where something that was asked for was not."""
    # What a filter found and is gone by now has ended: nothing is left to do for it.
    refused = {queue_id: why for queue_id, why in done.refused.items() if chosen.named or why != NOT_HERE}
    if as_json:
        document: dict[str, Any] = {
            "done": done.done,
            "refused": [{"id": queue_id, "reason": why} for queue_id, why in refused.items()],
        }
        if done.pending:
            document["pending"] = done.pending
        print_document(document)
    else:
        at_once = len(done.done) - len(done.pending)
        if at_once or not done.pending:
            click.echo(f"{counted(at_once)} {what}")
        if done.pending:
            click.echo(f"{counted(len(done.pending))} to be {what}")
    complain(refused.items())
    if refused:
        raise SystemExit(1)
