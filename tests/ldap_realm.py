"""Accounts in the tests' slapd, and stores that read them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from attrs import define, field
from twisted.internet import reactor

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.ldap.directory import Address, Directory, Login
from digipoort_msa.accounts.ldap.entry import Attributes
from digipoort_msa.accounts.ldap.store import LDAPAccountStore, Search
from digipoort_msa.testing import AccountDescription
from tests.slapd import ADMIN, Slapd, running

REALM = "one.nl"
ATTRIBUTES = Attributes(
    addresses="mail",
    groups="employeeType",
    digest="msaDigest",
    expiry="msaExpires",
    revision=("entryUUID", "entryCSN"),
)
STATUSES = (
    (Status.DISABLED, "(description=disabled)"),
    (Status.LOCKED, "(description=locked)"),
)


@define
class LDAPRealm:
    """A branch of its own in the slapd of this process."""

    slapd: Slapd = field(factory=running)
    branch: str = field(init=False)
    _held: set[str] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self.branch = self.slapd.fresh()

    @property
    def people(self) -> str:
        return f"ou=people,{self.branch}"

    @property
    def groups(self) -> str:
        return f"ou=groups,{self.branch}"

    def hold(self, accounts: Iterable[AccountDescription]) -> None:
        """These, and no others."""
        for dn in self._held:
            self.slapd.delete(dn)
        self._held.clear()
        for account in accounts:
            entry: dict[str, Any] = {
                "uid": account.name,
                "userPassword": account.password,
                "msaDigest": [secret.hex() for secret in account.digest_secrets(REALM)],
                "mail": list(account.addresses),
                "employeeType": sorted(account.groups),
            }
            if account.status is Status.EXPIRED:
                entry["msaExpires"] = "20200101000000Z"
            elif account.status is not Status.ACTIVE:
                entry["description"] = account.status.value
            self.add(**{name: value for name, value in entry.items() if value})

    def add(self, *, uid: str, **attributes: Any) -> str:
        """An account's entry; returns its DN."""
        dn = f"cn=account{len(self._held)},{self.people}"
        entry = {"objectClass": ["inetOrgPerson", "msaAccount"], "uid": uid, "sn": "account", **attributes}
        self.slapd.add(dn, {**entry, "cn": dn.partition(",")[0].removeprefix("cn=")})
        self._held.add(dn)
        return dn

    def store(self, *urls: str, **options: Any) -> LDAPAccountStore:
        """:param options: of the directory; and ``attributes``, ``in_clear`` and those of :class:`Search`."""
        searches = {"base": self.people, "statuses": STATUSES}
        for name in ("base", "scope", "filter", "statuses", "groups_base", "groups_filter", "groups_name"):
            if name in options:
                searches[name] = options.pop(name)
        attributes = options.pop("attributes", ATTRIBUTES)
        in_clear = options.pop("in_clear", False)
        options.setdefault("login", Login(dn=ADMIN, password_file=self.slapd.password_file))
        options.setdefault("ca_file", self.slapd.ca)
        addresses = [Address.of(url, in_clear=in_clear) for url in urls or (self.slapd.ldapi,)]
        directory = Directory(reactor, REALM, addresses, options.pop("login"), **options)
        return LDAPAccountStore(REALM, directory, Search(**searches), attributes, reactor, _now)  # type: ignore[arg-type]


def _now() -> datetime:
    return datetime.now(UTC)
