"""The settings: one frozen model per table of the TOML file.

Every key is here once, with its type, its bounds, its default and a description; keys are written in
kebab-case in the file (``state-directory``).  Sizes are octets and times are seconds unless a description
says otherwise.  A rule that needs one field alone stands here; rules across fields, and those that look
at the file system, are in :mod:`digipoort_msa.config.checks`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, StringConstraints, model_validator

from digipoort_msa.config.delivery import Delivery
from digipoort_msa.config.queue import Notification, Queue
from digipoort_msa.config.realm import Mechanism, Realm
from digipoort_msa.config.tables import (
    AbsolutePath,
    Count,
    HostName,
    Octets,
    Seconds,
    SecretFile,
    Table,
    Text,
    Wait,
)

ClientCertificates = Literal["off", "optional", "required"]


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
    mechanisms: tuple[Mechanism, ...] = Field(
        default=(),
        description="a list: of the realms' mechanisms, those that are offered here; empty means all",
    )
    client_certificates: ClientCertificates | None = Field(
        default=None, description='"off", "optional" or "required": in place of tls.client-certificates'
    )


class Tls(Table):
    """``[tls]``: what the listeners show, and whom they ask for a certificate."""

    certificate: AbsolutePath = Field(
        default=Path("/etc/digipoort-msa/tls/fullchain.pem"),
        description="a PEM file: the server's certificate, and after it the intermediate ones",
    )
    private_key: SecretFile = Field(
        default=Path("/etc/digipoort-msa/tls/key.pem"),
        description='a PEM file, or "credential:NAME": the certificate\'s private key',
    )
    minimum_version: Literal["1.2", "1.3"] = Field(default="1.2", description='"1.2" or "1.3"')
    client_certificates: ClientCertificates = Field(
        default="off", description='"off", "optional" or "required": two-way TLS'
    )
    client_ca: AbsolutePath | None = Field(
        default=None, description="a PEM file: the root authorities whose client certificates count"
    )
    client_crl: AbsolutePath | None = Field(
        default=None,
        description="a PEM file: for each authority of client certificates, the list (CRL) of what it has "
        "revoked; read again when it changes; unset means that nobody looks",
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
        description="failed logins from one address (of IPv6 a /64) in a login-window, then 421; "
        "those who are trusted go on",
    )
    login_failures_per_network: Count = Field(
        default=200,
        description="failed logins from one network (an IPv4 /24, an IPv6 /48) in a login-window, then 421; "
        "addresses from which somebody has logged in before go on",
    )
    login_failures_per_account: Count = Field(
        default=100,
        description="failed logins on one account, from wherever, in a login-window; "
        "addresses that are trusted for it are not held up by this",
    )
    login_failures_of_strangers: Annotated[int, Strict(), Field(ge=0, le=10**6)] = Field(
        default=5000,
        description="failed logins in all, in a login-window, but for those of trusted addresses; 0 for no "
        "limit; then 421 for all from whose address nobody has logged in before",
    )
    login_window: Seconds = Field(default=900, description="seconds in which a full count drains to nothing")
    login_first_delay: Wait = Field(
        default=0.25,
        description="seconds, 0 for none: a login waits after one failure, twice that after two...",
    )
    login_longest_delay: Wait = Field(default=8, description="seconds, 0 for none: the longest such wait")
    login_trust: Seconds = Field(
        default=34560000,
        description="seconds: an address stays trusted for an account after a login (400 days: some log in "
        "once a year)",
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
    watermark: Annotated[int, Strict(), Field(ge=2**20, le=2**40)] = Field(
        default=268435456,
        description="octets, at least 1 MiB: with less than this free on its disk no message is begun "
        "(452), and half of it is kept for recording deliveries",
    )
    encryption_key_file: SecretFile | None = Field(
        default=None,
        description='a file of 32 octets in hex or base64, or "credential:NAME": the key that encrypts '
        "content at rest, and on further lines the former ones; unset means content is kept in clear",
    )


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
    notification: Notification = Notification()
    delivery: Delivery = Delivery()

    @model_validator(mode="before")
    @classmethod
    def _complete_realms(cls, document: Any) -> Any:
        """What a realm's own table leaves out is as in the general one."""
        if not isinstance(document, Mapping) or not isinstance(document.get("realm"), list):
            return document
        return {**document, "realm": [_completed(realm, document) for realm in document["realm"]]}

    def client_certificates_of(self, listener: Listener) -> ClientCertificates:
        return listener.client_certificates or self.tls.client_certificates

    def delivery_of(self, realm: Realm) -> Delivery:
        return realm.delivery or self.delivery

    def queue_of(self, realm: Realm) -> Queue:
        return realm.queue or self.queue

    def notification_of(self, realm: Realm) -> Notification:
        return realm.notification or self.notification


def _completed(realm: Any, document: Mapping[str, Any]) -> Any:
    if not isinstance(realm, Mapping):
        return realm
    own = {name: realm[name] for name in ("delivery", "queue", "notification") if name in realm}
    return {**realm, **{name: _merged(document.get(name), table) for name, table in own.items()}}


def _merged(general: Any, own: Any) -> Any:
    if not isinstance(general, Mapping) or not isinstance(own, Mapping):
        return own
    return {**general, **{name: _merged(general.get(name), value) for name, value in own.items()}}
