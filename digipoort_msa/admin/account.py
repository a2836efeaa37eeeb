"""``digipoort-msa account``: the accounts of a realm.

A change holds from the next login on, with the service running or not.  Passwords come from a prompt, from
standard input or from the random generator, never from the command line, where ``ps`` shows them.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.administration import (
    PASSWORD_LENGTH,
    AccountError,
    Administration,
    generated_password,
)
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.admin.console import Console, json_option, pass_console, print_json, print_table
from digipoort_msa.interfaces import Unavailable

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def account() -> None:
    """Manage the accounts of a realm."""


def realm_option(command: Command) -> Command:
    return click.option("--realm", "realm_name", metavar="NAME", help="The realm; else the first one.")(
        command
    )


def password_options(command: Command) -> Command:
    generate = click.option("--generate", is_flag=True, help="Make a random password, and show it once.")
    stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    return stdin(generate(command))


@account.command()
@click.argument("name")
@realm_option
@password_options
@json_option
@pass_console
def add(
    console: Console, name: str, realm_name: str | None, password_stdin: bool, generate: bool, as_json: bool
) -> None:
    """Add an account."""
    with administration(console, realm_name) as realm:
        realm.check_free(name)
        password = new_password(password_stdin, generate)
        added = realm.add(name, password)
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
        headings = ("NAME", "STATUS", "DIGEST-MD5", "CREATED", "CHANGED")
        print_table(headings, [tuple(_shown(value) for value in _columns(each)) for each in accounts])


@account.command()
@click.argument("name")
@realm_option
@json_option
@pass_console
def show(console: Console, name: str, realm_name: str | None, as_json: bool) -> None:
    """Show an account; never what its password is verified with."""
    with administration(console, realm_name) as realm:
        found = realm.get(name)
    if as_json:
        print_json(facts(found))
    else:
        print_table(("NAME", found.name), [(key, _shown(value)) for key, value in facts(found).items()][1:])


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


@contextmanager
def administration(console: Console, realm_name: str | None) -> Iterator[Administration]:
    """The accounts of the realm that the command is about; what goes wrong with them ends the command."""
    settings = console.settings
    names = [realm.name for realm in settings.realm]
    if realm_name is not None and realm_name not in names:
        raise click.BadParameter(
            f"{realm_name!r} is not a realm; there is {', '.join(names)}", param_hint="--realm"
        )
    realm = settings.realm[names.index(realm_name) if realm_name else 0]
    hashing = PasswordHashing(
        memory_kib=settings.passwords.memory_kib,
        time_cost=settings.passwords.time_cost,
        parallelism=settings.passwords.parallelism,
    )
    try:
        if realm.store != "sql":
            raise AccountError(f"the accounts of realm {realm.name} are kept elsewhere ({realm.store})")
        accounts = open_accounts(
            realm=realm.name, url=realm.sql.url, state_directory=settings.server.state_directory
        )
        try:
            yield Administration(accounts, hashing, digest="DIGEST-MD5" in realm.mechanisms, realms=names)
        finally:
            accounts.close()
    except Unavailable as error:
        raise click.ClickException(
            f"the accounts of realm {realm.name} cannot be reached: {error}"
        ) from error
    except (AccountError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


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


def facts(account: Account) -> dict[str, object]:
    """What may be shown of an account."""
    keys = ("name", "status", "digest_md5", "created", "changed")
    return {**dict(zip(keys, _columns(account), strict=True)), "realm": account.realm}


def report(sentence: str, account: Account, as_json: bool, generated: str | None = None) -> None:
    """Say what was done; the one moment at which a generated password is shown."""
    if as_json:
        print_json({**facts(account), **({"password": generated} if generated else {})})
        return
    click.echo(sentence)
    if generated:
        click.echo(f"password: {generated}")


def _columns(account: Account) -> tuple[object, ...]:
    return (
        account.name,
        account.status.value,
        bool(account.digest_secrets),
        account.created.isoformat() if account.created else None,
        account.changed.isoformat() if account.changed else None,
    )


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
