"""MAIL for a message that goes through: a transaction is opened at the first hop that answers."""

from digipoort_msa.delivery import commands, failures, told
from digipoort_msa.delivery.failures import HopFailure, NoHop
from digipoort_msa.delivery.lease import Lease
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Session
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.envelope import Envelope
from digipoort_msa.smtp.reply import Refused, Reply


async def open_transaction(relay: Relay, envelope: Envelope) -> Lease:
    """Say MAIL at the best hop, and where it goes away without an answer at the next.

    :return: the lease of the session in which it was accepted.
    :raise Refused: the hop says no, or there is none.
    """
    while True:
        lease = await _leased(relay, envelope)
        try:
            said = await _said_to_mail(lease, envelope)
        except HopFailure as failure:
            lease.failed(failure)
            if failure.reply is failures.STOPPING:  # or we were cancelled
                raise Refused(reply.NO_HOP, str(failure.reply)) from None
        except BaseException:
            lease.hand_back()
            raise
        else:
            if said.positive:
                return lease
            lease.hand_back()
            raise told.passed_on(lease.session, said)


async def _leased(relay: Relay, envelope: Envelope) -> Lease:
    try:
        return await relay.session(envelope)
    except NoHop as failure:
        raise Refused(reply.NO_HOP, str(failure.reply)) from None


async def _said_to_mail(lease: Lease, envelope: Envelope) -> Reply:
    """:raise HopFailure: the hop went away before it answered; another may be tried."""
    if lease.used_before:
        try:
            return await _mail(lease.session, envelope)
        except HopFailure as failure:
            if failure.reply is failures.STOPPING:
                raise
            # The hop had closed an idle connection before it saw anything of this message.
            await lease.renew()
    return await _mail(lease.session, envelope)


async def _mail(session: Session, envelope: Envelope) -> Reply:
    """The hop's word to MAIL.

    :raise HopFailure: it has none.
    :raise Refused: it could not take this sender unaltered.
    """
    connection, extensions = session.connection, session.extensions
    if not envelope.reverse_path.is_ascii and "SMTPUTF8" not in extensions:
        raise Refused(reply.HOP_TAKES_NO_UTF8_ADDRESS, session.hop.name)
    session.transactions += 1
    if session.reset_needed:
        connection.send(commands.RSET)
        commands.expect(connection, await connection.reply(connection.timeouts.mail), 250)
        session.reset_needed = False
    connection.send(
        commands.mail(
            session,
            envelope,
            size=envelope.parameters.size,
            eight_bit="8BITMIME" in extensions,
            smtputf8=envelope.parameters.smtputf8 and "SMTPUTF8" in extensions,
        )
    )
    said = commands.verdict(connection, await connection.reply(connection.timeouts.mail))
    session.reset_needed = said.positive
    return said
