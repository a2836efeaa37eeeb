"""Opening the ``ldap`` store of a realm; apart from the others, since its library may not be installed."""

from datetime import UTC, datetime
from typing import Any

from ldap.dn import is_dn

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.ldap.directory import Address, Directory, Login
from digipoort_msa.accounts.ldap.entry import Attributes
from digipoort_msa.accounts.ldap.store import LDAPAccountStore, Search
from digipoort_msa.config.stores.ldap import Ldap


def open_directory(realm: str, table: Ldap, reactor: Any) -> LDAPAccountStore:
    """The accounts of a realm.

    :raise ValueError, OSError: it cannot be used; the text says why.
    """
    if table.base is None or not table.urls:
        raise ValueError("urls and base say where the accounts are, and one of them is missing")
    for key, dn in (("base", table.base), ("groups-base", table.groups_base)):
        if dn is not None and not is_dn(dn):
            raise ValueError(f"{key} should be the name of an entry, a DN; it is {dn!r}")
    directory = Directory(
        reactor,
        realm,
        [Address.of(url, in_clear=table.tls == "none") for url in table.urls],
        Login(dn=table.bind_dn or "", password_file=table.password_file),
        ca_file=table.ca,
        connections=table.connections,
        connect_seconds=table.connect_timeout,
        seconds=table.timeout,
    )
    filters = (
        (Status.DISABLED, table.disabled_filter),
        (Status.EXPIRED, table.expired_filter),
        (Status.LOCKED, table.locked_filter),
    )
    search = Search(
        base=table.base,
        scope=table.scope,
        filter=table.filter,
        statuses=tuple((status, text) for status, text in filters if text is not None),
        groups_base=table.groups_base,
        groups_filter=table.groups_filter,
        groups_name=table.groups_name_attribute,
    )
    attributes = Attributes(
        name=table.name_attribute,
        addresses=table.addresses_attribute,
        groups=table.groups_attribute,
        groups_base=table.groups_base,
        digest=table.digest_attribute,
        scram=table.scram_attribute,
        expiry=table.expiry_attribute,
        expiry_format=table.expiry_format,
        revision=table.revision_attributes,
    )
    return LDAPAccountStore(realm, directory, search, attributes, reactor, lambda: datetime.now(UTC))
