"""Logging in to a store through the realm, the checkers and the cache that the service puts before it."""

import hmac
from collections.abc import Callable
from datetime import UTC, date, datetime
from hashlib import pbkdf2_hmac, sha256
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.guard import PATIENCE, GuardedStore
from digipoort_msa.accounts.passwords import PasswordHashing, Passwords
from digipoort_msa.accounts.realm import Realm, RealmRules
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IAccountStore, ISubmitter
from digipoort_msa.sasl.credentials import DigestCredential, PasswordCredential, ScramCredential
from digipoort_msa.sasl.digest_hash import Digest, digest_secrets
from digipoort_msa.sasl.scram_keys import ScramKeys

# What stands in for the rest of an exchange; the store has no part in it.
_DIGEST = Digest(b"nonce", b"cnonce", b"00000001", b"auth", b"smtp/localhost")
_AUTH_MESSAGE = b"n=,r=nonce,r=noncenonce,s=c2FsdA==,i=4096,c=biws,r=noncenonce"


@implementer(ISubmitter)
@frozen
class _LoggedIn:
    identity: Identity

    @property
    def account(self) -> str:
        return self.identity.name

    @property
    def realm(self) -> str:
        return self.identity.realm

    def begin(self, reverse_path: object, parameters: object, trace: object) -> Any:
        raise NotImplementedError("these logins are for tests of stores: nothing is submitted")


class Logins:
    """The realm of one store, without the throttle before it."""

    def __init__(
        self,
        store: IAccountStore,
        realm: str,
        reactor: Any,
        *,
        patience: float = PATIENCE,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        """:param patience: seconds that the store has for one answer."""
        self.store = GuardedStore(store, realm, reactor, patience=patience)
        self.mechanisms = tuple(sorted(self.store.mechanisms))
        hashing = PasswordHashing(memory_kib=8, time_cost=1)
        passwords = Passwords(hashing, _AtOnce(), VerifiedPasswords(reactor.seconds))  # type: ignore[arg-type]
        rules = RealmRules(
            name=realm, mechanisms=self.store.mechanisms, refusal_time=0, scram_iterations=4096
        )
        self._realm = Realm(rules, self.store, passwords, _LoggedIn, reactor, today)

    async def log_in(self, mechanism: str, username: str, password: str) -> Identity:
        """Log in as a client with this mechanism does.

        :return: who that is.
        :raise UnauthorizedLogin: no.
        :raise Unavailable: not now.
        """
        credential = await self._credential(mechanism, username, password)
        login: Deferred[Any] = self._realm.portal.login(credential, None, ISubmitter)
        _, avatar, _ = await login
        identity: Identity = avatar.identity
        return identity

    async def _credential(self, mechanism: str, username: str, password: str) -> Any:
        if mechanism in {"PLAIN", "LOGIN"}:
            return PasswordCredential(username, password, username)
        if mechanism == "DIGEST-MD5":
            secret = digest_secrets(username, self._realm.name, password)[0]
            return DigestCredential(username, self._realm.name, _DIGEST, _DIGEST.response(secret))
        if mechanism in {"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}:
            keys = await self._realm.scram_keys(username)
            return ScramCredential(username, _AUTH_MESSAGE, _proof(keys, password))
        raise ValueError(f"there is no client here for {mechanism}")


class _AtOnce:
    """In place of threads: the hashes here are cheap."""

    def call(self, work: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
        return execute(work, *arguments)


def _proof(keys: ScramKeys | None, password: str) -> bytes:
    """ClientProof (RFC 5802 3); a name without keys is given salt and iterations as well."""
    salt, iterations = (keys.salt, keys.iterations) if keys else (b"nobody", 4096)
    client_key = hmac.digest(
        pbkdf2_hmac("sha256", password.encode(), salt, iterations), b"Client Key", "sha256"
    )
    signature = hmac.digest(sha256(client_key).digest(), _AUTH_MESSAGE, "sha256")
    return bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
