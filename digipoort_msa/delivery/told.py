"""What a client is told of the hop that its message goes through to, and what the log."""

from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.session import Session
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Refused, Reply


def passed_on(session: Session, said: Reply) -> Refused:
    """The hop's own no."""
    return Refused(reply.passed_on(said), f"{session.hop.name}: {said}")


def lost(session: Session, failure: HopFailure) -> Refused:
    """The hop is gone.  What it said in going, such as 552 amid the content, is told; what stands for it
    where it said nothing is a 451 that names hops and settings, and is for the log."""
    if failure.reply.code != 451:
        return passed_on(session, failure.reply)
    return Refused(reply.HOP_LOST, str(failure.reply))
