"""What is in the columns of somebody else's table, as the databases' drivers give it.

Each function takes a value as it comes and gives what it means, or raises ``ValueError`` with the column's
name and what it should be: the value itself may be a secret, and is not told.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from digipoort_msa.accounts.account import Status
from digipoort_msa.sasl.scram_keys import ScramKeys

_SECRETS = 8  # as many as an account of ours can have
_FEWEST, _MOST = 4096, 10_000_000  # iterations (RFC 7677 4); more are a client's undoing
_YES = {"1", "t", "true", "y", "yes"}
_NO = {"0", "f", "false", "n", "no"}
_SCRAM = re.compile(r"SCRAM-SHA-256\$([0-9]{1,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def as_name(value: Any) -> str:
    """:raise ValueError: it is not text."""
    name = _text("name", value)
    if name is None:
        raise ValueError("name should be text, and is NULL")
    return name


def as_status(row: Mapping[str, Any], expired: bool) -> Status:
    """Active where every column that there is says so, and its time is not over."""
    status = Status.ACTIVE
    if "status" in row:
        try:
            status = Status(str(_text("status", row["status"])).lower())
        except ValueError:
            raise ValueError(f"status should be one of {', '.join(each.value for each in Status)}") from None
    if status is not Status.ACTIVE:
        return status
    if "active" in row and not _flag("active", row["active"]):
        return Status.DISABLED
    if "disabled" in row and _flag("disabled", row["disabled"]):
        return Status.DISABLED
    return Status.EXPIRED if expired else status


def as_hash(value: Any) -> str:
    return _text("password_hash", value) or ""


def as_secrets(value: Any) -> tuple[bytes, ...]:
    found = re.split(r"[\s,]+", (_text("digest_ha1", value) or "").strip(" ,"))
    if found == [""]:
        return ()
    if len(found) > _SECRETS or not all(re.fullmatch("[0-9A-Fa-f]{32}", each) for each in found):
        raise ValueError(f"digest_ha1 should be 32 hex digits, up to {_SECRETS} times")
    return tuple(map(bytes.fromhex, found))


def as_scram_keys(value: Any) -> ScramKeys | None:
    written = _text("scram", value)
    if not written:
        return None
    match = _SCRAM.fullmatch(written)
    if match is None:
        raise ValueError("scram should be SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
    iterations = int(match[1])
    try:
        salt, stored, server = (b64decode(each, validate=True) for each in match.groups()[1:])
    except ValueError:
        raise ValueError("scram has a part that is not base64") from None
    if not _FEWEST <= iterations <= _MOST or len(stored) != 32 or len(server) != 32:
        raise ValueError(f"scram should have {_FEWEST} to {_MOST} iterations, and keys of 32 octets")
    return ScramKeys(salt, iterations, stored, server)


def as_keys_text(keys: ScramKeys) -> str:
    """The inverse of :func:`as_scram_keys`."""
    salt, stored, server = (
        b64encode(each).decode() for each in (keys.salt, keys.stored_key, keys.server_key)
    )
    return f"SCRAM-SHA-256${keys.iterations}:{salt}${stored}:{server}"


def as_texts(column: str, value: Any) -> tuple[str, ...]:
    """A list of texts; it may come as an array, as JSON, or apart by commas or spaces."""
    if isinstance(value, list | tuple):
        texts = list(value)
    else:
        written = (_text(column, value) or "").strip()
        if written.startswith("["):
            try:
                texts = json.loads(written)
            except ValueError:
                raise ValueError(f"{column} should be a JSON list, as it begins with [") from None
        else:
            texts = [each for each in re.split(r"[\s,]+", written) if each]
    if not all(isinstance(each, str) and each for each in texts):
        raise ValueError(f"{column} should be a list of texts")
    return tuple(texts)


def as_patterns(column: str, value: Any) -> tuple[str, ...]:
    """As :func:`as_texts`, of addresses in which ``*`` stands for any run of characters."""
    patterns = as_texts(column, value)
    if not all(re.fullmatch(r"[^\s@]+@[^\s@]+", each) for each in patterns):
        raise ValueError(f"{column} should be patterns such as *@example.nl")
    return patterns


def as_moment(column: str, value: Any) -> datetime | None:
    """From a moment, Unix time, or a day, at the end of which it is.  Without a time zone it is UTC."""
    should = f"{column} should be a moment, a day or Unix time"
    if isinstance(value, str):
        try:
            value = _from_iso(value)
        except ValueError:
            raise ValueError(should) from None
    try:
        match value:
            case None:
                return None
            case datetime():
                return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
            case date():
                return datetime.combine(value + timedelta(days=1), time(), UTC)
            case bool():
                raise ValueError(should)
            case int() | float() | Decimal():
                return datetime.fromtimestamp(float(value), UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(should) from None
    raise ValueError(should)


def as_date(column: str, value: Any) -> date | None:
    """From a day, or the day (UTC) of a moment."""
    should = f"{column} should be a day"
    if isinstance(value, str):
        try:
            value = _from_iso(value)
        except ValueError:
            raise ValueError(should) from None
    match value:
        case None:
            return None
        case datetime():
            return (value.astimezone(UTC) if value.tzinfo else value).date()
        case date():
            return value
    raise ValueError(should)


def _from_iso(written: str) -> date | datetime:
    return date.fromisoformat(written) if len(written) <= 10 else datetime.fromisoformat(written)


def _flag(column: str, value: Any) -> bool:
    if isinstance(value, bytes) and len(value) == 1 and value[0] < 2:
        return bool(value[0])  # MariaDB's BIT(1)
    if isinstance(value, bool) or (isinstance(value, int | Decimal) and value in (0, 1)):
        return bool(value)
    written = value.lower() if isinstance(value, str) else None
    if written in _YES | _NO:
        return written in _YES
    raise ValueError(f"{column} should be true or false")


def _text(column: str, value: Any) -> str | None:
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError(f"{column} should be UTF-8") from None
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{column} should be text, and is {type(value).__name__}")
