"""Next hops: where a relay connects to, as the settings write them and as they are."""

import os
import re
from typing import Any

from attrs import field, frozen

_TEXT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")
_LONGEST_PATH = 107  # octets of a unix socket's path (unix(7))
_SERVICE = re.compile(r"_[A-Za-z0-9-]+\._tcp\.[^\[\]:\s]+", re.ASCII)


@frozen
class Hop:
    """A host and a TCP port, or a unix socket."""

    host: str  # a name, an IPv4 or an IPv6 address without brackets; what a certificate has to name
    port: int
    socket: str | None = None  # a path; host and port are "localhost" and 0 then
    secure: bool = True  # host is no forgery: the settings name it, or an answer that DNSSEC authenticates
    name: str = field(init=False, eq=False)  # "core.example.nl:25", for outcomes and the log

    def __attrs_post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        name = f"{host}:{self.port}" if self.socket is None else f"unix:{self.socket}"
        object.__setattr__(self, "name", name)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def from_text(cls, text: str) -> "Hop":
        """Read ``core.example.nl:25``, ``192.0.2.1:25``, ``[2001:db8::1]:25`` or ``unix:/run/lmtp``.

        :raise ValueError: it is none of these; the text says what would be right.
        """
        if text.startswith("unix:/") and "\0" not in text:
            path = text.removeprefix("unix:")
            if len(os.fsencode(path)) > _LONGEST_PATH:
                raise ValueError(f"{text!r} is no socket: a path of more than {_LONGEST_PATH} octets")
            return cls("localhost", 0, path)
        match = _TEXT.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65_536:
            raise ValueError(
                f"{text!r} is not a next hop: write host:port, such as core.example.nl:25 or "
                "[2001:db8::1]:25, or unix:/path"
            )
        return cls(match["ipv6"] or match["name"], int(match["port"]))


@frozen
class MX:
    """The mail exchangers of a domain (RFC 5321 5.1)."""

    domain: str
    port: int = 25

    def __str__(self) -> str:
        return f"mx:{self.domain}" + (f":{self.port}" if self.port != 25 else "")


@frozen
class SRV:
    """The servers of a service (RFC 2782): ``_submission._tcp.example.nl``."""

    service: str

    def __str__(self) -> str:
        return f"srv:{self.service}"


Target = Hop | MX | SRV


def target(text: str) -> Target:
    """Read what :meth:`Hop.from_text` reads, ``mx:DOMAIN[:PORT]`` or ``srv:_SERVICE._tcp.DOMAIN``.

    :raise ValueError: it is none of these.
    """
    kind, _, rest = text.partition(":")
    if kind == "mx" and not rest.isdigit():
        hop = Hop.from_text(rest if ":" in rest else f"{rest}:25")
        return MX(hop.host, hop.port)
    if kind == "srv" and _SERVICE.fullmatch(rest):
        return SRV(rest)
    return Hop.from_text(text)


@frozen
class Limits:
    """What one hop is to bear of us."""

    connections: int = 10  # at once
    messages_per_connection: int = 100
    idle_timeout: float = 30.0  # seconds that a connection waits for a next message


def _target(value: Any) -> Target:
    return target(value) if isinstance(value, str) else value


@frozen
class NextHop:
    """One entry of a relay's list, as the settings have it; ``None`` is what goes for every hop."""

    hop: Target = field(converter=_target)  # or its text
    priority: int | None = None  # the lowest is tried first; None: its place in the list, from 1
    weight: int = 0  # its share among those of the same priority (RFC 2782)
    connections: int | None = None
    messages_per_connection: int | None = None
    idle_timeout: float | None = None

    def limits(self, usual: Limits) -> Limits:
        def own(value: Any, otherwise: Any) -> Any:
            return otherwise if value is None else value

        return Limits(
            own(self.connections, usual.connections),
            own(self.messages_per_connection, usual.messages_per_connection),
            own(self.idle_timeout, usual.idle_timeout),
        )
