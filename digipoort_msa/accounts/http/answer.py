"""What an endpoint says about an account: one JSON object, read strictly, once, into an account.

The rule is that nothing is guessed.  Each answer repeats the realm and the name that it is about, so that the
answer to another question is found out; it has the keys that it should have and no others, since one that we
do not know may be the one that says "locked"; and a yes is ``true``, no other value.  Whatever is wrong is a
``ValueError``, whose text names the key, never a value: it may be a secret.
"""

import json
import re
from collections.abc import Mapping, Set
from datetime import date
from typing import Any

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.foreign_columns import as_scram_keys

_ACCOUNT = frozenset({"realm", "name", "status"})
_SECRETS = 8  # as many as an account of ours can have
_TEXT = 1000  # characters of a text, elements of a list

#: The keys that hold what passwords are verified with.
HASH, DIGEST, SCRAM, REVISION = "password-hash", "digest-secrets", "scram", "revision"
_OPTIONAL = frozenset({"groups", "addresses", "digest-until", HASH, DIGEST, SCRAM, REVISION})


def account(octets: bytes, realm: str, name: str, yields: Set[str]) -> Account:
    """An account that was asked for.

    :param yields: those of ``HASH``, ``DIGEST``, ``SCRAM`` and ``REVISION`` that are made use of; the others
        have to be sound, and are dropped.
    :raise ValueError: it is no answer to the question.
    """
    document = _about(octets, realm, name, _ACCOUNT, _OPTIONAL)
    try:
        status = Status(document["status"])
    except ValueError:
        words = ", ".join(each.value for each in Status)
        raise ValueError(f"status should be one of {words}") from None
    secrets = _texts(document, DIGEST)
    if len(secrets) > _SECRETS or not all(re.fullmatch("[0-9A-Fa-f]{32}", each) for each in secrets):
        raise ValueError(f"{DIGEST} should be texts of 32 hex digits, {_SECRETS} at most")
    addresses = _texts(document, "addresses")
    if not all(re.fullmatch(r"[^\s@]+@[^\s@]+", each) for each in addresses):
        raise ValueError("addresses should be patterns such as *@example.nl")
    password_hash, revision = _text(document, HASH), _text(document, REVISION)
    scram = as_scram_keys(_text(document, SCRAM) or None)
    return Account(
        name=name,
        realm=realm,
        status=status,
        password_hash=password_hash if HASH in yields else "",
        digest_secrets=tuple(map(bytes.fromhex, secrets)) if DIGEST in yields else (),
        scram=scram if SCRAM in yields else None,
        digest_until=_day(document, "digest-until"),
        groups=frozenset(_texts(document, "groups")),
        addresses=addresses,
        revision=revision if REVISION in yields else "",
    )


def unknown(octets: bytes, realm: str, name: str) -> None:
    """There is no such account.

    :raise ValueError: that is not what it says.
    """
    if _about(octets, realm, name, frozenset({"realm", "name", "unknown"}))["unknown"] is not True:
        raise ValueError("unknown should be true")


def verdict(octets: bytes, realm: str, name: str) -> bool:
    """Is the password right?

    :raise ValueError: it is no answer to the question.
    """
    said = _about(octets, realm, name, frozenset({"realm", "name", "verified"}))["verified"]
    if said is not True and said is not False:
        raise ValueError("verified should be true or false")
    return bool(said)


def _about(
    octets: bytes, realm: str, name: str, required: Set[str], optional: Set[str] = frozenset()
) -> Mapping[str, Any]:
    try:
        text = octets.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise ValueError("the answer is not in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the answer is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("the answer should be an object")
    for missing in sorted(required - document.keys()):
        raise ValueError(f"{missing} is missing")
    for key in sorted(document.keys() - required - optional):
        raise ValueError(f"{key[:40]!r} is not among the keys of this answer")
    if document["realm"] != realm or document["name"] != name:
        raise ValueError("it is about another account than was asked for")
    return document


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key stands there twice")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str) or not _is_sound(value):
        raise ValueError(f"{key} should be a text without control characters")
    return value


def _texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or len(value) > _TEXT:
        raise ValueError(f"{key} should be a list, of {_TEXT} texts at most")
    if not all(isinstance(each, str) and each and _is_sound(each) for each in value):
        raise ValueError(f"{key} should be texts without control characters, and none empty")
    return tuple(value)


def _day(document: Mapping[str, Any], key: str) -> date | None:
    if key not in document:
        return None
    text = _text(document, key)
    try:
        if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{key} should be a day such as 2027-12-31") from None


def _is_sound(text: str) -> bool:
    """Short, and what UTF-8 and a log can hold: no controls, no halves of surrogate pairs."""
    return len(text) <= _TEXT and text.isprintable()
