"""Refusals: why a login is refused, and when the client hears of it (A5).

The checkers do the same work whether there is such an account or not.  That makes refusals even only where
the store is even, too: one that takes as long for a name it has not as for one it has, and whose hashes all
cost what nobody's hash costs.  Our own tables are (:class:`~digipoort_msa.interfaces.IEvenStore`).  How long
any other back end takes is not ours to say: a directory that binds, a file of bcrypt hashes.  Its refusals
are given at the same time after the attempt began.

So is the challenge of SCRAM, which asks the store before anything is proved.

A refusal that comes later than that, since the back end was slow, is given at the next multiple of the time:
it still shows little of what went before.
"""

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.accounts.account import Account


def refusal(account: Account | None, wrong: str) -> UnauthorizedLogin:
    """Why a login is refused, for the log.

    :param wrong: the cause where the account itself is in order.
    """
    if account is None:
        return UnauthorizedLogin("there is no such account")
    if not account.may_log_in:
        return UnauthorizedLogin(f"the account is {account.status.value}")
    return UnauthorizedLogin(wrong)


@implementer(ICredentialsChecker)
class LevelledChecker:
    """A checker whose refusals come at multiples of a time after the attempt began.  All else, a yes and
    :class:`~digipoort_msa.interfaces.Unavailable` among it, comes as soon as it is known."""

    def __init__(self, checker: ICredentialsChecker, reactor: IReactorTime, seconds: float) -> None:
        """:param seconds: more than a refusal takes the back end; 0: refusals are left as they are."""
        self.credentialInterfaces = checker.credentialInterfaces
        self._checker = checker
        self._reactor = reactor
        self._seconds = seconds

    def requestAvatarId(self, credentials: Any) -> "Deferred[Any]":
        """As the checker's."""
        began = self._reactor.seconds()
        return maybeDeferred(self._checker.requestAvatarId, credentials).addErrback(self._later, began)

    def _later(self, failure: Failure, began: float) -> "Failure | Deferred[Any]":
        if self._seconds <= 0 or not failure.check(UnauthorizedLogin):
            return failure
        return levelled(self._reactor, self._seconds, began).addCallback(lambda _: failure)


def levelled(reactor: IReactorTime, seconds: float, began: float) -> "Deferred[None]":
    """Fires at the next multiple of a time after something began.

    :param seconds: more than 0.
    :param began: by the reactor's clock.
    """
    return deferLater(reactor, seconds - (reactor.seconds() - began) % seconds)
