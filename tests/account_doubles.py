"""Doubles for the tests of the accounts: everything in one thread, with hashes that cost nothing."""

from datetime import UTC, datetime

from twisted.internet.defer import execute, succeed
from zope.interface import implementer, implementer_only

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.interfaces import IAccountStore, IEvenStore, ISubmitter, IUpgradableAccountStore
from digipoort_msa.sasl.credentials import PasswordCredential

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Inline:
    """``Threads`` that run a call at once."""

    def call(self, work, *arguments):
        return execute(work, *arguments)


class CountingHashing(PasswordHashing):
    """Counts verifications: the work that a client's clock can see (A5)."""

    def __init__(self, **parameters):
        super().__init__(**{"memory_kib": 8, "time_cost": 1, **parameters})
        self.verifications = 0

    def verify(self, password, password_hash):
        self.verifications += 1
        return super().verify(password, password_hash)


@implementer(IUpgradableAccountStore, IEvenStore)
class MemoryStore:
    """A store of accounts that are given."""

    keeps = frozenset({"password_hash", "scram"})

    def __init__(self, *accounts, mechanisms=("DIGEST-MD5", "PLAIN", "LOGIN")):
        self.accounts = {account.name: account for account in accounts}
        self.mechanisms = frozenset(mechanisms)
        self.failure = None
        self.upgrades = []

    def account(self, username):
        if self.failure:
            return execute(self._fail)
        return succeed(self.accounts.get(username))

    def _fail(self):
        raise self.failure

    def upgrade(self, account, password_hash, scram):
        self.upgrades.append((account, password_hash, scram))
        return succeed(True)

    def stop(self):
        pass


@implementer_only(IAccountStore)
class UnevenStore(MemoryStore):
    """As somebody else's, whose refusals are levelled."""


@implementer(ISubmitter)
class Submitter:
    def __init__(self, identity):
        self.identity = identity
        self.realm = identity.realm
        self.account = identity.name


def account(name="piet", realm="one.nl", status=Status.ACTIVE, password_hash="", digest_secrets=(), **fields):
    return Account(
        name=name,
        realm=realm,
        status=status,
        password_hash=password_hash,
        digest_secrets=digest_secrets,
        created=NOW,
        changed=NOW,
        **fields,
    )


def password_credential(username, password):
    return PasswordCredential(username, password, username)
