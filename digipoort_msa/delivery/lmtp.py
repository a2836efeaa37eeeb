"""LMTP (RFC 2033): SMTP up to the final dot, which is then answered once for each recipient.

What the hop has said of a recipient stands, whatever becomes of the others: nobody who has the message is
offered it again.  A 2yz is the hop's last word, since LMTP hands a message to where it is kept.
"""

from collections.abc import Mapping
from functools import partial

from attrs import define

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.dialogue import Dialogue
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.session import Session, open_session
from digipoort_msa.delivery.transaction import Transaction, outcomes
from digipoort_msa.interfaces import IContent
from digipoort_msa.smtp.envelope import Arrival, Envelope, Outcome, Path
from digipoort_msa.smtp.reply import Reply


async def transact(session: Session, envelope: Envelope, content: IContent) -> Mapping[Path, Outcome]:
    """As the SMTP one, but that each recipient has a reply of its own to the end of data."""
    return outcomes(session, await _LMTPTransaction(session, envelope, content).run(), Arrival.DELIVERED)


LMTP = Dialogue(partial(open_session, hello=b"LHLO"), transact)


@define
class _LMTPTransaction(Transaction):
    def _replies_due(self) -> int:
        return len(self.accepted)

    async def _no_content(self) -> None:
        """DATA had to be refused (RFC 2033 4.2): how many replies would a content for nobody have?"""
        connection = self.session.connection
        failure = failures.out_of_step(connection.hop, "it wants a content without a recipient")
        connection.fail(failure)
        raise HopFailure(failure)

    async def _end_of_data(self) -> None:
        """The replies come in the order of the recipients that RCPT accepted.  Whom the hop leaves without
        one, because it goes away amid them, may have the message or not."""
        connection = self.session.connection
        in_doubt: Reply | None = None
        leaving = False  # 421 is an answer, to the recipient that it comes to
        for path in self.accepted:
            if in_doubt is None:
                try:
                    said = self._verdict(await connection.reply(connection.timeouts.termination))
                except HopFailure as failure:
                    said = failure.reply
                    if leaving or said.code != 421:
                        in_doubt = said
                    leaving = True
            self.replies[path] = in_doubt or said
        self.session.reset_needed = False
        if in_doubt is not None:
            self._left_in_doubt(in_doubt)
