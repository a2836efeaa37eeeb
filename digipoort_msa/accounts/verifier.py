"""The checker of stores that verify passwords themselves, and yield no hash.

How long such a back end takes is not ours to level: an unknown name may be quicker than a wrong password.  So
its refusals wait for one another (:mod:`.refusals`).
"""

from collections.abc import Generator
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, inlineCallbacks
from zope.interface import implementer

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.names import local_name
from digipoort_msa.accounts.refusals import refusal
from digipoort_msa.sasl.credentials import IPasswordCredential


@implementer(ICredentialsChecker)
class VerifierChecker:
    """For PLAIN and LOGIN, where the store is an :class:`~digipoort_msa.interfaces.IPasswordVerifier`."""

    credentialInterfaces = (IPasswordCredential,)

    def __init__(self, realm: str, store: GuardedStore, cache: VerifiedPasswords) -> None:
        self._realm = realm
        self._store = store
        self._cache = cache

    @inlineCallbacks
    def requestAvatarId(self, credentials: IPasswordCredential) -> Generator[Deferred[Any], Any, Any]:
        """
        :return: who it is.
        :raise UnauthorizedLogin: see :mod:`digipoort_msa.accounts.checkers`.
        :raise Unavailable: the store cannot be asked.
        """
        account: Account | None = yield self._store.account(local_name(credentials.username, self._realm))
        if account is not None and account.may_log_in:
            password = credentials.password
            if self._cache.knows(account, "password", password):
                return account.identity
            right = yield self._store.verify(account, password)
            if right:
                self._cache.remember(account, "password", password, account.revision)
                return account.identity
        raise refusal(account, "the password is wrong")
