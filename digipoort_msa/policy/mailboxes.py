"""The mailboxes of a From or Sender field (RFC 5322 3.4), read strictly.

What is judged here has to be what a receiver sees.  So only what every reader takes alike is read: a list of
``addr-spec`` or ``[display-name] <addr-spec>``, with comments and folded white space between words.  Groups,
routes, white space inside an address and everything else that RFC 5322 calls obsolete is refused, and so is
whatever is not grammar at all.  Some readers decode encoded words before they look for addresses (RFC 2047
6.2 has it the other way round), so none may bring what an address is made of.  The work is linear in the
field's length.
"""

import re

from digipoort_msa.policy.profile.violation import Malformed
from digipoort_msa.policy.profile.words import charsets, decoded_words
from digipoort_msa.smtp.envelope import CONTROL, Path

_MOST = 100  # mailboxes of one field; nobody writes so many
_LONGEST = 320  # octets of an address: local-part, @ and domain (RFC 5321 4.5.3.1)
_NESTED = 16  # comments inside comments

# RFC 5322 3.2.3 with RFC 6532: atoms may be UTF-8.
_ATOM = r"[^\x00-\x20()<>\[\]:;@\\,.\"\x7f]++"
_DOT_ATOM = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = r'"[^"\\\r\n]*+(?:\\[^\r\n][^"\\\r\n]*+)*"'
_LITERAL = r"\[[^\[\]\\\s]*+\]"
_ADDRESS = re.compile(rf"({_DOT_ATOM}|{_QUOTED})@({_DOT_ATOM}|{_LITERAL})")
_WORD = re.compile(rf"{_QUOTED}|{_ATOM}|\.")  # a phrase may have dots: everyone takes "J. Jansen"
_SPACE = re.compile(r"[ \t]+")
_IN_COMMENT = re.compile(r"(?:[^()\\]|\\.)+", re.DOTALL)
_ENCODED = re.compile(r"=\?(?!=)")  # the beginning of an encoded word, but not the end of one in base64


class Unreadable(ValueError):
    """It is not a list of mailboxes that is read in one way; the text says why, for the log."""


def mailboxes(body: str) -> tuple[Path, ...]:
    """The addresses in a field's body, which is unfolded already.

    :raise Unreadable: see the module.
    """
    found: list[Path] = []
    at = _blank(body, 0)
    while True:
        path, at = _mailbox(body, at)
        found.append(path)
        at = _blank(body, at)
        if at == len(body):
            _check_encoded_words(body, len(found))
            return tuple(found)
        if body[at] != ",":
            raise Unreadable(f"a comma was due at character {at + 1}")
        if len(found) == _MOST:
            raise Unreadable(f"over {_MOST} mailboxes")
        at = _blank(body, at + 1)


def _mailbox(body: str, at: int) -> tuple[Path, int]:
    """``addr-spec``, or words and ``<addr-spec>``; also where it ends."""
    bare = _ADDRESS.match(body, at)
    if bare is not None:
        return _path(bare), bare.end()
    while at < len(body) and body[at] != "<":
        word = _WORD.match(body, at)
        if word is None:
            raise Unreadable(f"no mailbox at character {at + 1}")
        at = _blank(body, word.end())
    address = _ADDRESS.match(body, at + 1)
    if address is None or body[address.end() : address.end() + 1] != ">":
        raise Unreadable(f"no address at character {at + 1}")
    return _path(address), address.end() + 1


def _path(match: re.Match[str]) -> Path:
    if CONTROL.search(match[0]):
        raise Unreadable("a control character in an address")
    if _ENCODED.search(match[0]):
        raise Unreadable("an encoded word in an address")
    if len(match[0].encode()) > _LONGEST:
        raise Unreadable(f"an address of over {_LONGEST} octets")
    return Path(match[1], match[2])


def _check_encoded_words(body: str, addresses: int) -> None:
    """:raise Unreadable: who decodes first sees other addresses."""
    encoded = len(_ENCODED.findall(body))
    if not encoded:
        return
    try:
        decoded = decoded_words(body)
    except Malformed as fault:
        raise Unreadable(str(fault)) from None
    # Quotes and brackets around a name are common, and do nothing where there is no address but those found.
    marks = "<>@" if body.count("@") == addresses else '<>@"\\()'
    brought = any(body.count(mark) != decoded.count(mark) for mark in marks)
    if brought or encoded != len(list(charsets(body))):
        raise Unreadable("an encoded word that some readers take for part of an address")


def _blank(body: str, at: int) -> int:
    """Past white space and comments."""
    while at < len(body):
        space = _SPACE.match(body, at)
        if space is not None:
            at = space.end()
        elif body[at] == "(":
            at = _comment(body, at)
        else:
            break
    return at


def _comment(body: str, at: int) -> int:
    depth = 0
    while at < len(body):
        if body[at] == "(":
            depth += 1
            if depth > _NESTED:
                raise Unreadable("comments inside comments")
            at += 1
        elif body[at] == ")":
            depth -= 1
            at += 1
            if not depth:
                return at
        elif (text := _IN_COMMENT.match(body, at)) is not None:
            at = text.end()
        else:
            break
    raise Unreadable("a comment does not end")
