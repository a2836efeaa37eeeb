"""``[realm.ldap]``: accounts in a directory."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from digipoort_msa.config.problems import Problem
from digipoort_msa.config.tables import AbsolutePath, Count, SecretFile, Table, Text

Attribute = Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)$")]
Seconds = Annotated[float, Field(ge=0.1, le=8)]

_URL = r"ldapi:///.+|ldaps?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?/?"


class Ldap(Table):
    """``[realm.ldap]``: accounts in a directory, found by a search and proven by a bind.

    In a filter ``{name}`` stands for the account's name, and in ``groups-filter`` ``{dn}`` for its entry's.
    """

    urls: tuple[Text, ...] = Field(
        default=(),
        description='a list of servers in their order: "ldaps://ldap.example.nl", "ldap://ldap.example.nl" '
        '(with StartTLS) or "ldapi:///run/slapd/ldapi"',
    )
    tls: Literal["verify", "none"] = Field(
        default="verify",
        description='"verify", or "none": ldap:// in clear, on this machine only',
    )
    ca: AbsolutePath | None = Field(
        default=None,
        description="a PEM file: the authorities of the servers' certificates; unset means the system's",
    )
    bind_dn: Text | None = Field(
        default=None, description="the name that searches are made with; unset means anonymously"
    )
    password_file: SecretFile | None = Field(
        default=None,
        description='a file whose first line is bind-dn\'s password, or "credential:NAME"',
    )
    base: Text | None = Field(default=None, description="the entry that accounts are below, a DN")
    scope: Literal["sub", "one"] = Field(
        default="sub", description='"sub": anywhere below the base; "one": directly below it'
    )
    filter: Text = Field(
        default="(uid={name})", description="an LDAP filter with {name} that finds the account"
    )
    name_attribute: Attribute = Field(
        default="uid", description="the attribute that has to hold the name exactly, capitals and all"
    )
    disabled_filter: Text | None = Field(
        default=None, description="an LDAP filter that disabled accounts fit; unset means none"
    )
    expired_filter: Text | None = Field(
        default=None, description="an LDAP filter that expired accounts fit; unset means none"
    )
    locked_filter: Text | None = Field(
        default=None, description="an LDAP filter that locked accounts fit; unset means none"
    )
    expiry_attribute: Attribute | None = Field(
        default=None, description="an attribute with the moment at which an account expires; unset means none"
    )
    expiry_format: Literal["generalized-time", "filetime", "days"] = Field(
        default="generalized-time",
        description='how it is written: "generalized-time", "filetime" (Active Directory\'s '
        'accountExpires) or "days" (shadowExpire)',
    )
    addresses_attribute: Attribute | None = Field(
        default=None,
        description="an attribute with patterns of the account's own addresses, such as mail; unset means "
        "none",
    )
    groups_attribute: Attribute | None = Field(
        default=None, description="an attribute with the account's groups, such as memberOf; unset means none"
    )
    groups_base: Text | None = Field(
        default=None,
        description="a DN: groups are entries below it, known by the value of their RDN; unset means that "
        "a value of groups-attribute is a group's name as it is",
    )
    groups_filter: Text | None = Field(
        default=None,
        description="an LDAP filter with {dn} or {name} that finds the account's groups below groups-base; "
        "unset means no search for groups",
    )
    groups_name_attribute: Attribute = Field(
        default="cn", description="the attribute with the names of groups that were searched for"
    )
    digest_attribute: Attribute | None = Field(
        default=None,
        description="an attribute with H(user:realm:password) in hex, for DIGEST-MD5; unset means without it",
    )
    scram_attribute: Attribute | None = Field(
        default=None,
        description="an attribute with SCRAM-SHA-256 keys as in RFC 5803, such as authPassword; unset means "
        "without SCRAM",
    )
    revision_attributes: tuple[Attribute, ...] = Field(
        default=("entryUUID", "entryCSN"),
        description="a list of attributes of which one changes whenever the password does; where one is "
        "missing, or the list is empty, no verified password is remembered",
    )
    connections: Count = Field(
        default=4, description="connections for searches, and as many for binds, kept for the next login"
    )
    connect_timeout: Seconds = Field(
        default=3.0, description="from 0.1 to 8 seconds: for connecting to a server, TLS and bind-dn's login"
    )
    timeout: Seconds = Field(default=3.0, description="from 0.1 to 8 seconds: for each answer of a server")


def problems(key: str, ldap: Ldap, mechanisms: tuple[str, ...]) -> Iterator[Problem]:
    """What reaches beyond one key.

    :param key: of the table.
    :param mechanisms: of the realm.
    """
    if find_spec("ldap") is None:
        yield Problem(key, "needs python-ldap, which is not installed: install digipoort-msa[ldap]")
    if not ldap.urls:
        yield Problem(f"{key}.urls", 'missing; should be a list such as ["ldaps://ldap.example.nl"]')
    if ldap.base is None:
        right = 'missing; should be the DN that accounts are below, such as "ou=people,dc=example,dc=nl"'
        yield Problem(f"{key}.base", right)
    yield from _servers(key, ldap)
    yield from _login(key, ldap)
    yield from _filters(key, ldap)
    for mechanism, setting, value in (
        ("DIGEST-MD5", "digest-attribute", ldap.digest_attribute),
        ("SCRAM-SHA-256", "scram-attribute", ldap.scram_attribute),
        ("SCRAM-SHA-256-PLUS", "scram-attribute", ldap.scram_attribute),
    ):
        if mechanism in mechanisms and value is None:
            right = f"missing, so that {mechanism} is not offered: a bind proves passwords alone"
            yield Problem(f"{key}.{setting}", right, warning=True)


def _servers(key: str, ldap: Ldap) -> Iterator[Problem]:
    for index, url in enumerate(ldap.urls):
        where = f"{key}.urls[{index}]"
        port = re.search(r":([0-9]+)/?$", url)
        if not re.fullmatch(_URL, url, re.ASCII) or (port and not 0 < int(port[1]) < 65536):
            right = 'should be such as "ldaps://ldap.example.nl" or "ldapi:///run/slapd/ldapi"'
            yield Problem(where, right, url)
        elif url in ldap.urls[:index]:
            yield Problem(where, "should be there once", url)
        elif ldap.tls == "none" and url.startswith("ldap://"):
            if _is_loopback(url):
                yield Problem(where, f'goes in clear, for {key}.tls = "none"', url, warning=True)
            else:
                right = f'passwords do not go to another machine in clear; {key}.tls should be "verify"'
                yield Problem(where, right, url)


def _is_loopback(url: str) -> bool:
    host = re.sub(r"(?::[0-9]+)?/?$", "", url.removeprefix("ldap://")).strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _login(key: str, ldap: Ldap) -> Iterator[Problem]:
    if ldap.bind_dn is not None and ldap.password_file is None:
        right = f"missing; {key}.bind-dn needs a password, or the bind would prove nothing"
        yield Problem(f"{key}.password-file", right)
    if ldap.bind_dn is None and ldap.password_file is not None:
        yield Problem(f"{key}.bind-dn", f"missing; {key}.password-file needs a name")


def _filters(key: str, ldap: Ldap) -> Iterator[Problem]:
    places = {
        "filter": (ldap.filter, ("{name}",)),
        "disabled-filter": (ldap.disabled_filter, ()),
        "expired-filter": (ldap.expired_filter, ()),
        "locked-filter": (ldap.locked_filter, ()),
        "groups-filter": (ldap.groups_filter, ("{dn}", "{name}")),
    }
    for name, (text, needed) in places.items():
        if text is None:
            continue
        if not _is_filter(text):
            yield Problem(f"{key}.{name}", "should be an LDAP filter (RFC 4515) in parentheses", text)
        elif needed and not any(place in text for place in needed):
            right = f"should have {' or '.join(needed)} in it, or it finds the same for everyone"
            yield Problem(f"{key}.{name}", right, text)
    if ldap.groups_filter is not None and ldap.groups_base is None:
        yield Problem(f"{key}.groups-base", f"missing; {key}.groups-filter needs an entry to search below")


def _is_filter(text: str) -> bool:
    """Is it one item, or items within their parentheses?"""
    text = text.replace("{name}", "x").replace("{dn}", "x")
    item = r"\([^()=&|!\0][^()=\0]*=[^()\0]*\)"
    while (shorter := re.sub(rf"\((?:[&|](?:{item})+|!{item})\)", "(x=x)", text)) != text:
        text = shorter
    return re.fullmatch(item, text) is not None
