"""The realms of the settings: their stores, checkers, policies, and what their accounts may submit to."""

import re
from collections.abc import Callable
from time import time
from typing import Any

from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.passwords import PasswordHashing, Passwords
from digipoort_msa.accounts.realm import Realm, Realms
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.accounts.threads import Threads
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.config.settings import Limits, Settings
from digipoort_msa.config.settings import Passwords as PasswordSettings
from digipoort_msa.config.settings import Realm as RealmSettings
from digipoort_msa.interfaces import IIntake, IPolicy
from digipoort_msa.policy.addresses import AddressPatterns, BoundSender, Recipients, Senders
from digipoort_msa.policy.headers import HeaderRules
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.submission import HEAD, Submitter

#: Lookups and verifications that may wait for a thread, for each thread there is.
_WAITING_PER_THREAD = 100
_LOOKUP_THREADS = 2


class Accounts:
    """Every realm's accounts, and the threads that look them up and verify passwords."""

    def __init__(
        self, settings: Settings, reactor: Any, intake_of: Callable[[RealmSettings], IIntake]
    ) -> None:
        """
        :param intake_of: what takes the messages of a realm in.
        :raise ValueError, OSError: a store cannot be used.
        """
        self._reactor = reactor
        self._threads: list[Threads] = []
        self._stores: list[Any] = []
        verification = self._verification(settings.passwords)
        lookups = self._make_threads("accounts", _LOOKUP_THREADS)
        self.realms = Realms(
            [
                self._make_realm(realm, settings, verification, lookups, intake_of(realm))
                for realm in settings.realm
            ],
            _throttle(settings.limits, reactor),
            reactor,
            MECHANISMS,
        )

    def close(self) -> None:
        """Let go of threads and stores; nobody logs in any more."""
        for threads in self._threads:
            threads.stop()
        for accounts in self._stores:
            accounts.close()

    def _verification(self, passwords: PasswordSettings) -> Passwords:
        return Passwords(
            PasswordHashing(
                memory_kib=passwords.memory_kib,
                time_cost=passwords.time_cost,
                parallelism=passwords.parallelism,
            ),
            self._make_threads("passwords", passwords.threads),
            VerifiedPasswords(self._reactor.seconds, seconds=passwords.cache_seconds),
        )

    def _make_realm(
        self,
        realm: RealmSettings,
        settings: Settings,
        verification: Passwords,
        lookups: Threads,
        intake: IIntake,
    ) -> Realm:
        accounts = open_accounts(
            realm.store,
            realm=realm.name,
            url=realm.url,
            state_directory=settings.server.state_directory,
        )
        self._stores.append(accounts)
        policies = make_policies(realm)

        def submitter(realm_name: str, account: str) -> Submitter:
            return Submitter(realm_name, account, intake, time, policies, realm.add_missing_headers)

        store = accounts.for_reactor(lookups)
        return Realm(realm.name, realm.mechanisms, store, verification, submitter)

    def _make_threads(self, name: str, size: int) -> Threads:
        threads = Threads(self._reactor, name, size=size, waiting=size * _WAITING_PER_THREAD)
        self._threads.append(threads)
        return threads


def _throttle(limits: Limits, reactor: Any) -> Throttle:
    return Throttle(
        reactor.seconds,
        per_account_and_source=limits.login_failures_per_account_and_address,
        per_source=limits.login_failures_per_address,
        per_account=limits.login_failures_per_account,
        window=limits.login_window,
        first_delay=limits.login_first_delay,
        longest_delay=limits.login_longest_delay,
        trust_for=limits.login_trust,
    )


def make_policies(realm: RealmSettings) -> tuple[IPolicy, ...]:
    """A realm's rules, in the order in which they are asked."""
    policies: list[IPolicy] = []
    if realm.senders:
        policies.append(Senders(AddressPatterns.of(realm.senders)))
    if realm.bind_sender:
        granted = {
            account: AddressPatterns.of(patterns) for account, patterns in realm.sender_addresses.items()
        }
        policies.append(BoundSender(granted))
    if realm.recipients:
        policies.append(Recipients(AddressPatterns.of(realm.recipients)))
    patterns = {name: re.compile(pattern) for name, pattern in realm.header_patterns.items()}
    if realm.required_headers or patterns or realm.maximum_header_size < HEAD:
        policies.append(HeaderRules(realm.required_headers, patterns, realm.maximum_header_size))
    return tuple(policies)
