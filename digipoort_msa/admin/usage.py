"""What accounts last used to log in, and when: for ``account show`` and ``account report``.

An account needs DIGEST-MD5 as long as it logs in with it.  The report goes by the logins of the last 400
days, since some log in once a year; one that has logged in with something else since is on its way.
"""

from collections.abc import Iterable, Sequence

import click
from attrs import frozen

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.ledger import Ledger
from digipoort_msa.accounts.usage import Use
from digipoort_msa.admin.console import print_json, print_table
from digipoort_msa.admin.queue.printing import counted, moment

DIGEST = "DIGEST-MD5"
LONG = 400  # days


@frozen
class AccountUses:
    """One account, with what it used, the latest first."""

    realm: str
    name: str
    account: Account | None  # None: its store does not list its accounts
    uses: Sequence[tuple[str, Use]]  # by mechanism

    @property
    def needs_digest(self) -> bool:
        return any(mechanism == DIGEST for mechanism, _ in self.uses)

    @property
    def is_moving(self) -> bool:
        """It has used DIGEST-MD5, and something else after that."""
        return self.needs_digest and self.uses[0][0] != DIGEST

    @property
    def scram(self) -> bool | None:
        """Has it keys for SCRAM?"""
        return None if self.account is None else self.account.scram is not None

    def facts(self) -> dict[str, object]:
        return {
            "realm": self.realm,
            "name": self.name,
            "status": self.account.status.value if self.account else None,
            "scram_keys": self.scram,
            "needs_digest_md5": self.needs_digest,
            "logins": [login_facts(mechanism, use) for mechanism, use in self.uses],
        }

    def rows(self) -> list[tuple[object, ...]]:
        """A line for each mechanism; one for an account that has used none."""
        status = self.account.status.value if self.account else "?"
        scram = {True: "yes", False: "no", None: "?"}[self.scram]
        about = (self.realm, self.name, status, scram)
        if not self.uses:
            return [(*about, "", "never", "", "", "")]
        return [
            (*about, mechanism, moment(use.last), use.source, use.logins, moment(use.first))
            for mechanism, use in self.uses
        ]


@frozen
class RealmUses:
    """The accounts of a realm."""

    realm: str
    listed: bool  # all of them are here, not only those that have logged in
    accounts: Sequence[AccountUses]

    def facts(self) -> dict[str, object]:
        needing = [one for one in self.accounts if one.needs_digest]
        return {
            "realm": self.realm,
            "accounts": len(self.accounts) if self.listed else None,
            "need_digest_md5": len(needing),
            "used_something_else_since": sum(one.is_moving for one in needing),
            "without_scram_keys": sum(not one.scram for one in needing) if self.listed else None,
            "not_logged_in": sum(not one.uses for one in self.accounts) if self.listed else None,
        }

    def summary(self, days: int) -> str:
        """The answer to which businesses still need DIGEST-MD5, in a line."""
        needing = [one for one in self.accounts if one.needs_digest]
        moving = sum(one.is_moving for one in needing)
        of = f"of {counted(len(self.accounts), 'account')}, " if self.listed else ""
        parts = [f"realm {self.realm}: {of}{len(needing)} used {DIGEST} in the last {days} days"]
        if needing:
            parts.append(f"{moving} of these something else since")
        if self.listed:
            if needing:
                parts.append(f"{sum(not one.scram for one in needing)} of these have no SCRAM keys")
            parts.append(f"without a login: {sum(not one.uses for one in self.accounts)}")
        return "; ".join(parts)


def uses_of(ledger: Ledger | None, realm: str, accounts: Iterable[Account] | None, since: float) -> RealmUses:
    """
    :param accounts: all of the realm; ``None`` where its store does not list them.
    :param since: seconds since the epoch; what was last used before does not count.
    """
    used: dict[str, list[tuple[str, Use]]] = {}
    for (_, name, mechanism), use in (ledger.usage(realm) if ledger else {}).items():
        if use.last >= since:
            used.setdefault(name, []).append((mechanism, use))
    if accounts is None:
        return RealmUses(
            realm, False, [AccountUses(realm, name, None, uses) for name, uses in sorted(used.items())]
        )
    return RealmUses(
        realm, True, [AccountUses(realm, one.name, one, used.get(one.name, ())) for one in accounts]
    )


def print_report(realms: Sequence[RealmUses], mechanism: str | None, days: int, as_json: bool) -> None:
    """
    :param mechanism: only the accounts that used it.
    """
    shown = [
        one
        for realm in realms
        for one in realm.accounts
        if mechanism is None or any(used == mechanism for used, _ in one.uses)
    ]
    if as_json:
        print_json({"accounts": [one.facts() for one in shown], "summary": [one.facts() for one in realms]})
        return
    headings = ("REALM", "ACCOUNT", "STATUS", "SCRAM KEYS", "USED", "LAST", "FROM", "LOGINS", "FIRST")
    print_table(headings, [row for one in shown for row in one.rows()])
    for realm in realms:
        click.echo(realm.summary(days))


def login_facts(mechanism: str, use: Use) -> dict[str, object]:
    return {
        "mechanism": mechanism,
        "last": moment(use.last),
        "source": use.source,
        "logins": use.logins,
        "first": moment(use.first),
    }


def login_row(mechanism: str, use: Use) -> tuple[str, str]:
    """As a line of ``account show``."""
    times = counted(use.logins, "login")
    return (
        f"used {mechanism}",
        f"last {moment(use.last)} from {use.source}; {times} since {moment(use.first)}",
    )
