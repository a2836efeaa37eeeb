"""How ESMTP parameters carry characters that they may not hold: xtext, and addresses outside ASCII.

xtext (RFC 3461 4) writes an octet as ``+`` and two upper-case hexadecimal digits; an address of type
``utf-8`` (RFC 6533 3) writes a character as ``\\x{...}``.  What is read here was written by a stranger:
nothing comes out that is not printable, so that it may stand in a notification's field as it is.
"""

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_XCHAR = re.compile(r"\+([0-9A-F]{2})")


def encode(text: str) -> str:
    """Write text in xtext.

    :raise UnicodeEncodeError: it is not all ASCII.
    """
    return "".join(
        chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}"
        for octet in text.encode("ascii")
    )


def decode(text: str) -> str:
    """Read xtext.

    :return: printable ASCII, blanks included; not empty.
    :raise ValueError: it is no xtext, or is something else inside.
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    decoded = _XCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    if not (decoded.isascii() and decoded.isprintable()):
        raise ValueError("xtext that holds more than printable ASCII")
    return decoded


def seven_bit(parameter: str) -> str:
    """An ORCPT for a peer that was not told SMTPUTF8: what is outside ASCII as ``\\x{...}`` (RFC 6533 3)."""
    if parameter.isascii():
        return parameter
    return "".join(
        character if character.isascii() else f"\\x{{{ord(character):X}}}" for character in parameter
    )
