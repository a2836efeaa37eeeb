"""A guard before each realm's store: whatever the store does, a login has an honest answer in bounded time.

A store may be anybody's: slow, down, or wrong.  What comes out of here is an account of exactly the name that
was asked for, in its realm, or ``None``; or it is :class:`~digipoort_msa.interfaces.Unavailable`, which a
client is told as ``454 4.7.0``.  It is never a yes by mistake.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.interfaces import (
    IAccountStore,
    IEvenStore,
    INamelessStore,
    IPasswordVerifier,
    IUpgradableAccountStore,
    Unavailable,
)
from digipoort_msa.sasl.scram_keys import ScramKeys

#: Seconds that a store has for one answer.  A client waits some minutes, a person much less.
PATIENCE = 10.0


@implementer(IPasswordVerifier, IUpgradableAccountStore)
class GuardedStore:
    """One realm's store, guarded."""

    def __init__(
        self, store: IAccountStore, realm: str, reactor: IReactorTime, *, patience: float = PATIENCE
    ) -> None:
        """:param patience: seconds that the store has for one answer."""
        self._store: Any = store
        self._realm = realm
        self._reactor = reactor
        self._patience = patience
        self.mechanisms = frozenset(store.mechanisms)
        self.verifies = IPasswordVerifier.providedBy(store)  # itself; else it yields hashes
        self.knows_names = not INamelessStore.providedBy(store)  # else an account need not exist
        #: What :meth:`upgrade` is of use for.
        self.keeps = frozenset(store.keeps) if IUpgradableAccountStore.providedBy(store) else frozenset()
        self.is_even = IEvenStore.providedBy(store)  # else refusals are levelled: see :mod:`.refusals`

    def account(self, username: str) -> "Deferred[Account | None]":
        if not username:
            return succeed(None)  # ``@realm``: nobody's name, and a store may take it for everybody's
        return self._ask(self._store.account, username).addCallback(self._checked, username)

    def verify(self, account: Account, password: str) -> "Deferred[bool]":
        """Only ``True`` itself is a yes."""
        if not self.verifies:
            raise TypeError("this store yields hashes, and verifies nothing")
        if not password:
            return succeed(False)  # which many a back end takes for nobody in particular, and says yes
        return self._ask(self._store.verify, account, password).addCallback(self._verdict)

    def upgrade(
        self, account: Account, password_hash: str | None, scram: ScramKeys | None
    ) -> "Deferred[bool]":
        if not self.keeps:
            return maybeDeferred(bool)
        return self._ask(self._store.upgrade, account, password_hash, scram).addCallback(bool)

    def stop(self) -> "Deferred[None]":
        return maybeDeferred(self._store.stop)

    def _ask(self, ask: Callable[..., Any], *arguments: object) -> "Deferred[Any]":
        asked = maybeDeferred(ask, *arguments)
        # Not ``asked`` itself: a store may take being cancelled for an error, and go on with the next server.
        answer: Deferred[Any] = Deferred(lambda _: asked.cancel())

        def answered(outcome: Any) -> None:
            if not answer.called:
                answer.callback(outcome)

        asked.addBoth(answered)
        return answer.addTimeout(self._patience, self._reactor, self._out_of_patience).addErrback(
            self._failed
        )

    def _out_of_patience(self, _: object, seconds: float) -> NoReturn:
        raise Unavailable(f"no answer in {seconds:g} s")

    def _failed(self, failure: Failure) -> NoReturn:
        if failure.check(CancelledError):
            failure.raiseException()
        if not failure.check(Unavailable):
            log.failure(log.DEFECT, failure, where=f"the account store of realm {self._realm}")
            self._unavailable("the store failed in a way that it should not; the log has it")
        self._unavailable(failure.getErrorMessage())

    def _checked(self, account: Any, username: str) -> Account | None:
        if account is None:
            return None
        if not isinstance(account, Account) or not isinstance(account.status, Status):
            self._unavailable("what it gave is not an account with a status")
        if account.name != username or account.realm != self._realm:
            self._unavailable(f"asked for {username!r} it gave {account.name!r} of realm {account.realm!r}")
        return account

    def _verdict(self, verdict: Any) -> bool:
        if verdict is not True and verdict is not False:
            self._unavailable("its verdict on a password is neither true nor false")
        return bool(verdict)

    def _unavailable(self, reason: str) -> NoReturn:
        log.emit(log.STORE_UNAVAILABLE, realm=self._realm, reason=reason)
        raise Unavailable(reason)
