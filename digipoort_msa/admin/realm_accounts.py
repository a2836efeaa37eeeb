"""The accounts of a realm, as the commands of ``digipoort-msa account`` reach and show them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.administration import AccountError, Administration
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.admin.console import Console, print_json
from digipoort_msa.config.realm import Realm
from digipoort_msa.interfaces import Unavailable

Command = TypeVar("Command", bound=Callable[..., Any])


def realm_option(command: Command) -> Command:
    return click.option("--realm", "realm_name", metavar="NAME", help="The realm; else the first one.")(
        command
    )


def is_ours(realm: Realm) -> bool:
    """Are its accounts in our own tables?  Others' are managed elsewhere, and not listed here."""
    return realm.store == "sql" and realm.sql.account_query is None


def chosen_realm(console: Console, realm_name: str | None) -> Realm:
    """The realm of that name, or the first."""
    names = [realm.name for realm in console.settings.realm]
    if realm_name is not None and realm_name not in names:
        raise click.BadParameter(
            f"{realm_name!r} is not a realm; there is {', '.join(names)}", param_hint="--realm"
        )
    return console.settings.realm[names.index(realm_name) if realm_name else 0]


def open_own(console: Console, realm: Realm) -> SQLAccounts:
    """The accounts of a realm in our own tables.

    :raise AccountError: they are kept elsewhere.
    :raise ValueError, OSError: they cannot be opened.
    """
    if not is_ours(realm):
        where = f"its {realm.store} store has them"
        if realm.store == "sql":
            where = "sql.account-query reads them from tables that are not the MSA's"
        raise AccountError(
            f"the accounts of realm {realm.name} are kept elsewhere ({where}): manage them there"
        )
    return open_accounts(
        realm=realm.name,
        url=realm.sql.url,
        state_directory=console.settings.server.state_directory,
        password_file=realm.sql.password_file,
        key_file=realm.sql.key_file,
    )


@contextmanager
def administration(console: Console, realm_name: str | None) -> Iterator[Administration]:
    """The accounts of the realm that the command is about; what goes wrong with them ends the command."""
    settings = console.settings
    names = [realm.name for realm in settings.realm]
    realm = chosen_realm(console, realm_name)
    hashing = PasswordHashing(
        memory_kib=settings.passwords.memory_kib,
        time_cost=settings.passwords.time_cost,
        parallelism=settings.passwords.parallelism,
    )
    with told(realm):
        accounts = open_own(console, realm)
        try:
            yield Administration(
                accounts,
                hashing,
                digest="DIGEST-MD5" in realm.mechanisms,
                realms=names,
                scram_iterations=realm.scram_iterations if _uses_scram(realm) else None,
            )
        finally:
            accounts.close()


@contextmanager
def told(realm: Realm) -> Iterator[None]:
    """What goes wrong with a realm's accounts ends the command with a text that says so."""
    try:
        yield
    except Unavailable as error:
        raise click.ClickException(
            f"the accounts of realm {realm.name} cannot be reached: {error}"
        ) from error
    except (AccountError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _uses_scram(realm: Realm) -> bool:
    """Now, or soon: then whoever is given a password is given keys as well."""
    return realm.prepare_scram or any(name.startswith("SCRAM-") for name in realm.mechanisms)


def facts(account: Account) -> dict[str, object]:
    """What may be shown of an account."""
    return {
        "name": account.name,
        "status": account.status.value,
        "digest_md5": bool(account.digest_secrets),
        "digest_md5_until": account.digest_until and account.digest_until.isoformat(),
        "scram": account.scram is not None,
        "expires": account.expires and account.expires.isoformat(),
        "addresses": list(account.addresses),
        "groups": sorted(account.groups),
        "created": account.created and account.created.isoformat(),
        "changed": account.changed and account.changed.isoformat(),
        "realm": account.realm,
    }


def report(sentence: str, account: Account, as_json: bool, generated: str | None = None) -> None:
    """Say what was done; the one moment at which a generated password is shown."""
    if as_json:
        print_json({**facts(account), **({"password": generated} if generated else {})})
        return
    click.echo(sentence)
    if generated:
        click.echo(f"password: {generated}")


def shown(value: object) -> str:
    """A fact in a table's cell."""
    if isinstance(value, list):
        return " ".join(value)
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
