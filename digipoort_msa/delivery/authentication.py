"""SMTP AUTH as a client (RFC 4954): a login by PLAIN (RFC 4616), LOGIN or SCRAM-SHA-256 (RFC 7677).

By PLAIN and LOGIN the hop, which TLS has proven, learns the password.  By SCRAM it does not, and has to show
that it knows it: a 235 without that proof is no login, and ends the connection.  What SCRAM has us compute is
bounded before it is computed, and is done in a thread.

A hop's words may hold what we told it: from the first octet of a login on, the connection conceals our
secrets in whatever the hop says (:meth:`~digipoort_msa.delivery.client.ClientConnection.conceal`).
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

from attrs import field, frozen
from scramp import ScramClient, ScramException
from twisted.internet.defer import CancelledError

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.client import ClientConnection
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.reply_parser import printable

_LONGEST_COMMAND = 510  # octets without CR LF (RFC 5321 4.5.3.1.4)
FEWEST_ITERATIONS = 4_096  # RFC 7677 4
MOST_ITERATIONS = 600_000  # what is advised today for PBKDF2; a quarter of a second of one core

SCRAM, PLAIN, LOGIN = "SCRAM-SHA-256", "PLAIN", "LOGIN"

#: RFC 5802 7, server-first-message.  A mandatory extension ("m=") would be in front; we know of none.
_SERVER_FIRST = re.compile(
    r"r=(?P<nonce>[!-+\--~]+),s=(?P<salt>[A-Za-z0-9+/]+={0,2}),i=(?P<iterations>[1-9][0-9]{0,9})"
    r"(?:,[A-Za-z]=[^,\0]+)*"
)


@frozen
class Credentials:
    """Who we are to the hop, and by which mechanisms we may say so."""

    username: str
    password: str = field(repr=False)
    mechanisms: tuple[str, ...] = (PLAIN, LOGIN)  # the first that the hop offers is used
    #: Runs a call with its arguments off the reactor's thread; a failure of its own puts the message off.
    in_thread: Callable[..., Awaitable[Any]] | None = field(default=None, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        """:raise ValueError: a mechanism is unknown or lacks its thread, or a secret holds NUL."""
        unknown = set(self.mechanisms) - set(_LOG_IN)
        if unknown or not self.mechanisms:
            raise ValueError(f"login-mechanisms are {', '.join(_LOG_IN)}; not {', '.join(sorted(unknown))}")
        if SCRAM in self.mechanisms and self.in_thread is None:
            raise ValueError(f"{SCRAM} needs a thread for its computation")
        if "\0" in self.username + self.password:
            raise ValueError("a username or password cannot hold NUL (RFC 4616)")


async def log_in(connection: ClientConnection, offered: Sequence[str], credentials: Credentials) -> None:
    """Log in by the first mechanism that both sides have.

    :param offered: the mechanisms in the hop's EHLO reply, in upper case.
    :raise HopFailure: there is none, the hop refuses us, or it is not what it claims to be.
    """
    mechanism = next((name for name in credentials.mechanisms if name in offered), None)
    if mechanism is None:
        raise HopFailure(failures.no_mechanism(connection.hop, offered, credentials.mechanisms))
    connection.conceal(_secrets(credentials))
    await _LOG_IN[mechanism](_Exchange(connection), credentials)


def _secrets(credentials: Credentials) -> list[str]:
    """What must not be shown, in each form that a hop may say it in."""
    password = credentials.password.encode()
    encoded = [b64encode(octets).decode("ascii") for octets in (password, _plain_response(credentials))]
    return [credentials.password, printable(password), *encoded, *(text.rstrip("=") for text in encoded)]


def _plain_response(credentials: Credentials) -> bytes:
    return f"\0{credentials.username}\0{credentials.password}".encode()


class _Exchange:
    """The replies and responses of one AUTH command."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def begin(self, mechanism: str, initial: bytes | None) -> Reply:
        """Send AUTH; an initial response that makes it too long waits for the hop to ask (RFC 4954 4)."""
        command = f"AUTH {mechanism}".encode()
        if initial is None:
            return await self._say(command)
        encoded = b64encode(initial)
        if len(command) + 1 + len(encoded) <= _LONGEST_COMMAND:
            return await self._say(command + b" " + encoded)
        self.expect(334, await self._say(command))
        return await self._say(encoded)

    async def respond(self, response: bytes) -> Reply:
        return await self._say(b64encode(response))

    async def _say(self, line: bytes) -> Reply:
        return await self._connection.command(line, self._connection.timeouts.auth)

    def expect(self, code: int, reply: Reply) -> None:
        """:raise HopFailure: the reply is another; one that refuses nothing breaks the protocol."""
        if reply.code == code:
            return
        if reply.positive:
            self.drop(f"{code} was due, not {reply}")
        raise HopFailure(failures.not_authenticated(self._connection.hop, reply))

    def challenge(self, reply: Reply) -> str:
        """The text of a 334.

        :raise HopFailure: it is something else.
        """
        self.expect(334, reply)
        try:
            return b64decode(reply.lines[0], validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            self.drop("its challenge is not base64 of text")

    def drop(self, reason: str) -> NoReturn:
        """The hop is not what it claims to be."""
        failure = failures.not_proven(self._connection.hop, reason)
        self._connection.fail(failure)
        raise HopFailure(failure)

    def leave(self) -> NoReturn:
        """Our own side gives up."""
        self._connection.fail(failures.STOPPING)
        raise HopFailure(failures.STOPPING)

    def unable(self, reason: str) -> NoReturn:
        """We cannot do our part."""
        failure = failures.login_not_computed(self._connection.hop, reason)
        self._connection.fail(failure)
        raise HopFailure(failure)


async def _by_plain(exchange: _Exchange, credentials: Credentials) -> None:
    exchange.expect(235, await exchange.begin(PLAIN, _plain_response(credentials)))


async def _by_login(exchange: _Exchange, credentials: Credentials) -> None:
    """The prompts are not looked at: servers differ in their words, not in their order."""
    exchange.expect(334, await exchange.begin(LOGIN, None))
    exchange.expect(334, await exchange.respond(credentials.username.encode()))
    exchange.expect(235, await exchange.respond(credentials.password.encode()))


async def _by_scram(exchange: _Exchange, credentials: Credentials) -> None:
    in_thread = credentials.in_thread or _no_thread
    try:
        client = ScramClient([SCRAM], credentials.username, credentials.password)
        client_first = client.get_client_first()
    except ScramException as error:  # what SASLprep forbids; its text names the kind, not the character
        exchange.unable(f"the username or the password is not fit for {SCRAM}: {error}")
    server_first = exchange.challenge(await exchange.begin(SCRAM, client_first.encode()))
    _check_server_first(exchange, server_first, client_first.rpartition(",r=")[2])
    _taken(exchange, client.set_server_first, server_first, "its first message is malformed")
    try:
        client_final = await in_thread(client.get_client_final)
    except CancelledError:
        exchange.leave()
    except Exception as error:  # noqa: BLE001 (what keeps a thread from us is for its pool to say)
        exchange.unable(str(error) or type(error).__name__)
    reply = await exchange.respond(client_final.encode())
    if reply.code == 235:  # SMTP has no data with a success: they come as one more challenge (RFC 4954 4)
        exchange.drop("it took our login without a proof that it knows the password")
    proof = exchange.challenge(reply)
    _taken(exchange, client.set_server_final, proof, "its signature is wrong: it does not know the password")
    exchange.expect(235, await exchange.respond(b""))


async def _no_thread(work: object) -> NoReturn:
    raise RuntimeError(f"{SCRAM} has no thread")


def _check_server_first(exchange: _Exchange, message: str, nonce: str) -> None:
    """What has to be right before anything is computed from it."""
    match = _SERVER_FIRST.fullmatch(message)
    if match is None:
        exchange.drop(f"its first {SCRAM} message is malformed")
    if not match["nonce"].startswith(nonce) or match["nonce"] == nonce:
        exchange.drop("its nonce does not go on from ours")
    if not FEWEST_ITERATIONS <= int(match["iterations"]) <= MOST_ITERATIONS:
        exchange.drop(
            f"it wants {match['iterations']} iterations of {SCRAM}; "
            f"from {FEWEST_ITERATIONS} to {MOST_ITERATIONS} are done"
        )


def _taken(exchange: _Exchange, take: Callable[[str], object], message: str, otherwise: str) -> None:
    """Give a message of the hop's to the mechanism.  Its own words are not shown: they are encoded, and could
    hold anything."""
    try:
        take(message)
    except Exception:  # noqa: BLE001 (a ScramException, or whatever a hop's words bring about)
        exchange.drop(otherwise)


_LOG_IN: dict[str, Callable[[_Exchange, Credentials], Awaitable[None]]] = {
    SCRAM: _by_scram,
    PLAIN: _by_plain,
    LOGIN: _by_login,
}
