"""The servers of a directory, and the connections to them that are kept.

Servers are tried in their order.  One that failed rests for a while: it is tried last until then, so that a
dead server delays one login and not each.  Where all rest they are tried all the same; a lone server that was
restarted is back at once.

Searches and the binds that prove passwords go over connections of two kinds, which never meet: no search is
ever made as whoever logged in last.
"""

from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import unquote

from attrs import frozen, mutable
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from digipoort_msa import log
from digipoort_msa.accounts.ldap.codec import SUCCESS
from digipoort_msa.accounts.ldap.connection import LDAPConnection, Lost
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.secret_files import first_line

T = TypeVar("T")

_REST = 30.0  # seconds for which a server that failed is tried last
_IDLE = 60.0  # seconds after which an unused connection is not trusted to be there still


@frozen
class Address:
    """A server's, as a URL says it."""

    url: str
    host: str
    port: int
    tls: Literal["first", "start", "none"]
    socket: str = ""  # a path, instead of host and port

    @classmethod
    def of(cls, url: str, *, in_clear: bool = False) -> "Address":
        """
        :param url: ``ldaps://host[:port]``, ``ldap://host[:port]`` or ``ldapi://path``, a path in which ``/``
            may be ``%2F``.
        :param in_clear: ``ldap:`` goes without StartTLS.
        :raise ValueError: it is none of these.
        """
        scheme, separator, rest = url.partition("://")
        rest = rest.removesuffix("/")
        if not separator or scheme not in ("ldaps", "ldap", "ldapi"):
            raise ValueError(f"{url!r} does not begin with ldaps://, ldap:// or ldapi://")
        if scheme == "ldapi":
            path = unquote(rest)
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"{url!r} names no socket; write ldapi:///run/slapd/ldapi")
            return cls(url, "", 0, "none", path)
        host, port = _host_and_port(rest, {"ldaps": 636, "ldap": 389}[scheme])
        if scheme == "ldaps":
            return cls(url, host, port, "first")
        return cls(url, host, port, "none" if in_clear else "start")


def _host_and_port(text: str, standard: int) -> tuple[str, int]:
    bracketed, closing, behind = text.removeprefix("[").partition("]")
    host, port = (bracketed, behind) if closing else (text, "")
    if not closing and ":" in text:
        host, _, number = text.rpartition(":")
        port = f":{number}"
    if closing:
        ip_address(host)
    elif not host or not all(part.replace("-", "a").replace("_", "a").isalnum() for part in host.split(".")):
        raise ValueError(f"{host!r} is no host")
    if not port:
        return host, standard
    if not port[1:].isdecimal() or not port.isascii() or not 0 < int(port[1:]) < 65536:
        raise ValueError(f"{port!r} is no port")
    return host, int(port[1:])


@frozen(kw_only=True)
class Login:
    """Whom searches are made as: a name with its password in a file, or nobody."""

    dn: str = ""
    password_file: Path | None = None

    def password(self) -> str:
        """Read anew for each connection: a new one needs no restart.

        :raise OSError, ValueError: there is none.
        """
        return "" if self.password_file is None else first_line(self.password_file.read_bytes())


@mutable
class _Server:
    address: Address
    rests_until: float = 0.0


class Directory:
    """Connections to whichever server answers."""

    def __init__(
        self,
        reactor: Any,
        realm: str,
        addresses: Sequence[Address],
        login: Login,
        *,
        ca_file: Path | None = None,
        connections: int = 4,
        connect_seconds: float = 3.0,
        seconds: float = 3.0,
    ) -> None:
        """
        :param realm: for the log.
        :param ca_file: PEM with the authorities that a server's certificate may be of; ``None`` for the
            system's.
        :param connections: of each kind, at most.
        :param connect_seconds: for a server to be connected to, TLS and login included.
        :param seconds: for each answer.
        :raise OSError, ValueError: a file cannot be used.
        """
        login.password()
        self._reactor = reactor
        self._realm = realm
        self._servers = [_Server(address) for address in addresses]
        self._login = login
        self._trust = _trust(ca_file)
        self._connect_seconds = connect_seconds
        self._seconds = seconds
        self._open: set[LDAPConnection] = set()
        self._stopped = False
        self.searches = Connections(reactor, lambda: self._connect(log_in=True), connections)
        self.binds = Connections(reactor, lambda: self._connect(log_in=False), connections)

    def stop(self) -> "Deferred[Any]":
        """End every connection; nobody asks any more."""
        self._stopped = True
        return DeferredList([connection.close() for connection in list(self._open)])

    async def _connect(self, *, log_in: bool) -> LDAPConnection:
        """To the first server that can be used.

        :raise Unavailable: none can.
        """
        reasons = []
        now = self._reactor.seconds()
        for server in sorted(self._servers, key=lambda server: server.rests_until > now):
            try:
                connection = await self._open_within(server.address, log_in)
            except Unavailable as error:
                reasons.append(f"{server.address.url}: {error}")
            else:
                server.rests_until = 0.0
                return connection
            if not server.rests_until and len(self._servers) > 1:
                log.emit(log.DIRECTORY_UNAVAILABLE, realm=self._realm, reason=reasons[-1])
            server.rests_until = self._reactor.seconds() + _REST
        raise Unavailable("; ".join(reasons))

    def _open_within(self, address: Address, log_in: bool) -> "Deferred[LDAPConnection]":
        def too_late(_: object, seconds: float) -> NoReturn:
            raise Unavailable(f"no connection in {seconds:g} s")

        return Deferred.fromCoroutine(self._open_one(address, log_in)).addTimeout(
            self._connect_seconds, self._reactor, too_late
        )

    async def _open_one(self, address: Address, log_in: bool) -> LDAPConnection:
        factory = Factory.forProtocol(lambda: LDAPConnection(self._reactor, self._seconds))
        factory.noisy = False
        try:
            connection: LDAPConnection = await self._endpoint(address).connect(factory)
        except CancelledError:
            raise
        except Exception as error:  # whatever resolving and connecting can come to
            raise Unavailable(f"cannot be connected to: {error}") from error
        self._open.add(connection)
        connection.gone.addBoth(lambda _: self._open.discard(connection))
        try:
            if self._stopped:
                raise Unavailable("the service stops")
            await self._secure(connection, address)
            if log_in and self._login.dn:
                await self._log_in(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _endpoint(self, address: Address) -> Any:
        if address.socket:
            return UNIXClientEndpoint(self._reactor, address.socket, timeout=self._connect_seconds)
        return HostnameEndpoint(self._reactor, address.host, address.port, timeout=self._connect_seconds)

    async def _secure(self, connection: LDAPConnection, address: Address) -> None:
        if address.tls == "none":
            return
        if address.tls == "start":
            answer = await connection.ask(lambda codec: codec.start_tls())
            if answer.code != SUCCESS:
                raise Unavailable(f"StartTLS was refused: {answer.text}")
        await connection.start_tls(
            optionsForClientTLS(
                address.host, self._trust, extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2}
            )
        )

    async def _log_in(self, connection: LDAPConnection) -> None:
        try:
            password = self._login.password()
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self._login.password_file}: {error}") from error
        answer = await connection.ask(lambda codec: codec.bind(self._login.dn, password))
        if answer.code != SUCCESS or answer.policy:
            raise Unavailable(f"the login as {self._login.dn} was refused: {answer.policy or answer.text}")


class Connections:
    """A bounded number of connections of one kind, each kept for whoever comes next."""

    def __init__(self, reactor: Any, connect: Callable[[], Awaitable[LDAPConnection]], number: int) -> None:
        self._reactor = reactor
        self._connect = connect
        self._slots = DeferredSemaphore(number)
        self._idle: list[LDAPConnection] = []  # the one used last is at the end

    async def use(self, talk: Callable[[LDAPConnection], Awaitable[T]]) -> T:
        """Talk over a connection that nobody else uses meanwhile.

        :param talk: may be begun anew: where a kept connection turns out to be gone.
        :raise Unavailable: there is none, or ``talk`` said so.
        """
        await self._slots.acquire()
        try:
            while (kept := self._kept()) is not None:
                try:
                    return await self._talk(kept, talk)
                except Lost:
                    continue  # the server has been restarted, or has had enough of an idle connection
            return await self._talk(await self._connect(), talk)
        finally:
            self._slots.release()

    async def _talk(self, connection: LDAPConnection, talk: Callable[[LDAPConnection], Awaitable[T]]) -> T:
        try:
            result = await talk(connection)
        except BaseException:
            connection.close()
            raise
        connection.idle_since = self._reactor.seconds()
        self._idle.append(connection)
        return result

    def _kept(self) -> LDAPConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and self._reactor.seconds() - connection.idle_since < _IDLE:
                return connection
            connection.close()
        return None


def _trust(ca_file: Path | None) -> Any:
    if ca_file is None:
        return platformTrust()
    try:
        authorities = load_pem_x509_certificates(ca_file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{ca_file} holds no CA certificates in PEM form: {error}") from error
    return trustRootFromCertificates(
        [Certificate.loadPEM(authority.public_bytes(Encoding.PEM)) for authority in authorities]
    )
