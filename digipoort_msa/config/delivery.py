"""The settings of the ways out: ``[delivery]`` and the tables beneath it.

A realm may have a ``[realm.delivery]`` of its own; what that leaves out is as in ``[delivery]``.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from digipoort_msa.config.tables import (
    LABEL,
    AbsolutePath,
    Count,
    Flag,
    HostName,
    Seconds,
    SecretFile,
    Table,
    Text,
    host_and_port,
)

HopSecurity = Literal["verify", "implicit", "none"]


class Timeouts(Table):
    """``[delivery.relay.timeouts]`` and ``[delivery.lmtp.timeouts]``: how long each step at the next hop may
    take (RFC 5321 4.5.3.2)."""

    connect: Seconds = Field(default=30, description="seconds for the name look-up and the connection")
    tls: Seconds = Field(default=60, description="seconds for the TLS handshake")
    greeting: Seconds = Field(default=300, description="seconds for the greeting")
    ehlo: Seconds = Field(default=300, description="seconds for EHLO's reply")
    auth: Seconds = Field(default=120, description="seconds for each reply to a login")
    mail: Seconds = Field(default=300, description="seconds for MAIL's reply")
    rcpt: Seconds = Field(default=300, description="seconds for RCPT's reply")
    data: Seconds = Field(default=120, description="seconds for DATA's reply")
    block: Seconds = Field(default=180, description="seconds for each block of content to go out")
    termination: Seconds = Field(default=600, description="seconds for the reply to the end of data")
    quit: Seconds = Field(default=10, description="seconds for QUIT's reply")


_LONGEST_SOCKET = 107  # octets of a path


def _hop(text: str) -> str:
    """A next hop as it is written: a host and port, a name to look up in the DNS, or a socket."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/") and "\0" not in rest:
        if len(rest.encode()) > _LONGEST_SOCKET:
            raise ValueError(f"a socket whose path has at most {_LONGEST_SOCKET} octets (unix(7))")
        return text
    if kind == "mx" and re.fullmatch(rf"{LABEL}(\.{LABEL})*(:[0-9]{{1,5}})?", rest, re.ASCII):
        host_and_port(rest if ":" in rest else rest + ":25")
        return text
    if kind == "srv" and re.fullmatch(rf"_{LABEL}\._tcp(\.{LABEL})+", rest, re.ASCII):
        return text
    try:
        host_and_port(text)
    except ValueError:
        raise ValueError(
            '"host:port", such as "core.example.nl:25" or "[2001:db8::1]:25"; "mx:example.nl", '
            '"srv:_submission._tcp.example.nl", or "unix:/path"'
        ) from None
    return text


Preference = Annotated[int, Field(strict=True, ge=0, le=65535)]


class NextHop(Table):
    """``[[delivery.relay.next-hops]]``: one next hop, where more is to be said than its name."""

    hop: Annotated[str, AfterValidator(_hop)] = Field(
        description='"host:port", "mx:DOMAIN[:PORT]", "srv:_SERVICE._tcp.DOMAIN" or "unix:/path"'
    )
    priority: Preference | None = Field(
        default=None, description="a number: the lowest is tried first; unset means by its place in the list"
    )
    weight: Preference = Field(
        default=0,
        description="a number: the share of the messages among hops of the same priority (RFC 2782)",
    )
    connections: Count | None = Field(
        default=None, description="connections to this hop at once; unset means as for every hop"
    )
    messages_per_connection: Count | None = Field(
        default=None, description="messages, then a connection is closed; unset means as for every hop"
    )
    idle_timeout: Seconds | None = Field(
        default=None,
        description="seconds that a connection waits for a next message; unset means as for every hop",
    )


def _named_hop(value: object) -> object:
    return {"hop": value} if isinstance(value, str) else value


AnyHop = Annotated[NextHop, BeforeValidator(_named_hop)]
Pin = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]
LoginMechanism = Literal["SCRAM-SHA-256", "PLAIN", "LOGIN"]


class Hops(Table):
    """What the relay and LMTP have in common: where to, by what proof, how much at once."""

    next_hops: tuple[AnyHop, ...] = Field(
        default=(),
        description="a list of host:port, such as core.example.nl:25, tried in this order; or of tables with "
        "priority and weight",
    )
    tls: HopSecurity = Field(
        default="verify",
        description='"verify" (STARTTLS, certificate checked), "implicit" or "none" (loopback or VPN)',
    )
    ca: AbsolutePath | None = Field(
        default=None, description="a PEM file: the hop's certificate authorities; unset means the system's"
    )
    server_name: HostName | None = Field(
        default=None, description="the name that the hop's certificate has to bear; unset means the hop's own"
    )
    public_key_pins: tuple[Pin, ...] = Field(
        default=(),
        description="a list of base64 SHA-256 digests: the hop's public key has to be one of them besides; "
        "empty means any that the certificate check passes",
    )
    dane: Flag = Field(
        default=False,
        description="true or false: ask for TLSA records, and go by them where the resolver says that they "
        "are authenticated (RFC 7672)",
    )
    resolver: Text | None = Field(
        default=None,
        description="host:port of the DNS resolver; unset means those of /etc/resolv.conf.  With dane it "
        "should validate DNSSEC and be on this machine",
    )
    certificate: AbsolutePath | None = Field(
        default=None, description="a PEM file: the certificate that we show to the hop (two-way TLS)"
    )
    private_key: SecretFile | None = Field(
        default=None, description='a PEM file, or "credential:NAME": the private key of that certificate'
    )
    username: Text | None = Field(
        default=None, description="the name for SMTP AUTH at the hop; unset means no login"
    )
    password_file: SecretFile | None = Field(
        default=None,
        description='a file whose first line is that login\'s password, or "credential:NAME"',
    )
    login_mechanisms: tuple[LoginMechanism, ...] = Field(
        default=("SCRAM-SHA-256", "PLAIN", "LOGIN"),
        min_length=1,
        description="a list of SCRAM-SHA-256, PLAIN and LOGIN: the first of them that the hop offers is used",
    )
    connections: Count = Field(default=10, description="connections to one hop at once")
    messages_per_connection: Count = Field(default=100, description="messages, then a connection is closed")
    idle_timeout: Seconds = Field(
        default=30, description="seconds that a connection waits for a next message"
    )
    first_rest: Seconds = Field(
        default=5, description="seconds: how long a hop that fails is left alone, then twice that..."
    )
    longest_rest: Seconds = Field(default=300, description="seconds: the longest such rest")
    timeouts: Timeouts = Timeouts()


class Relay(Hops):
    """``[delivery.relay]``: the next hops, by SMTP; ``"through"`` goes by them too."""


class Lmtp(Hops):
    """``[delivery.lmtp]``: the next hops, by LMTP (RFC 2033)."""

    tls: HopSecurity = Field(
        default="none",
        description='"none" (a socket of this machine, loopback or VPN), "verify" or "implicit"',
    )


class Maildir(Table):
    """``[delivery.maildir]``: messages become files."""

    directory: AbsolutePath | None = Field(
        default=None, description="an absolute path: the Maildir; made if missing"
    )


class Delivery(Table):
    """``[delivery]``: the way out."""

    to: Literal["relay", "lmtp", "maildir", "through"] = Field(
        default="relay",
        description='"relay", "lmtp", "maildir", or "through": nothing is kept here, and the answer to the '
        "client is the next hop's own",
    )
    relay: Relay = Relay()
    lmtp: Lmtp = Lmtp()
    maildir: Maildir = Maildir()
