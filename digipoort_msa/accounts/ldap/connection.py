"""One connection to a directory server.

It has one request at a time, and each has its seconds.  What comes too late, what makes no sense and whoever
gives up on an answer all end the connection: what follows could be taken for the answer to something else.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.accounts.ldap.codec import Answer, Codec, NotLDAP
from digipoort_msa.interfaces import Unavailable

_GOODBYE = 1.0  # seconds that a server has to close after us


class Lost(Unavailable):
    """The server closed the connection, or is gone."""


@implementer(IHandshakeListener)
class LDAPConnection(Protocol):
    """Made by an endpoint."""

    def __init__(self, reactor: IReactorTime, seconds: float) -> None:
        """:param seconds: that the server has for each answer."""
        self.idle_since = 0.0  # for whoever keeps it
        self._reactor = reactor
        self._seconds = seconds
        self._codec = Codec()
        self._waiting: Deferred[Any] | None = None  # for an answer, or the end of a handshake
        self._lost: Failure | None = None
        self.gone: Deferred[None] = Deferred()
        self._aborting: IDelayedCall | None = None

    @property
    def usable(self) -> bool:
        return self._lost is None and self._waiting is None

    def ask(self, request: Callable[[Codec], bytes]) -> "Deferred[Answer]":
        """Send a request.  Cancelling it ends the connection.

        :param request: makes it, of the codec.
        :raise Lost: (as the failure) there is no connection any more.
        :raise Unavailable: (as the failure) there is no answer in time, or none that makes sense.
        """
        try:
            octets = request(self._codec)
        except NotLDAP as error:
            self._end(Unavailable(str(error)))
            octets = b""
        answer = self._wait("no answer")
        if self._lost is None:
            self._transport.write(octets)
        return answer

    def start_tls(self, options: object) -> "Deferred[None]":
        """Go on under TLS.  All that was known of the connection before is forgotten.

        :param options: ``IOpenSSLClientConnectionCreator``, which verifies the server.
        :raise Unavailable: (as the failure) the server is not proven to be who it should be.
        """
        self._codec.close()
        self._codec = Codec()
        handshake = self._wait("the TLS handshake did not end")
        if self._lost is None:
            self._transport.startTLS(options)
        return handshake

    def close(self) -> "Deferred[None]":
        """End it, politely where the server takes note.

        :return: fires when it is gone.
        """
        if self._lost is None:
            self._lost = Failure(Lost("the connection was closed here"))
            self._transport.write(self._codec.close())
            self._transport.loseConnection()
            self._aborting = self._reactor.callLater(_GOODBYE, self._transport.abortConnection)
            self._answer(self._lost)
        return self.gone

    # -- Protocol ----------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._lost is not None:
            return
        try:
            answer = self._codec.receive(data)
        except NotLDAP as error:
            self._end(Unavailable(str(error)))
            return
        if answer is not None:
            self._answer(answer)

    def handshakeCompleted(self) -> None:
        self._answer(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._aborting is not None and self._aborting.active():
            self._aborting.cancel()
        if self._lost is None:
            self._lost = Failure(_lost(reason))
            self._answer(self._lost)
        self._codec.close()
        self.gone.callback(None)

    # ----------------------------------------------------------------------------------------------------

    def _wait(self, otherwise: str) -> "Deferred[Any]":
        """
        :param otherwise: what is said when the seconds are over.
        """

        def too_late(_: object, seconds: float) -> NoReturn:
            raise Unavailable(f"{otherwise} in {seconds:g} s")

        waiting: Deferred[Any] = Deferred(lambda _: self._end(CancelledError()))
        self._waiting = waiting
        if self._lost is not None:
            self._answer(self._lost)
        return waiting.addTimeout(self._seconds, self._reactor, too_late)

    def _answer(self, result: object) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(result)

    def _end(self, error: Exception) -> None:
        """There is no more to be had of this connection."""
        if self._lost is None:
            self._lost = Failure(error)
            self._transport.abortConnection()
            self._answer(self._lost)

    @property
    def _transport(self) -> Any:
        """TCP, TLS or a unix socket, and connected."""
        return self.transport


def _lost(reason: Failure) -> Exception:
    error = reason.value
    if isinstance(error, VerificationError):
        return Unavailable("its certificate names another host")
    if isinstance(error, SSL.Error):
        reasons = _openssl(error.args)
        if "certificate verify failed" in reasons:
            reasons += " (it has expired, or its authority is not trusted here; the setting ca names who is)"
        return Unavailable(f"TLS failed: {reasons}")
    if reason.check(ConnectionDone):
        return Lost("the server closed the connection")
    return Lost(f"the connection was lost: {reason.getErrorMessage()}")


def _openssl(arguments: Iterable[Any]) -> str:
    """OpenSSL's reasons, without its functions."""
    errors = next(iter(arguments), ())
    reasons = [error[-1] for error in errors if isinstance(error, tuple) and error]
    return "; ".join(map(str, reasons)) or "it was ended by the server"
