"""The values of MIME's structured fields: a word, and parameters (RFC 2045 5.1, RFC 2183, RFC 2231).

Strict: no comments, nothing unquoted that has to be quoted, no parameter twice, and in a quoted string no
backslash but before a quote or another one.  Each of these is read in more than one way by programs in use.
"""

import re
from urllib.parse import unquote_to_bytes

from attrs import frozen

from digipoort_msa.policy.profile.violation import Malformed
from digipoort_msa.policy.profile.words import decoded, decoded_words

#: Parameters of one field, and characters of one value: more is malformed.
PARAMETERS, CHARACTERS = 32, 1_000

_TOKEN = r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]++"  # noqa: S105 (RFC 2045 5.1's word for it)
_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})[ \t]*+")
_WORD = re.compile(rf"({_TOKEN})[ \t]*+")
_PLAIN = r'[^"\\\x00-\x08\x0a-\x1f\x7f]*+'
_PARAMETER = re.compile(rf';[ \t]*+(?:({_TOKEN})=(?:({_TOKEN})|"({_PLAIN}(?:\\["\\]{_PLAIN})*)")[ \t]*+)?')
_QUOTED_PAIR = re.compile(r'\\(["\\])')
_CONTINUED = re.compile(r"\*(0|[1-9][0-9]?)(\*?)")  # of RFC 2231 3
_EXTENDED = re.compile(r"([^']*+)'([^']*+)'(.*+)", re.DOTALL)  # of RFC 2231 4
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@frozen
class Parameters:
    """The parameters of one field, as they were written: by name in lower case."""

    _values: dict[str, str]

    def plain(self, name: str) -> str | None:
        """A parameter to which RFC 2231 is not applied by anybody (``boundary``, ``charset``).

        :raise Malformed: it is written in a form of RFC 2231 nevertheless.
        """
        if any(other.startswith(f"{name}*") for other in self._values):
            raise Malformed(f"a {name} in extended form")
        return self._values.get(name)

    def texts(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a parameter says in each form in which it is there: plain, with encoded words decoded;
        extended; in continued pieces.  Which of them a program goes by differs.

        :return: the texts, and the character sets of the extended forms in lower case.
        :raise Malformed: it cannot be decoded.
        """
        found: list[str] = []
        charsets: list[str] = []
        if not any(other.startswith(name) for other in self._values):
            return (), ()
        if name in self._values:
            found.append(decoded_words(self._values[name]))
        if f"{name}*" in self._values:
            charset, octets = _extended(self._values[f"{name}*"])
            charsets.append(charset)
            found.append(decoded(octets, charset))
        pieces = self._pieces(name)
        if pieces:
            charset, octets = _joined(pieces)
            charsets.append(charset)
            found.append(decoded(octets, charset))
        if any(map(_CONTROL.search, found)):
            raise Malformed("a file name with a control character")
        return tuple(dict.fromkeys(found)), tuple(charsets)

    def _pieces(self, name: str) -> list[tuple[str, bool]]:
        """Each piece of a continued parameter in its order, and whether it has escapes."""
        pieces: dict[int, tuple[str, bool]] = {}
        for other, value in self._values.items():
            if not other.startswith(f"{name}*") or other == f"{name}*":
                continue
            match = _CONTINUED.fullmatch(other, len(name))
            if match is None or int(match[1]) in pieces:
                raise Malformed("a piece of a parameter that is there twice, or has no number")
            pieces[int(match[1])] = value, bool(match[2])
        if sorted(pieces) != list(range(len(pieces))):
            raise Malformed("a parameter of which a piece is missing")
        return [pieces[number] for number in range(len(pieces))]


def content_type(text: str) -> tuple[str, Parameters]:
    """Type and subtype in lower case, and the parameters.

    :raise Malformed: it is neither.
    """
    match = _TYPE.match(text)
    if match is None:
        raise Malformed("a Content-Type that is no type/subtype")
    return f"{match[1]}/{match[2]}".lower(), _parameters(text, match.end())


def disposition(text: str) -> tuple[str, Parameters]:
    """As :func:`content_type`."""
    match = _WORD.match(text)
    if match is None:
        raise Malformed("a Content-Disposition that begins with no word")
    return match[1].lower(), _parameters(text, match.end())


def encoding(text: str) -> str:
    """As :func:`content_type`."""
    match = _WORD.fullmatch(text)
    if match is None:
        raise Malformed("a Content-Transfer-Encoding that is no word")
    return match[1].lower()


def _parameters(text: str, at: int) -> Parameters:
    values: dict[str, str] = {}
    semicolons = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise Malformed("a parameter that is not name=value, or a comment")
        at = match.end()
        semicolons += 1
        if semicolons > PARAMETERS:
            raise Malformed(f"over {PARAMETERS} parameters")
        if match[1] is None:
            continue  # a semicolon with nothing behind it is nothing to everybody
        name = match[1].lower()
        if name in values:
            raise Malformed("a parameter that is there twice")
        value = match[2] if match[3] is None else _QUOTED_PAIR.sub(r"\1", match[3])
        if len(value) > CHARACTERS:
            raise Malformed(f"a parameter of over {CHARACTERS} characters")
        values[name] = value
    return Parameters(values)


def _extended(value: str) -> tuple[str, bytes]:
    """Character set and octets of ``charset'language'text``."""
    match = _EXTENDED.fullmatch(value)
    if match is None:
        raise Malformed("an extended parameter that does not begin with charset'language'")
    return match[1].lower(), _unescaped(match[3])


def _joined(pieces: list[tuple[str, bool]]) -> tuple[str, bytes]:
    """The same of a parameter in pieces, of which the first has the character set where it has escapes."""
    first, escaped = pieces[0]
    charset, octets = _extended(first) if escaped else ("utf-8", first.encode())
    for value, is_escaped in pieces[1:]:
        if is_escaped and not escaped:
            raise Malformed("an extended parameter that names no character set")
        octets += _unescaped(value) if is_escaped else value.encode()
    if len(octets) > CHARACTERS:
        raise Malformed(f"a parameter of over {CHARACTERS} octets")
    return charset, octets


def _unescaped(text: str) -> bytes:
    if _BROKEN_ESCAPE.search(text) or not text.isascii():
        raise Malformed("an extended parameter with a broken escape")
    return unquote_to_bytes(text)
