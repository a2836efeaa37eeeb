"""What a notification needs of the message that it is about."""

import re
from contextlib import suppress
from email.errors import MessageError
from email.header import decode_header, make_header

from attrs import frozen

from digipoort_msa.notification.fields import LONGEST_LINE, quoted_printable, words

_LONGEST_SUBJECT = 200  # characters
_LONGEST_VALUE = 1024  # octets of a field that are looked at
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]{1,200}@[!-;=?A-~]{1,200}>")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


@frozen
class Part:
    """One part of the report; its octets end with CR LF, and its header has no blank line yet."""

    header: bytes
    body: bytes

    @property
    def eight_bit(self) -> bool:
        return not self.body.isascii()


@frozen
class Original:
    """The message's first octets.

    :ivar complete: are these all of it?
    """

    octets: bytes
    complete: bool

    @property
    def header(self) -> bytes:
        """The header section; where its end was not reached, up to the last line that was."""
        section, end, _ = (b"\r\n" + self.octets).partition(b"\r\n\r\n")
        if not end and not self.complete:
            return section[2 : section.rindex(b"\r\n") + 2]
        header = section[2:]
        return header + b"\r\n" if header and not header.endswith(b"\r\n") else header

    @property
    def subject(self) -> str:
        """For people: decoded, printable, and never long; empty where there is none."""
        text = self._value(b"subject")
        with suppress(MessageError, LookupError, ValueError):  # then as it stands
            text = str(make_header(decode_header(text)))
        return words(text, _LONGEST_SUBJECT)

    @property
    def message_id(self) -> str | None:
        """Where there is one, and it is well-formed."""
        text = self._value(b"message-id").strip()
        return text if _MESSAGE_ID.fullmatch(text) else None

    def _value(self, name: bytes) -> str:
        """A field's first value, unfolded (RFC 5322 2.2.3)."""
        pattern = rb"^" + name + rb"[ \t]*:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*)"
        match = re.search(pattern, self.header, re.IGNORECASE | re.MULTILINE)
        return match[1][:_LONGEST_VALUE].replace(b"\r\n", b"").decode("utf-8", "replace") if match else ""

    def returned(self, *, whole: bool, eight_bit: bool, utf8: bool, most: int) -> Part:
        """The part in which the message comes back.

        :param whole: all of it rather than its header, where it is fit for that.
        :param eight_bit: may a message with 8-bit octets come back whole?
        :param utf8: does the notification travel with SMTPUTF8?
        :param most: octets; a header that is longer is cut at a line.
        """
        header = self.header
        if whole and self.complete and len(self.octets) <= most and _is_canonical(self.octets):
            if header.isascii() and (eight_bit or self.octets.isascii()):
                return _message(b"message/rfc822", self.octets)
            if eight_bit and utf8 and _is_utf8(header):
                return _message(b"message/global", self.octets)
        if header.isascii() and _is_canonical(header) and len(header) <= most:
            return _message(b"text/rfc822-headers", header)
        if utf8 and _is_utf8(header) and _is_canonical(header) and len(header) <= most:
            return _message(b"message/global-headers", header)
        # RFC 6522 4: a header that is not as it should be is encoded.
        charset = b"; charset=utf-8" if _is_utf8(header) else b""
        return Part(
            b"Content-Type: text/rfc822-headers"
            + charset
            + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n",
            quoted_printable(header.split(b"\r\n")[:-1], most),
        )


def _message(kind: bytes, octets: bytes) -> Part:
    encoding = b"7bit" if octets.isascii() else b"8bit"
    return Part(b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n", octets)


def _is_canonical(octets: bytes) -> bool:
    """May these octets be part of a message as they are (RFC 5322 2.1.1)?"""
    return (
        (not octets or octets.endswith(b"\r\n"))
        and not _BARE.search(octets)
        and max(map(len, octets.split(b"\r\n"))) <= LONGEST_LINE
    )


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
