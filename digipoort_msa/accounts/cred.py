"""The ``cred`` store: any checker of Twisted's plug-ins (``twisted.cred.strcred``), such as ``file:``.

A checker is asked with a credential and answers with a name, or with ``UnauthorizedLogin``.  What it can do
here follows from the credentials it takes:

- A name and a password (``IUsernamePassword``): PLAIN and LOGIN.  Whether there is such an account cannot be
  asked, so every name gets one, and the checker decides when the password is there.  Nothing else than a
  password may prove such an account: a client certificate would open one that need not exist.
- ``IUsernameHashedPassword``, which the checker shows the password that would be right: DIGEST-MD5 as well,
  and whether there is such an account.

A yes is a yes only for the name that was asked for.  A checker that folds case says yes to another account
than the one that asked, which is no yes; any other name, or the anonymous avatar, makes no sense at all.

Twisted's own checkers read files and compute hashes where they are called, so they are called in a thread.
Those of others are called in the reactor's, as cred has it: they may return a Deferred, and may not block.
"""

import os
import stat
from collections.abc import Iterable
from hmac import compare_digest
from typing import Any, NoReturn

from attrs import define, field
from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthType, findCheckerFactories, findCheckerFactory
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.interfaces import INamelessStore, IPasswordVerifier, Unavailable
from digipoort_msa.sasl.digest_hash import digest_secrets
from digipoort_msa.sasl.saslprep import saslprep
from digipoort_msa.threads import Threads

_OURS = (IUsernamePassword, IUsernameHashedPassword)
_BLOCKING = ("twisted.cred.", "twisted.plugins.")  # where checkers are that block


def open_cred(*, realm: str, checker: str, mechanisms: Iterable[str], threads: Threads) -> "CredAccountStore":
    """Make a checker, and a store of it.

    :param checker: as ``twistd --auth`` takes it: its name, and behind a colon its argument.
    :param mechanisms: of the realm.
    :raise ValueError: it cannot be made, or serves none; the text says what there is, and never shows the
        argument, which may hold passwords.
    """
    kind, _, argument = checker.partition(":")
    made = _made(kind, argument)
    if not any(interface in _OURS for interface in made.credentialInterfaces):
        raise ValueError(f"the checker {kind!r} takes no passwords; those that do are {_known()}")
    store = CredAccountStore(realm, made, threads)
    if INamelessStore.providedBy(store) and "EXTERNAL" in mechanisms:
        raise ValueError(
            f"the checker {kind!r} cannot tell which accounts there are, so that a certificate cannot be "
            "let in: leave EXTERNAL out of the realm's mechanisms"
        )
    return store


def _made(kind: str, argument: str) -> Any:
    try:
        factory = findCheckerFactory(kind)
    except InvalidAuthType:
        raise ValueError(f"Twisted knows no checker {kind!r}; there are {_known()}") from None
    try:
        checker = factory.generateChecker(argument)
    except Exception as error:  # noqa: BLE001 (each has errors of its own)
        shown = "" if argument and argument in str(error) else f" ({error})"
        raise ValueError(
            f"the checker {kind!r} does not take its argument{shown}; it should be: {factory.argStringFormat}"
        ) from None
    if isinstance(checker, FilePasswordDB):
        _open(checker)
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # Its plug-in fills it with text, and credentials are octets: as it is, nobody could log in.
        checker.users = {_octets(name): _octets(password) for name, password in checker.users.items()}
    return checker


def _known() -> str:
    kinds = {each.authType for each in findCheckerFactories() if set(each.credentialInterfaces) & set(_OURS)}
    return ", ".join(sorted(kinds))


@implementer(IPasswordVerifier)
class CredAccountStore:
    """The accounts of one realm."""

    def __init__(self, realm: str, checker: Any, threads: Threads) -> None:
        """:param checker: an ``ICredentialsChecker`` that takes passwords."""
        self._realm = realm
        self._checker = checker
        self._threads = threads
        self._compares = IUsernamePassword in checker.credentialInterfaces  # a password with its own
        self._shows_passwords = IUsernameHashedPassword in checker.credentialInterfaces
        self._blocks = type(checker).__module__.startswith(_BLOCKING)
        self.mechanisms = frozenset({"PLAIN", "LOGIN", *(["DIGEST-MD5"] if self._shows_passwords else [])})
        if not self._shows_passwords:
            alsoProvides(self, INamelessStore)

    def account(self, username: str) -> "Deferred[Account | None]":
        if not self._shows_passwords:
            return succeed(self._account(username))
        asked = _Secrets(username, self._realm)

        def found(known: bool) -> Account | None:
            if known and not asked.secrets:
                raise Unavailable("the checker says yes to a credential that it did not check")
            return self._account(username, asked.secrets) if known else None

        return self._ask(asked).addCallback(found)

    def verify(self, account: Account, password: str) -> "Deferred[bool]":
        asked = _Password(account.name, password)

        def found(right: bool) -> bool:
            if right and asked.was_right is None and not self._compares:
                raise Unavailable("the checker says yes to a password that it did not check")
            return right and asked.was_right is not False

        return self._ask(asked).addCallback(found)

    def stop(self) -> None:
        """There is nothing to let go of: checkers have no end."""

    def _account(self, name: str, secrets: tuple[bytes, ...] = ()) -> Account:
        return Account(name=name, realm=self._realm, status=Status.ACTIVE, digest_secrets=secrets)

    def _ask(self, asked: "_Asked") -> "Deferred[bool]":
        """Does the checker say yes?"""
        ask = self._checker.requestAvatarId
        answer = (
            self._threads.call(_at_once, self._checker, asked) if self._blocks else maybeDeferred(ask, asked)
        )
        return answer.addCallbacks(_is_of, self._failed, callbackArgs=(asked.name,), errbackArgs=(asked,))

    def _failed(self, failure: Failure, asked: "_Asked") -> bool:
        if failure.check(UnauthorizedLogin, LoginDenied):
            return False
        if failure.check(Unavailable, CancelledError):
            failure.raiseException()
        text = asked.without_password(failure.getErrorMessage())
        raise Unavailable(f"the checker fails: {type(failure.value).__name__}: {text}")


def _is_of(avatar_id: object, name: str) -> bool:
    """Is it the avatar of that name?

    :raise Unavailable: it is another's altogether.
    """
    if isinstance(avatar_id, bytes):
        avatar_id = avatar_id.decode("utf-8", "replace")
    if not isinstance(avatar_id, str):
        _makes_no_sense("no name", name)
    if avatar_id != name and avatar_id.casefold() != name.casefold():
        _makes_no_sense(repr(avatar_id), name)
    return avatar_id == name


def _makes_no_sense(what: str, name: str) -> NoReturn:
    raise Unavailable(f"asked for {name!r} the checker says yes to {what}")


def _at_once(checker: Any, asked: "_Asked") -> Any:
    """In a thread: the answer of one of Twisted's own checkers."""
    if isinstance(checker, FilePasswordDB):
        try:
            _open(checker)  # which it would take for an unknown name
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error
    answer = checker.requestAvatarId(asked)
    if not isinstance(answer, Deferred):
        return answer
    answers: list[Any] = []
    answer.addBoth(answers.append)
    if not answers:
        raise Unavailable("the checker has no answer yet, and nobody to wait for")
    if isinstance(answers[0], Failure):
        answers[0].raiseException()
    return answers[0]


def _open(checker: FilePasswordDB) -> None:
    """:raise OSError, ValueError: its file cannot be read."""
    # What is no file is not waited for: opening a FIFO would.
    descriptor = os.open(checker.filename, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{checker.filename} should be a file")
    finally:
        os.close(descriptor)


@define(eq=False)
class _Asked:
    """What a checker is asked with.  ``username`` is octets, as cred has it."""

    name: str

    @property
    def username(self) -> bytes:
        return self.name.encode()

    def without_password(self, text: str) -> str:
        return text


@implementer(IUsernamePassword, IUsernameHashedPassword)
@define(eq=False)
class _Password(_Asked):
    """The password that a client sent."""

    _prepared: str = field(repr=False)
    was_right: bool | None = field(default=None, init=False)  # None: it was not compared here

    @property
    def password(self) -> bytes:
        return self._prepared.encode()

    def checkPassword(self, password: Any) -> bool:
        """:param password: the right one."""
        right = _prepared(password)
        self.was_right = right is not None and compare_digest(right.encode(), self.password)
        return self.was_right

    def without_password(self, text: str) -> str:
        return "(what it says holds the password)" if self._prepared in text else text


@implementer(IUsernameHashedPassword)
@define(eq=False)
class _Secrets(_Asked):
    """Fits any password, and keeps what DIGEST-MD5 needs of it."""

    _realm: str
    secrets: tuple[bytes, ...] = field(default=(), init=False, repr=False)

    def checkPassword(self, password: Any) -> bool:
        """:param password: the right one."""
        right = _prepared(password)
        if right is None:
            return False
        self.secrets = digest_secrets(self.name, self._realm, right)
        return True


def _prepared(password: Any) -> str | None:
    """A password as clients send it; ``None`` where there is none that could be right."""
    try:
        return saslprep(_octets(password).decode()) or None
    except ValueError:
        return None


def _octets(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
