"""Next hops: where a relay connects to."""

import re

from attrs import field, frozen

_TEXT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


@frozen
class Hop:
    """A host and a TCP port."""

    host: str  # a name, an IPv4 or an IPv6 address without brackets; what a certificate has to name
    port: int
    name: str = field(init=False, eq=False)  # "core.example.nl:25", for outcomes and the log

    def __attrs_post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        object.__setattr__(self, "name", f"{host}:{self.port}")

    def __str__(self) -> str:
        return self.name

    @classmethod
    def from_text(cls, text: str) -> "Hop":
        """Read ``core.example.nl:25``, ``192.0.2.1:25`` or ``[2001:db8::1]:25``.

        :raise ValueError: it is none of these; the text says what would be right.
        """
        match = _TEXT.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65_536:
            raise ValueError(
                f"{text!r} is not a next hop: write host:port, such as core.example.nl:25 or [2001:db8::1]:25"
            )
        return cls(match["ipv6"] or match["name"], int(match["port"]))
