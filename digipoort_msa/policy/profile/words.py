"""Text in other character sets: encoded words (RFC 2047), and octets in a named character set (RFC 2231)."""

import re
from binascii import Error, a2b_base64
from collections.abc import Iterator

from digipoort_msa.policy.profile.violation import Malformed

# Only these are ever decoded.  Python has many more codecs, some of them slow, or no character sets at all.
_DECODABLE = frozenset(
    (
        *("us-ascii", "utf-8"),
        *(f"iso-8859-{part}" for part in (*range(1, 12), *range(13, 17))),
        *(f"windows-125{number}" for number in range(9)),
    )
)

# A language may stand behind the character set (RFC 2231 5).
_WORD = re.compile(r"=\?([^?*\s]++)(?:\*[A-Za-z0-9-]*+)?\?([BbQq])\?([^?\s]*+)\?=")
_BEGINS = re.compile(r"=\?[^?\s]++\?[BbQq]\?")
_BETWEEN = re.compile(
    r"(\?=)[ \t]++(?==\?[^?\s]++\?[BbQq]\?)"
)  # white space between words is none (RFC 2047 6.2)
_ESCAPE = re.compile(rb"=([0-9A-Fa-f]{2})")


def charsets(text: str) -> Iterator[str]:
    """The character sets that the encoded words of a field are in, in lower case."""
    return (match[1].lower() for match in _WORD.finditer(text))


def decoded_words(text: str) -> str:
    """A field's text with its encoded words decoded, wherever they stand: some readers go by RFC 2047 5, some
    do not.

    :raise Malformed: something in it begins like an encoded word, and cannot be decoded.
    """
    if "=?" not in text:
        return text
    text = _BETWEEN.sub(r"\1", text)
    if len(_BEGINS.findall(text)) != len(_WORD.findall(text)):
        raise Malformed("an encoded word that does not end")
    return _WORD.sub(_decoded, text)


def _decoded(word: re.Match[str]) -> str:
    octets = word[3].encode()
    if word[2] in "Bb":
        try:
            return decoded(a2b_base64(octets, strict_mode=True), word[1])
        except Error:
            raise Malformed("an encoded word that is not base64") from None
    plain = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), octets.replace(b"_", b" "))
    if octets.count(b"=") != len(_ESCAPE.findall(octets)):
        raise Malformed("an encoded word with a broken escape")
    return decoded(plain, word[1])


def decoded(octets: bytes, charset: str) -> str:
    """:raise Malformed: the character set is none that is decoded here, or the octets are not in it."""
    if charset.lower() not in _DECODABLE:
        raise Malformed("text in a character set that is not decoded")
    try:
        return octets.decode(charset.lower())
    except UnicodeDecodeError:
        raise Malformed(f"text that is not in its character set, {charset.lower()}") from None
