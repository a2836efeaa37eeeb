"""The list of directives that DIGEST-MD5 speaks in (RFC 2831 2.1.2 and 7)::

    list      = #( token "=" ( token | quoted-string ) )
    token     = 1*<any CHAR except CTLs or separators>
    quoted    = <"> *( qdtext | "\\" CHAR ) <">

Linear white space may stand between any two words, and the #-rule allows empty elements.  One thing is
narrower than the RFC: no control character but the tab may stand between quotation marks, escaped or
not.  None of our directives has a use for one, and a folded line would leave open what was hashed.
"""

import re

_LWS = rb"(?:(?:\r\n)?[ \t])*"
_TOKEN = rb"[!#$%&'*+\-.0-9A-Z^_`a-z|~]+"
_QUOTED = rb'"((?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e])*)"'

_BETWEEN = re.compile(rb"(?:(?:\r\n)?[ \t]|,)*")
_DIRECTIVE = re.compile(b"(%b)%b=%b(?:(%b)|%b)%b(?=,|\\Z)" % (_TOKEN, _LWS, _LWS, _TOKEN, _QUOTED, _LWS))
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


def parse(octets: bytes) -> tuple[tuple[str, bytes], ...]:
    """Read a whole list.  The caller bounds its length.

    :return: pairs of name, in lower case, and value, unquoted and unescaped, in the order they came.
    :raise ValueError: it is no such list; says at which octet.
    """
    directives = []
    position = _end_of_separators(octets, 0)
    while position < len(octets):
        directive = _DIRECTIVE.match(octets, position)
        if directive is None:
            raise ValueError(f"no directive at octet {position}")
        name, token, quoted_text = directive.groups()
        value = token if token is not None else _ESCAPE.sub(rb"\1", quoted_text)
        directives.append((name.decode("ascii").lower(), value))
        position = _end_of_separators(octets, directive.end())
    return tuple(directives)


def quoted(text: str) -> bytes:
    """``text`` in UTF-8 as a quoted-string.

    :raise ValueError: a control character, which no quoted-string of ours holds.
    """
    if any(character < " " or character == "\x7f" for character in text):
        raise ValueError("a directive cannot hold a control character")
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", text.encode()) + b'"'


def _end_of_separators(octets: bytes, position: int) -> int:
    between = _BETWEEN.match(octets, position)
    return between.end() if between else position
