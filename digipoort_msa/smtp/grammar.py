"""The grammar of command lines (RFC 5321 4.1.1 and 4.1.2, RFC 6531 3.3): parsed once, into types.

Every pattern is anchored by ``fullmatch``.  A fault raises :class:`Refused` with its reply.  Two habits
of old clients are read as they are meant: blanks between the colon and the path, and a domain with an
underscore.  An address is complete with a domain of two labels or more (RFC 6409 4.2, M1).
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import (
    CONTROL,
    NO_PARAMETERS,
    NULL_PATH,
    MailParameters,
    Path,
    RcptParameters,
)
from digipoort_msa.smtp.extensions import ParameterParser
from digipoort_msa.smtp.reply import Refused, Reply
from digipoort_msa.smtp.states import Verb

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_LOCAL_PART = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*")'
_LABEL = r"[A-Za-z0-9_\u0080-\U0010ffff](?:[A-Za-z0-9_\u0080-\U0010ffff-]*[A-Za-z0-9_\u0080-\U0010ffff])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[(?:[0-9.]{7,15}|(?i:IPv6):[0-9A-Fa-f:.]{2,45})\]"
_ADDRESS = rf"(?P<local>{_LOCAL_PART})@(?P<domain>{_DOMAIN}|{_LITERAL})"
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"  # read and ignored: RFC 5321 appendix C

# ASCII: else "\u017f" and "\u0131" would pass for "s" and "i".
_ANY_CASE = re.IGNORECASE | re.ASCII

_PATH = re.compile(rf"{_ROUTE}{_ADDRESS}")
_LOCAL_PART_ALONE = re.compile(_LOCAL_PART)
# The path ends at the first ">" outside a quoted string.
_MAIL = re.compile(r'FROM: *<((?:[^">]|"(?:[^"\\]|\\.)*")*)>(?: +(.*))?', _ANY_CASE | re.DOTALL)
_RCPT = re.compile(r'TO: *<((?:[^">]|"(?:[^"\\]|\\.)*")*)>(?: +(.*))?', _ANY_CASE | re.DOTALL)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")
_CHUNK = re.compile(r"([0-9]{1,20})( +LAST)?", _ANY_CASE)
_HOSTNAME = re.compile(rf"(?:{_DOMAIN}|{_LITERAL})")

_VERBS = {verb.value.encode(): verb for verb in Verb if verb.value.isupper()}
_MAX_LOCAL_PART = 64  # octets, RFC 5321 4.5.3.1.1
_MAX_DOMAIN = 255  # octets, 4.5.3.1.2


def command(line: bytes) -> tuple[Verb | None, str]:
    """Split a line, without its CRLF, into verb (``None``: unknown) and the text behind it.

    :raise Refused: it holds a control character or is no UTF-8.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(reply.NOT_A_COMMAND, "not UTF-8") from None
    if CONTROL.search(text):
        raise Refused(reply.NOT_A_COMMAND, "a control character")
    word, _, rest = text.partition(" ")
    # In octets, which have no case but ASCII's: as text, "ma\u0131l" would be MAIL.
    return _VERBS.get(word.encode().upper()), rest.strip(" ")


def hostname(text: str) -> str:
    """EHLO's argument.  Any name will do (RFC 5321 4.1.4): old clients send all kinds of them."""
    if not text or " " in text or len(text) > _MAX_DOMAIN:
        raise Refused(reply.EHLO_SYNTAX)
    return text


def is_hostname(text: str) -> bool:
    """May this EHLO argument stand in a ``Received:`` field as it is?"""
    return text.isascii() and _HOSTNAME.fullmatch(text) is not None and _is_domain(text)


def mail(text: str, parsers: Mapping[str, ParameterParser]) -> tuple[Path, MailParameters]:
    """MAIL's argument."""
    path, rest = _split(_MAIL, text, reply.MAIL_SYNTAX)
    parameters = MailParameters(**_parameters(rest, parsers))  # type: ignore[arg-type]
    if not path:
        return NULL_PATH, parameters
    reverse_path = _path(path, reply.SENDER_SYNTAX, reply.SENDER_INCOMPLETE)
    _check_utf8(reverse_path, parameters.smtputf8)
    return reverse_path, parameters


def rcpt(text: str, parsers: Mapping[str, ParameterParser], *, smtputf8: bool) -> tuple[Path, RcptParameters]:
    """RCPT's argument; ``smtputf8`` is what MAIL said."""
    path, rest = _split(_RCPT, text, reply.RCPT_SYNTAX)
    parameters = RcptParameters(**_parameters(rest, parsers)) if rest else NO_PARAMETERS  # type: ignore[arg-type]
    if parameters.orcpt and not (smtputf8 or parameters.orcpt.isascii()):
        raise Refused(reply.NEEDS_SMTPUTF8)  # RFC 6533 3
    if path.lower() == "postmaster":  # RFC 5321 4.5.1: the one name that needs no domain
        return Path(path, ""), parameters
    forward_path = _path(path, reply.RECIPIENT_SYNTAX, reply.RECIPIENT_INCOMPLETE)
    _check_utf8(forward_path, smtputf8)
    return forward_path, parameters


def auth(text: str) -> tuple[str, bytes | None]:
    """AUTH's argument: the mechanism in upper case, and the decoded initial response if there is one."""
    mechanism, _, initial = text.partition(" ")
    if not _MECHANISM.fullmatch(mechanism) or " " in initial:
        raise Refused(reply.AUTH_SYNTAX)
    if not initial:
        return mechanism.upper(), None
    return mechanism.upper(), b"" if initial == "=" else base64(initial.encode())


def base64(octets: bytes) -> bytes:
    """Strictly: the one right form, without white space or padding too much or too little (RFC 4648 3)."""
    try:
        decoded = a2b_base64(octets, strict_mode=True)
    except Base64Error:
        raise Refused(reply.NOT_BASE64) from None
    if b2a_base64(decoded, newline=False) != octets:
        raise Refused(reply.NOT_BASE64)
    return decoded


def chunk(text: str) -> tuple[int, bool]:
    """BDAT's argument: its octets, and whether it is the last."""
    match = _CHUNK.fullmatch(text)
    if not match:
        raise Refused(reply.BDAT_SYNTAX)
    return int(match[1]), match[2] is not None


def _split(pattern: re.Pattern[str], text: str, syntax: Reply) -> tuple[str, str]:
    match = pattern.fullmatch(text)
    if not match:
        raise Refused(syntax)
    return match[1], match[2] or ""


def _parameters(text: str, parsers: Mapping[str, ParameterParser]) -> dict[str, object]:
    fields: dict[str, object] = {}
    seen: set[str] = set()
    for word in filter(None, text.split(" ")):
        match = _PARAMETER.fullmatch(word)
        if not match:
            raise Refused(reply.PARAMETER_SYNTAX)
        name = match[1].upper()
        if name in seen:
            raise Refused(reply.DUPLICATE_PARAMETER)
        seen.add(name)
        if name not in parsers:
            raise Refused(reply.UNKNOWN_PARAMETER, name)
        try:
            fields.update(parsers[name](match[2]))
        except ValueError as error:
            raise Refused(reply.PARAMETER_SYNTAX, str(error)) from None
    return fields


def _path(text: str, syntax: Reply, incomplete: Reply) -> Path:
    match = _PATH.fullmatch(text)
    if not match:
        if _LOCAL_PART_ALONE.fullmatch(text.removesuffix("@")):
            raise Refused(incomplete)
        raise Refused(syntax)
    local_part, domain = match["local"], match["domain"]
    if len(local_part.encode()) > _MAX_LOCAL_PART or len(domain.encode()) > _MAX_DOMAIN:
        raise Refused(syntax, "too long")
    if not _is_domain(domain):
        raise Refused(syntax, "no such address literal")
    if "." not in domain and ":" not in domain:
        raise Refused(incomplete)  # RFC 6409 4.2: a name of one label is completed by somebody's resolver
    return Path(local_part, domain)


def _is_domain(text: str) -> bool:
    """Does what matches the grammar of a domain or an address literal stand for one?"""
    try:
        if ":" in text:
            IPv6Address(text.partition(":")[2][:-1])
        elif text.startswith("["):
            IPv4Address(text[1:-1])
    except ValueError:
        return False
    return True


def _check_utf8(path: Path, smtputf8: bool) -> None:
    if not smtputf8 and not path.is_ascii:
        raise Refused(reply.NEEDS_SMTPUTF8)
