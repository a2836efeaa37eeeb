"""Accounts that a JSON endpoint is asked for.

What counts as "it does not answer" for the circuit breaker is what no single account should cause: no
connection, no answer in time, or a status that says that the whole service is unavailable.  A record that is
wrong, or a 500, is of one question; it makes that login fail, and must not be a way to stop everybody else's.
"""

from collections.abc import Mapping

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.failure import Failure
from zope.interface import implementer

from digipoort_msa.accounts.account import Account
from digipoort_msa.accounts.http import answer
from digipoort_msa.accounts.http.breaker import Breaker
from digipoort_msa.accounts.http.endpoint import Answer, Endpoint, Unanswered
from digipoort_msa.interfaces import IAccountStore, IPasswordVerifier, Unavailable

_OVERLOADED = frozenset({429, 502, 503, 504})


@frozen(kw_only=True)
class Questions:
    """What the endpoint is asked, and what it yields."""

    realm: str
    url: str  # for an account
    verify_url: str | None = None  # for a verdict on a password; None where it yields hashes
    digest_md5: bool = False  # its accounts have digest-secrets
    scram: bool = False  # its accounts have SCRAM keys

    @property
    def mechanisms(self) -> frozenset[str]:
        return frozenset(
            {"PLAIN", "LOGIN"}
            | ({"DIGEST-MD5"} if self.digest_md5 else set())
            | ({"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"} if self.scram else set())
        )

    @property
    def yields(self) -> frozenset[str]:
        return frozenset(
            {answer.HASH if self.verify_url is None else answer.REVISION}
            | ({answer.DIGEST} if self.digest_md5 else set())
            | ({answer.SCRAM} if self.scram else set())
        )


@implementer(IAccountStore)
class HTTPStore:
    """An endpoint that yields password hashes."""

    def __init__(self, questions: Questions, endpoint: Endpoint, breaker: Breaker, *, at_once: int) -> None:
        """:param at_once: questions that are under way at the most; others wait."""
        self.mechanisms = questions.mechanisms
        self._questions = questions
        self._endpoint = endpoint
        self._breaker = breaker
        self._turns = DeferredSemaphore(at_once)
        self._under_way: set[Deferred[Answer]] = set()
        self._ended = 0  # questions whose turns are still to be given on

    def account(self, username: str) -> "Deferred[Account | None]":
        return Deferred.fromCoroutine(self._account(username))

    def stop(self) -> "Deferred[None]":
        for asking in tuple(self._under_way):
            asking.cancel()
        return self._endpoint.stop()

    async def _account(self, username: str) -> Account | None:
        said = await self._ask(self._questions.url, {"name": username})
        realm = self._questions.realm
        try:
            if said.status == 404:
                answer.unknown(said.content, realm, username)
                return None
            return answer.account(said.content, realm, username, self._questions.yields)
        except ValueError as error:
            await self._endpoint.distrust()
            raise Unavailable(f"{self._questions.url} answers with {said.status}: {error}") from error

    async def _ask(self, url: str, question: Mapping[str, str], *, alone: bool = False) -> Answer:
        """
        :param alone: see :meth:`.Endpoint.post`.
        :return: an answer in JSON, with 200 or 404.
        :raise Unavailable: there is no such answer.
        """
        await self._turns.acquire()
        said = await self._to_its_end(url, {"realm": self._questions.realm, **question}, alone)
        if said.status not in {200, 404}:
            raise Unavailable(f"{url} answers with {said.status}")
        if said.media_type != "application/json":
            raise Unavailable(f"{url} answers with {said.status} and something else than application/json")
        return said

    def _to_its_end(self, url: str, question: Mapping[str, str], alone: bool) -> "Deferred[Answer]":
        """A question that is out is seen through, although its client may hang up: whoever hangs up again
        and again must not look like an endpoint that does not answer."""
        asking = Deferred.fromCoroutine(self._admitted(url, question, alone))
        self._under_way.add(asking)
        said: Deferred[Answer] = Deferred()

        def done(outcome: Answer | Failure) -> None:
            self._under_way.discard(asking)
            self._next()
            if not said.called:
                said.callback(outcome)

        asking.addBoth(done)
        return said

    def _next(self) -> None:
        """A turn may end as soon as it is given, as all do while the endpoint rests: with a call inside a
        call for each, a hundred who wait would be too many for the stack."""
        self._ended += 1
        if self._ended > 1:
            return  # to the loop below, further up
        while self._ended:
            self._turns.release()
            self._ended -= 1

    async def _admitted(self, url: str, question: Mapping[str, str], alone: bool) -> Answer:
        self._breaker.admit()
        try:
            said = await self._endpoint.post(url, question, alone=alone)
        except Unanswered as error:
            self._breaker.failed(str(error))
            raise Unavailable(f"{url}: {error}") from error
        except Unavailable as error:
            self._breaker.succeeded()
            raise Unavailable(f"{url}: {error}") from error
        except (
            BaseException
        ):  # it is being stopped, or this is a defect; who probes must not leave it at that
            self._breaker.failed("the question was given up")
            raise
        if said.status in _OVERLOADED:
            self._breaker.failed(f"it answers with {said.status}")
        else:
            self._breaker.succeeded()
        return said


@implementer(IPasswordVerifier)
class HTTPVerifyingStore(HTTPStore):
    """An endpoint that verifies passwords itself."""

    def verify(self, account: Account, password: str) -> "Deferred[bool]":
        return Deferred.fromCoroutine(self._verify(account, password))

    async def _verify(self, account: Account, password: str) -> bool:
        url = self._questions.verify_url or ""
        said = await self._ask(url, {"name": account.name, "password": password}, alone=True)
        try:
            if said.status == 404:
                answer.unknown(said.content, self._questions.realm, account.name)
                return False
            return answer.verdict(said.content, self._questions.realm, account.name)
        except ValueError as error:
            raise Unavailable(f"{url} answers with {said.status}: {error}") from error
