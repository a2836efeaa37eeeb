"""What an operator does with accounts, and the rules for names and passwords.

Names and passwords are prepared with SASLprep when they are stored, as they are at each login (A4).
"""

import os
import re
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.names import realm_of
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.sql import AccountExists, NoSuchAccount, SQLAccounts
from digipoort_msa.accounts.tables import NAME_LENGTH
from digipoort_msa.sasl.digest_md5 import digest_secrets
from digipoort_msa.sasl.saslprep import saslprep
from digipoort_msa.sasl.scram_keys import ScramKeys

_SALT = 16  # octets
PASSWORD_LENGTH = 1024  # octets, as much as a login may bring

# Without 0 O o, 1 I l i: a password may have to be read from paper.
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz"


class AccountError(ValueError):
    """What was asked for cannot be done; the text says why, and how to mend it."""


class Administration:
    """One realm's accounts, for an operator.  Blocking."""

    def __init__(
        self,
        accounts: SQLAccounts,
        hashing: PasswordHashing,
        *,
        digest: bool,
        scram_iterations: int | None = None,
        realms: Iterable[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        :param digest: whether the realm offers DIGEST-MD5, and its secrets are to be kept (A7).
        :param scram_iterations: those of new SCRAM keys; ``None`` where none are to be made.
        :param realms: every realm's name; ``name@realm`` means an account of that realm.
        """
        self.realm = accounts.realm
        self._accounts = accounts
        self._hashing = hashing
        self._digest = digest
        self._scram_iterations = scram_iterations
        self._realms = tuple(realms)
        self._now = now

    def check_free(self, name: str) -> None:
        """Before a password is asked for: could this name be added?

        :raise AccountError: a name that cannot be, or that is taken.
        """
        prepared = self._name(name)
        if self._accounts.find(prepared) is not None:
            raise self._taken(prepared)

    def add(self, name: str, password: str, last_day: date | None = None) -> Account:
        """Make an active account.

        :param last_day: on which it may log in (UTC).
        :raise AccountError: a name or password that cannot be, or a name that is taken.
        """
        prepared = self._name(name)
        now = self._now()
        account = Account(
            name=prepared,
            realm=self.realm,
            status=Status.ACTIVE,
            **self._verifiers(prepared, password),
            expires=_end_of(last_day),
            created=now,
            changed=now,
        )
        try:
            self._accounts.insert(account)
        except AccountExists:
            raise self._taken(prepared) from None
        return self.get(prepared)

    def migrate(self) -> int | None:
        """Make the tables or bring them up to date; returns the version they had, ``None`` for none."""
        return self._accounts.prepare()

    def migration(self) -> list[str]:
        """What :meth:`migrate` would do, as SQL statements."""
        return self._accounts.migration()

    def list(self) -> list[Account]:
        """Every account of the realm, by name."""
        return self._accounts.all()

    def get(self, name: str) -> Account:
        """:raise AccountError: there is none of this name."""
        prepared = self._name(name)
        account = self._accounts.find(prepared)
        if account is None:
            raise self._unknown(prepared)
        return account

    def set_password(self, name: str, password: str) -> None:
        """Replace the password; the next login needs the new one.

        :raise AccountError: no such account, or not a password.
        """
        prepared = self._name(name)
        self._change(prepared, **self._verifiers(prepared, password), changed=self._now())

    def enable(self, name: str) -> None:
        """:raise AccountError: no such account."""
        self._change(self._name(name), status=Status.ACTIVE, changed=self._now())

    def disable(self, name: str) -> None:
        """The next login is refused; a session that is open goes on to its end.

        :raise AccountError: no such account.
        """
        self._change(self._name(name), status=Status.DISABLED, changed=self._now())

    def expire(self, name: str, last_day: date | None) -> None:
        """
        :param last_day: on which it may log in (UTC); ``None`` for no end.
        :raise AccountError: no such account.
        """
        self._change(self._name(name), expires=_end_of(last_day), changed=self._now())

    def end_digest(self, name: str, last_day: date | None) -> None:
        """
        :param last_day: on which it may use DIGEST-MD5 (UTC); ``None`` for no end of its own.
        :raise AccountError: no such account.
        """
        self._change(self._name(name), digest_until=last_day)

    def set_addresses(self, name: str, add: Iterable[str], remove: Iterable[str]) -> None:
        """Patterns of the account's own addresses.

        :raise AccountError: no such account, not a pattern, or not one that it has.
        """
        for pattern in (added := tuple(add)):
            if not re.fullmatch(r"[^\s@]+@[^\s@]+", pattern) or not pattern.isprintable():
                raise AccountError(f"{pattern!r} is not an address, nor a pattern such as *@example.nl")
        account = self.get(name)
        self._change(
            account.name, addresses=_altered(account.addresses, added, remove, f"address of {account.name}")
        )

    def set_groups(self, name: str, add: Iterable[str], remove: Iterable[str]) -> None:
        """The groups it belongs to, by which policies can go.

        :raise AccountError: no such account, not a group's name, or not one that it is in.
        """
        for group in (added := tuple(add)):
            if not group.isprintable() or not group.strip() or group != group.strip():
                raise AccountError(f"{group!r} cannot be a group's name")
        account = self.get(name)
        what = f"group of {account.name}"
        self._change(account.name, groups=_altered(sorted(account.groups), added, remove, what))

    def remove(self, name: str) -> None:
        """:raise AccountError: no such account."""
        prepared = self._name(name)
        try:
            self._accounts.delete(prepared)
        except NoSuchAccount:
            raise self._unknown(prepared) from None

    def _change(self, prepared: str, **fields: Any) -> None:
        try:
            self._accounts.change(prepared, **fields)
        except NoSuchAccount:
            raise self._unknown(prepared) from None

    def _taken(self, name: str) -> AccountError:
        return AccountError(f"{name!r} is an account of realm {self.realm} already")

    def _unknown(self, name: str) -> AccountError:
        return AccountError(f"realm {self.realm} has no account {name!r}")

    def _name(self, name: str) -> str:
        prepared = _prepared(name, "name")
        if len(prepared) > NAME_LENGTH:
            raise AccountError(f"the name has {len(prepared)} characters; {NAME_LENGTH} are allowed")
        if prepared != prepared.strip():
            raise AccountError("the name begins or ends with a space")
        realm = realm_of(prepared, self._realms)
        if realm is not None:
            raise AccountError(
                f"the name ends in @{realm}, which is a realm; give the name alone, and the realm apart"
            )
        return prepared

    def _verifiers(self, name: str, password: str) -> dict[str, Any]:
        """All that a password is verified with: nothing of the former one is left."""
        prepared = _prepared(password, "password")
        if len(prepared.encode()) > PASSWORD_LENGTH:
            raise AccountError(f"the password is longer than {PASSWORD_LENGTH} octets")
        scram = None
        if self._scram_iterations is not None:
            scram = ScramKeys.of(prepared, os.urandom(_SALT), self._scram_iterations)
        return {
            "password_hash": self._hashing.hash(prepared),
            "digest_secrets": self._secrets(name, prepared) if self._digest else (),
            "scram": scram,
        }

    def _secrets(self, name: str, password: str) -> tuple[bytes, ...]:
        """For both spellings of the name, since a digest depends on what was typed: ``name`` and
        ``name@realm``, the realm as it is configured."""
        spellings = (name, f"{name}@{self.realm}")
        return tuple(
            dict.fromkeys(
                secret for spelling in spellings for secret in digest_secrets(spelling, self.realm, password)
            )
        )


def generated_password() -> str:
    """A random password of 24 characters, 138 bits, none of which looks like another."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(24))


def _end_of(day: date | None) -> datetime | None:
    """The moment at which a day (UTC) is over."""
    if day is None:
        return None
    try:
        return datetime.combine(day + timedelta(days=1), time(), UTC)
    except OverflowError:
        raise AccountError(f"{day} is too far away; never means no end") from None


def _altered(there: Iterable[str], add: Iterable[str], remove: Iterable[str], what: str) -> tuple[str, ...]:
    """A list with some more and some less, in its order.

    :raise AccountError: one to be removed is not there.
    """
    kept = dict.fromkeys((*there, *add))
    for each in remove:
        if each not in kept:
            raise AccountError(f"{each!r} is no {what}")
        del kept[each]
    return tuple(kept)


def _prepared(text: str, what: str) -> str:
    if not text:
        raise AccountError(f"the {what} is empty")
    try:
        prepared = saslprep(text)
    except ValueError as error:
        raise AccountError(f"the {what} cannot be used: {error}") from None
    if not prepared:
        raise AccountError(f"nothing is left of the {what} after SASLprep (RFC 4013)")
    return prepared
