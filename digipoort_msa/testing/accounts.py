"""Accounts in plain words, for a store's test to put into its back end."""

import functools

from attrs import field, frozen

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.sasl.digest_hash import digest_secrets
from digipoort_msa.sasl.scram_keys import ScramKeys

#: Names that a store has to bear, or to declare that its back end cannot hold; as SASLprep leaves them.
ODD_NAMES = (
    "o'neill",
    'q"q',
    "%s",
    "a b",
    "a,b=c+d",
    "a*",
    "(a)",
    "a\\b",
    "a/b",
    "a:b",
    "#a",
    "..",
    "info@bedrijf.nl",
    "zoë",
    "株式会社",
    "𐌰",
    "x" * 255,
    "名" * 255,
)


@frozen(kw_only=True)
class AccountDescription:
    """An account that a back end is to hold; the methods give what a store may keep instead of the password.

    All verifiers are made cheaply: right, but no example for real accounts.
    """

    name: str
    password: str = field(default="geheim", repr=False)
    status: Status = Status.ACTIVE
    groups: frozenset[str] = frozenset()
    addresses: tuple[str, ...] = ()

    def password_hash(self) -> str:
        """A hash in passlib's format."""
        return _password_hash(self.password)

    def digest_secrets(self, realm: str) -> tuple[bytes, ...]:
        """For DIGEST-MD5, 16 octets each."""
        return digest_secrets(self.name, realm, self.password)

    def scram_keys(self) -> ScramKeys:
        """For SCRAM-SHA-256."""
        return _scram_keys(self.password)


@functools.cache
def _password_hash(password: str) -> str:
    return PasswordHashing(memory_kib=8, time_cost=1).hash(password)


@functools.cache
def _scram_keys(password: str) -> ScramKeys:
    return ScramKeys.of(password, b"sixteen octets..", 4096)
