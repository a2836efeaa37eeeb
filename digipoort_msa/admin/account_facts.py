"""``digipoort-msa account expire``, ``digest-until``, ``addresses`` and ``groups``: what is known of an
account."""

from collections.abc import Callable
from datetime import date
from typing import Any

import click

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.administration import Administration
from digipoort_msa.admin.console import Console, json_option, pass_console
from digipoort_msa.admin.realm_accounts import administration, realm_option, report

_Changes = tuple[str, ...]


class Day(click.ParamType):
    """A date such as 2027-03-31; ``never``, where that may be, is no date."""

    name = "DATE"

    def __init__(self, *, never: bool = False) -> None:
        self._never = never

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> date | None:
        if self._never and value == "never":
            return None
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no date such as 2027-03-31" + (", nor never" if self._never else ""),
                parameter,
                context,
            )


DAY = Day()
_DAY_OR_NEVER = Day(never=True)


@click.command()
@click.argument("name")
@click.argument("last_day", metavar="DATE|never", type=_DAY_OR_NEVER)
@realm_option
@json_option
@pass_console
def expire(console: Console, name: str, last_day: date | None, realm_name: str | None, as_json: bool) -> None:
    """Let an account log in until the end of a day (UTC), or for good."""
    with administration(console, realm_name) as realm:
        realm.expire(name, last_day)
        changed = realm.get(name)
        until = "does not expire" if last_day is None else f"may log in until {last_day}, that day included"
        report(f"{changed.name} {until}", changed, as_json)


@click.command("digest-until")
@click.argument("name")
@click.argument("last_day", metavar="DATE|never", type=_DAY_OR_NEVER)
@realm_option
@json_option
@pass_console
def digest_until(
    console: Console, name: str, last_day: date | None, realm_name: str | None, as_json: bool
) -> None:
    """Let an account use DIGEST-MD5 until the end of a day (UTC), or as long as its realm does."""
    with administration(console, realm_name) as realm:
        realm.end_digest(name, last_day)
        changed = realm.get(name)
        until = "as long as its realm does" if last_day is None else f"until {last_day}, that day included"
        report(f"{changed.name} may use DIGEST-MD5 {until}", changed, as_json)


@click.command()
@click.argument("name")
@click.option("--add", "added", multiple=True, metavar="PATTERN", help="Such as *@example.nl.")
@click.option("--remove", "removed", multiple=True, metavar="PATTERN", help="As it was added.")
@realm_option
@json_option
@pass_console
def addresses(
    console: Console, name: str, realm_name: str | None, as_json: bool, **changes: _Changes
) -> None:
    """Show or change which addresses are an account's own: rules on senders go by them."""
    with administration(console, realm_name) as realm:
        account = _changed(realm, realm.set_addresses, name, **changes)
        report("\n".join(account.addresses) or f"{account.name} has no addresses", account, as_json)


@click.command()
@click.argument("name")
@click.option("--add", "added", multiple=True, metavar="GROUP")
@click.option("--remove", "removed", multiple=True, metavar="GROUP")
@realm_option
@json_option
@pass_console
def groups(console: Console, name: str, realm_name: str | None, as_json: bool, **changes: _Changes) -> None:
    """Show or change the groups of an account: rules can be for some groups only."""
    with administration(console, realm_name) as realm:
        account = _changed(realm, realm.set_groups, name, **changes)
        report("\n".join(sorted(account.groups)) or f"{account.name} is in no group", account, as_json)


def _changed(
    realm: Administration,
    change: Callable[[str, _Changes, _Changes], object],
    name: str,
    added: _Changes,
    removed: _Changes,
) -> Account:
    """The account, after what is to be added and removed, if anything is."""
    if added or removed:
        change(name, added, removed)
    return realm.get(name)
