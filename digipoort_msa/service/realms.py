"""The realms of the settings: their stores, checkers, policies, and what their accounts may submit to."""

import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from time import time
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from digipoort_msa import log
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.certificates import CertificateRule
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.logins import Logins
from digipoort_msa.accounts.passwords import PasswordHashing, Passwords
from digipoort_msa.accounts.private_files import create_private
from digipoort_msa.accounts.realm import Realm, RealmRules, Realms
from digipoort_msa.accounts.usage import Usage
from digipoort_msa.config.realm import Realm as RealmSettings
from digipoort_msa.config.settings import Passwords as PasswordSettings
from digipoort_msa.config.settings import Settings
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import Facilities, IIntake
from digipoort_msa.policy.trials import Trials
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.service.policies import make_policies
from digipoort_msa.service.stores import open_store
from digipoort_msa.service.throttle import make_throttle
from digipoort_msa.submission import Submitter
from digipoort_msa.threads import Threads

#: Calls that may wait for a thread, for each thread there is.
_WAITING_PER_THREAD = 100
_LOOKUP_THREADS = 2  # of each realm
_POLICY_THREADS = 2
_STOPPING = 10.0  # seconds that each store and policy has to let go of what it has
#: However many passwords are guessed, the reactor comes first.
_HASHING_IS_NICE = 5
_NOBODYS_KEY = 32  # octets


class Accounts:
    """Every realm's accounts and policies, and the threads that serve them."""

    def __init__(
        self, settings: Settings, reactor: Any, intake_of: Callable[[RealmSettings], IIntake]
    ) -> None:
        """
        :param intake_of: what takes the messages of a realm in.
        :raise ValueError, OSError: a store or a policy cannot be used.
        """
        self._settings = settings
        self._reactor = reactor
        self._intake_of = intake_of
        self._threads: list[Threads] = []
        self._stores: list[GuardedStore] = []
        self._policies: list[Any] = []
        self._verification = self._make_verification(settings.passwords)
        self._for_policies = self._facilities("policies", _POLICY_THREADS)
        self._trials = Trials(settings.server.state_directory, self._for_policies.threads, reactor, time)
        throttle, usage = make_throttle(settings.limits), Usage(time)
        self._logins = Logins(throttle, usage, settings.server.state_directory, reactor)
        self.realms = Realms(
            [self._make_realm(realm) for realm in settings.realm],
            throttle,
            reactor,
            MECHANISMS,
            _nobodys_key(settings.server.state_directory),
            usage,
        )

    def start(self) -> None:
        """Take up what was known of logins before; blocks for a moment."""
        self._logins.start()

    async def close(self) -> None:
        """Let go of threads, stores and policies; nobody logs in or submits any more."""
        for stop in [each.stop for each in (*self._policies, self._trials, *self._stores)]:
            try:
                await maybeDeferred(stop).addTimeout(_STOPPING, self._reactor)
            except Exception:  # noqa: BLE001 -- the next has to stop all the same
                log.failure(log.DEFECT, Failure(), where="stopping")
        for threads in self._threads:
            threads.stop()
        self._logins.stop()

    def _make_verification(self, passwords: PasswordSettings) -> Passwords:
        return Passwords(
            PasswordHashing(
                memory_kib=passwords.memory_kib,
                time_cost=passwords.time_cost,
                parallelism=passwords.parallelism,
            ),
            self._make_threads("passwords", passwords.threads, nice=_HASHING_IS_NICE),
            VerifiedPasswords(self._reactor.seconds, seconds=passwords.cache_seconds),
        )

    def _make_realm(self, realm: RealmSettings) -> Realm:
        # A store that hangs keeps its threads waiting: each realm has its own, and no other's logins stop.
        facilities = self._facilities(f"{realm.name} accounts", _LOOKUP_THREADS)
        store = GuardedStore(open_store(realm, facilities), realm.name, self._reactor)
        self._stores.append(store)
        policies = make_policies(realm, self._for_policies, self._trials)
        self._policies.extend(policies)
        intake = self._intake_of(realm)

        def submitter(identity: Identity) -> Submitter:
            return Submitter(identity, intake, time, policies, realm.add_missing_headers)

        rules = RealmRules(
            name=realm.name,
            mechanisms=frozenset(realm.mechanisms),
            digest_until=realm.digest_md5_until,
            refusal_time=realm.refusal_time,
            scram_iterations=realm.scram_iterations,
            prepare_scram=realm.prepare_scram,
            certificates=certificate_rules(realm),
        )
        idle = rules.mechanisms - store.mechanisms - ({"EXTERNAL"} if store.knows_names else set())
        if idle:
            log.emit(log.MECHANISM_IDLE, realm=realm.name, mechanisms=", ".join(sorted(idle)))
        return Realm(rules, store, self._verification, submitter, self._reactor, _today)

    def _facilities(self, name: str, size: int) -> Facilities:
        return Facilities(
            self._reactor, self._make_threads(name, size), self._settings.server.state_directory
        )

    def _make_threads(self, name: str, size: int, *, nice: int = 0) -> Threads:
        threads = Threads(self._reactor, name, size=size, waiting=size * _WAITING_PER_THREAD, nice=nice)
        self._threads.append(threads)
        return threads


def certificate_rules(realm: RealmSettings) -> tuple[CertificateRule, ...]:
    """Which accounts of a realm client certificates stand for."""
    return tuple(
        CertificateRule(name=rule.field, pattern=rule.pattern, account=rule.account, issuer=rule.issuer)
        for rule in realm.certificate
    )


def _today() -> date:
    return datetime.now(UTC).date()


def _nobodys_key(state_directory: Path) -> bytes:
    """What nobody's SCRAM keys are made with: the same after a restart, or it would tell who is somebody."""
    state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = state_directory / "nobody.key"
    create_private(file, os.urandom(_NOBODYS_KEY))
    key = file.read_bytes()
    if len(key) < _NOBODYS_KEY:  # whoever knows it knows who is nobody
        raise ValueError(
            f"{file} has {len(key)} octets, and needs {_NOBODYS_KEY} random ones: copy it from another "
            "server of these accounts, or move it away, and another is made"
        )
    return key
