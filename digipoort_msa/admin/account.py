"""``digipoort-msa account``: the accounts of a realm.

A change holds from the next login on, with the service running or not.  Passwords come from a prompt, from
standard input or from the random generator, never from the command line, where ``ps`` shows them.
"""

import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

import click

from digipoort_msa.accounts.administration import PASSWORD_LENGTH, AccountError, generated_password
from digipoort_msa.accounts.ledger import Wish
from digipoort_msa.accounts.names import local_name
from digipoort_msa.admin.account_facts import DAY, addresses, digest_until, expire, groups
from digipoort_msa.admin.account_upkeep import migrate, rekey
from digipoort_msa.admin.console import Console, json_option, pass_console, print_json, print_table
from digipoort_msa.admin.ledger import have_forgotten, opened
from digipoort_msa.admin.realm_accounts import (
    administration,
    chosen_realm,
    facts,
    is_ours,
    realm_option,
    report,
    shown,
)
from digipoort_msa.admin.throttle import as_counted, full_sources, say_cleared
from digipoort_msa.admin.usage import LONG, login_facts, login_row, print_report, uses_of

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def account() -> None:
    """Manage the accounts of a realm."""


for command in (expire, digest_until, addresses, groups, rekey, migrate):
    account.add_command(command)


def password_options(command: Command) -> Command:
    generate = click.option("--generate", is_flag=True, help="Make a random password, and show it once.")
    stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    return stdin(generate(command))


@account.command()
@click.argument("name")
@realm_option
@password_options
@click.option("--expires", "last_day", type=DAY, help="The last day (UTC) on which it may log in.")
@json_option
@pass_console
def add(
    console: Console,
    name: str,
    realm_name: str | None,
    password_stdin: bool,
    generate: bool,
    last_day: date | None,
    as_json: bool,
) -> None:
    """Add an account."""
    with administration(console, realm_name) as realm:
        realm.check_free(name)
        password = new_password(password_stdin, generate)
        added = realm.add(name, password, last_day)
        report(f"{added.name} added to realm {realm.realm}", added, as_json, password if generate else None)


@account.command("list")
@realm_option
@json_option
@pass_console
def list_accounts(console: Console, realm_name: str | None, as_json: bool) -> None:
    """List the accounts of a realm."""
    with administration(console, realm_name) as realm:
        accounts = realm.list()
    if as_json:
        print_json([facts(each) for each in accounts])
    else:
        columns = ("name", "status", "digest_md5", "scram", "expires", "created", "changed")
        rows = [[shown(facts(each)[column]) for column in columns] for each in accounts]
        print_table([column.upper().replace("_", "-") for column in columns], rows)


@account.command()
@click.argument("name")
@realm_option
@json_option
@pass_console
def show(console: Console, name: str, realm_name: str | None, as_json: bool) -> None:
    """Show an account, and what it last used; never what its password is verified with.

    Of an account that is kept elsewhere, only what it used is known here.
    """
    chosen = chosen_realm(console, realm_name)
    known: dict[str, object] = {"name": local_name(name, chosen.name), "realm": chosen.name}
    if is_ours(chosen):
        with administration(console, realm_name) as realm:
            known = facts(realm.get(name))
    with opened(console) as ledger:
        uses = ledger.usage(chosen.name, str(known["name"])) if ledger else {}
    if as_json:
        logins = [login_facts(mechanism, use) for (_, _, mechanism), use in uses.items()]
        print_json({**known, "logins": logins})
    else:
        rows = [(key, shown(value)) for key, value in known.items()][1:]
        rows += [login_row(mechanism, use) for (_, _, mechanism), use in uses.items()]
        print_table(("NAME", str(known["name"])), rows)


@account.command()
@click.argument("name")
@realm_option
@password_options
@json_option
@pass_console
def password(
    console: Console, name: str, realm_name: str | None, password_stdin: bool, generate: bool, as_json: bool
) -> None:
    """Give an account another password."""
    with administration(console, realm_name) as realm:
        realm.get(name)
        fresh = new_password(password_stdin, generate)
        realm.set_password(name, fresh)
        changed = realm.get(name)
        report(f"{changed.name} has a new password", changed, as_json, fresh if generate else None)


@account.command()
@click.argument("name")
@realm_option
@json_option
@pass_console
def disable(console: Console, name: str, realm_name: str | None, as_json: bool) -> None:
    """Let an account log in no more."""
    with administration(console, realm_name) as realm:
        realm.disable(name)
        changed = realm.get(name)
        report(f"{changed.name} is disabled", changed, as_json)


@account.command()
@click.argument("name")
@realm_option
@json_option
@pass_console
def enable(console: Console, name: str, realm_name: str | None, as_json: bool) -> None:
    """Let an account log in again."""
    with administration(console, realm_name) as realm:
        realm.enable(name)
        changed = realm.get(name)
        report(f"{changed.name} is enabled", changed, as_json)


@account.command()
@click.argument("name")
@realm_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_console
def remove(console: Console, name: str, realm_name: str | None, yes: bool, as_json: bool) -> None:
    """Remove an account for good."""
    with administration(console, realm_name) as realm:
        found = realm.get(name)
        if not yes:
            click.confirm(f"Remove {found.name!r} from realm {realm.realm}?", abort=True, err=True)
        realm.remove(name)
        report(f"{found.name} removed from realm {realm.realm}", found, as_json)


@account.command()
@click.argument("name")
@realm_option
@json_option
@pass_console
def unlock(console: Console, name: str, realm_name: str | None, as_json: bool) -> None:
    """Forget the failed logins to an account, from everywhere.

    Those of an address on many accounts are for `throttle clear`.
    """
    named, unlocked = as_counted(name, realm_name, [realm.name for realm in console.settings.realm])
    realm = chosen_realm(console, named)
    with opened(console) as ledger:
        full = full_sources(console, ledger, realm.name, unlocked)
        cleared = have_forgotten(ledger, Wish(realm.name, unlocked))
    say_cleared(cleared, as_json, f"{name} in realm {realm.name}: ")
    for source in full:
        click.echo(f"{source} is refused still: digipoort-msa throttle clear --source {source}", err=True)


@account.command("report")
@click.option("--realm", "realm_name", metavar="NAME", help="The realm; else all of them.")
@click.option("--mechanism", metavar="NAME", help="Only accounts that used it, such as DIGEST-MD5.")
@click.option(
    "--since",
    "days",
    type=click.IntRange(1, 36500),
    default=LONG,
    show_default=True,
    metavar="DAYS",
    help="Only what was used in the last so many days counts.",
)
@json_option
@pass_console
def report_uses(
    console: Console, realm_name: str | None, mechanism: str | None, days: int, as_json: bool
) -> None:
    """Tell which accounts use which mechanism, and who needs DIGEST-MD5 still."""
    realms = console.settings.realm if realm_name is None else (chosen_realm(console, realm_name),)
    with opened(console) as ledger:
        uses = []
        for realm in realms:
            accounts = None
            if is_ours(realm):
                with administration(console, realm.name) as ours:
                    accounts = ours.list()
            uses.append(uses_of(ledger, realm.name, accounts, time.time() - days * 86_400))
    print_report(uses, mechanism.upper() if mechanism else None, days, as_json)


def new_password(from_stdin: bool, generate: bool) -> str:
    """The password that the operator gives, or a generated one."""
    if from_stdin and generate:
        raise click.UsageError("--password-stdin and --generate exclude each other")
    if generate:
        return generated_password()
    if from_stdin:
        octets = sys.stdin.buffer.read(PASSWORD_LENGTH + 3)  # one more than may be, with its line end
        if len(octets) == PASSWORD_LENGTH + 3:
            raise AccountError(f"the password is longer than {PASSWORD_LENGTH} octets")
        try:
            return octets.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise AccountError("the password on standard input is not UTF-8 text") from error
    given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return given
