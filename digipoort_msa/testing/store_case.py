"""What a store's test says of the store, and the ground that the suite's tests stand on."""

from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred

from digipoort_msa.accounts.account import Status
from digipoort_msa.interfaces import Facilities
from digipoort_msa.testing.accounts import AccountDescription
from digipoort_msa.testing.logins import Logins
from digipoort_msa.threads import Threads

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _TestCase
else:
    _TestCase = object  # whoever inherits brings it: this module has nothing for a runner to find

BOUND = 10.0  # seconds in which anything has to be over, on the slowest machine


class AccountStoreCase(_TestCase):
    """What the back end cannot do is declared in attributes; the defaults declare the most."""

    timeout = 60

    realm = "one.nl"
    #: The statuses that the store can say.
    can_say: ClassVar[frozenset[Status]] = frozenset(Status)
    #: Those of ``ODD_NAMES`` that the back end cannot hold: they have to be unknown names, and nothing else.
    cannot_hold: ClassVar[frozenset[str]] = frozenset()
    #: Does it know which names exist?  One that does not (``INamelessStore``) gives an account for each, and
    #: no password fits it.
    knows_names: ClassVar[bool] = True
    has_groups: ClassVar[bool] = True
    has_addresses: ClassVar[bool] = True
    #: Is all that it needs in memory, so that no back end can be slow?
    answers_at_once: ClassVar[bool] = False
    #: Does it verify passwords itself (``IPasswordVerifier``)?
    verifies: ClassVar[bool] = False
    #: Does it replace hashes (``IUpgradableAccountStore``)?
    upgrades: ClassVar[bool] = False
    #: Octets of a password that the back end compares at the least; bcrypt has 72.
    password_octets: ClassVar[int] = 200

    # -- what a store's test says ----------------------------------------------------------------------------

    def make_store(self, accounts: Sequence[AccountDescription]) -> Any:
        """A store of ``self.realm``; its back end holds these accounts, with whatever its mechanisms need."""
        raise NotImplementedError

    def change(self, accounts: Sequence[AccountDescription]) -> "Deferred[None] | Awaitable[None] | None":
        """The back end of the store made last holds these accounts from now on, and no others."""
        raise NotImplementedError

    def make_dead_store(self) -> Any:
        """A store whose back end cannot be asked.

        :raise ValueError, OSError: where that already shows when the store is opened.
        """
        raise NotImplementedError

    def make_slow_store(self) -> Any:
        """A store whose back end takes for ever to answer; the test's cleanup releases it.  Not asked for
        where ``answers_at_once``."""
        raise NotImplementedError

    def make_lying_stores(self) -> Mapping[str, Any]:
        """Stores whose back ends lie when they are asked for ``piet`` with the password ``geheim``, by what
        the lie is: another account's record, say, a record with half of it missing, a yes to everything.

        Each lie has to be found out: :class:`~digipoort_msa.interfaces.Unavailable`.
        """
        raise NotImplementedError

    # -- what it may use -------------------------------------------------------------------------------------

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    def facilities(self) -> Facilities:
        """What the service would hand to a store; gone at the end of the test."""
        threads = Threads(self.reactor, "accounts", size=2, waiting=100)
        self.addCleanup(threads.stop)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        return Facilities(self.reactor, threads, folder)

    def opened(self, store: Any) -> Any:
        """``store``, to be stopped at the end of the test."""
        self.addCleanup(self._stop, store)
        return store

    def logins(self, *accounts: AccountDescription) -> Logins:
        """The realm of a store that holds these accounts."""
        return Logins(self.opened(self.make_store(accounts)), self.realm, self.reactor)

    async def assert_opens(self, logins: Logins, name: str, password: str) -> None:
        """Each mechanism of the store lets them in, and as whom they said they were."""
        for mechanism in logins.mechanisms:
            identity = await logins.log_in(mechanism, name, password)
            self.assertEqual((identity.name, identity.realm), (name, self.realm), mechanism)

    async def assert_refused(
        self, logins: Logins, name: str, password: str, error: type[Exception] = UnauthorizedLogin
    ) -> None:
        """No mechanism of the store lets them in: the password is not theirs, or they may not log in."""
        for mechanism in logins.mechanisms:
            try:
                identity = await logins.log_in(mechanism, name, password)
            except error:
                continue
            self.fail(f"{mechanism} has to refuse {name!r} with {password[:40]!r}, and let in {identity}")

    async def hold_instead(self, *accounts: AccountDescription) -> None:
        made = self.change(accounts)
        if made is not None:
            await made

    def soon(self, answer: "Deferred[Any]", what: str = "the answer") -> "Deferred[Any]":
        """:raise TimeoutError: (as the failure) ``what`` took too long."""

        def too_late(_: object, seconds: float) -> NoReturn:
            raise TimeoutError(f"{what} did not come in {seconds:g} s")

        return answer.addTimeout(BOUND, self.reactor, too_late)

    def _stop(self, store: Any) -> "Deferred[Any]":
        return self.soon(maybeDeferred(store.stop), "the end of stop()")
