"""The account stores that the settings can name: to add one, write it and name it in ``STORES``."""

from collections.abc import Callable, Mapping

from digipoort_msa.accounts.passwd import open_passwd
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts, open_foreign
from digipoort_msa.config.realm import Realm
from digipoort_msa.interfaces import Facilities, IAccountStore
from digipoort_msa.service.plugins import open_plugin


def open_store(realm: Realm, facilities: Facilities) -> IAccountStore:
    """The accounts of a realm, for the reactor; nothing is connected to yet.

    :raise ValueError, OSError: it cannot be used; the text says why.
    """
    opener = STORES.get(realm.store)
    if opener is not None:
        return opener(realm, facilities)
    return open_plugin("stores", realm.store, IAccountStore, realm.name, realm.plugin, facilities)


def _sql(realm: Realm, facilities: Facilities) -> IAccountStore:
    sql = realm.sql
    if sql.account_query is not None:
        foreign = open_foreign(
            realm=realm.name,
            url=sql.url or "",
            query=sql.account_query,
            password_file=sql.password_file,
            upgrade=sql.upgrade_query,
            scram=sql.scram_query,
        )
        return foreign.for_reactor(facilities.threads)
    accounts = open_accounts(
        realm=realm.name,
        url=sql.url,
        state_directory=facilities.state_directory,
        password_file=sql.password_file,
        key_file=sql.key_file,
    )
    return accounts.for_reactor(facilities.threads)


def _ldap(realm: Realm, facilities: Facilities) -> IAccountStore:
    try:
        from digipoort_msa.service.directories import open_directory
    except ImportError as error:
        raise ValueError(f"needs python-ldap: install digipoort-msa[ldap] ({error})") from error
    return open_directory(realm.name, realm.ldap, facilities.reactor)


def _http(realm: Realm, facilities: Facilities) -> IAccountStore:
    try:
        from digipoort_msa.service.http_accounts import open_http
    except ImportError as error:
        raise ValueError(f"needs treq: install digipoort-msa[http] ({error})") from error
    return open_http(realm.name, realm.http, facilities.reactor)


def _passwd(realm: Realm, facilities: Facilities) -> IAccountStore:
    return open_passwd(
        realm=realm.name,
        htpasswd=realm.passwd.htpasswd,
        htdigest=realm.passwd.htdigest,
        hashing=PasswordHashing(),
        threads=facilities.threads,
    )


def _cred(realm: Realm, facilities: Facilities) -> IAccountStore:
    from digipoort_msa.accounts.cred import open_cred  # which looks for Twisted's plug-ins

    return open_cred(
        realm=realm.name,
        checker=realm.cred.checker or "",
        mechanisms=realm.mechanisms,
        threads=facilities.threads,
    )


STORES: Mapping[str, Callable[[Realm, Facilities], IAccountStore]] = {
    "sql": _sql,
    "ldap": _ldap,
    "http": _http,
    "passwd": _passwd,
    "cred": _cred,
}
