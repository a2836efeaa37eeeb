"""The time that a server takes to refuse a login, for every reason that there may be (A5).

The server is whole but for its sockets: protocol, session, mechanism, throttle, realm, checker, threads and
store, on a real reactor.  The clock runs from the last octet of the response going in until the reply comes
out; whatever else a client's clock would see is noise to it.

:class:`Door` is such a server before a store.  :func:`plant` makes a mistake in it that is known from other
servers: whoever cannot find that one has proved nothing.
"""

import base64
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from time import perf_counter
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.passwords import PasswordHashing, Passwords, Verdict
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.interfaces import IAccountStore
from digipoort_msa.sasl.digest_hash import digest_secrets
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.server.connection import Connection
from digipoort_msa.server.protocol import SubmissionProtocol
from digipoort_msa.threads import Threads
from tests.account_doubles import NOW, Submitter
from tests.digest_client import respond
from tests.msa import SecureTransport, make_factory
from tests.msa_client import b64, plain
from tests.scram_client import ScramClient

REALM = "one.nl"
RIGHT, WRONG = "correct-horse-battery", "correct-horse-buttery"
ITERATIONS = 100  # of SCRAM: the client's work, which nobody's clock is on
_OF_EACH = 4  # names
_WARM_UP = 5  # rounds that are not looked at
_NEVER = 10**9  # failures: the throttle is another matter


class Cause(enum.Enum):
    """Why a login is refused; the names of all are of the same length."""

    WRONG = "a wrong password"
    UNKNOWN = "an unknown name"
    DISABLED = "a disabled account, the right password"
    BARE = "an account that keeps nothing for it"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"company-{self.name[0].lower()}{number}" for number in range(_OF_EACH))

    @property
    def password(self) -> str:
        return WRONG if self is Cause.WRONG else RIGHT


class Way(enum.Enum):
    """What is timed; SCRAM asks the store twice."""

    PLAIN = "PLAIN"
    LOGIN = "LOGIN"
    DIGEST = "DIGEST-MD5"
    CHALLENGE = "SCRAM-SHA-256, its challenge"
    SCRAM = "SCRAM-SHA-256"

    @property
    def mechanism(self) -> str:
        return self.value.partition(",")[0]


SLOW = frozenset({Way.PLAIN, Way.LOGIN})  # a password's hash


def accounts(hashing: PasswordHashing) -> list[Account]:
    """Those that a store is to have."""
    keys = ScramKeys.of(RIGHT, b"sixteen octets..", ITERATIONS)
    password_hash = hashing.hash(RIGHT)
    kept = []
    for cause in (Cause.WRONG, Cause.DISABLED, Cause.BARE):
        for name in cause.names:
            verifiers: dict[str, Any] = {
                "password_hash": password_hash,
                "digest_secrets": digest_secrets(name, REALM, RIGHT),
                "scram": keys,
            }
            kept.append(
                Account(
                    name=name,
                    realm=REALM,
                    status=Status.DISABLED if cause is Cause.DISABLED else Status.ACTIVE,
                    created=NOW,
                    changed=NOW,
                    addresses=("*@example.nl",),
                    **({} if cause is Cause.BARE else verifiers),
                )
            )
    return kept


class _Wire(SecureTransport):
    """The client's end; it notes when the server speaks."""

    spoke = 0.0
    heard: "Deferred[None] | None" = None

    def write(self, data: bytes) -> None:
        self.spoke = perf_counter()
        super().write(data)
        if self.heard is not None:
            heard, self.heard = self.heard, None
            heard.callback(None)


@define
class _Client:
    """One connection, under TLS."""

    _reactor: Any
    _protocol: SubmissionProtocol
    _wire: _Wire = field(factory=lambda: _Wire(peerAddress=IPv4Address("TCP", "192.0.2.1", 50000)))
    seconds: float = 0.0  # from the last octet of a line to its reply

    def __attrs_post_init__(self) -> None:
        self._protocol.makeConnection(self._wire)
        self._protocol.handshakeCompleted()

    async def ask(self, line: str, code: str) -> bytes:
        """
        :return: the reply's text; decoded, where it is a challenge.
        :raise AssertionError: the reply has another code.
        """
        self._wire.clear()
        # The server's turn is over before the next line comes, as it is on a network.
        heard: Deferred[None] = Deferred()
        self._wire.heard = Deferred()
        self._wire.heard.addCallback(lambda _: self._reactor.callLater(0, heard.callback, None))
        octets = f"{line}\r\n".encode()
        began = perf_counter()
        self._protocol.dataReceived(octets)
        await heard
        self.seconds = self._wire.spoke - began
        reply: bytes = self._wire.value()
        assert reply.startswith(code.encode()), reply
        return base64.b64decode(reply[4:]) if code == "334" else reply

    def close(self) -> None:
        self._protocol.connectionLost()


class Door:
    """Logins to a realm with a store."""

    def __init__(
        self,
        reactor: Any,
        store: IAccountStore,
        threads: Threads,
        hashing: PasswordHashing,
        *,
        cache_seconds: float = 0.0,
        refusal_time: float = 0.5,
    ) -> None:
        """
        :param threads: for passwords.
        :param refusal_time: of stores that are not even.
        """
        self._reactor = reactor
        mechanisms = frozenset(way.mechanism for way in Way)
        rules = RealmRules(
            name=REALM,
            mechanisms=mechanisms,
            scram_iterations=ITERATIONS,
            refusal_time=refusal_time,
        )
        self.passwords = Passwords(
            hashing, threads, VerifiedPasswords(reactor.seconds, seconds=cache_seconds)
        )
        self.guarded = GuardedStore(store, REALM, reactor)
        self.realm = Realm(rules, self.guarded, self.passwords, Submitter, reactor, NOW.date)
        limits = dict.fromkeys(("per_account_and_source", "per_source", "per_network", "per_account"), _NEVER)
        throttle = Throttle(reactor.seconds, **limits, strangers=0, first_delay=0.0, longest_delay=0.0)
        self._factory = make_factory(
            reactor, Realms([self.realm], throttle, reactor, MECHANISMS, b"nobody's key")
        )

    def offers(self, way: Way) -> bool:
        return self.realm.offers(way.mechanism)

    async def warm(self) -> None:
        """Have the cache know the right passwords."""
        for name in Cause.WRONG.names:
            client = await self._connect()
            await client.ask(f"AUTH PLAIN {plain(name, RIGHT)}", "235")
            client.close()

    async def refuse(self, way: Way, name: str, password: str) -> float:
        """One login that fails, on a connection of its own.

        :return: the seconds of what ``way`` is about.
        """
        client = await self._connect()
        try:
            return await _EXCHANGES[way](client, name, password)
        finally:
            client.close()

    async def times(
        self, way: Way, rounds: int, turns: Random, causes: Sequence[Cause] = tuple(Cause)
    ) -> dict[Cause, list[float]]:
        """Seconds for each cause, in turns without order; what stands at the same place of each list was
        measured right after one another."""
        found: dict[Cause, list[float]] = {cause: [] for cause in causes}
        for number in range(-_WARM_UP, rounds):
            for cause in turns.sample(causes, len(causes)):
                seconds = await self.refuse(way, turns.choice(cause.names), cause.password)
                if number >= 0:
                    found[cause].append(seconds)
        return found

    async def _connect(self) -> _Client:
        client = _Client(self._reactor, SubmissionProtocol(Connection(self._factory, "S1"), under_tls=True))
        await client.ask("EHLO client.example", "250")
        return client


async def _plain(client: _Client, name: str, password: str) -> float:
    await client.ask(f"AUTH PLAIN {plain(name, password)}", "535 5.7.8")
    return client.seconds


async def _login(client: _Client, name: str, password: str) -> float:
    await client.ask("AUTH LOGIN", "334")
    await client.ask(b64(name.encode()), "334")
    await client.ask(b64(password.encode()), "535 5.7.8")
    return client.seconds


async def _digest(client: _Client, name: str, password: str) -> float:
    challenge = await client.ask("AUTH DIGEST-MD5", "334")
    await client.ask(b64(respond(challenge, name, password, "smtp/localhost")), "535 5.7.8")
    return client.seconds


async def _challenge(client: _Client, name: str, password: str) -> float:
    first = ScramClient(name, password).first()
    await client.ask(f"AUTH SCRAM-SHA-256 {b64(first)}", "334")
    return client.seconds


async def _scram(client: _Client, name: str, password: str) -> float:
    scram = ScramClient(name, password)
    challenge = await client.ask(f"AUTH SCRAM-SHA-256 {b64(scram.first())}", "334")
    await client.ask(b64(scram.final(challenge)), "535 5.7.8")
    return client.seconds


_EXCHANGES: Mapping[Way, Callable[[_Client, str, str], Awaitable[float]]] = {
    Way.PLAIN: _plain,
    Way.LOGIN: _login,
    Way.DIGEST: _digest,
    Way.CHALLENGE: _challenge,
    Way.SCRAM: _scram,
}


# -- mistakes --------------------------------------------------------------------------------------------


def plant(door: Door, way: Way, times: int = 1) -> None:
    """Make the mistake that a timing of ``way`` has to find, so many times over."""
    if way in SLOW:
        _skip_the_hash(door)
    else:
        _ask_more_of_those_it_has(door, times)


def _skip_the_hash(door: Door) -> None:
    """Where there is no account that may log in, no password is verified."""
    careful = door.passwords.verify

    def hasty(account: Account | None, *arguments: Any, **options: Any) -> "Deferred[Verdict]":
        return succeed(Verdict(False)) if account is None else careful(account, *arguments, **options)

    door.passwords.verify = hasty  # type: ignore[method-assign]


def _ask_more_of_those_it_has(door: Door, times: int) -> None:
    """Once an account is found, the store is asked again: for its addresses, its groups, its domain."""
    ask = door.guarded.account

    async def ask_more(username: str) -> Account | None:
        account = await ask(username)
        for _ in range(0 if account is None else times):
            await ask(username)
        return account

    def asked_more(username: str) -> "Deferred[Account | None]":
        return Deferred.fromCoroutine(ask_more(username))

    door.guarded.account = asked_more  # type: ignore[method-assign]
