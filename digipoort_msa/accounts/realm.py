"""Realms: a ``twisted.cred`` portal each, and the door before them all.

A login goes: choose the realm (:mod:`.names`), ask the throttle, wait if it says so, verify, tell the
throttle.  A realm offers a mechanism only when its settings list it and its store can verify it (A7); a
credential of a kind that the realm does not offer is refused there, even when another realm offers it.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import Interface, implementer

from digipoort_msa.accounts.checkers import DigestChecker, PasswordChecker
from digipoort_msa.accounts.names import local_name, realm_of
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.interfaces import IAccountStore, IRealms, ISubmitter
from digipoort_msa.sasl.credentials import IDigestCredential

Credential = Any  # provides an interface of digipoort_msa.sasl.credentials

_DIGEST = frozenset({"DIGEST-MD5"})


@implementer(IRealm)
class Realm:
    """One realm: its accounts, and the avatars they become."""

    def __init__(
        self,
        name: str,
        mechanisms: Iterable[str],
        store: IAccountStore,
        passwords: Passwords,
        submitter: Callable[[str, str], ISubmitter],
    ) -> None:
        """
        :param mechanisms: those that the settings list.
        :param submitter: makes the avatar, from the realm's and the account's name.
        """
        self.name = name
        self.mechanisms = frozenset(mechanisms) & store.mechanisms
        self._submitter = submitter
        checkers: list[ICredentialsChecker] = []
        if self.mechanisms & _DIGEST:
            checkers.append(DigestChecker(name, store))
        if self.mechanisms - _DIGEST:
            checkers.append(PasswordChecker(name, store, passwords))
        self.portal = Portal(self, checkers)

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], ISubmitter, Callable[[], None]]:
        """The submitter for an account's name; the only avatar there is.

        :raise NotImplementedError: another interface was asked for, or an anonymous avatar.
        """
        if ISubmitter not in interfaces or not isinstance(avatarId, bytes):
            raise NotImplementedError("a realm has submitters, and nothing else; none is anonymous")
        return ISubmitter, self._submitter(self.name, avatarId.decode()), lambda: None


@implementer(IRealms)
class Realms:
    """See :class:`~digipoort_msa.interfaces.IRealms`."""

    def __init__(
        self, realms: Sequence[Realm], throttle: Throttle, reactor: IReactorTime, registry: Iterable[str]
    ) -> None:
        """
        :param realms: at least one; the first is meant when a login names none.
        :param registry: every mechanism's name, in the order in which they are shown.
        """
        if not realms:
            raise ValueError("there must be a realm")
        self._realms = {realm.name: realm for realm in realms}
        if len(self._realms) < len(realms):
            raise ValueError("two realms have the same name")
        self._first = realms[0]
        self._throttle = throttle
        self._reactor = reactor
        self.mechanisms = tuple(name for name in registry if self.realms_offering(name))

    def realms_offering(self, mechanism: str) -> tuple[str, ...]:
        return tuple(realm.name for realm in self._realms.values() if mechanism in realm.mechanisms)

    @inlineCallbacks
    def login(self, credential: Credential, source: str) -> Generator[Deferred[Any], Any, ISubmitter]:
        realm = self._realm_for(credential)
        name = local_name(credential.username, realm.name)
        attempt = self._throttle.attempt(realm.name, name, source)
        delay = attempt.admit()
        if delay:
            yield deferLater(self._reactor, delay)
            attempt.admit()  # many may have waited side by side
        try:
            _, avatar, _ = yield realm.portal.login(credential, None, ISubmitter)
        except UnhandledCredentials:
            raise UnauthorizedLogin(f"realm {realm.name} does not offer this mechanism") from None
        except (UnauthorizedLogin, CancelledError):
            # A client that hangs up has had its verification too.
            attempt.failed()
            raise
        attempt.succeeded()
        submitter: ISubmitter = avatar
        return submitter

    def _realm_for(self, credential: Credential) -> Realm:
        if IDigestCredential.providedBy(credential):
            if credential.realm not in self._realms:
                raise UnauthorizedLogin("there is no such realm")
            return self._realms[credential.realm]
        named = realm_of(credential.username, self._realms)
        return self._realms[named] if named else self._first
