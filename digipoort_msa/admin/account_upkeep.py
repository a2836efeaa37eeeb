"""``digipoort-msa account rekey`` and ``migrate``: the upkeep of the tables that accounts are in."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import click
from attrs import frozen

from digipoort_msa.accounts.rekeying import Rekeyed
from digipoort_msa.accounts.rekeying import rekey as rekeyed
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.accounts.tables import VERSION
from digipoort_msa.admin.console import Console, json_option, pass_console, print_json
from digipoort_msa.admin.realm_accounts import (
    administration,
    chosen_realm,
    is_ours,
    open_own,
    realm_option,
    told,
)
from digipoort_msa.config.realm import Realm
from digipoort_msa.interfaces import Unavailable


@click.command()
@realm_option
@click.option("--sql", "as_sql", is_flag=True, help="Print what it would tell the database instead.")
@pass_console
def migrate(console: Console, realm_name: str | None, as_sql: bool) -> None:
    """Make the account tables, or bring them up to date.

    The MSA does this by itself, where its role in the database may.  With --sql, someone who may can do it.
    """
    with administration(console, realm_name) as realm:
        if as_sql:
            for statement in realm.migration():
                click.echo(statement)
            return
        found = realm.migrate()
        had = {None: "are made", VERSION: "were up to date"}.get(found, f"were of version {found}")
        click.echo(f"the account tables {had}; they are of version {VERSION}")


@click.command()
@click.option("--realm", "realm_name", metavar="NAME", help="The realm; else all of them.")
@json_option
@pass_console
def rekey(console: Console, realm_name: str | None, as_json: bool) -> None:
    """Encrypt what DIGEST-MD5 and SCRAM need with another key.

    The MSA may run.  Where the keys are in its own accounts.key, a new one is made, and the former goes in
    the end.  Where key-file names a file of yours, put the new key first in it, restart the MSA if the file
    is a systemd credential, and then run this: it says when the former key may go.  It can be run again at
    any time after it was broken off.
    """
    only = chosen_realm(console, realm_name) if realm_name is not None else None
    outcomes = []
    for file in _files(console, only):
        outcome = _rekey(console, file, only)
        outcomes.append(
            {
                "file": str(file.path),
                "sealed": outcome.sealed,
                "unreadable": [f"{name}@{realm}" for realm, name in outcome.unreadable],
                "former_keys": outcome.former,
            }
        )
        if not as_json:
            click.echo(_sentence(file, outcome, only))
            for realm, name in outcome.unreadable:
                click.echo(f"no key opens what {name} in realm {realm} has: set its password anew", err=True)
    if as_json:
        print_json(outcomes)


@frozen
class _File:
    """A key file, and the realms that use it."""

    path: Path
    own: bool  # it is the MSA's
    realms: tuple[Realm, ...]


def _files(console: Console, only: Realm | None) -> list[_File]:
    settings = console.settings
    default = settings.server.state_directory / "accounts.key"
    using: dict[Path, list[Realm]] = {}
    for realm in settings.realm:
        if is_ours(realm):
            using.setdefault(realm.sql.key_file or default, []).append(realm)
    files = [_File(path, path == default, tuple(realms)) for path, realms in using.items()]
    if only is not None:
        with told(only):
            if not is_ours(only):
                open_own(console, only)  # which says where they are
        files = [file for file in files if only in file.realms]
    if not files:
        raise click.ClickException("no realm has its accounts in the MSA's own tables")
    return files


def _rekey(console: Console, file: _File, only: Realm | None) -> Rekeyed:
    with ExitStack() as opened:
        everyone = []
        for accounts in _everyone(console, file, only):
            everyone.append(opened.enter_context(closing(accounts)))
        try:
            return rekeyed(file.path, everyone, own=file.own, whole=only is None)
        except Unavailable as error:
            raise click.ClickException(
                f"not all accounts could be reached; run it again to finish: {error}"
            ) from error
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error


def _everyone(console: Console, file: _File, only: Realm | None) -> Iterator[SQLAccounts]:
    """The realms of a file; without a choice also those that are in their databases, and in no setting."""
    seen = {(realm.sql.url, realm.name) for realm in console.settings.realm if is_ours(realm)}
    for realm in file.realms if only is None else (only,):
        with told(realm):
            accounts = open_own(console, realm)
        yield accounts
        if only is not None:
            continue
        with told(realm):
            found = accounts.realms()
        for name in found:
            if (realm.sql.url, name) not in seen:
                seen.add((realm.sql.url, name))
                with told(realm):
                    unknown = open_own(console, realm.model_copy(update={"name": name}))
                yield unknown


def _sentence(file: _File, outcome: Rekeyed, only: Realm | None) -> str:
    sealed = f"{file.path}: {outcome.sealed} accounts were sealed anew"
    if outcome.resumed:
        sealed += ", which finishes what was broken off; run it again for another key"
    if not outcome.former:
        return sealed
    if file.own:
        return f"{sealed}; the former key stays until this was run without --realm"
    others = "" if only is None else "once the other realms have had this too, "
    return f"{sealed}; {others}the former keys ({outcome.former}) may be taken out of the file"
