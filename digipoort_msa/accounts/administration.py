"""What an operator does with accounts, and the rules for names and passwords.

Names and passwords are prepared with SASLprep when they are stored, as they are at each login (A4).
"""

import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.names import realm_of
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.sql import AccountExists, NoSuchAccount, SQLAccounts
from digipoort_msa.accounts.tables import NAME_LENGTH
from digipoort_msa.sasl.digest_md5 import digest_secrets
from digipoort_msa.sasl.saslprep import saslprep

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
        realms: Iterable[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        :param digest: whether the realm offers DIGEST-MD5, and its secrets are to be kept (A7).
        :param realms: every realm's name; ``name@realm`` means an account of that realm.
        """
        self.realm = accounts.realm
        self._accounts = accounts
        self._hashing = hashing
        self._digest = digest
        self._realms = tuple(realms)
        self._now = now

    def check_free(self, name: str) -> None:
        """Before a password is asked for: could this name be added?

        :raise AccountError: a name that cannot be, or that is taken.
        """
        prepared = self._name(name)
        if self._accounts.find(prepared) is not None:
            raise self._taken(prepared)

    def add(self, name: str, password: str) -> Account:
        """Make an active account.

        :raise AccountError: a name or password that cannot be, or a name that is taken.
        """
        prepared = self._name(name)
        now = self._now()
        password_hash, kept = self._verifiers(prepared, password)
        account = Account(
            name=prepared,
            realm=self.realm,
            status=Status.ACTIVE,
            password_hash=password_hash,
            digest_secrets=kept,
            created=now,
            changed=now,
        )
        try:
            self._accounts.insert(account)
        except AccountExists:
            raise self._taken(prepared) from None
        return self.get(prepared)

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
        verifiers = self._verifiers(prepared, password)
        try:
            self._accounts.set_password(prepared, *verifiers, self._now())
        except NoSuchAccount:
            raise self._unknown(prepared) from None

    def enable(self, name: str) -> None:
        """:raise AccountError: no such account."""
        self._set_status(name, Status.ACTIVE)

    def disable(self, name: str) -> None:
        """The next login is refused; a session that is open goes on to its end.

        :raise AccountError: no such account.
        """
        self._set_status(name, Status.DISABLED)

    def remove(self, name: str) -> None:
        """:raise AccountError: no such account."""
        prepared = self._name(name)
        try:
            self._accounts.delete(prepared)
        except NoSuchAccount:
            raise self._unknown(prepared) from None

    def _set_status(self, name: str, status: Status) -> None:
        prepared = self._name(name)
        try:
            self._accounts.set_status(prepared, status, self._now())
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

    def _verifiers(self, name: str, password: str) -> tuple[str, tuple[bytes, ...]]:
        """The hash, and the digest secrets."""
        prepared = _prepared(password, "password")
        if len(prepared.encode()) > PASSWORD_LENGTH:
            raise AccountError(f"the password is longer than {PASSWORD_LENGTH} octets")
        return self._hashing.hash(prepared), self._secrets(name, prepared) if self._digest else ()

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
