"""The store: a search finds the account, a bind with its name proves the password.

Whatever a server says that is not plainly an answer is :class:`~digipoort_msa.interfaces.Unavailable`: two
entries for one name, a referral to another server, an entry without a name of its own, an error.  A password
is right where the bind was a success, and the directory's password policy has nothing to say against it.
"""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.ldap.codec import NO_SUCH_OBJECT, SIZE_LIMIT_EXCEEDED, SUCCESS, Entry
from digipoort_msa.accounts.ldap.connection import LDAPConnection
from digipoort_msa.accounts.ldap.directory import Directory
from digipoort_msa.accounts.ldap.entry import (
    Attributes,
    DirectoryAccount,
    check_names,
    escaped,
    is_named,
    read_account,
    texts,
)
from digipoort_msa.interfaces import IPasswordVerifier, Unavailable

T = TypeVar("T")

#: Seconds for one look-up or one password, whatever it takes: less than the patience of who asks.
_SECONDS = 8.0
_MOST_GROUPS = 1000
_LONGEST_NAME = 1024  # characters

#: Results of a bind that are a plain no (RFC 4511 4.1.9).  Besides a wrong password, directories say so of
#: accounts that have no password, that they have locked, or that they have switched off.
_NO = {
    49: "invalidCredentials",
    48: "inappropriateAuthentication",
    19: "constraintViolation",
    50: "insufficientAccessRights",
    53: "unwillingToPerform",
}


@frozen(kw_only=True)
class Search:
    """Where accounts are, and what is asked of them.

    In a filter ``{name}`` and ``{dn}`` stand for the account's, escaped; nothing else in it has a meaning.
    """

    base: str
    scope: str = "sub"  # or "one": directly below the base
    filter: str = "(uid={name})"
    statuses: tuple[tuple[Status, str], ...] = ()  # filters that an account of that status fits
    groups_base: str | None = None  # where groups are searched for, with their filter
    groups_filter: str | None = None
    groups_name: str = "cn"


@implementer(IPasswordVerifier)
class LDAPAccountStore:
    """The accounts of one realm."""

    def __init__(
        self,
        realm: str,
        directory: Directory,
        search: Search,
        attributes: Attributes,
        reactor: IReactorTime,
        now: Callable[[], datetime],
    ) -> None:
        """:param now: the time in UTC; accounts expire by it."""
        self._realm = realm
        self._directory = directory
        self._search = search
        self._attributes = attributes
        self._reactor = reactor
        self._now = now
        mechanisms = {"PLAIN", "LOGIN"}
        if attributes.digest:
            mechanisms.add("DIGEST-MD5")
        if attributes.scram:
            mechanisms |= {"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}
        self.mechanisms = frozenset(mechanisms)

    def account(self, username: str) -> "Deferred[Account | None]":
        async def look_up(connection: LDAPConnection) -> Account | None:
            return await self._look_up(connection, username)

        return self._in_time(self._found(username, look_up))

    def verify(self, account: Account, password: str) -> "Deferred[bool]":
        if not isinstance(account, DirectoryAccount):
            raise TypeError("the account was not read from this store")
        dn = account.dn

        async def bind(connection: LDAPConnection) -> bool:
            answer = await connection.ask(lambda codec: codec.bind(dn, password))
            if answer.code == SUCCESS:
                return not answer.policy
            if answer.code in _NO:
                return False
            raise Unavailable(f"the bind of {dn} came to nothing: {answer.text}")

        return self._in_time(self._directory.binds.use(bind))

    def stop(self) -> "Deferred[Any]":
        return self._directory.stop()

    def _in_time(self, work: Coroutine[Any, Any, T]) -> "Deferred[T]":
        def too_late(_: object, seconds: float) -> NoReturn:
            raise Unavailable(f"the directory has not answered in {seconds:g} s")

        return Deferred.fromCoroutine(work).addTimeout(_SECONDS, self._reactor, too_late)

    async def _found(
        self, name: str, look_up: Callable[[LDAPConnection], Coroutine[Any, Any, Account | None]]
    ) -> Account | None:
        if not name or "\0" in name or len(name) > _LONGEST_NAME:
            return None  # which no directory need be asked
        return await self._directory.searches.use(look_up)

    async def _look_up(self, connection: LDAPConnection, name: str) -> Account | None:
        search = self._search
        found = await self._entries(
            connection,
            search.base,
            search.scope,
            _filled(search.filter, name=name),
            self._attributes.wanted,
            2,
        )
        if not found:
            return None
        if len(found) > 1:
            raise Unavailable(f"more than one entry fits {name!r}: {', '.join(entry.dn for entry in found)}")
        (entry,) = found
        if not entry.dn:
            raise Unavailable(f"the entry for {name!r} has no name")
        if not is_named(entry, self._attributes, name):
            return None
        return read_account(
            entry,
            self._attributes,
            name=name,
            realm=self._realm,
            status=await self._status(connection, entry.dn),
            now=self._now(),
            groups=await self._groups(connection, entry.dn, name),
        )

    async def _status(self, connection: LDAPConnection, dn: str) -> Status:
        """The server itself looks whether a filter fits: it knows the attribute's syntax, and we need not."""
        for status, filter_text in self._search.statuses:
            if await self._entries(connection, dn, "base", filter_text, (), 1):
                return status
        return Status.ACTIVE

    async def _groups(self, connection: LDAPConnection, dn: str, name: str) -> frozenset[str]:
        search = self._search
        if search.groups_filter is None or search.groups_base is None:
            return frozenset()
        asked = _filled(search.groups_filter, name=name, dn=dn)
        groups = await self._entries(
            connection, search.groups_base, "sub", asked, (search.groups_name,), _MOST_GROUPS
        )
        return frozenset(each for group in groups for each in texts(group.values(search.groups_name)))

    async def _entries(
        self,
        connection: LDAPConnection,
        base: str,
        scope: str,
        filter_text: str,
        attributes: tuple[str, ...],
        size: int,
    ) -> tuple[Entry, ...]:
        answer = await connection.ask(
            lambda codec: codec.search(base, scope, filter_text, attributes, size=size, seconds=_SECONDS)
        )
        if answer.code == SUCCESS:
            if attributes:  # where none was asked for, only the entry itself counts
                for entry in answer.entries:
                    check_names(entry, attributes)
            return answer.entries
        if answer.code == SIZE_LIMIT_EXCEEDED:
            raise Unavailable(f"more than {size} entries fit {filter_text} below {base}")
        if answer.code == NO_SUCH_OBJECT:
            raise Unavailable(f"there is no {base}, or it may not be read")
        raise Unavailable(f"the search below {base} for {filter_text} came to nothing: {answer.text}")


def _filled(filter_text: str, **values: str) -> str:
    """A filter with its values.  None of them can be taken for the place of another: of what is escaped, no
    brace is left."""
    for place, value in values.items():
        filter_text = filter_text.replace(f"{{{place}}}", escaped(value))
    return filter_text
