"""Realms: a ``twisted.cred`` portal each, and the door before them all.

A login goes: choose the realm (:mod:`.names`), ask the throttle, wait if it says so, await its turn, verify,
tell the throttle.  A realm offers a mechanism only when its settings list it and its store can verify it
(A7); a credential of a kind that the realm does not offer is refused there, even when another realm offers
it.
"""

import hmac
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import date
from typing import Any, NoReturn

from attrs import frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import Interface, implementer

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.certificates import CertificateChecker, CertificateRule, CertificateRules
from digipoort_msa.accounts.checkers import DigestChecker, PasswordChecker, ScramChecker
from digipoort_msa.accounts.framing import framed
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.names import local_name, realm_of
from digipoort_msa.accounts.passwords import Passwords
from digipoort_msa.accounts.refusals import LevelledChecker, levelled
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.accounts.usage import Usage
from digipoort_msa.accounts.verifier import VerifierChecker
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import IRealms, ISubmitter, MechanismRetired, Unavailable
from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.credentials import ICertificateCredential, IDigestCredential
from digipoort_msa.sasl.mechanism import Channel, Mechanism
from digipoort_msa.sasl.scram_keys import ScramKeys

Credential = Any  # provides an interface of digipoort_msa.sasl.credentials

_DIGEST = frozenset({"DIGEST-MD5"})
_SCRAM = frozenset({"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"})
_CERTIFICATE = frozenset({"EXTERNAL"})
_PATIENCE = 10.0  # seconds that a login waits for those beside it


@frozen(kw_only=True)
class RealmRules:
    """What the settings say of a realm's logins."""

    name: str
    mechanisms: frozenset[str]  # those that the settings list
    digest_until: date | None = None  # the last day (UTC) of DIGEST-MD5; None: no end
    refusal_time: float = 0.5  # seconds: see :mod:`.refusals`
    scram_iterations: int = 100_000  # of new keys
    prepare_scram: bool = False  # make keys although SCRAM is not offered yet
    certificates: tuple[CertificateRule, ...] = ()  # which accounts client certificates stand for


@implementer(IRealm)
class Realm:
    """One realm: its accounts, and the avatars they become."""

    def __init__(
        self,
        rules: RealmRules,
        store: GuardedStore,
        passwords: Passwords,
        submitter: Callable[[Identity], ISubmitter],
        reactor: IReactorTime,
        today: Callable[[], date],
    ) -> None:
        """
        :param submitter: makes the avatar.
        :param today: the date in UTC.
        """
        self.name = rules.name
        self.rules = rules
        self._store = store
        self._submitter = submitter
        self._reactor = reactor
        self._today = today
        self._mechanisms = rules.mechanisms & (store.mechanisms - _CERTIFICATE)
        self._certificates = CertificateRules(self.name, rules.certificates)
        checkers: list[ICredentialsChecker] = []
        if self._mechanisms & _DIGEST:
            checkers.append(DigestChecker(self.name, store, today))
        if self._mechanisms - _DIGEST - _SCRAM - _CERTIFICATE:  # PLAIN, LOGIN, or one of an engineer's own
            if store.verifies:
                checkers.append(VerifierChecker(self.name, store, passwords.cache))
            else:
                iterations = rules.scram_iterations if self._keeps_scram_keys else None
                checkers.append(PasswordChecker(self.name, store, passwords, iterations))
        if self._mechanisms & _SCRAM:
            checkers.append(ScramChecker(self.name, store))
        if not store.is_even:
            checkers = [LevelledChecker(each, reactor, rules.refusal_time) for each in checkers]
        if rules.mechanisms & _CERTIFICATE and self._certificates and store.knows_names:
            # Any store that knows its accounts can serve it, and no other, whatever it says of itself.
            self._mechanisms |= _CERTIFICATE
            # Not levelled: who has no such certificate cannot ask at all, and who has knows its account.
            checkers.append(CertificateChecker(self.name, store, self._certificates))
        self.portal = Portal(self, checkers)

    def offers(self, mechanism: str) -> bool:
        """Is it in the settings, can the store verify it, and is its time not over?"""
        if mechanism not in self._mechanisms:
            return False
        return self._retired(mechanism) is None

    def retired(self) -> frozenset[str]:
        """What would be offered, were its time not over."""
        return self._mechanisms & _DIGEST if self._retired("DIGEST-MD5") is not None else frozenset()

    def knows(self, certificate: ClientCertificate) -> bool:
        """Does it stand for an account here?"""
        return self.why_nobody(certificate) is None

    def why_nobody(self, certificate: ClientCertificate) -> str | None:
        """Why it stands for no account here; ``None`` where it stands for one."""
        if not self._mechanisms >= _CERTIFICATE:
            return f"realm {self.name} takes no certificates"
        try:
            self._certificates.account_of(certificate)
        except UnauthorizedLogin as error:
            return str(error)
        return None

    def takes(self, mechanism: str) -> bool:
        """Is a login with it looked at?  EHLO speaks for all realms, and not each offers what it shows.

        SCRAM bound to the channel is welcome where it is offered unbound: it proves more, by the same keys.
        """
        return mechanism in self._mechanisms or (
            mechanism == "SCRAM-SHA-256-PLUS" and bool(self._mechanisms & _SCRAM)
        )

    @property
    def _keeps_scram_keys(self) -> bool:
        """Are they wanted, and can the store keep and verify them?"""
        wanted = self.rules.prepare_scram or bool(self.rules.mechanisms & _SCRAM)
        return wanted and "scram" in self._store.keeps and bool(self._store.mechanisms & _SCRAM)

    def check(self, mechanism: str) -> None:
        """:raise MechanismRetired: the realm's time for it is over."""
        if (since := self._retired(mechanism)) is not None:
            raise MechanismRetired(mechanism, since)

    def _retired(self, mechanism: str) -> date | None:
        """The last day of a mechanism, where that is over."""
        until = self.rules.digest_until
        return until if mechanism in _DIGEST and until is not None and self._today() > until else None

    @inlineCallbacks
    def scram_keys(self, name: str) -> Generator[Deferred[Any], Any, ScramKeys | None]:
        """Those of an account, be it one that may not log in: else all could see its salt change by that.
        Whether it may is looked at when the proof is there."""
        if not self._mechanisms & _SCRAM:
            return None
        began = self._reactor.seconds()
        account: Account | None = yield self._store.account(name)
        if not self._store.is_even and self.rules.refusal_time > 0:
            yield levelled(self._reactor, self.rules.refusal_time, began)
        return account.scram if account is not None else None

    def requestAvatar(  # type: ignore[override]  # an avatar's id is more than its name
        self, avatarId: Identity, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], ISubmitter, Callable[[], None]]:
        """The submitter for an account; the only avatar there is.

        :raise NotImplementedError: another interface was asked for, or an anonymous avatar.
        """
        if ISubmitter not in interfaces or not isinstance(avatarId, Identity):
            raise NotImplementedError("a realm has submitters, and nothing else; none is anonymous")
        return ISubmitter, self._submitter(avatarId), lambda: None


@implementer(IRealms)
class Realms:
    """See :class:`~digipoort_msa.interfaces.IRealms`."""

    def __init__(
        self,
        realms: Sequence[Realm],
        throttle: Throttle,
        reactor: IReactorTime,
        registry: Mapping[str, Mechanism],
        nobodys_key: bytes,
        usage: Usage | None = None,
    ) -> None:
        """
        :param realms: at least one; the first is meant when a login names none.
        :param registry: every mechanism, in the order in which they are shown.
        :param nobodys_key: a secret that stays the same: the SCRAM keys of nobody are made with it.
        :param usage: is told of each login.
        """
        if not realms:
            raise ValueError("there must be a realm")
        self._realms = {realm.name: realm for realm in realms}
        if len(self._realms) < len(realms):
            raise ValueError("two realms have the same name")
        self._first = realms[0]
        self._throttle = throttle
        self._reactor = reactor
        self._registry = registry
        self._nobodys_key = nobodys_key
        self._usage = usage

    def offered(self, channel: Channel | None, allowed: frozenset[str] | None = None) -> tuple[str, ...]:
        return tuple(
            name
            for name, mechanism in self._registry.items()
            if (allowed is None or name in allowed)
            and (mechanism.in_clear if channel is None else mechanism.can_succeed(channel))
            and any(realm.offers(name) for realm in self._realms_for(name, channel))
        )

    def retired(self, allowed: frozenset[str] | None = None) -> frozenset[str]:
        realms = self._realms.values()
        return frozenset(
            name
            for realm in realms
            for name in realm.retired()
            if (allowed is None or name in allowed) and not any(other.offers(name) for other in realms)
        )

    def why_nobody(self, certificate: ClientCertificate) -> str:
        realms = [realm for realm in self._realms.values() if realm.offers("EXTERNAL")]
        reasons = filter(None, (realm.why_nobody(certificate) for realm in realms))
        return "; ".join(reasons) or "no realm takes certificates"

    def _realms_for(self, mechanism: str, channel: Channel | None) -> Sequence[Realm]:
        """Those whose accounts a connection could log in to with a mechanism."""
        realms = tuple(self._realms.values())
        if mechanism not in _CERTIFICATE or channel is None or channel.certificate is None:
            return realms
        return [realm for realm in realms if realm.knows(channel.certificate)]

    def realms_offering(self, mechanism: str) -> tuple[str, ...]:
        return tuple(realm.name for realm in self._realms.values() if realm.offers(mechanism))

    def scram_keys(self, username: str) -> "Deferred[ScramKeys]":
        realm = self._named(username)
        name = local_name(username, realm.name)
        nobodys = self._nobodys(realm, name)  # made for each name, so that it costs all of them the same
        return realm.scram_keys(name).addCallback(lambda keys: keys or nobodys)

    @inlineCallbacks
    def login(
        self, credential: Credential, source: str, mechanism: str
    ) -> Generator[Deferred[Any], Any, ISubmitter]:
        if ICertificateCredential.providedBy(credential):
            by_certificate = yield self._login_by_certificate(credential, source, mechanism)
            return by_certificate
        realm = self._realm_for(credential)
        name = local_name(credential.username, realm.name)
        attempt = self._throttle.attempt(realm.name, name, source)
        delay = attempt.admit()
        if delay:
            yield deferLater(self._reactor, delay)
        yield attempt.begin().addTimeout(_PATIENCE, self._reactor, _out_of_patience)
        try:
            if not realm.takes(mechanism):
                raise UnhandledCredentials
            _, avatar, _ = yield realm.portal.login(credential, None, ISubmitter)
            realm.check(mechanism)
        except UnhandledCredentials:
            raise UnauthorizedLogin(f"realm {realm.name} does not offer this mechanism") from None
        except (UnauthorizedLogin, CancelledError):
            # A client that hangs up has had its verification too.
            attempt.failed()
            raise
        except MechanismRetired:
            attempt.succeeded()  # the proof was right; beyond the limits the client must not learn that
            raise
        else:
            attempt.succeeded()
        finally:
            attempt.end()
        return self._logged_in(avatar, source, mechanism)

    @inlineCallbacks
    def _login_by_certificate(
        self, credential: Credential, source: str, mechanism: str
    ) -> Generator[Deferred[Any], Any, ISubmitter]:
        """TLS has verified who it is.  There is nothing to guess, so failures are not counted: to count them
        for an account would let any holder of a certificate shut it out.  Nor do those of others hold it up.

        :raise UnauthorizedLogin: (as the failure) no realm that offers EXTERNAL, or not the one that is
            named, knows the certificate; or see the checker.
        """
        named = realm_of(credential.username, self._realms)
        realms = [self._realms[named]] if named else list(self._realms.values())
        realm = next((one for one in realms if one.knows(credential.certificate)), None)
        if realm is None:
            where = f"realm {named}" if named else "any realm"
            raise UnauthorizedLogin(
                f"the certificate of {credential.certificate.subject} stands for no account of {where}"
            )
        _, avatar, _ = yield realm.portal.login(credential, None, ISubmitter)
        return self._logged_in(avatar, source, mechanism)

    def _logged_in(self, submitter: ISubmitter, source: str, mechanism: str) -> ISubmitter:
        if self._usage is not None:
            self._usage.succeeded(submitter.realm, submitter.account, mechanism, source)
        return submitter

    def _realm_for(self, credential: Credential) -> Realm:
        if IDigestCredential.providedBy(credential):
            if credential.realm not in self._realms:
                raise UnauthorizedLogin("there is no such realm")
            return self._realms[credential.realm]
        return self._named(credential.username)

    def _named(self, username: str) -> Realm:
        named = realm_of(username, self._realms)
        return self._realms[named] if named else self._first

    def _nobodys(self, realm: Realm, name: str) -> ScramKeys:
        """Keys that no password fits; as long as the key stays the same, so do they."""

        def derived(purpose: str) -> bytes:
            return hmac.digest(self._nobodys_key, framed(purpose, realm.name, name), "sha256")

        return ScramKeys(
            derived("salt")[:16], realm.rules.scram_iterations, derived("stored"), derived("server")
        )


def _out_of_patience(_: object, seconds: float) -> NoReturn:
    raise Unavailable(f"the logins beside it have had no verdict in {seconds:g} s")
