"""The service extensions: what EHLO shows, and the parameters that each one gives to MAIL and RCPT.

A parameter belongs to its extension.  To add an extension is to add one :class:`Extension` here and to
name it in :func:`offered`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from attrs import field, frozen

from digipoort_msa.smtp import xtext
from digipoort_msa.smtp.envelope import Notify

#: Reads a parameter's value (``None`` where it has none) into fields of ``MailParameters`` or
#: ``RcptParameters``; raises ``ValueError`` where the value is not well-formed.
ParameterParser = Callable[[str | None], Mapping[str, object]]

_DIGITS = re.compile(r"[0-9]{1,20}")
_LONGEST_ENVID = 100  # characters as written, RFC 3461 4.4
_LONGEST_ORCPT = 500  # characters as written in ASCII, RFC 3461 4.2


@frozen
class Extension:
    """One service extension: its EHLO keyword line, and the parameters it adds to MAIL and RCPT."""

    keyword: str
    mail_parameters: Mapping[str, ParameterParser] = field(factory=dict)
    rcpt_parameters: Mapping[str, ParameterParser] = field(factory=dict)


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
    decoded = xtext.octets(value or "").decode("latin-1")
    if not decoded.isprintable():
        raise ValueError("AUTH holds a control character")
    return {"auth": decoded}


def _ret(value: str | None) -> Mapping[str, object]:
    if value is None or value.upper() not in ("FULL", "HDRS") or not value.isascii():
        raise ValueError("RET is FULL or HDRS")
    return {"ret": value.upper()}


def _envid(value: str | None) -> Mapping[str, object]:
    if value is None or len(value) > _LONGEST_ENVID:
        raise ValueError(f"ENVID is xtext of {_LONGEST_ENVID} characters at the most")
    xtext.decode(value)
    return {"envid": value}


def _notify(value: str | None) -> Mapping[str, object]:
    """NEVER, or each of the others once at the most (RFC 3461 4.1)."""
    # In octets, as in "grammar.command": as text, "\u017fuccess" would be SUCCESS.
    words = (value or "").encode().upper().decode().split(",")
    wanted = frozenset(map(Notify, words))  # raises ValueError
    if len(wanted) < len(words) or (Notify.NEVER in wanted and len(wanted) > 1):
        raise ValueError("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")
    return {"notify": wanted}


def _orcpt(value: str | None) -> Mapping[str, object]:
    """The length is that of the form in ASCII, so that a hop without SMTPUTF8 can be given it as well."""
    if value is None or len(xtext.seven_bit(value)) > _LONGEST_ORCPT:
        raise ValueError(f"ORCPT is an address of {_LONGEST_ORCPT} characters at the most")
    xtext.original_recipient(value)
    return {"orcpt": value}


PIPELINING = Extension("PIPELINING")  # RFC 2920
EIGHT_BIT_MIME = Extension("8BITMIME", {"BODY": _body})  # RFC 6152
STARTTLS = Extension("STARTTLS")  # RFC 3207
ENHANCED_STATUS_CODES = Extension("ENHANCEDSTATUSCODES")  # RFC 2034
SMTPUTF8 = Extension("SMTPUTF8", {"SMTPUTF8": _smtputf8})  # RFC 6531
CHUNKING = Extension("CHUNKING")  # RFC 3030
DSN = Extension("DSN", {"RET": _ret, "ENVID": _envid}, {"NOTIFY": _notify, "ORCPT": _orcpt})  # RFC 3461


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
        DSN,
    )


def mail_parameters(extensions: tuple[Extension, ...]) -> Mapping[str, ParameterParser]:
    """Every parameter that MAIL takes, by its name in upper case."""
    return _merged(extension.mail_parameters for extension in extensions)


def rcpt_parameters(extensions: tuple[Extension, ...]) -> Mapping[str, ParameterParser]:
    """Every parameter that RCPT takes, by its name in upper case."""
    return _merged(extension.rcpt_parameters for extension in extensions)


def _merged(parsers: Iterable[Mapping[str, ParameterParser]]) -> Mapping[str, ParameterParser]:
    return MappingProxyType({name: parser for each in parsers for name, parser in each.items()})
