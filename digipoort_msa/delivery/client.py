"""One connection to a next hop: commands out, replies in, every wait timed.

The dialogues above it (``session`` and ``transaction``) are coroutines that read top to bottom; this protocol
gives them three things to do, ``send``, ``reply`` and, by ``content_stream``, a content; and one way to end:
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
from collections.abc import Iterable
from typing import Any, TypeVar

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.tls import Handshake, Unverified
from digipoort_msa.delivery.watch import Watch
from digipoort_msa.smtp.reply import Reply
from digipoort_msa.smtp.reply_parser import ProtocolError, ReplyParser

T = TypeVar("T")

_LONGEST_REFUSAL = 1_000  # characters


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
        self._watch = Watch(reactor)
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._awaited = 1  # commands sent, the connection itself included, that have no reply yet
        self._waiting: Deferred[Any] | None = None  # what the dialogue waits for now
        self._failure: Reply | None = None
        self._streaming = False
        self._producing = False  # the transport says when it has room
        self._handshake: Handshake | None = None  # the one under way
        self._proof = ""  # of the one that is done
        self._secrets: tuple[str, ...] = ()
        self._leaving = False  # QUIT is under way
        self._paused: Deferred[None] | None = None

    # -- the dialogue's side ------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return self._failure is None and not self._leaving

    @property
    def failure(self) -> Reply | None:
        """Why the connection is gone; ``None`` while it is not."""
        return self._failure

    @property
    def tls(self) -> str:
        """The version and cipher suite in use, or "no TLS", for the log."""
        handle = getattr(self.transport, "getHandle", lambda: None)()
        if handle is None or not hasattr(handle, "get_cipher_name"):
            return "no TLS"
        used = f"{handle.get_protocol_version_name()} {handle.get_cipher_name()}"
        return f"{used}, {self._proof}" if self._proof else used

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
            await self.wait(Deferred(), seconds)
        reply = self._replies.popleft()
        if reply.code == 421:
            self.fail(reply)
            raise HopFailure(reply)
        return reply

    async def command(self, line: bytes, seconds: float) -> Reply:
        """Send one command, without its CR LF, and wait for its reply."""
        self.send(line + b"\r\n")
        return await self.reply(seconds)

    async def start_tls(self, handshake: Handshake) -> None:
        """Put TLS under the connection and forget all that came in clear.

        :raise HopFailure: octets came in clear behind the reply, the handshake failed, or the peer is not
            proven to be the hop.
        """
        if self._parser.pending or self._replies:
            self.fail(failures.out_of_step(self.hop, "it sent text in clear where TLS begins"))
        self._check()
        self._handshake = handshake
        self.transport.startTLS(handshake)
        await self.wait(Deferred(), self.timeouts.tls)
        try:
            handshake.verify()
        except Unverified as error:
            self.fail(failures.tls_failed(self.hop, str(error)))
        self._check()
        self._handshake, self._proof = None, handshake.proof
        self._parser = ReplyParser()

    def conceal(self, secrets: Iterable[str]) -> None:
        """From now on, show none of these where the hop says them."""
        self._secrets = tuple(sorted(filter(None, secrets), key=len, reverse=True))

    def begin_content(self, replies: int) -> None:
        """What goes out from now on is content.

        :param replies: how many are due to its end; one that comes sooner breaks the content off.
        """
        self._awaited += replies
        self._streaming = True

    def write_content(self, octets: bytes) -> None:
        """A part of the content as it goes onto the wire; the next one waits for :meth:`room`.

        :raise HopFailure: the connection failed; the hop's early reply among the causes.
        """
        self._check()
        if not self._producing:
            self.transport.registerProducer(self, True)
            self._producing = True
        self.transport.write(octets)

    async def room(self) -> None:
        """Wait until the transport takes more.

        :raise HopFailure: the connection failed, or the hop took nothing for too long.
        """
        while self._paused is not None:
            await self.wait(self._paused, self.timeouts.block)

    def end_content(self, octets: bytes) -> None:
        """The last part of the content, its end of data included; the replies to that are then awaited.

        :raise HopFailure: as :meth:`write_content`.
        """
        if self._parser.pending:
            self.fail(failures.out_of_step(self.hop, "a part of a reply came before the end of data"))
        self._check()
        self._streaming = False
        self.transport.write(octets)

    def leave_content(self) -> None:
        """The content has come to its end, or to grief."""
        if self._producing:
            self.transport.unregisterProducer()
            self._producing = False

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

    async def wait(self, deferred: "Deferred[T]", seconds: float) -> T:
        """Wait for one thing, such as a content's next segment.

        :raise HopFailure: the connection failed meanwhile, or the time is up, and it is cancelled.
        """
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
        if self._handshake is not None:
            self.fail(failures.out_of_step(self.hop, "text came before TLS was up"))
            return
        self._parser.feed(data)
        came = 0
        failure: Reply | None = None
        try:
            while (reply := self._parser.next_reply()) is not None:
                if self._secrets or reply.code >= 400:
                    reply = self._shown(reply)
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
            cause = str(error).partition(":")[0] if self._secrets else str(error)  # without an excerpt
            failure = failures.out_of_step(self.hop, cause)
        if failure is not None:
            self.fail(failure)
        elif came:
            self._wake()

    def _shown(self, reply: Reply) -> Reply:
        """The reply as others may see and keep it: without our secrets, and a refusal without many words,
        since a refusal is kept for each recipient."""
        lines = reply.lines
        for secret in self._secrets:
            lines = tuple(line.replace(secret, "[concealed]") for line in lines)
        if reply.code >= 400 and sum(map(len, lines)) > _LONGEST_REFUSAL:
            lines = (" / ".join(lines)[:_LONGEST_REFUSAL] + "...",)
        return reply if lines == reply.lines else Reply(reply.code, reply.enhanced, lines)

    def handshakeCompleted(self) -> None:
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._watch.end()
        if self._failure is None:
            objection = self._handshake.objection if self._handshake is not None else None
            failed = failures.tls_failed if self._handshake or reason.check(SSL.Error) else failures.lost
            self._failure = failed(self.hop, objection or _sentence(reason))
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


def _sentence(reason: Failure) -> str:
    """Why a connection was lost, as the log says it."""
    if reason.check(ConnectionDone):
        return "the hop closed it"
    error = reason.value
    if isinstance(error, SSL.Error) and error.args and error.args[0]:  # OpenSSL's error queue
        text = "; ".join(str(entry[-1]) for entry in error.args[0])
        if "alert" in text:
            return f"{text}: it may want another certificate of ours (settings certificate and private-key)"
        return text
    return reason.getErrorMessage() or type(error).__name__
