"""The settings: one frozen model per table of the TOML file.

Every key is here once, with its type, its bounds, its default and a description; keys are written in
kebab-case in the file (``state-directory``).  Sizes are octets and times are seconds unless a description
says otherwise.  A rule that needs one field alone stands here; rules across fields, and those that look
at the file system, are in :mod:`digipoort_msa.config.checks`.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints


def _kebab_case(name: str) -> str:
    return name.replace("_", "-")


class Table(BaseModel):
    """A table of the file; an unknown key is an error."""

    model_config = ConfigDict(
        alias_generator=_kebab_case,
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a value may be a secret; problems show values on their own terms
    )


Octets = Annotated[int, Strict(), Field(ge=1, le=2**40)]
Count = Annotated[int, Strict(), Field(ge=1, le=10**6)]
Seconds = Annotated[float, Strict(), Field(ge=0.001, le=10**9)]
Wait = Annotated[float, Strict(), Field(ge=0, le=60)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, StringConstraints(min_length=1)]


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("an absolute path, from / on")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HostName = Annotated[str, StringConstraints(max_length=255, pattern=rf"^{LABEL}(?:\.{LABEL})*$")]


class Server(Table):
    """``[server]``: the process as a whole."""

    hostname: HostName = Field(
        description="a host name such as msa.example.nl: what the greeting and Received: show"
    )
    state_directory: AbsolutePath = Field(
        default=Path("/var/lib/digipoort-msa"),
        description="an absolute path: the folder of the accounts and the spool",
    )
    umask: Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")] = Field(
        default="0077", description='octal digits such as "0077": the mode bits that no file of ours gets'
    )
    digest_hosts: tuple[HostName, ...] = Field(
        default=(),
        description="a list of host names: those a DIGEST-MD5 digest-uri may name; "
        "empty means the hostname and the certificate's names",
    )


class Listener(Table):
    """``[[listener]]``: one place where clients connect."""

    endpoint: Text = Field(description="a Twisted server endpoint such as tcp:587")
    tls: Literal["starttls", "implicit"] = Field(
        description='"starttls" (in clear first, port 587) or "implicit" (TLS at once, port 465)'
    )


class Tls(Table):
    """``[tls]``: what the listeners show, and whom they ask for a certificate."""

    certificate: AbsolutePath = Field(
        default=Path("/etc/digipoort-msa/tls/fullchain.pem"),
        description="a PEM file: the server's certificate, and after it the intermediate ones",
    )
    private_key: AbsolutePath = Field(
        default=Path("/etc/digipoort-msa/tls/key.pem"),
        description="a PEM file: the certificate's private key",
    )
    minimum_version: Literal["1.2", "1.3"] = Field(default="1.2", description='"1.2" or "1.3"')
    client_certificates: Literal["off", "optional", "required"] = Field(
        default="off", description='"off", "optional" or "required": two-way TLS'
    )
    client_ca: AbsolutePath | None = Field(
        default=None, description="a PEM file: the authorities whose client certificates count"
    )


Mechanism = Literal["DIGEST-MD5", "PLAIN", "LOGIN"]
MECHANISMS: tuple[Mechanism, ...] = ("DIGEST-MD5", "PLAIN", "LOGIN")
AddressPattern = Annotated[str, StringConstraints(pattern=r"^[^\s@]+@[^\s@]+$")]
FieldName = Annotated[str, StringConstraints(pattern=r"^[!-9;-~]+$")]  # RFC 5322 2.2


class Realm(Table):
    """``[[realm]]``: accounts that belong together, and what they may submit.

    A pattern is an address in which ``*`` stands for any run of characters, such as ``*@example.nl``.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[!#-?A-\[\]-~]+$")] = Field(
        description="the realm's name, as DIGEST-MD5 and user@realm logins say it: "
        "ASCII without space, quote, backslash or @"
    )
    store: Literal["sql"] = Field(default="sql", description='"sql": where the accounts are kept')
    url: Text | None = Field(
        default=None,
        description="a SQLAlchemy URL such as postgresql+psycopg://user@host/database; "
        "unset means SQLite under the state directory",
    )
    mechanisms: tuple[Mechanism, ...] = Field(
        default=MECHANISMS, min_length=1, description="a list of DIGEST-MD5, PLAIN and LOGIN"
    )
    bind_sender: Flag = Field(
        default=False,
        description="true or false: an account sends only from its own name (where that is an address) "
        "and from its sender-addresses",
    )
    sender_addresses: dict[str, tuple[AddressPattern, ...]] = Field(
        default={},
        description="a table of account = [patterns]: the addresses that bind-sender leaves an account",
    )
    senders: tuple[AddressPattern, ...] = Field(
        default=(), description="a list of patterns: who may be the sender; empty means anyone"
    )
    recipients: tuple[AddressPattern, ...] = Field(
        default=(), description="a list of patterns: who may be a recipient; empty means anyone"
    )
    required_headers: tuple[FieldName, ...] = Field(
        default=(), description="a list of header field names that a message must have"
    )
    header_patterns: dict[FieldName, str] = Field(
        default={},
        description="a table of field name = regular expression, found in every such field of a message",
    )
    maximum_header_size: Annotated[Octets, Field(le=65536)] = Field(
        default=65536, description="octets, at most 65536: the header section of a message"
    )
    add_missing_headers: Flag = Field(
        default=False, description="true or false: give a message without Date or Message-ID one (RFC 6409 8)"
    )


class Limits(Table):
    """``[limits]``: what one client may use."""

    message_size: Octets = Field(default=52428800, description="octets: the largest message")
    recipients: Annotated[Count, Field(ge=100)] = Field(
        default=1000, description="at least 100 (RFC 5321 4.5.3.1.8): recipients of one message"
    )
    idle_timeout: Seconds = Field(default=300, description="seconds without a word from the client, then 421")
    handshake_timeout: Seconds = Field(default=60, description="seconds that a TLS handshake may take")
    connections: Count = Field(default=5000, description="connections at once, in all")
    connections_per_address: Count = Field(default=100, description="connections at once from one address")
    errors: Count = Field(default=50, description="refused commands in one connection, then 421")
    authentication_failures: Annotated[Count, Field(ge=3)] = Field(
        default=3, description="at least 3: failed logins in one connection, then 421"
    )
    login_failures_per_account_and_address: Count = Field(
        default=10, description="failed logins on one account from one address in a login-window, then 421"
    )
    login_failures_per_address: Count = Field(
        default=50,
        description="failed logins from one address (of IPv6 a /64, and four times as many from a /48) "
        "in a login-window, then 421",
    )
    login_failures_per_account: Count = Field(
        default=100,
        description="failed logins on one account, from wherever, in a login-window; "
        "addresses that are trusted for it are not held up by this",
    )
    login_window: Seconds = Field(default=900, description="seconds in which a full count drains to nothing")
    login_first_delay: Wait = Field(
        default=0.25,
        description="seconds, 0 for none: a login waits after one failure, twice that after two...",
    )
    login_longest_delay: Wait = Field(default=8, description="seconds, 0 for none: the longest such wait")
    login_trust: Seconds = Field(
        default=2592000, description="seconds: an address stays trusted for an account after a login"
    )


class Passwords(Table):
    """``[passwords]``: the cost of argon2id (RFC 9106), and who bears it."""

    memory_kib: Annotated[Count, Field(ge=8)] = Field(default=19456, description="KiB of memory for one hash")
    time_cost: Annotated[Count, Field(le=1000)] = Field(default=2, description="passes over that memory")
    parallelism: Annotated[Count, Field(le=64)] = Field(default=1, description="lanes of one hash")
    threads: Annotated[Count, Field(le=256)] = Field(
        default=2, description="hashes computed at once; each takes memory-kib"
    )
    cache_seconds: Annotated[float, Strict(), Field(ge=0, le=86400)] = Field(
        default=300, description="seconds, 0 for none: a login is remembered and spared the slow hash"
    )


class Spool(Table):
    """``[spool]``: how accepted messages are kept."""

    inline_size: Annotated[int, Strict(), Field(ge=0, le=2**20)] = Field(
        default=65536, description="octets: a larger message is a file of its own beside the database"
    )


class Queue(Table):
    """``[queue]``: when a message is tried, and tried again."""

    active: Count = Field(default=20, description="messages being delivered at once")
    first_delay: Seconds = Field(default=60, description="seconds from the first try to the second")
    delay_factor: Annotated[float, Strict(), Field(ge=1, le=100)] = Field(
        default=2, description="a number from 1: each delay is this many times the one before"
    )
    maximum_delay: Seconds = Field(default=3600, description="seconds: the longest delay")
    jitter: Annotated[float, Strict(), Field(ge=0, lt=1)] = Field(
        default=0.2,
        description="from 0 to below 1: the part of a delay, either way, that is drawn by lot",
    )
    give_up_after: Seconds = Field(
        default=432000, description="seconds after receipt: then the message has failed"
    )


HopSecurity = Literal["verify", "implicit", "none"]


class Timeouts(Table):
    """``[delivery.relay.timeouts]``: how long each step at the next hop may take (RFC 5321 4.5.3.2)."""

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


def host_and_port(text: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 address stands in brackets.

    :raise ValueError: this is not a host and a port.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text, re.ASCII)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError('"host:port", such as "core.example.nl:25" or "[2001:db8::1]:25"')
    return match[1] or match[2], int(match[3])


def _next_hop(text: str) -> str:
    host_and_port(text)
    return text


class Relay(Table):
    """``[delivery.relay]``: the next hops."""

    next_hops: tuple[Annotated[str, AfterValidator(_next_hop)], ...] = Field(
        default=(), description="a list of host:port, tried in this order, such as core.example.nl:25"
    )
    tls: HopSecurity = Field(
        default="verify",
        description='"verify" (STARTTLS, certificate checked), "implicit" or "none" (loopback or VPN)',
    )
    ca: AbsolutePath | None = Field(
        default=None, description="a PEM file: the hop's certificate authorities; unset means the system's"
    )
    username: Text | None = Field(
        default=None, description="the name for SMTP AUTH at the hop; unset means no login"
    )
    password_file: AbsolutePath | None = Field(
        default=None, description="a file whose first line is that login's password"
    )
    connections: Count = Field(default=10, description="connections to the hops at once")
    messages_per_connection: Count = Field(default=100, description="messages, then a connection is closed")
    idle_timeout: Seconds = Field(
        default=30, description="seconds that a connection waits for a next message"
    )
    timeouts: Timeouts = Timeouts()


class Maildir(Table):
    """``[delivery.maildir]``: messages become files."""

    directory: AbsolutePath | None = Field(
        default=None, description="an absolute path: the Maildir; made if missing"
    )


class Delivery(Table):
    """``[delivery]``: the way out."""

    to: Literal["relay", "maildir"] = Field(default="relay", description='"relay" or "maildir"')
    relay: Relay = Relay()
    maildir: Maildir = Maildir()


class Settings(Table):
    """The whole file."""

    server: Server = Field(description="a table")
    listener: tuple[Listener, ...] = Field(min_length=1, description="at least one [[listener]]")
    tls: Tls = Tls()
    realm: tuple[Realm, ...] = Field(min_length=1, description="at least one [[realm]]")
    limits: Limits = Limits()
    passwords: Passwords = Passwords()
    spool: Spool = Spool()
    queue: Queue = Queue()
    delivery: Delivery = Delivery()
