"""``list``, ``show``, ``cat`` and ``stats``: what there is.  Nothing here changes the spool."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from digipoort_msa.admin.console import Console, json_option, pass_console, print_table
from digipoort_msa.admin.queue.documents import (
    in_line,
    message_document,
    statistics_document,
    summary_document,
)
from digipoort_msa.admin.queue.group import opened, with_spool
from digipoort_msa.admin.queue.printing import (
    moment,
    print_document,
    printable,
    span,
    stream_json,
    stream_table,
)
from digipoort_msa.admin.queue.selecting import filters
from digipoort_msa.admin.queue.wiring import sealing
from digipoort_msa.interfaces import Damaged
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.selection import Selection
from digipoort_msa.spool.states import STORED, UNFINISHED
from digipoort_msa.spool.statistics import statistics
from digipoort_msa.spool.views import Message, Recipient, Summary, Unreadable

COLUMNS: dict[str, Callable[[Summary], object]] = {
    "id": lambda one: one.queue_id,
    "received": lambda one: moment(one.received_at),
    "age": lambda one: span(time.time() - one.received_at),
    "octets": lambda one: one.size,
    "realm": lambda one: one.realm,
    "account": lambda one: one.account,
    "sender": lambda one: f"<{one.sender}>",
    "recipients": lambda one: _states(one),
    "recipient": lambda one: _first(one),
    "next-try": lambda one: next_try(one),
    "reply": lambda one: one.reply,
    "reason": lambda one: one.reason,
    "next-hop": lambda one: one.next_hop,
}
_DEFAULT = "id,received,octets,sender,recipients,next-try"


class _Columns(click.ParamType):
    name = "NAMES"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, ...]:
        names = tuple(str(value).split(","))
        for name in names:
            if name not in COLUMNS:
                self.fail(f"{name!r} is not a column; there is {', '.join(COLUMNS)}", parameter, context)
        return names


@click.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), metavar="NUMBER", help="So many at most, the oldest.")
@click.option(
    "--columns", type=_Columns(), default=_DEFAULT, show_default=True, help=f"Of {', '.join(COLUMNS)}."
)
@json_option
@with_spool
def list_(
    inspection: Inspection, selection: Selection, limit: int | None, columns: tuple[str, ...], as_json: bool
) -> None:
    """List messages, oldest first."""
    found = inspection.summaries(selection, limit)
    if as_json:
        stream_json(map(summary_document, found))
        return
    headings = [name.upper().replace("-", " ") for name in columns]
    stream_table(headings, (_row(one, columns) for one in found))


@click.command()
@click.argument("queue_id", metavar="ID")
@json_option
@with_spool
def show(inspection: Inspection, queue_id: str, as_json: bool) -> None:
    """Show one message: its envelope, what has become of each recipient, and what the hops have said."""
    message = inspection.show(queue_id)
    if message is None:
        raise click.ClickException(f"There is no message {printable(queue_id)} in the spool.")
    if isinstance(message, Unreadable):
        raise click.ClickException(f"{printable(queue_id)} is unreadable: {printable(message.why)}")
    if as_json:
        print_document(message_document(inspection, message))
        return
    print_table((message.summary.queue_id, ""), [row for row in _facts(inspection, message) if row[1]])
    click.echo()
    print_table(
        ("RECIPIENT", "STATE", "ATTEMPTS", "HOP", "LAST REPLY", "NOTE"),
        [
            (f"<{one.path}>", one.state, one.attempts, one.hop, one.reply, _note(message, one))
            for one in message.recipients
        ],
    )
    if message.attempts:
        click.echo()
        print_table(
            ("ATTEMPT", "HOP", "REPLY", "ABOUT"),
            [
                (moment(one.at), one.hop, one.reply, ", ".join(f"<{path}>" for path in one.recipients))
                for one in message.attempts
            ],
        )


@click.command()
@click.argument("queue_id", metavar="ID")
@click.option("--headers", is_flag=True, help="Only the header, up to the first empty line.")
@pass_console
def cat(console: Console, queue_id: str, headers: bool) -> None:
    """Write a message's octets to standard output, exactly as they were received.

    Where they are damaged this is said on standard error, with exit status 1, and the end is not written.
    """
    with opened(console) as inspection:
        output = sys.stdout.buffer
        key = sealing(console.settings)
        try:
            stored = inspection.stored(queue_id, STORED)
            if stored is None:
                raise click.ClickException(f"There is no message {printable(queue_id)} in the spool.")
            segments = inspection.content(stored, key)
            for segment in _header(segments) if headers else segments:
                output.write(segment)
        except Damaged as error:
            output.flush()
            raise click.ClickException(f"{printable(queue_id)}: {printable(error)}") from error
        output.flush()


def _header(segments: Iterator[bytes]) -> Iterator[bytes]:
    """A content up to its first empty line."""
    held = b""  # the beginning, perhaps, of its mark
    for segment in segments:
        held += segment
        header, mark, _ = held.partition(b"\r\n\r\n")
        if mark:
            yield header + b"\r\n"
            return
        yield held[:-3]
        held = held[-3:]
    yield held


@click.command()
@json_option
@pass_console
def stats(console: Console, as_json: bool) -> None:
    """Count messages, recipients, octets and ages by realm and state; say what the disk has left."""
    with opened(console) as inspection:
        found = statistics(inspection)
    watermark = console.settings.spool.watermark
    now = time.time()
    if as_json:
        print_document(statistics_document(found, watermark, now))
        return
    print_table(
        ("REALM", "STATE", "MESSAGES", "RECIPIENTS", "OCTETS", "OLDEST", "MEDIAN AGE"),
        [
            (
                tally.realm,
                tally.state,
                tally.messages,
                tally.recipients,
                tally.octets,
                span(now - tally.oldest),
                span(now - tally.median),
            )
            for tally in found.tallies
        ],
    )
    click.echo()
    print_table(
        ("messages", str(found.messages)),
        [
            ("octets", found.octets),
            *([("unreadable", found.unreadable)] if found.unreadable else []),
            ("next due", _due(found.next_due, now) or "none"),
            ("waiting in sequence", found.in_line),
            ("orders not carried out yet", found.wishes),
            ("disk", f"{found.disk_free} octets free, watermark {watermark}"),
            ("MSA", "running" if found.running else "not running"),
        ],
    )


def next_try(one: Summary) -> str:
    """When a message is tried next, or why it is not."""
    if one.wish is not None:
        return "to be removed" if one.wish == "remove" else "to be returned"
    if one.next_attempt is not None:
        return moment(one.next_attempt)
    return "waits in its sequence" if one.waits else "none"


def _due(at: float | None, now: float) -> str:
    return "now" if at is not None and at <= now else moment(at)


def _states(one: Summary) -> str:
    return ", ".join(f"{count} {state}" for state, count in one.states.items())


def _first(one: Summary) -> str:
    more = sum(one.states.values()) - 1
    return f"<{one.recipient}>" + (f" and {more} more" if more else "")


def _row(one: Summary | Unreadable, columns: tuple[str, ...]) -> list[object]:
    if isinstance(one, Summary):
        return [COLUMNS[name](one) for name in columns]
    cells: list[object] = [one.queue_id if name == "id" else "" for name in columns]
    last = len(columns) - 1
    cells[last] = f"{cells[last]} unreadable: {one.why}".strip()
    return cells


def _facts(inspection: Inspection, message: Message) -> list[tuple[str, object]]:
    summary, envelope = message.summary, message.envelope
    parameters = envelope.parameters
    asked = [
        ("BODY=8BITMIME", parameters.body_8bitmime),
        ("SMTPUTF8", parameters.smtputf8),
        (f"SIZE={parameters.size}", parameters.size is not None),
        (f"AUTH={parameters.auth or '<>'}", parameters.auth is not None),
        (f"RET={parameters.ret}", parameters.ret),
        (f"ENVID={parameters.envid}", parameters.envid),
    ]
    return [
        ("received", moment(summary.received_at)),
        ("sender", f"<{summary.sender}>"),
        ("parameters", " ".join(text for text, said in asked if said)),
        ("account", f"{summary.account} in realm {summary.realm}"),
        ("session", envelope.session_id),
        ("octets", summary.size),
        ("kept in", inspection.location(message)),
        ("encrypted with", f"the key {message.sealed_by}" if message.sealed_by else ""),
        ("SHA-256", message.digest and f"{message.digest} (as it is stored)"),
        ("next hop", summary.next_hop and f"{summary.next_hop}, an operator's choice"),
        ("next try", f"after {message.waits_for}" if in_line(message) else next_try(summary)),
        ("time runs since", moment(message.since) if message.since > summary.received_at + 1 else ""),
    ]


def _note(message: Message, one: Recipient) -> str:
    given = message.envelope.parameters_of(one.path)
    return "; ".join(
        filter(
            None,
            (
                one.reason if one.state in UNFINISHED else None,
                "told of the delay" if one.told_of_delay else None,
                f"NOTIFY={','.join(sorted(given.notify))}" if given.notify else None,
                given.orcpt and f"ORCPT={given.orcpt}",
            ),
        )
    )
