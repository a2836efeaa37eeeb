"""Is this credential good for its account?  The ``twisted.cred`` checker of a realm.

The order is fixed: read the account afresh, look at its status, verify.  Whatever is wrong, and there
being no such account at all, costs the same work and ends in the same ``UnauthorizedLogin``, whose text is
for the log (A5).  An account that may not log in is never asked for its secrets (CVE-2022-24732).  The
avatar's id is the account's name in UTF-8.
"""

import secrets
from collections.abc import Generator
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, inlineCallbacks
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.names import local_name
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.seal import SECRET
from digipoort_msa.interfaces import IAccountStore, IUpgradableAccountStore, Unavailable
from digipoort_msa.sasl.credentials import IDigestCredential, IPasswordCredential

# A response is compared with this many secrets, so that their number tells nothing.  An account has no more:
# two spellings of its name, each in the four forms of digest_secrets().
_DIGEST_FORMS = 8


@implementer(ICredentialsChecker)
class PasswordChecker:
    """For PLAIN and LOGIN."""

    credentialInterfaces = (IPasswordCredential,)

    def __init__(self, realm: str, store: IAccountStore, passwords: Passwords) -> None:
        self._realm = realm
        self._store = store
        self._passwords = passwords

    @inlineCallbacks
    def requestAvatarId(
        self, credentials: IPasswordCredential
    ) -> Generator[Deferred[Any], Any, bytes | tuple[()]]:
        """
        :return: the account's name in UTF-8.
        :raise UnauthorizedLogin: see the module.
        :raise Unavailable: the store cannot be asked, or too many verifications wait.
        """
        account: Account | None = yield self._store.account(local_name(credentials.username, self._realm))
        usable = account if account is not None and account.may_log_in else None
        verdict = yield self._passwords.verify(usable, credentials.password, "password")
        if usable is None or not verdict.accepted:
            raise _refusal(account, "the password is wrong")
        if verdict.upgraded is not None:
            yield self._upgrade(usable, verdict.upgraded)
        return usable.name.encode()

    @inlineCallbacks
    def _upgrade(self, account: Account, fresh: str) -> Generator[Deferred[Any], Any, None]:
        """A login does not fail for this: the next one tries again."""
        store = IUpgradableAccountStore(self._store, None)
        if store is None:
            return
        try:
            replaced = yield store.upgrade(account.name, account.password_hash, fresh)
        except Unavailable:
            return  # which the store has logged
        if replaced:
            log.emit(log.HASH_UPGRADED, account=account.name, realm=account.realm)


@implementer(ICredentialsChecker)
class DigestChecker:
    """For DIGEST-MD5.  Cheap, so it happens in the reactor's thread."""

    credentialInterfaces = (IDigestCredential,)

    def __init__(self, realm: str, store: IAccountStore) -> None:
        self._realm = realm
        self._store = store
        self._nobodys = tuple(secrets.token_bytes(SECRET) for _ in range(_DIGEST_FORMS))

    @inlineCallbacks
    def requestAvatarId(
        self, credentials: IDigestCredential
    ) -> Generator[Deferred[Any], Any, bytes | tuple[()]]:
        """See :meth:`PasswordChecker.requestAvatarId`."""
        account: Account | None = yield self._store.account(local_name(credentials.username, self._realm))
        kept = account.digest_secrets if account is not None and account.may_log_in else ()
        for secret in (*kept, *self._nobodys[len(kept) :]):
            if credentials.verify(secret) and account is not None and secret in kept:
                return account.name.encode()
        if account is not None and account.may_log_in and not kept:
            raise _refusal(account, "no DIGEST-MD5 secrets are kept for it; set its password anew")
        raise _refusal(account, "the password is wrong")


def _refusal(account: Account | None, wrong: str) -> UnauthorizedLogin:
    if account is None:
        return UnauthorizedLogin("there is no such account")
    if not account.may_log_in:
        return UnauthorizedLogin(f"the account is {account.status.value}")
    return UnauthorizedLogin(wrong)
