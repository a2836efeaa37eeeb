"""Is this credential good for its account?  The ``twisted.cred`` checker of a realm.

The order is fixed: read the account afresh, look at its status, verify.  Whatever is wrong, and there
being no such account at all, costs the same work and ends in the same ``UnauthorizedLogin``, whose text is
for the log (A5).  An account that may not log in is never asked for its secrets (CVE-2022-24732).  The
avatar's id is the account's :class:`~digipoort_msa.identity.Identity`.
"""

import secrets
from collections.abc import Callable, Generator
from datetime import date
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, inlineCallbacks
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.names import local_name
from digipoort_msa.accounts.passwords import Passwords, Verdict
from digipoort_msa.accounts.refusals import refusal
from digipoort_msa.accounts.seal import SECRET
from digipoort_msa.interfaces import MechanismRetired, Unavailable
from digipoort_msa.sasl.credentials import IDigestCredential, IPasswordCredential, IScramCredential
from digipoort_msa.sasl.scram_keys import ScramKeys

# A response is compared with this many secrets, so that their number tells nothing.  An account has no more:
# two spellings of its name, each in the four forms of digest_secrets().
_DIGEST_FORMS = 8


@implementer(ICredentialsChecker)
class PasswordChecker:
    """For PLAIN and LOGIN."""

    credentialInterfaces = (IPasswordCredential,)

    def __init__(
        self, realm: str, store: GuardedStore, passwords: Passwords, scram_iterations: int | None = None
    ) -> None:
        """:param scram_iterations: of the SCRAM keys made of a right password; ``None``: none are made."""
        self._realm = realm
        self._store = store
        self._passwords = passwords
        self._scram_iterations = scram_iterations

    @inlineCallbacks
    def requestAvatarId(self, credentials: IPasswordCredential) -> Generator[Deferred[Any], Any, Any]:
        """
        :return: who it is.
        :raise UnauthorizedLogin: see the module.
        :raise Unavailable: the store cannot be asked, or too many verifications wait.
        """
        account: Account | None = yield self._store.account(local_name(credentials.username, self._realm))
        usable = account if account is not None and account.may_log_in else None
        verdict = yield self._passwords.verify(
            usable,
            credentials.password,
            "password",
            upgrade="password_hash" in self._store.keeps,
            scram_iterations=self._scram_iterations,
        )
        if usable is None or not verdict.accepted:
            raise refusal(account, "the password is wrong")
        if verdict.upgraded is not None or verdict.scram is not None:
            yield self._upgrade(usable, verdict)
        return usable.identity

    @inlineCallbacks
    def _upgrade(self, account: Account, fresh: Verdict) -> Generator[Deferred[Any], Any, None]:
        """A login does not fail for this: the next one tries again."""
        try:
            replaced = yield self._store.upgrade(account, fresh.upgraded, fresh.scram)
        except Unavailable:
            return  # which is in the log
        if replaced and fresh.upgraded is not None:
            log.emit(log.HASH_UPGRADED, account=account.name, realm=account.realm)
        if replaced and fresh.scram is not None:
            log.emit(log.SCRAM_KEYS_MADE, account=account.name, realm=account.realm)


@implementer(ICredentialsChecker)
class DigestChecker:
    """For DIGEST-MD5.  Cheap, so it happens in the reactor's thread."""

    credentialInterfaces = (IDigestCredential,)

    def __init__(self, realm: str, store: GuardedStore, today: Callable[[], date]) -> None:
        self._realm = realm
        self._store = store
        self._today = today
        self._nobodys = tuple(secrets.token_bytes(SECRET) for _ in range(_DIGEST_FORMS))

    @inlineCallbacks
    def requestAvatarId(self, credentials: IDigestCredential) -> Generator[Deferred[Any], Any, Any]:
        """See :meth:`PasswordChecker.requestAvatarId`."""
        account: Account | None = yield self._store.account(local_name(credentials.username, self._realm))
        kept = account.digest_secrets if account is not None and account.may_log_in else ()
        for secret in (*kept, *self._nobodys[len(kept) :]):
            if credentials.verify(secret) and account is not None and secret in kept:
                if account.digest_until is not None and self._today() > account.digest_until:
                    raise MechanismRetired("DIGEST-MD5", account.digest_until)
                return account.identity
        if account is not None and account.may_log_in and not kept:
            raise refusal(account, "no DIGEST-MD5 secrets are kept for it; set its password anew")
        raise refusal(account, "the password is wrong")


@implementer(ICredentialsChecker)
class ScramChecker:
    """For SCRAM-SHA-256, with a channel binding and without.  Cheap: the slow work was the client's.

    The keys are those of this moment, whatever the exchange began with; where they were changed in between,
    the proof does not fit.
    """

    credentialInterfaces = (IScramCredential,)

    def __init__(self, realm: str, store: GuardedStore) -> None:
        self._realm = realm
        self._store = store
        self._nobodys = ScramKeys(b"", 0, secrets.token_bytes(32), secrets.token_bytes(32))

    @inlineCallbacks
    def requestAvatarId(self, credentials: IScramCredential) -> Generator[Deferred[Any], Any, Any]:
        """See :meth:`PasswordChecker.requestAvatarId`."""
        account: Account | None = yield self._store.account(local_name(credentials.username, self._realm))
        kept = account.scram if account is not None and account.may_log_in else None
        fits = credentials.verify(kept or self._nobodys)
        if fits and kept is not None and account is not None:
            return account.identity
        if account is not None and account.may_log_in and kept is None:
            raise refusal(account, "no SCRAM keys are kept for it; a login with PLAIN or LOGIN makes them")
        raise refusal(account, "the password is wrong")
