"""Apache's files of accounts: ``htpasswd`` (``name:hash``) and ``htdigest`` (``name:realm:H(A1)``).

passlib reads each line.  What it leaves open is closed here, since the reader decides who gets in: a name
that stands there twice is an error, not the first of the two; names are in UTF-8, and compared as SASLprep
prepares them; a hash that is damaged is an error, and no password fits one without a salt (A7).
"""

import re
from collections.abc import Iterator, Mapping

from attrs import field, frozen
from passlib.apache import HtdigestFile, HtpasswdFile

from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.sasl.saslprep import saslprep

#: Before a hash: the account is disabled.  Apache, too, finds no password that fits what begins so.
DISABLED = "!"

_ENCODING = "utf-8"


@frozen
class Entry:
    """An account in one file."""

    verifier: str = field(repr=False)  # the hash, or H(A1) in hex; "" where no password can be right
    disabled: bool = False


@frozen
class Entries:
    """What a file says."""

    accounts: Mapping[str, Entry]
    refused: Mapping[str, tuple[str, ...]] = {}  # why hashes are never right, and whose
    weak: tuple[str, ...] = ()  # whose hashes are taken, and should be better
    other_realms: frozenset[str] = frozenset()


def read_htpasswd(octets: bytes, hashing: PasswordHashing) -> Entries:
    """
    :param hashing: knows which hashes are sound.
    :raise ValueError: a line is wrong; the text begins with its number, and shows no hash.
    """
    accounts: dict[str, Entry] = {}
    refused: dict[str, list[str]] = {}
    weak: list[str] = []
    file = HtpasswdFile(encoding=_ENCODING)
    for where, line in _lines(octets):
        with_hash = _record(where, line, file, "name:hash")
        if with_hash is None:
            continue
        user, found = with_hash
        name = _name(where, user, accounts)
        disabled = found.startswith(DISABLED)
        fault = None if disabled else _fault(where, name, found, hashing)
        if fault is not None:
            refused.setdefault(fault, []).append(name)
        elif found.startswith("$apr1$"):
            weak.append(name)
        accounts[name] = Entry("" if disabled or fault else found, disabled)
    return Entries(accounts, {why: tuple(names) for why, names in refused.items()}, tuple(weak))


def read_htdigest(octets: bytes, realm: str) -> Entries:
    """The accounts of a realm; lines of other realms are left alone.

    :raise ValueError: as in :func:`read_htpasswd`.
    """
    accounts: dict[str, Entry] = {}
    others: set[str] = set()
    file = HtdigestFile(encoding=_ENCODING, default_realm=realm)
    for where, line in _lines(octets):
        record = _record(where, line, file, "name:realm:hash")
        if record is None:
            continue
        (named,) = file.realms()
        if named != realm:
            others.add(named)
            continue
        user, found = record
        name = _name(where, user, accounts)
        disabled = found.startswith(DISABLED)
        if not disabled and not re.fullmatch("[0-9A-Fa-f]{32}", found):
            raise ValueError(
                f"{where}: the hash of {name!r} should have 32 hex digits, as htdigest writes it"
            )
        accounts[name] = Entry("" if disabled else found, disabled)
    return Entries(accounts, other_realms=frozenset(others))


def _lines(octets: bytes) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(octets.split(b"\n"), 1):
        yield f"line {number}", line


def _record(where: str, line: bytes, file: HtpasswdFile | HtdigestFile, form: str) -> tuple[str, str] | None:
    """The name and the hash on a line; ``None`` where it is empty or a comment."""
    try:
        file.load_string(line)
        users = file.users() if isinstance(file, HtpasswdFile) else _digest_users(file)
        if not users:
            return None
        (user,) = users
        found = file.get_hash(user) if isinstance(file, HtpasswdFile) else _digest_hash(file, user)
        return user, found.decode(_ENCODING) if isinstance(found, bytes) else str(found)
    except UnicodeDecodeError:
        raise ValueError(f"{where}: should be in UTF-8") from None
    except ValueError:
        # passlib's text has another number, and may show the line.
        raise ValueError(f"{where}: should be {form}, with a name of 255 octets at the most") from None


def _digest_users(file: HtdigestFile) -> list[str]:
    return [user for realm in file.realms() for user in file.users(realm)]


def _digest_hash(file: HtdigestFile, user: str) -> str | bytes:
    (realm,) = file.realms()
    found: str | bytes = file.get_hash(user, realm)
    return found


def _name(where: str, user: str, taken: Mapping[str, Entry]) -> str:
    try:
        name = saslprep(user)
    except ValueError as error:
        raise ValueError(f"{where}: {user!r} cannot be a name: {error}") from None
    if not name:
        raise ValueError(f"{where}: should begin with a name")
    if name in taken:
        raise ValueError(f"{where}: there is a line for {name!r} before this one; which is right?")
    return name


def _fault(where: str, name: str, found: str, hashing: PasswordHashing) -> str | None:
    """Why no password fits a hash, or ``None`` where one may."""
    if hashing.readable(found):
        if not hashing.sound(found):
            raise ValueError(f"{where}: the hash of {name!r} is damaged; set the password anew")
        return None
    if not found:
        return "there is no hash"
    if found.startswith("{SHA}"):
        return "{SHA} has no salt"
    if found.startswith(("$", "{")):
        return "this kind of hash is not known"
    return "it is a DES hash, or the password itself"
