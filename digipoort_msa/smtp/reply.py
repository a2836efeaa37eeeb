"""Replies: the one catalogue of everything the MSA says to a client (RFC 5321 4.2, RFC 3463).

Each fixed reply is one named constant with a comment that says when it is sent; nothing that a client hears
stands as a literal anywhere else.  (What a delivery says where no hop spoke is for the queue and the log: it
stands with the deliveries.)  A refusal travels as :class:`Refused`: the reply goes to the client, the cause
only to the log.  No octet of the client's is ever part of a reply of ours (M1); what a next hop says of a
message that goes through to it is told as it was said, made harmless (:func:`passed_on`).
"""

import re
from binascii import b2a_base64

from attrs import field, frozen

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENHANCED = re.compile(r"[45](?:\.[0-9]{1,3}){2}")
_MOST_LINES = 4  # of a hop's reply that the client is told
_LONGEST_TEXT = 400  # characters of each: with code and status below the 512 octets of RFC 5321 4.5.3.1.5
#: Refusals of a hop that concern our connection with it, not the message: to the client they are a 451.
_BETWEEN_US = frozenset({421, 530, 534, 535, 538})


@frozen
class Reply:
    """One reply, single- or multi-line.  Its text cannot hold a control character: a line end in it would
    be a reply of its own."""

    code: int
    enhanced: str | None  # RFC 3463 status, None where RFC 2034 4 forbids one
    lines: tuple[str, ...]
    octets: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not self.lines or any(map(_CONTROL.search, self.lines)):
            raise ValueError("a reply is one or more lines without control characters")
        status = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        text = "".join(
            f"{self.code}{' ' if number == last else '-'}{status}{line}\r\n"
            for number, line in enumerate(self.lines)
        )
        object.__setattr__(self, "octets", text.encode("ascii", "replace"))

    @property
    def positive(self) -> bool:
        """2yz or 3yz: the command was taken."""
        return self.code < 400

    @property
    def transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        """On one line, for the log."""
        return " ".join(filter(None, (str(self.code), self.enhanced, " / ".join(self.lines))))


class Refused(Exception):
    """A decision against the client: ``reply`` is what it is told, ``cause`` is what the log says."""

    def __init__(self, reply: Reply, cause: str = "") -> None:
        super().__init__(cause or str(reply))
        self.reply = reply
        self.cause = cause


def reply(code: int, enhanced: str | None, *lines: str) -> Reply:
    return Reply(code, enhanced, lines)


# -- the connection ---------------------------------------------------------------------------------
READY_TO_START_TLS = reply(220, None, "Ready to start TLS")  # STARTTLS accepted; the seed's words (T5)
BYE = reply(221, "2.0.0", "Bye")  # QUIT
IDLE = reply(421, "4.4.2", "Timeout waiting for the next command; closing")  # RFC 5321 4.5.3.2 (M9)
IDLE_BARE_LINE_END = reply(  # the same, where the content so far explains why no end of data was seen
    421, "4.4.2", "Timeout waiting for the end of data; lines must end with CR LF, not CR or LF alone"
)
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors; closing")
TOO_MANY_FAILURES = reply(421, "4.7.0", "Too many failed authentications; try again later")
TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "Too many connections; try again later")
SHUTTING_DOWN = reply(421, "4.3.2", "Service is restarting; try again later")
BARE_LINE_END = reply(554, "5.5.2", "Command lines must end with CR LF, not CR or LF alone; closing")

# -- sequence ---------------------------------------------------------------------------------------
OK = reply(250, "2.0.0", "Ok")  # NOOP, RSET
MUST_STARTTLS = reply(530, "5.7.0", "Must issue a STARTTLS command first")  # T1
AUTHENTICATION_REQUIRED = reply(530, "5.7.0", "Authentication required")  # A1
ALREADY_SECURE = reply(503, "5.5.1", "TLS is already active")  # T6
ALREADY_AUTHENTICATED = reply(503, "5.5.1", "Already authenticated")  # A6
NEED_MAIL = reply(503, "5.5.1", "Send MAIL first")
NEED_RCPT = reply(503, "5.5.1", "Send RCPT first; no recipient was accepted yet")
NESTED_MAIL = reply(503, "5.5.1", "A transaction is open; finish it or send RSET")
CHUNKS_OPEN = reply(503, "5.5.1", "BDAT has begun; go on with BDAT or send RSET")  # RFC 3030 2
BAD_SEQUENCE = reply(503, "5.5.1", "Bad sequence of commands")

# -- syntax -----------------------------------------------------------------------------------------
UNKNOWN_COMMAND = reply(500, "5.5.2", "Command not recognized")
NOT_A_COMMAND = reply(500, "5.5.2", "A command line is UTF-8 text without control characters")
LINE_TOO_LONG = reply(500, "5.5.6", "Line too long")
NO_PARAMETERS = reply(501, "5.5.4", "This command takes no parameters")
EHLO_SYNTAX = reply(501, "5.5.4", "Syntax: EHLO hostname, or HELO hostname")
MAIL_SYNTAX = reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX = reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
AUTH_SYNTAX = reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
BDAT_SYNTAX = reply(501, "5.5.4", "Syntax: BDAT octets [LAST]; closing")
VRFY_SYNTAX = reply(501, "5.5.4", "Syntax: VRFY address")
PARAMETER_SYNTAX = reply(501, "5.5.4", "A parameter's value is not well-formed")
DUPLICATE_PARAMETER = reply(501, "5.5.4", "A parameter was given twice")
UNKNOWN_PARAMETER = reply(555, "5.5.4", "A parameter is not recognized or not implemented")
SENDER_SYNTAX = reply(553, "5.1.7", "The sender address is not well-formed")
SENDER_INCOMPLETE = reply(554, "5.1.7", "The sender address must be complete: <name@example.nl>")  # M1
RECIPIENT_SYNTAX = reply(553, "5.1.3", "The recipient address is not well-formed")
RECIPIENT_INCOMPLETE = reply(554, "5.1.3", "The recipient address must be complete: <name@example.nl>")
NEEDS_SMTPUTF8 = reply(553, "5.6.7", "An address outside ASCII needs the SMTPUTF8 parameter on MAIL")

# -- authentication ---------------------------------------------------------------------------------
AUTHENTICATED = reply(235, "2.7.0", "Authentication successful")
AUTHENTICATION_CANCELLED = reply(501, "5.7.0", "Authentication cancelled")  # the client sent * (A2)
NOT_BASE64 = reply(501, "5.5.2", "The response is not valid base64")
MALFORMED_RESPONSE = reply(501, "5.5.2", "The response does not follow the mechanism's syntax")
UNKNOWN_MECHANISM = reply(504, "5.5.4", "Authentication mechanism not offered here")
MECHANISM_SWITCHED_OFF = reply(  # its date is over in every realm; RFC 4954 4 has 504 for what is not offered
    504, "5.5.4", "This mechanism is switched off; use another one that EHLO shows under TLS"
)
INVALID_CREDENTIALS = reply(535, "5.7.8", "Authentication credentials invalid")  # A5: for every cause
MECHANISM_RETIRED = reply(  # the password was right; RFC 4954 6
    534, "5.7.9", "This mechanism is switched off for this account; use another one that EHLO shows"
)
AUTHENTICATION_UNAVAILABLE = reply(454, "4.7.0", "Accounts cannot be checked now; try again later")

# -- the transaction --------------------------------------------------------------------------------
SENDER_OK = reply(250, "2.1.0", "Ok")
RECIPIENT_OK = reply(250, "2.1.5", "Ok")
START_CONTENT = reply(354, None, "End data with <CR><LF>.<CR><LF>")
CHUNK_OK = reply(250, "2.0.0", "Ok: chunk received")
CANNOT_VERIFY = reply(252, "2.5.0", "Cannot verify an address; RCPT tells")
HELP = reply(
    214,
    "2.0.0",
    "Commands: EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT",
    "A message submission agent: RFC 6409, over TLS, after AUTH",
)
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients; send the rest in another transaction")
TOO_BIG = reply(552, "5.3.4", "The message is larger than the limit that EHLO shows as SIZE")
BARE_CR_OR_LF = reply(554, "5.6.0", "The message holds a bare CR or LF; every line must end with CR LF")
UNTERMINATED = reply(554, "5.6.0", "The message's last line must end with CR LF")
SENDER_NOT_YOURS = reply(550, "5.7.1", "This account may not send from this address")
RECIPIENT_NOT_ALLOWED = reply(550, "5.7.1", "This account may not send to this address")
HEADER_TOO_BIG = reply(552, "5.3.4", "The header section is larger than the message flow allows")
HEADER_MALFORMED = reply(550, "5.6.0", "The header section has a line that is no part of a header field")
FILTER_REJECTS = reply(550, "5.7.1", "The content filter refuses this")
FILTER_DEFERS = reply(451, "4.7.1", "The content filter cannot take this now; try again later")
FILTER_UNAVAILABLE = reply(
    451, "4.7.1", "The content filter does not answer; nothing was queued; try again later"
)
FILTER_TOO_BIG = reply(552, "5.3.4", "The message is larger than the content filter looks at")
LOCAL_ERROR = reply(451, "4.3.0", "A local error; nothing was queued; try again later")
NOT_STORED = reply(451, "4.3.0", "The message could not be stored; try again later")
INSUFFICIENT_STORAGE = reply(452, "4.3.1", "Insufficient system storage; try again later")

# -- a message that goes through to a next hop, where the hop itself says nothing --------------------
NO_HOP = reply(451, "4.4.1", "No next hop is ready for a message now; try again later")  # MAIL
HOP_LOST = reply(451, "4.4.2", "The next hop went away or fell silent; nothing was queued; try again later")
HOP_TAKES_NO_8BIT = reply(554, "5.6.3", "The message has 8-bit octets, which the next hop does not take")
HOP_TAKES_NO_UTF8_ADDRESS = reply(553, "5.6.7", "The next hop takes no addresses outside ASCII")
HOP_TAKES_NO_UTF8_HEADER = reply(
    554, "5.6.9", "Sent with SMTPUTF8 and not all ASCII, which the next hop does not take"
)


def greeting(hostname: str) -> Reply:
    return Reply(220, None, (f"{hostname} ESMTP",))


def hello(hostname: str, *keywords: str) -> Reply:
    """EHLO's reply, or HELO's where there are no keywords."""
    return Reply(250, None, (hostname, *keywords))


def queued(queue_id: str) -> Reply:
    """The 250 that takes responsibility (M6)."""
    return Reply(250, "2.0.0", (f"Ok: queued as {queue_id}",))


def challenge(octets: bytes) -> Reply:
    """A SASL challenge; an empty one is exactly ``334 `` with its space (A6)."""
    return Reply(334, None, (b2a_base64(octets, newline=False).decode("ascii"),))


def header_sender_not_yours(name: str) -> Reply:
    """M7.

    :param name: "From" or "Sender".
    """
    return Reply(550, "5.7.1", (f"The header's {name} names an address that is not this account's",))


def header_sender_unclear(name: str) -> Reply:
    """M7, as :func:`header_sender_not_yours`: whose address it is cannot be said for sure."""
    return Reply(550, "5.7.1", (f"The header's {name} has to be there once, as a plain list of addresses",))


def rate_exceeded(unit: str, seconds: int) -> Reply:
    """L4: a limit that the operator has set.

    :param unit: "messages", "octets" or "recipients".
    :param seconds: until there is room for what was asked.
    """
    return Reply(450, "4.7.1", (f"Too many {unit} in this time; come back in {seconds} seconds",))


def rate_never(unit: str) -> Reply:
    """L4: it is more than ever fits."""
    return Reply(552, "5.3.4", (f"More {unit} at once than this account may ever submit",))


def profile_refuses(profile: str, rule: str, where: str, *, of_size: bool) -> Reply:
    """M10: all three are the operator's words or ours, none the client's.

    :param profile: the message flow's name.
    :param rule: which of its rules.
    :param where: such as a field's name or "attachment 2".
    :param of_size: something is larger than it may be.
    """
    code, status = (552, "5.3.4") if of_size else (550, "5.7.1")
    return Reply(code, status, (f"The message flow's profile {profile} refuses this: {rule} ({where})",))


def passed_on(said: Reply, whose: str = "The next hop") -> Reply:
    """What a next hop said against a message that goes through to it, as the client is told it; or a content
    filter.

    Code, status and words are the hop's, within bounds and in printable ASCII.  A reply that is about the
    hop's connection with us, such as 421 or 530, is a 451 here: as our own it would be about the client's.

    :param whose: it is who gives no reason, where it has no words.
    :raise ValueError: the hop did not refuse.
    """
    if said.positive:
        raise ValueError(f"not a refusal: {said}")
    code = 451 if said.code in _BETWEEN_US else said.code
    status = said.enhanced if said.enhanced and _ENHANCED.fullmatch(said.enhanced) else "0.0.0"
    texts = [_harmless(line) for line in said.lines if line.strip()]
    if len(texts) > _MOST_LINES:
        texts[_MOST_LINES - 1 :] = ["..."]
    return Reply(code, f"{code // 100}{status[1:]}", tuple(texts) or (f"{whose} gives no reason",))


def _harmless(line: str) -> str:
    """A line of a stranger's in printable ASCII, cut where it is too long."""
    text = line.encode("ascii", "backslashreplace").decode("ascii")
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
