"""What an entry of the directory says of an account.

A value that cannot be read never makes an account able to do more: an unreadable date of expiry is
:class:`~digipoort_msa.interfaces.Unavailable`, an unreadable secret is logged, and is none.
"""

import re
from base64 import b64decode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal
from unicodedata import normalize

import ldap
from attrs import field, frozen
from ldap.dn import str2dn

from digipoort_msa import log
from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.framing import framed
from digipoort_msa.accounts.ldap.codec import Entry
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys

ExpiryFormat = Literal["generalized-time", "filetime", "days"]

_NEVER = {0, 2**63 - 1}  # as Active Directory has it
_FILETIME = datetime(1601, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def escaped(text: str) -> str:
    """A value as it may stand in a filter (RFC 4515 3): all but ASCII's letters and digits is ``\\xx``, so
    that nothing of it can be syntax."""
    return "".join(
        chr(octet) if chr(octet).isascii() and chr(octet).isalnum() else f"\\{octet:02x}"
        for octet in text.encode()
    )


@frozen(kw_only=True)
class DirectoryAccount(Account):
    """An account, and the entry that it was read from."""

    dn: str


@frozen(kw_only=True)
class Attributes:
    """Which attribute says what; ``None`` where none does."""

    name: str = "uid"
    addresses: str | None = None
    groups: str | None = None
    groups_base: str | None = None  # of groups that are DNs, those below it, by the value of their first RDN
    digest: str | None = None  # H(user:realm:password) in hex
    scram: str | None = None  # RFC 5803
    expiry: str | None = None
    expiry_format: ExpiryFormat = "generalized-time"
    revision: tuple[str, ...] = ()
    wanted: tuple[str, ...] = field(init=False)

    @wanted.default
    def _all(self) -> tuple[str, ...]:
        every = (self.name, self.addresses, self.groups, self.digest, self.scram, self.expiry, *self.revision)
        return tuple(dict.fromkeys(attribute for attribute in every if attribute))


def check_names(entry: Entry, wanted: Iterable[str]) -> None:
    """Asked for an attribute by its number (OID) or by another name, directories answer with the name that
    they have for it; what stands under that would be overlooked, a date of expiry say.

    :param wanted: the attributes that were asked for.
    :raise Unavailable: what came is not those, or (Active Directory) not all of one's values.
    """
    asked = {attribute.lower() for attribute in wanted}
    for name in entry.attributes:
        base, _, option = name.partition(";")
        if base not in asked:
            raise Unavailable(
                f"{entry.dn} came with {base}, for which it was not asked: name attributes in the settings "
                "as the directory does"
            )
        if option.startswith("range="):
            raise Unavailable(f"{entry.dn} has more values of {base} than come at once")


def is_named(entry: Entry, attributes: Attributes, name: str) -> bool:
    """Octet for octet: directories match names whatever their case and spaces are.

    :raise Unavailable: it has quite another name, and no directory should have found it by this one.
    """
    values = entry.values(attributes.name)
    if name.encode() in values:
        return True
    if _loosely(name) not in map(_loosely, texts(values)):
        raise Unavailable(f"asked for {name!r} it gave {entry.dn}, whose {attributes.name} is another")
    return False


def _loosely(name: str) -> str:
    """More names are equal by this than by any matching rule of a directory (RFC 4518)."""
    return "".join(filter(str.isalnum, normalize("NFKD", normalize("NFKC", name).casefold())))


def read_account(
    entry: Entry,
    attributes: Attributes,
    *,
    name: str,
    realm: str,
    status: Status,
    now: datetime,
    groups: frozenset[str] = frozenset(),
) -> DirectoryAccount:
    """
    :param status: what else is known of it; an active one may have expired all the same.
    :param now: in UTC.
    :param groups: those that are known otherwise.
    :raise Unavailable: the date of its expiry cannot be read.
    """
    if status is Status.ACTIVE and _has_expired(entry, attributes, now):
        status = Status.EXPIRED
    return DirectoryAccount(
        name=name,
        realm=realm,
        status=status,
        digest_secrets=_digest_secrets(entry, attributes, name, realm),
        scram=_scram_keys(entry, attributes, name, realm),
        groups=groups | _groups(entry, attributes),
        addresses=tuple(
            address for address in texts(entry.values(attributes.addresses)) if _is_address(address)
        ),
        revision=_revision(entry, attributes),
        dn=entry.dn,
    )


def texts(values: Iterable[bytes]) -> list[str]:
    """Those of the values that are text."""
    found = []
    for value in values:
        try:
            found.append(value.decode("utf-8"))
        except UnicodeDecodeError:
            continue
    return found


def _is_address(text: str) -> bool:
    return re.fullmatch(r"[^\s@]+@[^\s@]+", text) is not None


def _groups(entry: Entry, attributes: Attributes) -> frozenset[str]:
    values = texts(entry.values(attributes.groups))
    if attributes.groups_base is None:
        return frozenset(values)
    base = _names(attributes.groups_base)
    found = set()
    for value in values:
        names = _names(value)
        if base and len(names) > len(base) and names[-len(base) :] == base:
            found.add(str2dn(value)[0][0][1])
    return frozenset(found)


def _names(dn: str) -> list[list[tuple[str, str]]]:
    """The RDNs of a name, so that names that differ in case and spaces alone are equal; [] for none."""
    try:
        return [
            sorted((attribute.lower(), " ".join(value.lower().split())) for attribute, value, _ in rdn)
            for rdn in str2dn(dn)
        ]
    except ldap.DECODING_ERROR:
        return []


def _revision(entry: Entry, attributes: Attributes) -> str:
    """Made of all attributes that are asked for; without one of them it cannot be told whether the password
    may have changed."""
    values = [entry.values(attribute) for attribute in attributes.revision]
    if not values or not all(values):
        return ""
    parts = [entry.dn, *(value.hex() for each in values for value in (b"%d" % len(each), *each))]
    return sha256(framed(*parts)).hexdigest()


def _digest_secrets(entry: Entry, attributes: Attributes, name: str, realm: str) -> tuple[bytes, ...]:
    values = entry.values(attributes.digest)
    if all(re.fullmatch(rb"[0-9A-Fa-f]{32}", value) for value in values):
        return tuple(bytes.fromhex(value.decode("ascii")) for value in values)
    reason = f"{attributes.digest} of {entry.dn} is not 32 hex digits"
    log.emit(log.SECRETS_UNREADABLE, account=name, realm=realm, reason=reason)
    return ()


def _scram_keys(entry: Entry, attributes: Attributes, name: str, realm: str) -> ScramKeys | None:
    """The first value that is for SCRAM-SHA-256."""
    for value in texts(entry.values(attributes.scram)):
        scheme, _, rest = value.partition("$")
        if scheme.strip().upper() != "SCRAM-SHA-256":
            continue
        match = re.fullmatch(r"([0-9]{1,9}):([^:$]+)\$([^:$]+):([^:$]+)", rest.replace(" ", ""), re.ASCII)
        try:
            salt, stored, server = (b64decode(part, validate=True) for part in match.groups()[1:])  # type: ignore[union-attr]
            if len(stored) == len(server) == 32 and salt and match is not None and int(match[1]):
                return ScramKeys(salt, int(match[1]), stored, server)
        except (ValueError, AttributeError):
            pass
        reason = f"{attributes.scram} of {entry.dn} is not as RFC 5803 has it"
        log.emit(log.SCRAM_UNREADABLE, account=name, realm=realm, reason=reason)
    return None


def _has_expired(entry: Entry, attributes: Attributes, now: datetime) -> bool:
    values = entry.values(attributes.expiry)
    if not values:
        return False
    try:
        (value,) = values
        return _ended(value.decode("ascii"), attributes.expiry_format, now)
    except (ValueError, OverflowError):
        shown = f"{attributes.expiry} of {entry.dn}"
        raise Unavailable(f"{shown} is no {attributes.expiry_format}: {values!r}") from None


def _ended(value: str, expiry_format: ExpiryFormat, now: datetime) -> bool:
    if expiry_format == "generalized-time":
        return now >= _generalized_time(value)
    number = int(value)
    if expiry_format == "filetime":
        return number not in _NEVER and now >= _FILETIME + timedelta(microseconds=number // 10)
    return number >= 0 and now >= _EPOCH + timedelta(days=number)


def _generalized_time(value: str) -> datetime:
    """RFC 4517 3.3.13; seconds may be missing, and fractions are left out."""
    match = re.fullmatch(r"([0-9]{12})([0-9]{2})?(?:[.,][0-9]+)?(Z|[+-][0-9]{4})", value, re.ASCII)
    if match is None:
        raise ValueError(value)
    zone = match[3].replace("Z", "+0000")
    return datetime.strptime(f"{match[1]}{match[2] or '00'}{zone}", "%Y%m%d%H%M%S%z")
