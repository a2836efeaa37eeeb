"""The replies of a peer, octets in and :class:`~digipoort_msa.smtp.reply.Reply` values out (RFC 5321 4.2).

A peer is not trusted.  What it may make us keep is bounded, a line ends in CR LF and nothing else, and its
words become printable ASCII before anyone sees them (CVE-2020-8794): other octets are shown as ``\\xNN``.
The parser stops at the first octet that breaks the grammar and never looks further: a peer that is out
of step once cannot be understood again, and its connection has to be dropped.

::

    Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
"""

import re
from functools import lru_cache

from digipoort_msa.smtp.reply import Reply

LONGEST_LINE = 2_048  # octets with CR LF; RFC 5321 4.5.3.1.5 asks for 512, real hops send more
MOST_LINES = 128  # of one reply
LONGEST_REPLY = 65_536  # octets of one reply
_EXCERPT = 80  # octets

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])(\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)")


class ProtocolError(Exception):
    """The peer broke the grammar of replies; the text says how and holds a short, printable excerpt."""


def printable(octets: bytes) -> str:
    """A peer's octets as printable ASCII."""
    text = octets.decode("ascii", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def _protocol_error(cause: str, octets: bytes) -> ProtocolError:
    more = "..." if len(octets) > _EXCERPT else ""
    return ProtocolError(f'{cause}: "{printable(octets[:_EXCERPT])}{more}"')


class ReplyParser:
    """Feed it what arrives, then take replies until there is none::

        parser.feed(octets)
        while (reply := parser.next_reply()) is not None: ...

    It holds what was fed last and :data:`LONGEST_REPLY` octets besides.
    """

    def __init__(self) -> None:
        self._octets = b""
        self._start = 0  # of what is not yet parsed
        self._code = b""  # of the reply that has begun
        self._texts: list[str] = []
        self._length = 0

    def feed(self, octets: bytes) -> None:
        self._octets = self._octets[self._start :] + octets
        self._start = 0

    @property
    def pending(self) -> bool:
        """Octets have arrived that are not part of a reply already taken."""
        return self._start < len(self._octets) or bool(self._texts)

    def next_reply(self) -> Reply | None:
        """The next complete reply, or ``None`` until more has been fed.

        :raise ProtocolError: what arrived is not a reply; also on every later call.
        """
        while (line := self._line()) is not None:
            if not self._texts and line[3:4] != b"-":
                reply = _single_line(line)
                self._start += len(line) + 2
                return reply
            match = _LINE.fullmatch(line)
            if match is None:
                raise _protocol_error("not a reply", line)
            code, separator, text = match.groups()
            if self._code and code != self._code:
                raise _protocol_error(f"a line of another code in a {self._code.decode()} reply", line)
            if len(self._texts) == MOST_LINES:
                raise _protocol_error(f"a reply of more than {MOST_LINES} lines", line)
            if self._length > LONGEST_REPLY:
                raise _protocol_error(f"a reply of more than {LONGEST_REPLY} octets", line)
            self._start += len(line) + 2
            self._length += len(line) + 2
            self._code = code
            self._texts.append(printable(text or b""))
            if separator != b"-":
                return self._reply()
        return None

    def _line(self) -> bytes | None:
        """The next line without its CR LF; it counts as parsed only when the caller moves on."""
        end = self._octets.find(b"\n", self._start)
        length = (len(self._octets) if end < 0 else end + 1) - self._start
        if length > LONGEST_LINE:
            line = self._octets[self._start : self._start + LONGEST_LINE]
            raise _protocol_error(f"a reply line of more than {LONGEST_LINE} octets", line)
        if end < 0:
            return None
        line = self._octets[self._start : end + 1]
        if not line.endswith(b"\r\n"):
            raise _protocol_error("a reply line that ends in LF without CR", line)
        return line[:-2]

    def _reply(self) -> Reply:
        code, texts = int(self._code), self._texts
        self._code, self._texts, self._length = b"", [], 0
        return _reply(code, texts)


@lru_cache(maxsize=64)  # "250 2.1.0 Ok" comes with every message
def _single_line(line: bytes) -> Reply:
    match = _LINE.fullmatch(line)
    if match is None:
        raise _protocol_error("not a reply", line)
    return _reply(int(match[1]), [printable(match[3] or b"")])


def _reply(code: int, texts: list[str]) -> Reply:
    match = _ENHANCED.match(texts[0])
    if match is None or int(match[1]) != code // 100:
        return Reply(code, None, tuple(texts))
    status = match[1] + match[2]
    # Every line bears the status (RFC 2034 4); a line that does not keeps its text as it is.
    marked = status + " "
    return Reply(code, status, tuple("" if text == status else text.removeprefix(marked) for text in texts))
