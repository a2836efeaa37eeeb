"""``digipoort-msa throttle``: the failed logins that are counted, and whom they keep out.

The commands work beside the running MSA, which writes what it counts once a second, and without it.  An
account is named as it is typed at a login: strangers guess at names that no account has.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import click
from attrs import frozen

from digipoort_msa.accounts.counts import Key
from digipoort_msa.accounts.ledger import Ledger, Wish
from digipoort_msa.accounts.logins import read
from digipoort_msa.accounts.names import local_name, realm_of
from digipoort_msa.accounts.networks import network_of, place_of
from digipoort_msa.accounts.throttle import Kind, Throttle, bounded
from digipoort_msa.admin.console import Console, json_option, pass_console, print_json, print_table
from digipoort_msa.admin.ledger import have_forgotten, opened
from digipoort_msa.admin.queue.printing import counted, moment
from digipoort_msa.sasl.saslprep import saslprep
from digipoort_msa.service.throttle import make_throttle

Command = TypeVar("Command", bound=Callable[..., Any])

#: What peers without one are called in the log: of a unix socket, and of a proxy that does not tell.
_WITHOUT_ADDRESS = ("local", "unknown")


@click.group()
def throttle() -> None:
    """Show and clear what is counted of failed logins."""


def _filters(command: Command) -> Command:
    realm = click.option("--realm", "realm_name", metavar="NAME", help="Of one realm alone.")
    account = click.option("--account", metavar="NAME", help="Of one account alone, named as at a login.")
    source = click.option(
        "--source",
        metavar="ADDRESS",
        help="Of one address, with the network around it; or of all of a network such as 192.0.2.0/24.",
    )
    return realm(account(source(command)))


@throttle.command("list")
@_filters
@click.option("--trusted", is_flag=True, help="List the trusted addresses of all accounts, too.")
@json_option
@pass_console
def list_counts(
    console: Console,
    realm_name: str | None,
    account: str | None,
    source: str | None,
    trusted: bool,
    as_json: bool,
) -> None:
    """List the counts, fullest first: how full each is, and until when it refuses.

    The trusted addresses are listed where --trusted, --account or --source asks for them.
    """
    wish = _wish(console, realm_name, account, source, trust=True)
    now = time.time()
    with opened(console) as ledger:
        known = _known(console, ledger, now)
    counts = sorted(_counts(known, wish, now), key=lambda one: (-one.fill, one.kind.value, one.key))
    trust = [key for key in known.trust.current() if wish.fits(Kind.TRUSTED, key)]
    shown = trust if trusted or account or source else []
    if as_json:
        document: dict[str, object] = {"counts": [one.facts() for one in counts], "trusted": len(trust)}
        if shown or trusted:
            document["trusted_sources"] = [
                {
                    "realm": realm,
                    "account": name,
                    "source": source,
                    "until": moment(now + known.trust.remaining((realm, name, source))),
                }
                for realm, name, source in shown
            ]
        print_json(document)
        return
    headings = ("COUNT OF", "REALM", "ACCOUNT", "SOURCE", "FAILURES", "LIMIT", "REFUSED UNTIL")
    rows: list[tuple[object, ...]] = [one.columns() for one in counts]
    rows += [
        (Kind.TRUSTED.value, *key, "", "", f"trusted until {moment(now + known.trust.remaining(key))}")
        for key in shown
    ]
    print_table(headings, rows)
    refusing = sum(one.refused_until is not None for one in counts)
    click.echo(f"{counted(len(counts), 'count')}, {refusing} full; {_trusted(len(trust))}")


@throttle.command()
@_filters
@click.option("--all", "everything", is_flag=True, help="All counts.")
@click.option("--trust", is_flag=True, help="Forget the trusted addresses that are meant, too.")
@json_option
@pass_console
def clear(
    console: Console,
    realm_name: str | None,
    account: str | None,
    source: str | None,
    everything: bool,
    trust: bool,
    as_json: bool,
) -> None:
    """Forget counts: of an account, of an address with the network around it, or all.

    With --account and --source, only that account's failures from there.
    """
    if everything == bool(account or source):
        raise click.UsageError("Give --account, --source or both, or --all: one of them has to be said.")
    wish = _wish(console, realm_name, account, source, trust=trust)
    with opened(console) as ledger:
        cleared = have_forgotten(ledger, wish)
    say_cleared(cleared, as_json)


def as_counted(name: str, realm: str | None, realms: Sequence[str]) -> tuple[str | None, str]:
    """What is counted of a name that is typed as at a login, where it may be ``name@realm``.

    :param realm: the one that is meant, if that is said.
    :return: the realm, if either says it, and the account.
    """
    with suppress(ValueError):  # else no login has it
        name = saslprep(name)
    realm = realm or realm_of(name, realms)
    return realm, bounded(local_name(name, realm) if realm else name)


def say_cleared(cleared: int | None, as_json: bool, about: str = "") -> None:
    """Say what became of a wish.

    :param cleared: ``None`` where the MSA has it still to do.
    """
    if as_json:
        print_json({"cleared": cleared, "pending": cleared is None})
    elif cleared is None:
        click.echo(f"{about}to be cleared: the MSA has not answered yet")
    else:
        click.echo(f"{about}{counted(cleared, 'count')} cleared")


def full_sources(console: Console, ledger: Ledger | None, realm: str, account: str) -> list[str]:
    """The sources of failures on an account that have failed elsewhere, too, up to their own limit."""
    known = _known(console, ledger, time.time())
    sources = [
        source for of, name, source in known.counts[Kind.PAIR].current() if (of, name) == (realm, account)
    ]
    return [source for source in sources if known.counts[Kind.SOURCE].wait(("", "", source))]


def _known(console: Console, ledger: Ledger | None, now: float) -> Throttle:
    """A throttle that knows what is written."""
    known = make_throttle(console.settings.limits, lambda: now)
    if ledger is not None:
        read(ledger, known, now)
    return known


def _wish(
    console: Console, realm_name: str | None, account: str | None, source: str | None, *, trust: bool
) -> Wish:
    realms = [realm.name for realm in console.settings.realm]
    if account is not None:
        realm_name, account = as_counted(account, realm_name, realms)
    if realm_name is not None and realm_name not in realms:
        there = ", ".join(realms)
        raise click.BadParameter(f"{realm_name!r} is not a realm; there is {there}", param_hint="--realm")
    if source is None:
        return Wish(realm_name, account, trust=trust)
    place = place_of(source)
    if place.network or source in _WITHOUT_ADDRESS:
        return Wish(realm_name, account, place=place, trust=trust)
    try:
        return Wish(realm_name, account, within=network_of(source), trust=trust)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--source") from None


@frozen
class _Count:
    """A count as it is shown."""

    kind: Kind
    key: Key
    value: float
    limit: int
    refused_until: float | None

    @property
    def fill(self) -> float:
        return self.value / self.limit

    def columns(self) -> tuple[object, ...]:
        return (self.kind.value, *self.key, math.ceil(self.value), self.limit, moment(self.refused_until))

    def facts(self) -> dict[str, object]:
        realm, account, source = self.key
        return {
            "kind": self.kind.value,
            "realm": realm or None,
            "account": account or None,
            "source": source or None,
            "failures": math.ceil(self.value),
            "limit": self.limit,
            "refused_until": moment(self.refused_until) or None,
        }


def _counts(known: Throttle, wish: Wish, now: float) -> Iterator[_Count]:
    for kind, counts in known.counts.items():
        for key in counts.current():
            if wish.fits(kind, key):
                wait = counts.wait(key)
                yield _Count(kind, key, counts.value(key), counts.limit, now + wait if wait else None)


def _trusted(number: int) -> str:
    return f"{number} trusted address" + ("" if number == 1 else "es")
