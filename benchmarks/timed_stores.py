"""A store of each kind, as an operator has them, with the accounts of :mod:`tests.login_timing` in it.

The back ends are real: an SQLite file, Apache's files, a slapd, a file of ``twisted.cred``'s, a JSON endpoint
over TLS (in this process).
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from passlib.hash import bcrypt

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.cred import open_cred
from digipoort_msa.accounts.passwd import open_passwd
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.config.stores.http import Http
from digipoort_msa.interfaces import IAccountStore
from digipoort_msa.service.http_accounts import open_http
from digipoort_msa.testing import AccountDescription
from digipoort_msa.threads import Threads
from tests.authority import Authority
from tests.json_endpoint import Accounts, ca_file, endpoint
from tests.ldap_realm import ATTRIBUTES, LDAPRealm
from tests.login_timing import REALM, RIGHT, Cause, accounts

_BCRYPT_ROUNDS = 5  # a millisecond or two: refusals have to fit into the levelled time of the benchmark


@frozen
class Place:
    """What a store is opened with."""

    reactor: Any
    folder: Path  # its own
    threads: Threads
    hashing: PasswordHashing


@frozen
class Stocked:
    """A store with its accounts."""

    store: IAccountStore
    causes: Sequence[Cause] = tuple(Cause)  # those that it can have
    stop: Callable[[], Any] = field(default=lambda: None)


_WITHOUT_BARE = (Cause.WRONG, Cause.UNKNOWN, Cause.DISABLED)


def sql(place: Place) -> Stocked:
    """Our own tables."""
    opened = open_accounts(realm=REALM, url=None, state_directory=place.folder)
    for account in accounts(place.hashing):
        opened.insert(account)
    store = opened.for_reactor(place.threads)
    return Stocked(store, stop=store.stop)


def passwd(place: Place) -> Stocked:
    """An htpasswd of bcrypt hashes, and an htdigest."""
    htpasswd, htdigest = place.folder / "htpasswd", place.folder / "htdigest"
    password_hash = bcrypt.using(rounds=_BCRYPT_ROUNDS).hash(RIGHT)
    passwords, digests = [], []
    for account in _kept(place, Cause.WRONG, Cause.DISABLED):
        off = "" if account.may_log_in else "!"
        passwords.append(f"{account.name}:{off}{password_hash}\n")
        digests.append(f"{account.name}:{REALM}:{off}{account.digest_secrets[0].hex()}\n")
    htpasswd.write_text("".join(passwords))
    htdigest.write_text("".join(digests))
    store = open_passwd(
        realm=REALM, htpasswd=htpasswd, htdigest=htdigest, hashing=place.hashing, threads=place.threads
    )
    return Stocked(store, _WITHOUT_BARE, store.stop)


def ldap(place: Place) -> Stocked:
    """A slapd: a search, and a bind for passwords."""
    directory = LDAPRealm()
    for account in accounts(place.hashing):
        entry: dict[str, Any] = {"mail": list(account.addresses)}
        if account.status is Status.DISABLED:
            entry["description"] = "disabled"
        if account.scram is not None:
            keys = account.scram
            salt, stored, server = (
                b64encode(octets).decode() for octets in (keys.salt, keys.stored_key, keys.server_key)
            )
            entry |= {
                "userPassword": RIGHT,
                "msaDigest": [secret.hex() for secret in account.digest_secrets],
                "msaScram": f"SCRAM-SHA-256${keys.iterations}:{salt}${stored}:{server}",
            }
        directory.add(uid=account.name, **entry)
    store = directory.store(attributes=evolve(ATTRIBUTES, scram="msaScram"))

    async def stop() -> None:
        await store.stop()
        directory.slapd.remove()

    return Stocked(store, stop=stop)


def cred(place: Place) -> Stocked:
    """``file:``, with the passwords themselves in it."""
    file = place.folder / "passwords"
    file.write_text("".join(f"{name}:{RIGHT}\n" for name in Cause.WRONG.names))
    mechanisms = ("PLAIN", "LOGIN", "DIGEST-MD5")
    store = open_cred(realm=REALM, checker=f"file:{file}", mechanisms=mechanisms, threads=place.threads)
    return Stocked(store, (Cause.WRONG, Cause.UNKNOWN), store.stop)


def http(place: Place) -> Stocked:
    """An endpoint that yields what our own tables have."""
    described = [
        AccountDescription(
            name=account.name, password=RIGHT, status=account.status, addresses=("*@example.nl",)
        )
        for account in _kept(place, Cause.WRONG, Cause.DISABLED)
    ]
    authority = Authority()
    server = endpoint(Accounts(REALM, described), authority)
    table = {
        "url": f"{server.url}/account",
        "ca": str(ca_file(authority, place.folder)),
        "digest-md5": True,
        "scram": True,
    }
    store = open_http(REALM, Http.model_validate(table), place.reactor)

    async def stop() -> None:
        await store.stop()
        await server.stop()

    return Stocked(store, _WITHOUT_BARE, stop)


def _kept(place: Place, *causes: Cause) -> list[Account]:
    names = {name for cause in causes for name in cause.names}
    return [account for account in accounts(place.hashing) if account.name in names]


STORES = {"sql": sql, "passwd": passwd, "ldap": ldap, "cred": cred, "http": http}
