"""From a fresh connection to a hop that takes mail: greeting, EHLO, STARTTLS, AUTH (RFC 5321, 3207, 4954).

What a hop said in clear is forgotten when TLS is up: its extensions are asked for anew.  Credentials go
over proven TLS only, and a hop that is to verify never sees a message otherwise (D4).
"""

from collections.abc import Mapping

from attrs import define, field, frozen

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.authentication import Credentials, log_in
from digipoort_msa.delivery.client import ClientConnection
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.smtp.reply import Reply


@frozen
class Extensions:
    """What a hop offers (RFC 5321 4.1.1.1): each keyword in upper case, with its parameters."""

    offered: Mapping[str, tuple[str, ...]] = field(factory=dict)

    @classmethod
    def from_reply(cls, reply: Reply) -> "Extensions":
        """Read a 250 to EHLO; its first line is the hop's name and greeting."""
        words = (line.upper().split() for line in reply.lines[1:])
        return cls({keyword: tuple(parameters) for keyword, *parameters in filter(None, words)})

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.offered

    @property
    def longest_message(self) -> int | None:
        """Octets (RFC 1870 4); ``None`` where the hop names no limit."""
        limit = "".join(self.offered.get("SIZE", ())[:1])
        return int(limit) if limit.isascii() and limit.isdigit() and len(limit) <= 20 and int(limit) else None

    @property
    def mechanisms(self) -> tuple[str, ...]:
        return self.offered.get("AUTH", ())


@define(eq=False)
class Session:
    """A hop that takes mail, over one connection."""

    hop: Hop
    connection: ClientConnection
    extensions: Extensions
    authenticated: bool
    transactions: int = 0  # begun so far
    reset_needed: bool = False  # the last transaction was left open


async def open_session(
    connection: ClientConnection,
    hop: Hop,
    hostname: str,
    tls: ClientTLS,
    credentials: Credentials | None = None,
    *,
    hello: bytes = b"EHLO",
) -> Session:
    """Make a new connection ready for transactions.

    :param hostname: our name, the argument of ``hello``.
    :param hello: the command that asks for the extensions; of LMTP it is ``LHLO`` (RFC 2033 4.1).
    :raise HopFailure: the hop is not ready, does not speak SMTP, cannot be verified or refuses our
        credentials.  The connection is left for the caller to close.
    """
    timeouts = connection.timeouts
    if credentials is not None and tls.mode == "none":
        raise HopFailure(failures.LOGIN_IN_CLEAR)
    handshake = await tls.handshake(hop) if tls.mode != "none" else None
    if tls.first and handshake is not None:
        await connection.start_tls(handshake)
    greeting = await connection.reply(timeouts.greeting)
    if greeting.code != 220:
        raise HopFailure(failures.not_ready(hop.name, greeting))
    extensions = await _extensions(connection, hop, hello, hostname, may_fall_back=tls.mode == "none")
    if tls.required_after_greeting and handshake is not None:
        if "STARTTLS" not in extensions:
            raise HopFailure(failures.no_starttls(hop.name, "not offered"))
        reply = await connection.command(b"STARTTLS", timeouts.ehlo)
        if reply.code != 220:
            raise HopFailure(failures.no_starttls(hop.name, str(reply)))
        await connection.start_tls(handshake)
        extensions = await _extensions(connection, hop, hello, hostname)
    if credentials is not None:
        await log_in(connection, extensions.mechanisms, credentials)
    return Session(hop, connection, extensions, credentials is not None)


async def _extensions(
    connection: ClientConnection, hop: Hop, hello: bytes, hostname: str, may_fall_back: bool = False
) -> Extensions:
    name = hostname.encode("ascii")
    reply = await connection.command(hello + b" " + name, connection.timeouts.ehlo)
    if reply.code == 250:
        return Extensions.from_reply(reply)
    if may_fall_back and reply.permanent and hello == b"EHLO":  # a server from before 1993 (RFC 5321 3.2)
        reply = await connection.command(b"HELO " + name, connection.timeouts.ehlo)
        if reply.code == 250:
            return Extensions()
    raise HopFailure(failures.not_ready(hop.name, reply))
