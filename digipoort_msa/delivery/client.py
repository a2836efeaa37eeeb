"""One connection to a next hop: commands out, replies in, every wait timed.

The dialogues above it (``session`` and ``transaction``) are coroutines that read top to bottom; this protocol
gives them three things to do, ``send``, ``reply`` and ``send_content``, and one way to end:
:class:`~digipoort_msa.delivery.failures.HopFailure`.

The rules that hold for every dialogue:

- a reply counts only if its command was sent before it came.  All replies of one reception are taken together
  before anyone acts on the first, so that a hop cannot answer a command that it has not seen; octets behind
  the 220 of STARTTLS are the best-known case (NO STARTTLS, 2021).
- what breaks the rules drops the connection, and nobody reads any further.
- 421 ends the connection whatever it answers (RFC 5321 3.8).
- a connection that fails while content is sent is dropped without the final dot, and so delivers nothing.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import frozen
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.interfaces import IContentReader
from digipoort_msa.smtp.dot_stuffing import DotStuffing
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.reply_parser import ProtocolError, ReplyParser

T = TypeVar("T")


@frozen
class Timeouts:
    """How long each step may take, in seconds: RFC 5321 4.5.3.2, and ours where it names none."""

    connect: float = 30.0  # name resolution and TCP
    greeting: float = 300.0
    ehlo: float = 300.0
    tls: float = 60.0
    auth: float = 120.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0  # until the 354
    block: float = 180.0  # each segment of content
    termination: float = 600.0  # from the final dot to its reply
    quit: float = 10.0


@implementer(IHandshakeListener, IPushProducer)
class ClientConnection(Protocol):
    """One connection.  Its first reply, the greeting, is awaited from the start.

    :ivar closed: a Deferred that fires with ``None`` when the connection is gone.
    """

    transport: Any

    def __init__(self, reactor: IReactorTime, hop: str, timeouts: Timeouts) -> None:
        """:param hop: the hop's name, for replies and the log."""
        self.hop = hop
        self.timeouts = timeouts
        self.closed: Deferred[None] = Deferred()
        self._watch = _Watch(reactor)
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._awaited = 1  # commands sent, the connection itself included, that have no reply yet
        self._waiting: Deferred[Any] | None = None  # what the dialogue waits for now
        self._failure: Reply | None = None
        self._streaming = False
        self._handshaking = False
        self._leaving = False  # QUIT is under way
        self._paused: Deferred[None] | None = None

    # -- the dialogue's side ------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return self._failure is None and not self._leaving

    @property
    def tls(self) -> str:
        """The version and cipher suite in use, or "no TLS", for the log."""
        handle = getattr(self.transport, "getHandle", lambda: None)()
        if handle is None or not hasattr(handle, "get_cipher_name"):
            return "no TLS"
        return f"{handle.get_protocol_version_name()} {handle.get_cipher_name()}"

    def send(self, octets: bytes, replies: int = 1) -> None:
        """Send commands, as one write.

        :param replies: how many commands they are.
        :raise HopFailure: the connection is gone, or the hop spoke before it was asked.
        """
        if self._parser.pending and not self._awaited:
            self.fail(failures.out_of_step(self.hop, "a reply came before its command"))
        self._check()
        self._awaited += replies
        self.transport.write(octets)

    async def reply(self, seconds: float) -> Reply:
        """The next reply, waiting for it at most ``seconds``.

        :raise HopFailure: there is none, or it is 421.
        """
        if not self._replies:
            await self._wait(Deferred(), seconds)
        reply = self._replies.popleft()
        if reply.code == 421:
            self.fail(reply)
            raise HopFailure(reply)
        return reply

    async def command(self, line: bytes, seconds: float) -> Reply:
        """Send one command, without its CR LF, and wait for its reply."""
        self.send(line + b"\r\n")
        return await self.reply(seconds)

    async def start_tls(self, options: IOpenSSLClientConnectionCreator) -> None:
        """Put TLS under the connection and forget all that came in clear.

        :raise HopFailure: octets came in clear behind the reply, the handshake failed, or the peer is not
            the one that ``options`` verify.
        """
        if self._parser.pending:
            self.fail(failures.out_of_step(self.hop, "it sent text in clear behind its reply to STARTTLS"))
        self._check()
        self._handshaking = True
        self.transport.startTLS(options)
        await self._wait(Deferred(), self.timeouts.tls)
        self._handshaking = False
        self._parser = ReplyParser()

    async def send_content(self, reader: IContentReader, size: int) -> None:
        """Stream a content into DATA, its end of data too; the reply to that is then awaited.

        A segment is read only when the transport has room, so that one segment is all that is held.

        :param size: octets in ``reader``.  A reading that ends sooner or goes on longer is never finished.
        :raise HopFailure: the connection failed; the hop's early reply among the causes.
        :raise NotCanonical: nothing more can be sent; the caller drops the connection.
        :raise Exception: what the reader raised; likewise, and :class:`EOFError` where ``size`` is wrong.
        """
        stuffing = DotStuffing()
        sent = 0
        producing = False
        self._awaited += 1
        self._streaming = True
        try:
            while sent < size:
                self._check()
                segment = await self._wait(reader.read(), self.timeouts.block)
                sent += len(segment)
                if not segment or sent > size:
                    raise EOFError(f"a content of {size} octets read as {sent}{'' if segment else ' only'}")
                octets = stuffing.stuff(segment)
                if sent < size:
                    if not producing:
                        self.transport.registerProducer(self, True)
                        producing = True
                    self.transport.write(octets)
                    if self._paused is not None:
                        await self._wait(self._paused, self.timeouts.block)
            end = stuffing.end()
            self._check()
            self._streaming = False
            self.transport.write(octets + end if size else end)
        finally:
            if producing:
                self.transport.unregisterProducer()

    def fail(self, reply: Reply) -> None:
        """Drop the connection at once; ``reply`` is what everything that waits or comes later gets."""
        if self._failure is None:
            self._failure = reply
            self._watch.stop()
            self.transport.abortConnection()
            self._wake()

    def rest(self, seconds: float) -> None:
        """The dialogue pauses: QUIT if nothing is sent for ``seconds``.

        One that broke off before its replies came ends here: the next would take them for its own.
        """
        if self._awaited or self._replies:
            self.fail(failures.lost(self.hop, "a dialogue broke off"))
            return
        self._watch.start(seconds, self.quit)

    def quit(self) -> None:
        """Take leave (RFC 5321 4.1.1.10); ``closed`` tells when it is over."""
        if self.usable:
            self._leaving = True
            Deferred.fromCoroutine(self._quit())

    async def _quit(self) -> None:
        try:
            await self.command(b"QUIT", self.timeouts.quit)
        except HopFailure:
            return
        self._failure = failures.lost(self.hop, "it was closed")
        self._watch.start(self.timeouts.quit, self.transport.abortConnection)
        self.transport.loseConnection()

    # -- waiting ------------------------------------------------------------------------------------

    async def _wait(self, deferred: "Deferred[T]", seconds: float) -> T:
        """Wait for one thing; a failure of the connection ends the wait."""
        self._check()
        self._waiting = deferred
        self._watch.start(seconds, self._timed_out, seconds)
        try:
            return await deferred
        except CancelledError:
            self.fail(failures.STOPPING)  # unless it was a failure that woke us
            raise HopFailure(self._failure or failures.STOPPING) from None
        finally:
            self._waiting = None
            self._watch.stop()

    def _wake(self) -> None:
        """Something happened: whoever waits for it goes on."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if self._failure is not None and not self._replies:
            waiting.cancel()
        else:
            waiting.callback(None)

    def _check(self) -> None:
        if self._failure is not None:
            raise HopFailure(self._failure)

    def _timed_out(self, seconds: float) -> None:
        self.fail(failures.timed_out(self.hop, seconds))

    # -- the transport's side -----------------------------------------------------------------------

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        if self._failure is not None:
            return
        if self._handshaking:
            self.fail(failures.out_of_step(self.hop, "text came before TLS was up"))
            return
        self._parser.feed(data)
        came = 0
        failure: Reply | None = None
        try:
            while (reply := self._parser.next_reply()) is not None:
                if self._streaming:
                    # The hop gave up on the content; 2yz would be a promise for what it has not seen.
                    failure = reply if reply.code >= 400 else failures.out_of_step(self.hop, f"early {reply}")
                    break
                if not self._awaited:
                    failure = (
                        reply if reply.code == 421 else failures.out_of_step(self.hop, f"unasked {reply}")
                    )
                    break
                self._awaited -= 1
                self._replies.append(reply)
                came += 1
        except ProtocolError as error:
            failure = failures.out_of_step(self.hop, str(error))
        if failure is not None:
            self.fail(failure)
        elif came:
            self._wake()

    def handshakeCompleted(self) -> None:
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._watch.end()
        if self._failure is None:
            failed = failures.tls_failed if self._handshaking else failures.lost
            self._failure = failed(self.hop, _sentence(reason))
            self._wake()
        self.closed.callback(None)

    def pauseProducing(self) -> None:
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    def stopProducing(self) -> None:
        """The connection is about to be lost: ``connectionLost`` tells the dialogue."""


class _Watch:
    """One deadline at a time.  A delayed call that is already due no later than the deadline is kept and
    looks again when it fires, so that a wait that ends in time costs no call in the reactor."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._deadline: float | None = None
        self._due = 0.0  # of the call
        self._action: Callable[..., object] = lambda: None
        self._arguments: tuple[object, ...] = ()

    def start(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        self._action = action
        self._arguments = arguments
        self._deadline = self._reactor.seconds() + seconds
        if self._call is not None and self._due > self._deadline:
            self._call.cancel()
            self._call = None
        if self._call is None:
            self._schedule(self._deadline, seconds)

    def stop(self) -> None:
        self._deadline = None

    def end(self) -> None:
        """No deadline will come any more."""
        self._deadline = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self, due: float, seconds: float) -> None:
        self._due = due
        self._call = self._reactor.callLater(seconds, self._fired)

    def _fired(self) -> None:
        self._call = None
        if self._deadline is None:
            return
        left = self._deadline - self._reactor.seconds()
        if left > 0:
            self._schedule(self._deadline, left)
        else:
            self._deadline = None
            self._action(*self._arguments)


def _sentence(reason: Failure) -> str:
    """Why a connection was lost, as the log says it."""
    if reason.check(ConnectionDone):
        return "the hop closed it"
    error = reason.value
    if isinstance(error, VerificationError):
        return "its certificate names another host"
    if isinstance(error, SSL.Error) and error.args and error.args[0]:  # OpenSSL's error queue
        return "; ".join(str(entry[-1]) for entry in error.args[0])
    return reason.getErrorMessage() or type(error).__name__
