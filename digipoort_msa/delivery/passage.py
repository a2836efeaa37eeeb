"""One message on its way through to a next hop, step by step as its client speaks (RFC 5321 3.3).

Until the final dot the client may leave at any point: the hop forgets the transaction, or where content has
begun loses the connection, and delivers nothing.  That the hop itself has gone away is told to the client's
next RCPT, or at its end of data.

The hop is chosen before the content is known.  So it is told that 8-bit content may come where it takes that;
where it does not, the content is refused as soon as there is such an octet.  SIZE is what the client has
declared: our own ``Received:`` field is for the hop's final count.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.defer import TimeoutError as Expired
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.delivery import commands, failures, told
from digipoort_msa.delivery.abandonable import abandonable
from digipoort_msa.delivery.content_stream import ContentStream
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.lease import Lease
from digipoort_msa.delivery.opening import open_transaction
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Session
from digipoort_msa.interfaces import IIncoming
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.dot_stuffing import NotCanonical
from digipoort_msa.smtp.envelope import Envelope, Path, RcptParameters
from digipoort_msa.smtp.reply import Refused, Reply

T = TypeVar("T")

_LONGEST_WORDS = 200  # characters of the hop's, in the log


@implementer(IIncoming)
class Passage:
    """One message on its way through.

    One step at a time is under way at the hop: the server awaits each verdict, and content takes its turn.
    """

    def __init__(self, queue_id: str, relay: Relay, reactor: IReactorTime, patience: float) -> None:
        self.queue_id = queue_id
        self._relay = relay
        self._reactor = reactor
        self._patience = patience
        self._lease: Lease | None = None  # from MAIL's 2yz to the end, whatever that is
        self._stream: ContentStream | None = None  # from DATA's 354 to the final dot
        self._turn = DeferredLock()  # of the parts of the content
        self._asking = False  # the hop owes us a reply
        self._refused: Refused | None = None  # the transaction is over: what the client is told from then on
        self._smtputf8 = False  # the client's MAIL declared it

    # -- IIncoming ----------------------------------------------------------------------------------

    def sender(self, envelope: Envelope) -> "Deferred[None]":
        self._smtputf8 = envelope.parameters.smtputf8
        verdict = abandonable(Deferred.fromCoroutine(self._open(envelope)))
        verdict.addTimeout(self._patience, self._reactor)
        return verdict.addErrback(_too_long)

    def recipient(self, path: Path, parameters: RcptParameters) -> "Deferred[None]":
        return abandonable(Deferred.fromCoroutine(self._rcpt(path, parameters)))

    def write(self, octets: bytes) -> "Deferred[None] | None":
        if self._refused is not None:
            return None
        writing = Deferred.fromCoroutine(self._in_turn(self._send(octets))).addErrback(self._not_sent)
        return None if writing.called else writing

    def commit(self, envelope: Envelope) -> "Deferred[str]":
        return Deferred.fromCoroutine(self._in_turn(self._end()))

    def abort(self) -> None:
        self._give_up(Refused(reply.LOCAL_ERROR, str(failures.ABANDONED)))

    # -- MAIL ---------------------------------------------------------------------------------------

    async def _open(self, envelope: Envelope) -> None:
        self._lease = lease = await open_transaction(self._relay, envelope)
        lease.session.connection.closed.addCallback(lambda _: self._closed(lease))

    # -- RCPT ---------------------------------------------------------------------------------------

    async def _rcpt(self, path: Path, parameters: RcptParameters) -> None:
        session = self._session()
        if not path.is_ascii and "SMTPUTF8" not in session.extensions:
            raise Refused(reply.HOP_TAKES_NO_UTF8_ADDRESS, session.hop.name)
        command = commands.rcpt(session, path, parameters, smtputf8=self._smtputf8)
        try:
            said = await self._ask(command, session.connection.timeouts.rcpt)
            commands.verdict(session.connection, said)
        except HopFailure as failure:
            raise self._give_up(told.lost(session, failure)) from None
        if not said.positive:
            raise told.passed_on(session, said)

    # -- content ------------------------------------------------------------------------------------

    async def _send(self, octets: bytes) -> None:
        session = self._session()
        if not octets.isascii():
            self._check_eight_bit(session)
        if self._stream is None:
            said = await self._ask(commands.DATA, session.connection.timeouts.data)
            if not said.positive:
                raise told.passed_on(session, said)
            commands.expect(session.connection, said, 354)
            self._stream = ContentStream(session.connection)
        await self._stream.write(octets)

    def _check_eight_bit(self, session: Session) -> None:
        """:raise Refused: the hop does not take it unaltered."""
        if "8BITMIME" not in session.extensions:
            raise Refused(reply.HOP_TAKES_NO_8BIT, session.hop.name)
        if self._smtputf8 and "SMTPUTF8" not in session.extensions:
            raise Refused(reply.HOP_TAKES_NO_UTF8_HEADER, session.hop.name)

    def _not_sent(self, failure: Failure) -> None:
        """A part of the content did not go out: no further one may, and no final dot.  That is told there."""
        if self._refused is None:
            self._give_up(self._reason(failure))

    def _reason(self, failure: Failure) -> Refused:
        error = failure.value
        if isinstance(error, Refused):
            return error
        if isinstance(error, HopFailure):
            return told.lost(self._session(), error)
        if isinstance(error, NotCanonical):
            return Refused(reply.BARE_CR_OR_LF)
        log.failure(log.DEFECT, failure, where=f"sending {self.queue_id} on")
        return Refused(reply.LOCAL_ERROR)

    async def _in_turn(self, step: Coroutine[Any, Any, T]) -> T:
        try:
            await self._turn.acquire()
        except BaseException:
            step.close()
            raise
        try:
            return await step
        finally:
            self._turn.release()

    # -- the end of data ----------------------------------------------------------------------------

    async def _end(self) -> str:
        """
        :return: who has the message, and what it calls it.
        :raise Refused: nobody has it; or nobody knows, which is logged.
        """
        session = self._session()
        if self._stream is None:
            raise RuntimeError("a message without content")
        try:
            self._stream.end()
        except NotCanonical:
            raise self._give_up(Refused(reply.UNTERMINATED)) from None
        except HopFailure as failure:
            raise self._give_up(told.lost(session, failure)) from None
        self._stream = None
        said = await self._last_word(session)
        session.reset_needed = False
        refused = None if said.positive else told.passed_on(session, said)
        self._give_up(refused or Refused(reply.LOCAL_ERROR, "the message has been sent"))
        if refused is not None:
            raise refused
        return f"{session.hop.name} ({str(said)[:_LONGEST_WORDS]})"

    async def _last_word(self, session: Session) -> Reply:
        """The hop has the whole message, and its word decides."""
        connection = session.connection
        self._asking = True
        try:
            said = commands.verdict(connection, await connection.reply(connection.timeouts.termination))
        except HopFailure as failure:
            if failure.reply.code != 421:
                log.emit(
                    log.DUPLICATE_POSSIBLE,
                    queue_id=self.queue_id,
                    hop=connection.hop,
                    reply=str(failure.reply),
                )
            raise self._give_up(told.lost(session, failure)) from None
        self._asking = False
        return said

    # -- the hop ------------------------------------------------------------------------------------

    def _session(self) -> Session:
        """:raise Refused: the transaction is over."""
        if self._refused is not None:
            raise self._refused
        if self._lease is None:
            raise RuntimeError("no transaction is open at a hop")
        return self._lease.session

    async def _ask(self, command: bytes, seconds: float) -> Reply:
        connection = self._session().connection
        connection.send(command)
        self._asking = True
        said = await connection.reply(seconds)
        self._asking = False
        return said

    def _closed(self, lease: Lease) -> None:
        """The hop was lost while it waited for the client: that may be why, and is not held against it."""
        if self._lease is lease:
            failure = lease.session.connection.failure or failures.ABANDONED
            self._give_up(told.lost(lease.session, HopFailure(failure)), blame=False)

    def _give_up(self, refused: Refused, *, blame: bool = True) -> Refused:
        """The transaction is over.  What the hop does not have whole, it is to forget.

        :param refused: what the client is told from now on.
        """
        self._refused = self._refused or refused
        lease, self._lease = self._lease, None
        if lease is None:
            return refused
        connection, stream = lease.session.connection, self._stream
        if stream is not None or self._asking:
            connection.fail(failures.ABANDONED)
        if stream is not None:
            stream.close()
        if connection.usable and lease.session.reset_needed:
            Deferred.fromCoroutine(_reset(lease))
        else:
            lease.hand_back(blame=blame)
        return refused


async def _reset(lease: Lease) -> None:
    """Have the hop forget an open transaction, then hand the session back."""
    connection = lease.session.connection
    try:
        connection.send(commands.RSET)
        commands.expect(connection, await connection.reply(connection.timeouts.mail), 250)
        lease.session.reset_needed = False
    except HopFailure:
        pass  # the connection is gone, and the transaction with it
    finally:
        lease.hand_back()


def _too_long(failure: Failure) -> None:
    failure.trap(Expired)
    raise Refused(reply.NO_HOP, "no hop has answered MAIL in time")
