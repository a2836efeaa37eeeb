"""Replies: the one catalogue of everything the MSA says to a client (RFC 5321 4.2, RFC 3463).

Each fixed reply is one named constant with a comment that says when it is sent; no reply stands as a
literal anywhere else.  A refusal travels as :class:`Refused`: the reply goes to the client, the cause
only to the log.  No octet of the client's is ever part of a reply (M1).
"""

from attrs import field, frozen


@frozen
class Reply:
    """One reply, single- or multi-line."""

    code: int
    enhanced: str | None  # RFC 3463 status, None where RFC 2034 4 forbids one
    lines: tuple[str, ...]
    octets: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
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
