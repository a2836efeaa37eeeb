"""One message over a session: MAIL, RCPT, DATA, with a verdict for each recipient (RFC 5321 3.3, RFC 2920).

A hop with PIPELINING gets the whole envelope in one write; a long one in several, so that neither side has
to hold more than a group's replies.  Without PIPELINING each command waits for its reply.

What the hop cannot take unaltered is refused here, for the recipients it concerns: 8-bit content without
8BITMIME (RFC 6152), addresses or header fields outside ASCII without SMTPUTF8 (RFC 6531), a message above its
SIZE (RFC 1870).  No octet and no domain is ever converted.
"""

from collections.abc import Iterator, Mapping

from attrs import define, field, frozen

from digipoort_msa import log
from digipoort_msa.delivery import commands, failures
from digipoort_msa.delivery.content_stream import send_content
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.session import Extensions, Session
from digipoort_msa.interfaces import Damaged, IContent
from digipoort_msa.smtp.dot_stuffing import NotCanonical
from digipoort_msa.smtp.envelope import Arrival, Envelope, Outcome, Path
from digipoort_msa.smtp.reply import Reply

_LONGEST_GROUP = 16_384  # octets of commands in one write


#: What a hop says to MAIL or RCPT where it wants us to log in, or to log in better (RFC 4954 6, RFC 3207 4).
_LOGIN_WANTED = frozenset({530, 534, 535, 538})


async def transact(session: Session, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
    """Offer a message to the hop, once.

    :return: an outcome for every recipient.  It is a 2yz only if the hop gave one to the end of data.
    :raise HopFailure: the hop went away before it answered anything of this transaction, so that another
        connection may be tried; no content was sent.
    """
    return outcomes(session, await Transaction(session, envelope, content).run(), Arrival.RELAYED)


def outcomes(session: Session, replies: Mapping[Path, Reply], usual: Arrival) -> Mapping[Path, Outcome]:
    """What the replies of a transaction come to.

    :param usual: what a 2yz of a hop without DSN means.
    """
    arrival = Arrival.PASSED_ON if "DSN" in session.extensions else usual
    return {path: Outcome(reply, session.hop.name, arrival) for path, reply in replies.items()}


@frozen
class _Group:
    """Commands that go out as one write."""

    lines: list[bytes]
    recipients: tuple[Path, ...] = ()
    mail: bool = False
    data: bool = False


@define
class Transaction:
    """By SMTP: one reply to the end of data decides for everyone."""

    session: Session
    envelope: Envelope
    content: IContent
    replies: dict[Path, Reply] = field(factory=dict)  # what is decided
    accepted: list[Path] = field(factory=list)  # by RCPT; the end of data decides
    answered: bool = False  # the hop has said something about this message
    _in_step: bool = False  # DATA was answered with 354: the replies before it were those of their commands
    _smtputf8: bool = field(init=False)  # MAIL declares it

    def __attrs_post_init__(self) -> None:
        self._smtputf8 = "SMTPUTF8" in self.session.extensions and _international(self.envelope, self.content)

    async def run(self) -> Mapping[Path, Reply]:
        self.replies.update(self._unsuitable())
        recipients = [path for path in dict.fromkeys(self.envelope.recipients) if path not in self.replies]
        if not recipients:
            return self.replies
        self.session.transactions += 1
        try:
            await self._offer(recipients)
        except HopFailure as failure:
            if not self.answered:
                raise
            if not self._in_step and failures.is_out_of_step(failure.reply):
                # The replies were too many or too few: each may have been another recipient's.
                self.replies = dict(self._unsuitable())
            self._decide(recipients, failure.reply)
        return self.replies

    def _unsuitable(self) -> Mapping[Path, Reply]:
        return unsuitable(self.envelope, self.content, self.session.extensions)

    async def _offer(self, recipients: list[Path]) -> None:
        connection, timeouts = self.session.connection, self.session.connection.timeouts
        for group in self._groups(recipients):
            if not (group.mail or group.recipients or self.accepted):
                return
            reset = group.mail and self.session.reset_needed
            lines = [commands.RSET, *group.lines] if reset else group.lines
            connection.send(b"".join(lines), len(lines))
            if reset:
                self._expect(await connection.reply(timeouts.mail), 250)
                self.session.reset_needed = False
            if group.mail:
                mail = self._verdict(await connection.reply(timeouts.mail))
                self.answered = True
                self.session.reset_needed = mail.positive
                if not mail.positive:
                    self._decide(recipients, mail)
            for path in group.recipients:
                reply = self._verdict(await connection.reply(timeouts.rcpt))
                if reply.positive and path not in self.replies:
                    self.accepted.append(path)
                else:
                    self.replies.setdefault(path, reply)
            if group.data:
                await self._content(await connection.reply(timeouts.data))
            elif not mail.positive:
                return

    async def _content(self, reply: Reply) -> None:
        """DATA was answered."""
        connection = self.session.connection
        if not reply.positive:
            self._decide(self.accepted, reply)
            return
        self._expect(reply, 354)
        self._in_step = True
        if not self.accepted:
            await self._no_content()
            return
        reader = self.content.open()
        try:
            await send_content(connection, reader, self.content.size, self._replies_due())
        except HopFailure:
            raise
        except NotCanonical:
            connection.fail(failures.NOT_CANONICAL)
            raise HopFailure(failures.NOT_CANONICAL) from None
        except Damaged:
            connection.fail(failures.UNREADABLE)
            raise  # no hop's failure: the queue holds the message
        except Exception as error:
            log.failure(log.DEFECT, None, where=f"reading {self.envelope.queue_id} from the spool")
            connection.fail(failures.UNREADABLE)
            raise HopFailure(failures.UNREADABLE) from error
        finally:
            reader.close()
        await self._end_of_data()

    async def _no_content(self) -> None:
        """Nobody is left, but the hop waits for a content: it gets none (RFC 2920 3.1)."""
        connection = self.session.connection
        connection.send(b".\r\n")
        await connection.reply(connection.timeouts.termination)
        self.session.reset_needed = False

    def _replies_due(self) -> int:
        """To the end of data."""
        return 1

    async def _end_of_data(self) -> None:
        """The hop has the whole content; what it says now decides for all that it accepted."""
        connection = self.session.connection
        try:
            reply = self._verdict(await connection.reply(connection.timeouts.termination))
        except HopFailure as failure:
            if failure.reply.code != 421:
                self._left_in_doubt(failure.reply)
            raise
        self.session.reset_needed = False
        self._decide(self.accepted, reply)

    def _left_in_doubt(self, reply: Reply) -> None:
        """Nobody knows whether the hop has the message."""
        log.emit(
            log.DUPLICATE_POSSIBLE,
            queue_id=self.envelope.queue_id,
            hop=self.session.connection.hop,
            reply=str(reply),
        )

    def _groups(self, recipients: list[Path]) -> Iterator[_Group]:
        if "PIPELINING" not in self.session.extensions:
            yield _Group([self._mail()], mail=True)
            for path in recipients:
                yield _Group([self._rcpt(path)], (path,))
            yield _Group([commands.DATA], data=True)
            return
        lines, octets, mail = [self._mail()], 0, True
        group: list[Path] = []
        for path in recipients:
            if octets > _LONGEST_GROUP:
                yield _Group(lines, tuple(group), mail)
                lines, group, octets, mail = [], [], 0, False
            lines.append(self._rcpt(path))
            group.append(path)
            octets += len(lines[-1])
        yield _Group([*lines, commands.DATA], tuple(group), mail, data=True)

    def _mail(self) -> bytes:
        return commands.mail(
            self.session,
            self.envelope,
            size=self.content.size,
            eight_bit=self.content.eight_bit,
            smtputf8=self._smtputf8,
        )

    def _rcpt(self, path: Path) -> bytes:
        parameters = self.envelope.parameters_of(path)
        return commands.rcpt(self.session, path, parameters, smtputf8=self._smtputf8)

    def _verdict(self, reply: Reply) -> Reply:
        reply = commands.verdict(self.session.connection, reply)
        if reply.code in _LOGIN_WANTED:
            return failures.login_wanted(self.session.connection.hop, reply)
        return reply

    def _expect(self, reply: Reply, code: int) -> None:
        commands.expect(self.session.connection, reply, code)

    def _decide(self, recipients: list[Path], reply: Reply) -> None:
        for path in recipients:
            self.replies.setdefault(path, reply)


def unsuitable(envelope: Envelope, content: IContent, extensions: Extensions) -> Mapping[Path, Reply]:
    """The recipients that this hop cannot serve unaltered, each with its permanent reply."""

    def everyone(reply: Reply) -> Mapping[Path, Reply]:
        return dict.fromkeys(envelope.recipients, reply)

    limit = extensions.longest_message
    if limit is not None and content.size > limit:
        return everyone(failures.TOO_BIG)
    if content.eight_bit and "8BITMIME" not in extensions:
        return everyone(failures.NEEDS_8BITMIME)
    if "SMTPUTF8" in extensions or not _international(envelope, content):
        return {}
    if not envelope.reverse_path.is_ascii:
        return everyone(failures.ADDRESS_NEEDS_SMTPUTF8)
    if envelope.parameters.smtputf8 and content.eight_bit:
        return everyone(failures.HEADER_NEEDS_SMTPUTF8)
    return {path: failures.ADDRESS_NEEDS_SMTPUTF8 for path in envelope.recipients if not path.is_ascii}


def _international(envelope: Envelope, content: IContent) -> bool:
    """SMTPUTF8 is needed: a path is outside ASCII, or, where the client asked for it, a header field may
    be.  A message that was submitted with SMTPUTF8 and is all ASCII goes without (RFC 6531 3.4)."""
    return (
        (envelope.parameters.smtputf8 and content.eight_bit)
        or not envelope.reverse_path.is_ascii
        or not all(path.is_ascii for path in envelope.recipients)
    )
