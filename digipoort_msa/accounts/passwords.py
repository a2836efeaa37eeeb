"""Passwords: hashing them, and verifying one without telling what exists (A5, A7).

New hashes are argon2id.  Hashes of other schemes, or of other parameters, are still verified, and are made
anew at the next login that proves the password.

To a client, and to its clock, these are the same: an unknown name, an account that may not log in, an account
without a usable hash, and a wrong password.  Each costs exactly one verification; where there is no hash
to verify against, a hash of the current parameters that nobody knows the password of stands in.  The cache
(:mod:`.cache`) only ever shortens the way of a *right* password.  One difference remains: a hash that is not
of the current kind costs what its own scheme costs.  In our own tables it waits for its upgrade; of other
stores all refusals are levelled (:mod:`.refusals`).

A verification takes tens of milliseconds and MiB, so it runs in a small pool of its own.  What is made anew
of a right password, a hash or SCRAM keys, is made in the same call: it is once for each account, and waiting
for a thread again would take the client longer.
"""

import secrets

from attrs import frozen
from passlib.context import CryptContext
from twisted.internet.defer import Deferred, succeed

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.threads import Threads

_BCRYPT = 72  # octets of a password that bcrypt looks at


class PasswordHashing:
    """The one choice of scheme and parameters.  Blocking: the reactor goes through :class:`Passwords`."""

    def __init__(self, *, memory_kib: int = 19_456, time_cost: int = 2, parallelism: int = 1) -> None:
        """The defaults are OWASP's and RFC 9106's advice for a server with many logins.

        :param memory_kib: argon2id's memory, in KiB, for each verification that runs.
        """
        self._context = CryptContext(
            schemes=[
                *("argon2", "scrypt", "pbkdf2_sha256", "bcrypt", "sha512_crypt", "sha256_crypt"),
                "apr_md5_crypt",  # htpasswd's of old: salted, but fast
            ],
            deprecated="auto",
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=time_cost,
            argon2__parallelism=parallelism,
        )

    def hash(self, password: str) -> str:
        return str(self._context.hash(password))

    def verify(self, password: str, password_hash: str) -> bool:
        """Is it right?  A hash that cannot be read fits no password, and one of bcrypt none that it would cut
        off: whoever knows the beginning would know it all."""
        if password_hash.startswith("$2") and len(password.encode()) > _BCRYPT:
            return False
        try:
            return bool(self._context.verify(password, password_hash))
        except ValueError:  # passlib's: a damaged hash, or a password beyond what hashes take
            return False

    def outdated(self, password_hash: str) -> bool:
        """Was it made by another scheme, or with other parameters?"""
        return bool(self._context.needs_update(password_hash))

    def readable(self, password_hash: str) -> bool:
        """Is it of a kind that is known?"""
        return self._context.identify(password_hash) is not None

    def sound(self, password_hash: str) -> bool:
        """Is it a whole hash, of a kind that is known?"""
        scheme = self._context.identify(password_hash, resolve=True)
        try:
            return scheme is not None and scheme.from_string(password_hash).checksum is not None
        except ValueError:
            return False


_SALT = 16  # octets


@frozen
class Verdict:
    """What a verification found."""

    accepted: bool
    upgraded: str | None = None  # a fresh hash to store in place of an outdated one
    scram: ScramKeys | None = None  # fresh keys to store beside it


class Passwords:
    """Verification for the reactor's thread."""

    def __init__(self, hashing: PasswordHashing, threads: Threads, cache: VerifiedPasswords) -> None:
        self._hashing = hashing
        self._threads = threads
        self.cache = cache
        self._nobodys_hash = hashing.hash(secrets.token_urlsafe(32))
        # Stands in for an account in the cache as well.
        self._nobody = Account(name="", realm="", status=Status.DISABLED, password_hash=self._nobodys_hash)

    def verify(
        self,
        account: Account | None,
        password: str,
        mechanism: str,
        *,
        upgrade: bool = True,
        scram_iterations: int | None = None,
    ) -> "Deferred[Verdict]":
        """Is ``password`` the account's?

        :param account: just read from its store; ``None`` (unknown, or may not log in) costs the same.
        :param mechanism: the kind of credential, which is part of the cache's key.
        :param upgrade: make an outdated hash anew; not where the store cannot keep it, since that would cost
            as much again at each login.
        :param scram_iterations: make SCRAM keys of a right password, with so many, where the account has no
            such keys.  Not while the cache knows the password: the verification after that makes them.
        :raise Unavailable: (as the failure) too many verifications wait.
        """
        if self.cache.knows(account or self._nobody, mechanism, password) and account is not None:
            return succeed(Verdict(True))
        return self._threads.call(self._verify, account, password, mechanism, upgrade, scram_iterations)

    def _verify(
        self,
        account: Account | None,
        password: str,
        mechanism: str,
        upgrade: bool,
        scram_iterations: int | None,
    ) -> Verdict:
        """In a thread."""
        # Of many logins that came at once, the first has paid for the others by now.
        known = self.cache.knows(account or self._nobody, mechanism, password)
        if account is None or not self._hashing.readable(account.password_hash):
            self._hashing.verify(password, self._nobodys_hash)
            return Verdict(False)
        if known:
            return Verdict(True)
        if not self._hashing.verify(password, account.password_hash):
            return Verdict(False)
        outdated = upgrade and self._hashing.outdated(account.password_hash)
        upgraded = self._hashing.hash(password) if outdated else None
        self.cache.remember(account, mechanism, password, upgraded or account.password_hash)
        return Verdict(True, upgraded, _keys(account, password, scram_iterations))


def _keys(account: Account, password: str, iterations: int | None) -> ScramKeys | None:
    """Fresh ones, where they are wanted and the account's are not as the settings have them."""
    if iterations is None or (account.scram is not None and account.scram.iterations == iterations):
        return None
    return ScramKeys.of(password, secrets.token_bytes(_SALT), iterations)
