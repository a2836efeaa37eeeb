"""``digipoort-msa queue``: what waits in the spool, and what an operator may do about it.

It works beside the running MSA, which sees a change within a second, and without it.  Exit status 1: no
message of this id, or no spool.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import update_wrapper
from typing import Any

import click

from digipoort_msa.admin.console import Console, json_option, pass_console, print_json, print_table
from digipoort_msa.spool.inspection import Inspection, Message, Summary
from digipoort_msa.spool.schema import SpoolError, State


@click.group()
def queue() -> None:
    """Show and manage the messages in the spool."""


@contextmanager
def _opened(console: Console) -> Iterator[Inspection]:
    try:
        with closing(Inspection(console.settings.server.state_directory / "spool")) as inspection:
            yield inspection
    except SpoolError as error:
        raise click.ClickException(str(error)) from error


def _with_spool(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command an open ``Inspection`` as its first argument."""

    @pass_console
    def opened(console: Console, *arguments: Any, **options: Any) -> None:
        with _opened(console) as inspection:
            command(inspection, *arguments, **options)

    return update_wrapper(opened, command)


@queue.command("list")
@json_option
@_with_spool
def list_(inspection: Inspection, as_json: bool) -> None:
    """List every message, oldest first."""
    messages = inspection.messages()
    if as_json:
        print_json([_summary_document(message) for message in messages])
        return
    print_table(
        ("ID", "RECEIVED", "OCTETS", "SENDER", "RECIPIENTS", "NEXT TRY"),
        (
            (
                message.queue_id,
                _time(message.received_at),
                message.size,
                message.sender,
                _states(message),
                _next_try(message),
            )
            for message in messages
        ),
    )


@queue.command()
@click.argument("queue_id", metavar="ID")
@json_option
@_with_spool
def show(inspection: Inspection, queue_id: str, as_json: bool) -> None:
    """Show one message: its envelope, and what has become of each recipient."""
    message = inspection.show(queue_id)
    if message is None:
        raise _unknown([queue_id])
    if as_json:
        print_json(_document(message))
        return
    summary = message.summary
    print_table(
        (summary.queue_id, ""),
        (
            ("received", _time(summary.received_at)),
            ("sender", summary.sender),
            ("account", f"{summary.account} in realm {message.realm}"),
            ("session", message.session_id),
            ("octets", summary.size),
            ("kept in", message.location),
            ("next try", _next_try(summary)),
        ),
    )
    click.echo()
    print_table(
        ("RECIPIENT", "STATE", "ATTEMPTS", "HOP", "LAST REPLY"),
        (
            (f"<{recipient.path}>", recipient.state, recipient.attempts, recipient.hop, recipient.reply)
            for recipient in message.recipients
        ),
    )


@queue.command()
@click.argument("queue_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every message in the spool.")
@json_option
@_with_spool
def retry(inspection: Inspection, queue_ids: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Try messages again now, their failed recipients too."""
    if every == bool(queue_ids):
        raise click.UsageError("Give the IDs of messages, or --all.")
    tried = inspection.retry(None if every else queue_ids)
    if as_json:
        print_json({"retry": tried})
    else:
        click.echo(f"{len(tried)} {'message' if len(tried) == 1 else 'messages'} to be tried now")
    left = [queue_id for queue_id in queue_ids if queue_id not in tried]
    if unknown := [queue_id for queue_id in left if inspection.show(queue_id) is None]:
        raise _unknown(unknown)
    if left:
        raise click.ClickException(
            f"Nothing to try for {', '.join(left)}: no recipient is left, or the body file is missing."
        )


@queue.command()
@click.argument("queue_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@_with_spool
def remove(inspection: Inspection, queue_ids: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove messages for good.

    Nobody is told of it.  A message that is being delivered goes after this attempt.
    """
    if unknown := [queue_id for queue_id in queue_ids if inspection.show(queue_id) is None]:
        raise _unknown(unknown)
    if not yes:
        click.confirm(f"Remove {', '.join(queue_ids)} for good?", abort=True, err=True)
    removed = inspection.remove(queue_ids)
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"{len(removed)} {'message' if len(removed) == 1 else 'messages'} removed")


def _unknown(queue_ids: list[str]) -> click.ClickException:
    return click.ClickException(f"There is no message {', '.join(queue_ids)} in the spool.")


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _states(message: Summary) -> str:
    return ", ".join(f"{message.recipients[state]} {state}" for state in State if state in message.recipients)


def _next_try(message: Summary) -> str:
    if message.missing:
        return "never: its body file is missing"
    return _time(message.next_attempt) or "none"


def _summary_document(message: Summary) -> dict[str, Any]:
    return {
        "id": message.queue_id,
        "received": _time(message.received_at),
        "size": message.size,
        "sender": message.sender,
        "account": message.account,
        "recipients": {str(state): count for state, count in message.recipients.items()},
        "next-try": _time(message.next_attempt) or None,
        "body-missing": message.missing,
    }


def _document(message: Message) -> dict[str, Any]:
    return {
        **_summary_document(message.summary),
        "realm": message.realm,
        "session": message.session_id,
        "eight-bit": message.eight_bit,
        "location": message.location,
        "recipients": [
            {
                "path": str(recipient.path),
                "state": str(recipient.state),
                "attempts": recipient.attempts,
                "hop": recipient.hop,
                "reply": None if recipient.reply is None else str(recipient.reply),
            }
            for recipient in message.recipients
        ],
    }
