"""A session that a delivery has for a while, and what its use tells of the hop's health."""

from digipoort_msa.delivery import failures
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.delivery.hops import Member
from digipoort_msa.delivery.pool import Crowded
from digipoort_msa.delivery.session import Session


class Lease:
    """A session that is one delivery's until it is handed back.

    ``session`` may have been used before: the hop may close it just as a transaction begins, which says
    nothing of the hop.  :meth:`renew` then gives a fresh one.
    """

    def __init__(self, member: Member, session: Session) -> None:
        self.session = session
        self.hop = member.hop
        self.used_before = session.transactions > 0
        self._member = member
        self._over = False

    def hand_back(self, *, blame: bool = True) -> None:
        """The transaction came to its end, or to grief after MAIL was answered.  Safe to call again.

        :param blame: a connection that the hop has dropped tells of its health.
        """
        if self._over:
            return
        self._over = True
        connection = self.session.connection
        if connection.usable:
            if self.session.transactions:
                self._member.health.worked()
        elif blame and connection.failure is not None and failures.is_the_hops(connection.failure):
            self._member.health.broke(connection.failure)
        self._member.pool.hand_back(self.session)
        self._member.pool.leave()

    def failed(self, failure: HopFailure) -> None:
        """The hop went away before it answered MAIL: it rests.  The lease is over."""
        if self._over:
            return
        self._over = True
        note(self._member, failure)
        self._member.pool.hand_back(self.session)
        self._member.pool.leave()

    async def renew(self) -> None:
        """Take a fresh session with the same hop in the place of one that was used before.

        :raise HopFailure: there is none; the hop rests, and the lease is over.
        """
        pool = self._member.pool
        pool.hand_back(self.session)
        try:
            self.session = await pool.session(fresh=True)
        except BaseException as error:
            self._over = True
            if isinstance(error, HopFailure):
                note(self._member, error)
            pool.leave()
            raise
        self.used_before = False


def note(member: Member, failure: HopFailure) -> None:
    """The hop could not be made ready for a message; or that is due to ourselves, and means nothing."""
    if failure.reply is not failures.STOPPING and not isinstance(failure, Crowded):
        member.health.failed(failure.reply)
