"""``digipoort-msa policy``: what the rules on trial would have refused."""

from datetime import UTC, datetime

import click

from digipoort_msa.admin.console import Console, json_option, pass_console, print_json, print_table
from digipoort_msa.policy import trials


@click.group()
def policy() -> None:
    """Show what the rules on trial would refuse."""


_of_realm = click.option("--realm", metavar="NAME", help="Of this realm only.")
_of_rule = click.option("--rule", metavar="NAME", help="Of this rule only, by its name.")


@policy.command()
@_of_realm
@_of_rule
@json_option
@pass_console
def report(console: Console, realm: str | None, rule: str | None, as_json: bool) -> None:
    """What would be refused if the rules with mode = "audit" were in force."""
    try:
        found = trials.report(console.settings.server.state_directory, realm, rule)
    except (trials.TrialsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json([_facts(trial, refusals) for trial, refusals in found])
        return
    if not found:
        click.echo('no rule has been on trial (mode = "audit")')
    for number, (trial, refusals) in enumerate(found):
        if number:
            click.echo()
        times = sum(each.times for each in refusals)
        click.echo(
            f"rule {trial.rule} of realm {trial.realm}, on trial since {_moment(trial.since)}: asked about "
            f"{trial.transactions} transactions, it would have refused {times} times"
        )
        if refusals:
            headings = ("TIMES", "ACCOUNT", "AT", "REPLY", "LAST", "SESSION", "REASON OF THE LAST")
            print_table(headings, [_row(each) for each in refusals])


@policy.command()
@_of_realm
@_of_rule
@pass_console
def forget(console: Console, realm: str | None, rule: str | None) -> None:
    """Begin the report anew, as after a rule has been changed."""
    try:
        count = trials.forget(console.settings.server.state_directory, realm, rule)
    except (trials.TrialsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{count} {'trial' if count == 1 else 'trials'} forgotten")


def _row(each: trials.Refusals) -> tuple[object, ...]:
    account, said = each.account or "(others)", each.reply or "(several)"
    return each.times, account, each.moment, said, _moment(each.last), each.session, each.reason


def _facts(trial: trials.Trial, refusals: list[trials.Refusals]) -> dict[str, object]:
    return {
        "realm": trial.realm,
        "rule": trial.rule,
        "since": _moment(trial.since),
        "transactions": trial.transactions,
        "would_refuse": [
            {
                "times": each.times,
                "account": each.account or None,
                "moment": each.moment,
                "reply": each.reply or None,
                "first": _moment(each.first),
                "last": _moment(each.last),
                "session": each.session,
                "reason": each.reason,
            }
            for each in refusals
        ],
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
