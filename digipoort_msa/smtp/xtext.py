"""How ESMTP parameters carry characters that they may not hold: xtext, and addresses outside ASCII.

xtext (RFC 3461 4) writes an octet as ``+`` and two upper-case hexadecimal digits; an address of type
``utf-8`` (RFC 6533 3) writes a character as ``\\x{...}``.  What is read here was written by a stranger:
nothing comes out that holds a control character, so that it may stand in a notification's field as it is.
"""

import re

from digipoort_msa.smtp.envelope import CONTROL

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_XCHAR = re.compile(rb"\+([0-9A-F]{2})")

# RFC 6533 3, without the control characters that its grammar lets pass: what has to be embedded in ASCII
# (blank, "+", "=" and "\"), and everything above ASCII, without leading zeros.
_EMBEDDED = (
    r"\\x\{(20|2[Bb]|3[Dd]|5[Cc]|[89A-Fa-f][0-9A-Fa-f]|[1-9A-Fa-f][0-9A-Fa-f]{2,4}|10[0-9A-Fa-f]{4})\}"
)
_EMBEDDED_CHARACTER = re.compile(_EMBEDDED)
_UNITEXT = re.compile(rf"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|{_EMBEDDED})+")


def encode(text: str) -> str:
    """Write text in xtext.

    :raise UnicodeEncodeError: it is not all ASCII.
    """
    return "".join(
        chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}"
        for octet in text.encode("ascii")
    )


def octets(text: str) -> bytes:
    """Read xtext, whatever it stands for.

    :raise ValueError: it is empty or not well-formed.
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    return _XCHAR.sub(lambda match: bytes((int(match[1], 16),)), text.encode("ascii"))


def decode(text: str) -> str:
    """Read xtext that stands for printable ASCII, blanks included: an ENVID, an address (RFC 3461 4.2, 4.4).

    :return: not empty.
    :raise ValueError: it is something else.
    """
    decoded = octets(text).decode("latin-1")
    if not (decoded.isascii() and decoded.isprintable()):
        raise ValueError("xtext that holds more than printable ASCII")
    return decoded


def original_recipient(parameter: str) -> tuple[str, str]:
    """Read an ORCPT (RFC 3461 4.2, RFC 6533 3).

    :return: the type of the address, ``rfc822`` or ``utf-8``, and the address itself.
    :raise ValueError: it is not well-formed, or of another type.
    """
    address_type, _, address = parameter.partition(";")
    match address_type.lower():
        case "rfc822":
            return "rfc822", decode(address)
        case "utf-8":
            return "utf-8", _unembedded(address)
    raise ValueError("an original recipient is of type rfc822 or utf-8")


def seven_bit(parameter: str) -> str:
    """An ORCPT for a peer that was not told SMTPUTF8: what is outside ASCII as ``\\x{...}`` (RFC 6533 3)."""
    if parameter.isascii():
        return parameter
    return "".join(
        character if character.isascii() else f"\\x{{{ord(character):X}}}" for character in parameter
    )


def _unembedded(text: str) -> str:
    if not _UNITEXT.fullmatch(text):
        raise ValueError("not an address in one of the forms of RFC 6533")
    decoded = _EMBEDDED_CHARACTER.sub(lambda match: chr(int(match[1], 16)), text)
    if CONTROL.search(decoded):
        raise ValueError("an address that holds a control character")
    return decoded
