"""``user@realm``: which realm a name means, and what the account is called there.

A name whose domain is a realm's name (in any case, as domains go) is an account of that realm, known there
by the part before.  Any other name, one with another domain among them, is an account's whole name.
"""

from collections.abc import Iterable


def local_name(username: str, realm: str) -> str:
    """The account that ``username`` means within ``realm``."""
    name, at, domain = username.rpartition("@")
    return name if at and domain.lower() == realm.lower() else username


def realm_of(username: str, realms: Iterable[str]) -> str | None:
    """The realm that ``username`` names itself, if it does."""
    _, at, domain = username.rpartition("@")
    return next((realm for realm in realms if at and domain.lower() == realm.lower()), None)
