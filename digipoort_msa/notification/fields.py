"""Header fields out of foreign text (RFC 5322 2.2, RFC 2047, RFC 3464 2.1, RFC 6533 3).

Whatever goes into a field or into the text for people comes through here: it leaves as printable words
without a line end, so that no reply, address or subject can begin a field or a part of its own.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Iterable

from digipoort_msa.smtp import xtext
from digipoort_msa.smtp.envelope import Path

LONGEST_LINE = 998  # octets without CR LF; RFC 5322 2.1.1
_FOLD = 78
_LONGEST_WORD = 900  # what is longer is broken
#: Of an address: 320 octets (RFC 5321 4.5.3.1) at their longest in the ASCII form of RFC 6533 are 960.
_LONGEST_ADDRESS = 960
_LONGEST_ENVELOPE_ID = 400
_ENCODED_OCTETS = 42  # of one encoded word: 56 characters of base64, and 12 around them

_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_DOT_ATOM = re.compile(r"[^\s()<>\[\]:;@\\,.\"]+(?:\.[^\s()<>\[\]:;@\\,.\"]+)*", re.ASCII)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.ASCII)
_NOT_DOMAIN = re.compile(r"[\s()<>;@\\,\"]", re.ASCII)


def words(text: str, most: int) -> str:
    """Foreign text as one line for people: printable, runs of white space as one space.

    :param most: characters; what is longer ends in ``...``.
    """
    line = " ".join(text[: 8 * most].split())
    if not line.isprintable():
        line = "".join(
            character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line
        )
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."


def ascii_words(text: str, most: int) -> str:
    """The same in printable ASCII; other characters are shown by their number."""
    line = words(text[: 8 * most].encode("ascii", "backslashreplace").decode("ascii"), most)
    return line.replace("\N{REPLACEMENT CHARACTER}", "?")


def field(name: str, value: str) -> bytes:
    """A field, folded at its spaces; an empty value makes no field.

    :param value: what :func:`words` or :func:`ascii_words` gave, or our own.
    """
    lines = [f"{name}:".encode()]
    for word in value.split():
        octets = word.encode("utf-8", "replace")
        for start in range(0, len(octets), _LONGEST_WORD):
            piece = octets[start : start + _LONGEST_WORD]
            if len(lines[-1]) + 1 + len(piece) > _FOLD and (len(lines) > 1 or b" " in lines[0]):
                lines.append(b"")
            lines[-1] += b" " + piece
    return b"\r\n".join(lines) + b"\r\n" if value.strip() else b""


def unstructured(name: str, text: str) -> bytes:
    """A field for people: outside ASCII in encoded words (RFC 2047)."""
    if text.isascii() and "=?" not in text:
        return field(name, text)
    pieces, piece = [], b""
    for character in text:
        octets = character.encode("utf-8", "replace")
        if len(piece) + len(octets) > _ENCODED_OCTETS:
            pieces.append(piece)
            piece = b""
        piece += octets
    pieces.append(piece)
    encoded = (f"=?utf-8?B?{b2a_base64(piece, newline=False).decode()}?=" for piece in pieces)
    return field(name, " ".join(encoded))


def address_line(name: str, value: str) -> bytes:
    """A field with an address or an ENVID: never folded, since a space may be part of it."""
    return f"{name}: {value}".encode("utf-8", "replace")[:LONGEST_LINE] + b"\r\n"


def mailbox(path: Path) -> str:
    """A path as the address of a header field (RFC 5322 3.4.1): what needs quotes and has none gets them."""
    local_part = path.local_part
    if not (_DOT_ATOM.fullmatch(local_part) or _QUOTED.fullmatch(local_part)):
        local_part = '"' + re.sub(r'(["\\])', r"\\\1", local_part) + '"'
    domain = _NOT_DOMAIN.sub("?", path.domain)
    return _cut(f"{local_part}@{domain}" if domain else local_part)


def typed_address(path: Path, *, utf8: bool) -> str:
    """A path with its address type; outside ASCII that is ``utf-8`` (RFC 6533 3).

    :param utf8: may the address itself stand there, or has it to be written in ASCII?
    """
    text = str(path)
    return f"rfc822; {_cut(text)}" if text.isascii() else f"utf-8; {_utf8_address(text, utf8=utf8)}"


def original_recipient(orcpt: str, *, utf8: bool) -> str | None:
    """ORCPT's value as RFC 3464 2.3.1 wants it: decoded; ``None`` where it makes no sense."""
    try:
        kind, text = xtext.original_recipient(orcpt)
    except ValueError:
        return None
    return f"{kind}; {_cut(text) if kind == 'rfc822' else _utf8_address(text, utf8=utf8)}"


def envelope_id(envid: str) -> str:
    """ENVID as RFC 3464 2.2.1 wants it: decoded, blank for blank; as it stands where that makes no sense."""
    try:
        return xtext.decode(envid)[:_LONGEST_ENVELOPE_ID]
    except ValueError:
        return ascii_words(envid, _LONGEST_ENVELOPE_ID)


def _utf8_address(text: str, *, utf8: bool) -> str:
    """Itself, or in the form ``utf-8-addr-xtext``."""
    return _cut(text if utf8 and text.isprintable() else _NOT_QCHAR.sub(_escape, text))


def _cut(address: str) -> str:
    """No address of RFC 5321 is cut; whatever else comes, it fits into a line."""
    return address.encode("utf-8", "replace")[:_LONGEST_ADDRESS].decode("utf-8", "ignore")


def _escape(match: re.Match[str]) -> str:
    return f"\\x{{{ord(match[0]):02X}}}"


def quoted_printable(lines: Iterable[bytes], most: int) -> bytes:
    """Lines in quoted-printable (RFC 2045 6.7): as many as fit into ``most`` octets.

    :param lines: without their ends.
    """
    encoded: list[bytes] = []
    size = 0
    for line in lines:
        # Not as text: then CR and LF on their own are encoded too, and the LFs left are its soft breaks.
        octets = b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") + b"\r\n"
        size += len(octets)
        if size > most:
            break
        encoded.append(octets)
    return b"".join(encoded)
