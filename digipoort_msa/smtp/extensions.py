"""The service extensions: what EHLO shows, and the parameters that each one gives to MAIL.

A parameter belongs to its extension.  To add an extension is to add one :class:`Extension` here and to
name it in :func:`offered`.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import field, frozen

#: Reads a parameter's value (``None`` where it has none) into fields of ``MailParameters``; raises
#: ``ValueError`` where the value is not well-formed.
ParameterParser = Callable[[str | None], Mapping[str, object]]

_DIGITS = re.compile(r"[0-9]{1,20}")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_XCHAR = re.compile(r"\+([0-9A-F]{2})")


@frozen
class Extension:
    """One service extension: its EHLO keyword line, and the parameters it adds to MAIL."""

    keyword: str
    mail_parameters: Mapping[str, ParameterParser] = field(factory=dict)


def _size(value: str | None) -> Mapping[str, object]:
    if value is None or not _DIGITS.fullmatch(value):
        raise ValueError("SIZE is a number of octets")
    return {"size": int(value)}


def _body(value: str | None) -> Mapping[str, object]:
    if value is None or value.upper() not in ("7BIT", "8BITMIME") or not value.isascii():
        raise ValueError("BODY is 7BIT or 8BITMIME")
    return {"body_8bitmime": value.upper() == "8BITMIME"}


def _smtputf8(value: str | None) -> Mapping[str, object]:
    if value is not None:
        raise ValueError("SMTPUTF8 has no value")
    return {"smtputf8": True}


def _auth(value: str | None) -> Mapping[str, object]:
    """An xtext mailbox or ``<>`` (RFC 4954 5): accepted, and kept for the log."""
    if value == "<>":
        return {"auth": ""}
    if not value or not _XTEXT.fullmatch(value):
        raise ValueError("AUTH is xtext or <>")
    decoded = _XCHAR.sub(lambda match: chr(int(match[1], 16)), value)
    if not decoded.isprintable():
        raise ValueError("AUTH holds a control character")
    return {"auth": decoded}


PIPELINING = Extension("PIPELINING")  # RFC 2920
EIGHT_BIT_MIME = Extension("8BITMIME", {"BODY": _body})  # RFC 6152
STARTTLS = Extension("STARTTLS")  # RFC 3207
ENHANCED_STATUS_CODES = Extension("ENHANCEDSTATUSCODES")  # RFC 2034
SMTPUTF8 = Extension("SMTPUTF8", {"SMTPUTF8": _smtputf8})  # RFC 6531
CHUNKING = Extension("CHUNKING")  # RFC 3030


def size(limit: int) -> Extension:
    """RFC 1870; ``limit`` in octets."""
    return Extension(f"SIZE {limit}", {"SIZE": _size})


def auth(mechanisms: tuple[str, ...]) -> Extension:
    """RFC 4954."""
    return Extension(" ".join(("AUTH", *mechanisms)), {"AUTH": _auth})


def offered(size_limit: int, mechanisms: tuple[str, ...], *, in_clear: bool) -> tuple[Extension, ...]:
    """What EHLO shows, in the order of the interface description (T2); our own additions come last."""
    return (
        PIPELINING,
        size(size_limit),
        *((STARTTLS,) if in_clear else ()),
        EIGHT_BIT_MIME,
        *((auth(mechanisms),) if mechanisms else ()),
        ENHANCED_STATUS_CODES,
        SMTPUTF8,
        CHUNKING,
    )


def mail_parameters(extensions: tuple[Extension, ...]) -> Mapping[str, ParameterParser]:
    """Every parameter that MAIL takes, by its name in upper case."""
    merged: dict[str, ParameterParser] = {}
    for extension in extensions:
        merged.update(extension.mail_parameters)
    return MappingProxyType(merged)
