"""Header fields out of foreign text (RFC 5322 2.2, RFC 2047, RFC 3464 2.1, RFC 6533 3).

Whatever goes into a field or into the text for people comes through here: it leaves as printable words
without a line end, so that no reply, address or subject can begin a field or a part of its own.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Iterable

from digipoort_msa.smtp.envelope import Path

LONGEST_LINE = 998  # octets without CR LF; RFC 5322 2.1.1
_FOLD = 78
_LONGEST_WORD = 900  # what is longer is broken
#: Of an address: 320 octets (RFC 5321 4.5.3.1) at their longest in the ASCII form of RFC 6533 are 960.
_LONGEST_ADDRESS = 960
_ENCODED_OCTETS = 42  # of one encoded word: 56 characters of base64, and 12 around them

_XCHAR = re.compile(r"\+([0-9A-F]{2})")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")
_DOT_ATOM = re.compile(r"[^\s()<>\[\]:;@\\,.\"]+(?:\.[^\s()<>\[\]:;@\\,.\"]+)*", re.ASCII)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.ASCII)
_NOT_DOMAIN = re.compile(r"[\s()<>;@\\,\"]", re.ASCII)


def words(text: str, most: int) -> str:
    """Foreign text as one line for people: printable, runs of white space as one space.

    :param most: characters; what is longer ends in ``...``.
    """
    line = " ".join(text[: 8 * most].split())
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
    """A field with an address: never folded, since a space may be part of it."""
    return f"{name}: {value}".encode("utf-8", "replace")[:LONGEST_LINE] + b"\r\n"


def mailbox(path: Path) -> str:
    """A path as the address of a header field (RFC 5322 3.4.1): what needs quotes and has none gets them."""
    local_part = path.local_part
    if not (_DOT_ATOM.fullmatch(local_part) or _QUOTED.fullmatch(local_part)):
        local_part = '"' + re.sub(r'(["\\])', r"\\\1", local_part) + '"'
    domain = _NOT_DOMAIN.sub("?", path.domain)
    return (f"{local_part}@{domain}" if domain else local_part)[:_LONGEST_ADDRESS]


def typed_address(path: Path, *, utf8: bool) -> str:
    """A path with its address type; outside ASCII that is ``utf-8`` (RFC 6533 3).

    :param utf8: may the address itself stand there, or has it to be written in ASCII?
    """
    text = str(path)
    if text.isascii():
        return f"rfc822; {text[:_LONGEST_ADDRESS]}"
    return f"utf-8; {(text if utf8 and text.isprintable() else escaped(text))[:_LONGEST_ADDRESS]}"


def original_recipient(orcpt: str, *, utf8: bool) -> str | None:
    """ORCPT's value as RFC 3464 2.3.1 wants it, its xtext decoded; ``None`` where it makes no sense."""
    kind, _, encoded = orcpt.partition(";")
    if not _ADDRESS_TYPE.fullmatch(kind) or not encoded:
        return None
    if kind.lower() == "utf-8":  # not xtext, but a form of its own that stays
        text = encoded if utf8 and encoded.isprintable() else _in_ascii(encoded)
    else:
        text = _in_ascii(decoded_xtext(encoded))
    return f"{kind};{text[:_LONGEST_ADDRESS]}"


def decoded_xtext(text: str) -> str:
    """The text that xtext stands for (RFC 3461 4); as it is where that would not be printable ASCII."""
    decoded = _XCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    return decoded if decoded.isascii() and decoded.isprintable() else text


def escaped(text: str) -> str:
    """The ``utf-8-addr-xtext`` form of an address (RFC 6533 3)."""
    return _NOT_QCHAR.sub(_escape, text)


def _in_ascii(text: str) -> str:
    return re.sub(r"[^ -~]", _escape, text)


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
