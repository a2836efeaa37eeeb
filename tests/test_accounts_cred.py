"""The ``cred`` store: Twisted's own checkers, and those of others."""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from twisted.cred.checkers import (
    ANONYMOUS,
    AllowAnonymousAccess,
    FilePasswordDB,
    ICredentialsChecker,
)
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

import twisted.plugins
from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.cred import CredAccountStore, open_cred
from digipoort_msa.accounts.guard import GuardedStore
from digipoort_msa.accounts.realm import Realm, RealmRules
from digipoort_msa.interfaces import INamelessStore, Unavailable
from digipoort_msa.sasl.digest_hash import digest_secrets
from digipoort_msa.testing import AccountDescription, AccountStoreContract
from tests.account_doubles import Inline, account
from tests.requirements import proves

REALM = "one.nl"
BOTH = (IUsernamePassword, IUsernameHashedPassword)

PLUGIN = """
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

from tests.test_accounts_cred import Checker


@implementer(ICheckerFactory, IPlugin)
class Factory:
    authType = "house"
    authHelp = ""
    argStringFormat = "name/password"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argument):
        name, password = argument.split("/")
        return Checker({name: password})


factory = Factory()
"""


@implementer(ICredentialsChecker)
class Checker:
    """Somebody else's, which is told names and passwords alone, and answers later."""

    credentialInterfaces: tuple[Any, ...] = (IUsernamePassword,)

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self.passwords = {name.encode(): password.encode() for name, password in passwords.items()}

    def requestAvatarId(self, credentials: Any) -> Any:
        from twisted.internet import reactor

        answer: Deferred[bytes] = Deferred()
        reactor.callLater(0, self._answer, answer, credentials)  # type: ignore[attr-defined]
        return answer

    def _answer(self, answer: "Deferred[bytes]", credentials: Any) -> None:
        if answer.called:
            return
        if self.passwords.get(credentials.username) == credentials.password:
            answer.callback(credentials.username)
        else:
            answer.errback(UnauthorizedLogin())


@implementer(ICredentialsChecker)
class Scripted:
    """Answers whatever the test says."""

    def __init__(
        self, answer: Callable[[Any], Any], interfaces: tuple[Any, ...] = (IUsernamePassword,)
    ) -> None:
        self.requestAvatarId = answer
        self.credentialInterfaces = interfaces


def lying(credentials: Any, answer: Any) -> Any:
    credentials.checkPassword(b"geheim")
    return answer


class FileContract(AccountStoreContract, TestCase):
    """``file:``, through the threads."""

    verifies = True
    can_say = frozenset({Status.ACTIVE})
    cannot_hold = frozenset({"a:b"})
    has_groups = False
    has_addresses = False

    def make_store(self, accounts: Sequence[AccountDescription]) -> CredAccountStore:
        self.file = Path(self.mktemp()).absolute()
        self.change(accounts)
        return open_cred(
            realm=self.realm,
            checker=f"file:{self.file}",
            mechanisms=["PLAIN", "DIGEST-MD5"],
            threads=self.facilities().threads,
        )

    def change(self, accounts: Sequence[AccountDescription]) -> None:
        self.file.write_text("".join(f"{each.name}:{each.password}\n" for each in accounts))

    def make_dead_store(self) -> CredAccountStore:
        store = self.make_store([])
        self.file.unlink()
        return store

    def make_slow_store(self) -> CredAccountStore:
        """The threads hang in a file system that does not answer."""
        store = self.make_store([])
        release = threading.Event()
        self.addCleanup(release.set)
        for _ in range(2):
            store._threads.call(release.wait, 30).addErrback(lambda _: None)
        return store

    async def test_what_is_no_file(self) -> None:
        store = self.make_store([])
        self.file.unlink()
        os.mkfifo(self.file)
        with self.assertRaises(Unavailable):
            await store.account("piet")

    def make_lying_stores(self) -> Mapping[str, CredAccountStore]:
        lies: dict[str, Callable[[Any], Any]] = {
            "another account": lambda asked: lying(asked, b"jan"),
            "nobody in particular": lambda asked: lying(asked, ANONYMOUS),
            "nothing": lambda asked: lying(asked, None),
            "a yes of another kind": lambda asked: lying(asked, True),
            "a yes without looking": lambda asked: asked.username,
        }
        threads = self.facilities().threads
        return {
            lie: CredAccountStore(REALM, Scripted(told, (IUsernameHashedPassword,)), threads)
            for lie, told in lies.items()
        }

    async def test_odd_passwords(self) -> None:
        """The file ends a password at a colon; all else it holds."""
        passwords = ("g€heim", "ÿþ", "密码", "two words", 'q"q', "back\\slash", "%s", "#", "&<>", "Ω" * 30)
        accounts = [AccountDescription(name=f"nr{n}", password=each) for n, each in enumerate(passwords)]
        logins = self.logins(*accounts)
        for each in accounts:
            await self.assert_opens(logins, each.name, each.password)
            await self.assert_refused(logins, each.name, each.password + "x")


class NamelessContract(AccountStoreContract, TestCase):
    """A checker that is told passwords alone, in the reactor's thread."""

    verifies = True
    knows_names = False
    can_say = frozenset({Status.ACTIVE})
    has_groups = False
    has_addresses = False

    def make_store(self, accounts: Sequence[AccountDescription]) -> CredAccountStore:
        self.checker = Checker({})
        self.change(accounts)
        return self.of(self.checker)

    def of(self, checker: Any) -> CredAccountStore:
        return CredAccountStore(REALM, checker, self.facilities().threads)

    def change(self, accounts: Sequence[AccountDescription]) -> None:
        self.checker.passwords = {each.name.encode(): each.password.encode() for each in accounts}

    def make_dead_store(self) -> CredAccountStore:
        return self.of(Scripted(lambda asked: fail(ConnectionError("refused"))))

    def make_slow_store(self) -> CredAccountStore:
        return self.of(Scripted(lambda asked: Deferred()))

    def make_lying_stores(self) -> Mapping[str, CredAccountStore]:
        lies: dict[str, Callable[[Any], Any]] = {
            "another account": lambda asked: b"jan",
            "another account, later": lambda asked: succeed("jan"),
            "nobody in particular": lambda asked: ANONYMOUS,
            "nothing": lambda asked: None,
            "a yes of another kind": lambda asked: True,
        }
        return {lie: self.of(Scripted(told)) for lie, told in lies.items()}


class OpeningTests(SynchronousTestCase):
    def open(self, checker: str, *mechanisms: str) -> CredAccountStore:
        threads: Any = Inline()
        return open_cred(realm=REALM, checker=checker, mechanisms=mechanisms, threads=threads)

    def assert_wrong(self, checker: str, text: str, *mechanisms: str) -> None:
        error = self.assertRaises(ValueError, self.open, checker, *mechanisms)
        self.assertIn(text, str(error))
        self.assertNotIn("geheim", str(error))

    def test_what_there_is(self) -> None:
        self.assert_wrong("passwd:/etc/geheim", "no checker 'passwd'; there are file, memory, unix")
        self.assert_wrong("", "no checker ''")
        self.assert_wrong("anonymous", "takes no passwords; those that do are file, memory, unix")

    def test_arguments(self) -> None:
        self.assert_wrong("memory:piet:geheim:jan", "should be: A colon-separated list")
        self.assert_wrong("file:", "should be: Location of")

    def test_a_file_that_cannot_be_read(self) -> None:
        from twisted.plugins import cred_file

        self.patch(cred_file.theFileCheckerFactory, "errorOutput", SimpleNamespace(write=lambda text: None))
        self.assertRaises(FileNotFoundError, self.open, "file:/no/such/file")

    def test_mechanisms(self) -> None:
        store = self.open("memory:piet:geheim", "PLAIN", "DIGEST-MD5", "EXTERNAL", "SCRAM-SHA-256")
        self.assertEqual(store.mechanisms, {"PLAIN", "LOGIN", "DIGEST-MD5"})
        self.assertFalse(INamelessStore.providedBy(store))
        store = self.open("unix", "PLAIN", "DIGEST-MD5")
        self.assertEqual(store.mechanisms, {"PLAIN", "LOGIN"})
        self.assertTrue(INamelessStore.providedBy(store))

    @proves("A7")
    def test_no_certificate_opens_what_need_not_exist(self) -> None:
        self.assert_wrong("unix", "leave EXTERNAL out of the realm's mechanisms", "PLAIN", "EXTERNAL")
        from twisted.internet.task import Clock

        from digipoort_msa.accounts.certificates import CertificateRule

        rule = CertificateRule(name="san-email", pattern="*", account="*", issuer="")
        for checker, offered in (("unix", False), ("memory:piet:geheim", True)):
            rules = RealmRules(name=REALM, mechanisms=frozenset({"EXTERNAL"}), certificates=(rule,))
            guarded = GuardedStore(self.open(checker), REALM, Clock())
            made: Any = (rules, guarded, None, None, Clock(), None)
            self.assertIs(Realm(*made).offers("EXTERNAL"), offered, checker)

    def test_another_package_s(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "house_checker.py").write_text(PLUGIN)
        self.patch(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(folder)])
        self.addCleanup(sys.modules.pop, "twisted.plugins.house_checker", None)
        store = self.open("house:piet/anders")
        self.assertEqual((store.mechanisms, store._blocks), ({"PLAIN", "LOGIN"}, False))
        self.assert_wrong("house:geheim", "the checker 'house' does not take its argument")
        self.assert_wrong("mouse:", "there are file, house, memory, unix")


class AnswerTests(SynchronousTestCase):
    interfaces: ClassVar[tuple[Any, ...]] = (IUsernamePassword,)

    def store(self, answer: Callable[[Any], Any], interfaces: tuple[Any, ...] = (IUsernamePassword,)) -> Any:
        threads: Any = Inline()
        return CredAccountStore(REALM, Scripted(answer, interfaces), threads)

    def test_another_case_is_another_account(self) -> None:
        store = self.store(lambda asked: asked.username.lower())
        self.assertIs(self.successResultOf(store.verify(account("Piet"), "geheim")), False)
        self.assertIs(self.successResultOf(store.verify(account("piet"), "geheim")), True)

    def test_text_or_octets(self) -> None:
        for answer in ("zoë", "zoë".encode()):
            store = self.store(lambda asked, answer=answer: answer)
            self.assertIs(self.successResultOf(store.verify(account("zoë"), "geheim")), True)
        store = self.store(lambda asked: b"zo\xeb")
        self.failureResultOf(store.verify(account("zoë"), "geheim"), Unavailable)

    def test_no(self) -> None:
        for error in (UnauthorizedLogin("geheim"), LoginDenied()):
            for answer in (fail, lambda raised: (_ for _ in ()).throw(raised)):
                store = self.store(lambda asked, error=error, answer=answer: answer(error))
                self.assertIs(self.successResultOf(store.verify(account("piet"), "geheim")), False)

    def test_any_other_failure(self) -> None:
        """It is in the log, and the password is not."""
        store = self.store(lambda asked: fail(ConnectionError("no route")))
        failure = self.failureResultOf(store.verify(account("piet"), "geheim"), Unavailable)
        self.assertEqual(failure.getErrorMessage(), "the checker fails: ConnectionError: no route")
        store = self.store(lambda asked: fail(KeyError("piet:geheim")))
        failure = self.failureResultOf(store.verify(account("piet"), "geheim"), Unavailable)
        self.assertNotIn("geheim", failure.getErrorMessage())

    @proves("A7")
    def test_digest_secrets(self) -> None:
        """Of the password that the checker shows, prepared as clients prepare theirs."""
        for shown in ("g\u00adeheim", b"geheim"):

            def answer(asked: Any, shown: Any = shown) -> Any:
                return asked.username if asked.checkPassword(shown) else fail(UnauthorizedLogin())

            store = self.store(answer, BOTH)
            found = self.successResultOf(store.account("piet"))
            self.assertEqual(found.digest_secrets, digest_secrets("piet", REALM, "geheim"))

    def test_no_password_is_no_account(self) -> None:
        """An empty one, or one that no client can send, is never right."""
        for shown in (b"", b"\xff", "a\x00"):

            def answer(asked: Any, shown: Any = shown) -> Any:
                return succeed(asked.username) if asked.checkPassword(shown) else fail(UnauthorizedLogin())

            store = self.store(answer, BOTH)
            self.assertIsNone(self.successResultOf(store.account("piet")))
            self.assertIs(self.successResultOf(store.verify(account("piet"), "x")), False)

    def test_a_yes_although_the_password_did_not_fit(self) -> None:
        store = self.store(lambda asked: lying(asked, asked.username), BOTH)
        self.assertIs(self.successResultOf(store.verify(account("piet"), "anders")), False)
        self.assertIs(self.successResultOf(store.verify(account("piet"), "geheim")), True)

    def test_anonymous_access(self) -> None:
        """Even if somebody made a store of it."""
        threads: Any = Inline()
        store = CredAccountStore(REALM, AllowAnonymousAccess(), threads)
        self.failureResultOf(store.verify(account("piet"), "geheim"), Unavailable)

    def test_one_of_twisted_s_that_waits(self) -> None:
        """In a thread there is nobody to wait for it."""

        class Waiting(FilePasswordDB):
            __module__ = "twisted.cred.checkers"

            def requestAvatarId(self, credentials: Any) -> Any:
                return Deferred()

        file = Path(self.mktemp())
        file.touch()
        threads: Any = Inline()
        store = CredAccountStore(REALM, Waiting(str(file)), threads)
        self.failureResultOf(store.account("piet"), Unavailable)

    def test_no_secret_is_shown(self) -> None:
        shown = []
        store = self.store(lambda asked: shown.append(repr(asked)) or lying(asked, asked.username), BOTH)
        self.successResultOf(store.account("piet"))
        self.successResultOf(store.verify(account("piet"), "geheim"))
        self.assertEqual(len(shown), 2)
        self.assertNotIn("geheim", str(shown))


class TwistedsTests(TestCase):
    """``memory`` and ``unix``."""

    timeout = 30

    def open(self, checker: str) -> CredAccountStore:
        self.idents: set[int] = set()
        threads = AccountStoreContract.facilities(self).threads  # type: ignore[arg-type]
        return open_cred(realm=REALM, checker=checker, mechanisms=(), threads=threads)

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    async def test_memory(self) -> None:
        store = self.open("memory:piet:geheim:zoë:anders")
        self.assertIsNone(await store.account("jan"))
        for name, password in (("piet", "geheim"), ("zoë", "anders")):
            found = await store.account(name)
            assert found is not None
            self.assertEqual(found.digest_secrets, digest_secrets(name, REALM, password))
            self.assertTrue(await store.verify(found, password))
            self.assertFalse(await store.verify(found, "x"))

    async def test_unix(self) -> None:
        """The operating system's accounts; /etc/shadow is a double's, since only root reads the real one."""
        import crypt
        import pwd
        import spwd

        right = crypt.crypt("geheim", crypt.mksalt(crypt.METHOD_SHA512, rounds=1000))
        shadow = {"piet": right, "locked": f"!{right}", "nobody": "*", "empty": ""}

        def asked(name: str) -> Any:
            self.idents.add(threading.get_ident())
            return SimpleNamespace(sp_pwdp=shadow[name])

        self.patch(pwd, "getpwnam", lambda name: SimpleNamespace(pw_passwd=shadow[name] and "x"))
        self.patch(spwd, "getspnam", asked)
        store = self.open("unix")
        for name, password, expected in (
            ("piet", "geheim", True),
            ("piet", "anders", False),
            ("locked", "geheim", False),
            ("nobody", "geheim", False),
            ("empty", "geheim", False),
            ("nemo", "geheim", False),
        ):
            found = await store.account(name)
            assert found is not None
            self.assertIs(await store.verify(found, password), expected, name)
        self.assertNotIn(threading.get_ident(), self.idents)

    async def test_unix_without_leave_to_read(self) -> None:
        """An MSA that is not root: it cannot tell, so it says neither yes nor no."""
        import spwd

        def denied(name: str) -> Any:
            raise PermissionError(13, "Permission denied")

        self.patch(spwd, "getspnam", denied)
        store = self.open("unix")
        found = await store.account("root")
        assert found is not None
        with self.assertRaises(Unavailable) as caught:
            await store.verify(found, "geheim")
        self.assertIn("PermissionError", str(caught.exception))

    async def test_the_unix_of_this_machine(self) -> None:
        """root's real entry: whoever runs this, its password is not known to be that."""
        store = self.open("unix")
        found = await store.account("root")
        assert found is not None
        try:
            self.assertFalse(await store.verify(found, "not-the-password-of-root"))
        except Unavailable as error:
            self.assertNotEqual(os.getuid(), 0, error)
