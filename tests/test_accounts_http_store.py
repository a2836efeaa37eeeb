"""The ``http`` store, against a real HTTPS server: the contract in both modes, and all a server can do."""

import json
import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, fail
from twisted.internet.task import deferLater

from digipoort_msa.accounts.account import Account, Status
from digipoort_msa.accounts.http.endpoint import Unanswered
from digipoort_msa.accounts.http.store import HTTPStore
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.testing import AccountDescription, AccountStoreContract
from tests.json_endpoint import AUTHORITY, HTTPStoreCase, answer, answering, reactor, silence
from tests.requirements import proves

PIET = AccountDescription(name="piet")


class HashContract(AccountStoreContract, HTTPStoreCase):
    """Mode ``hash``, with all that an endpoint can yield."""

    settings: dict[str, Any] = {"digest_md5": True}  # noqa: RUF012

    def make_store(self, accounts: Sequence[AccountDescription]) -> HTTPStore:
        self.serve(*accounts).verifies = self.verifies
        return self.at("/account")

    def at(self, path: str) -> HTTPStore:
        verify = {"mode": "verify", "verify_url": f"{self.server.url}/verify"} if self.verifies else {}
        return self.store(self.server.url + path, **self.settings, **verify)

    def change(self, accounts: Sequence[AccountDescription]) -> None:
        self.accounts.hold(accounts)

    def make_slow_store(self) -> HTTPStore:
        self.serve(PIET).manners["/slow"] = silence
        return self.at("/slow")

    def make_dead_store(self) -> HTTPStore:
        """A port of which only this test knows, and which is closed."""
        self.serve(PIET)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.server.url = f"https://localhost:{listening.getsockname()[1]}"
        return self.at("/account")

    def make_lying_stores(self) -> dict[str, HTTPStore]:
        self.serve(PIET, AccountDescription(name="jan")).verifies = self.verifies
        right = {"realm": self.realm, "name": "piet", **self.accounts.record(PIET)}
        lies: dict[str, Any] = {
            "another account": {**right, "name": "jan"},
            "another realm": {**right, "realm": "two.nl"},
            "another case": {**right, "name": "Piet"},
            "no name": {key: value for key, value in right.items() if key != "name"},
            "no status": {key: value for key, value in right.items() if key != "status"},
            "a status of its own": {**right, "status": "ok"},
            "a status that is no text": {**right, "status": ["active"]},
            "null for a status": {**right, "status": None},
            "a key of its own": {**right, "locked": True},
            "a name that is no text": {**right, "name": ["piet"]},
            "groups that are one text": {**right, "groups": "all"},
            "an address that is none": {**right, "addresses": ["everybody"]},
            "a list": [right],
            "a text": "piet",
            "true": True,
            "nothing": b"",
            "half of it": json.dumps(right).encode()[:-9],
            "two of it": json.dumps(right).encode() * 2,
            "a key twice": json.dumps(right).encode()[:-1] + b', "status": "active"}',
            "nested deeply": b"[" * 60_000,
            "not UTF-8": json.dumps(right, ensure_ascii=False).encode().replace(b"piet", b"pi\xebt"),
            "a byte order mark": b"\xef\xbb\xbf" + json.dumps(right).encode(),
            "not a number": json.dumps({**right, "groups": [float("nan")]}).encode(),
            "half a character": {**right, "groups": ["\ud800"]},
        }
        lies |= {
            f"other keys: {key}": {**right, key: value}
            for key, value in {
                "password-hash": 5,
                "digest-secrets": ["00" * 15],
                "scram": "SCRAM-SHA-256$1:x$y:z",
                "revision": 1,
                "digest-until": "tomorrow",
            }.items()
        }
        stores = {}
        for number, (lie, document) in enumerate(lies.items()):
            self.accounts.manners[f"/{number}"] = lambda request, it=document: answer(request, it)
            stores[lie] = self.at(f"/{number}")
        for path, (status, document, media_type) in {
            "/html": (200, right, "text/html"),
            "/login-page": (200, b"<html>Please log in</html>", "text/html"),
            "/bare-404": (404, b"<html>Not Found</html>", "text/html"),
            "/json-404": (404, {"error": "not found"}, "application/json"),
            "/other-404": (404, {"realm": self.realm, "name": "jan", "unknown": True}, "application/json"),
            "/500": (500, right, "application/json"),
            "/403": (403, right, "application/json"),
            "/204": (204, b"", "application/json"),
            "/206": (206, right, "application/json"),
        }.items():
            self.accounts.manners[path] = lambda request, it=(document, status, media_type): answer(
                request, *it
            )
            stores[path] = self.at(path)
        return stores


class HashTests(HashContract):
    async def test_scram(self) -> None:
        """With a setting, the keys that the endpoint yields."""
        self.settings = {"scram": True}
        logins = self.logins(PIET)
        self.assertEqual(logins.mechanisms, ("LOGIN", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"))
        await self.assert_opens(logins, "piet", "geheim")
        await self.assert_refused(logins, "piet", "anders")


class VerifyTests(HashContract):
    """Mode ``verify``."""

    verifies = True
    settings: dict[str, Any] = {}  # noqa: RUF012

    def lying_verdicts(self) -> dict[str, Any]:
        right = {"realm": self.realm, "name": "piet", "verified": True}
        return {
            "a yes for another": {**right, "name": "jan"},
            "a yes in another realm": {**right, "realm": "two.nl"},
            "a yes in words": {**right, "verified": "true"},
            "a yes in numbers": {**right, "verified": 1},
            "a yes to everything": {"verified": True},
            "an account": {"realm": self.realm, "name": "piet", **self.accounts.record(PIET)},
            "more than a yes": {**right, "but": "not now"},
        }

    def make_lying_stores(self) -> dict[str, HTTPStore]:
        stores = super().make_lying_stores()
        for number, (lie, document) in enumerate(self.lying_verdicts().items()):
            path = f"/verdict/{number}"
            self.accounts.manners[path] = lambda request, it=document: answer(request, it)
            url = f"{self.server.url}/account"
            stores[lie] = self.store(url, mode="verify", verify_url=self.server.url + path)
        return stores


del HashContract  # else it would be run as well


class OffByOneTests(HTTPStoreCase):
    """A peer, or a proxy before it, that answers twice: what comes next is the answer to another question."""

    def twice(self, question: dict[str, str]) -> list[Any]:
        about = {"realm": question["realm"], "name": question["name"]}
        if "password" in question:
            right = {**about, "verified": question["password"] == "geheim"}
            return [right, right]
        found = {**about, "status": "disabled" if question["name"] == "jan" else "active"}
        return [found, found]

    def asked(self, **settings: Any) -> HTTPStore:
        self.server = self.running(answering(AUTHORITY, self.twice))
        url = self.server.url
        return self.store(f"{url}/account", mode="verify", verify_url=f"{url}/verify", **settings)

    @proves("A7")
    async def test_no_password_is_right_because_another_was(self) -> None:
        store = self.asked()
        account = Account(name="piet", realm=self.realm, status=Status.ACTIVE)
        for _ in range(3):
            self.assertIs(await store.verify(account, "geheim"), True)
            self.assertIs(await store.verify(account, "anders"), False)

    async def test_connections_are_dropped(self) -> None:
        """After one answer that is to another question, the next is to its own."""
        store = self.asked(connections=1)
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]
        self.assertIn("it is about another account", await self.refusal(store, "jan"))
        found = await store.account("piet")
        self.assertEqual(found and found.status, Status.ACTIVE)


class RestingTests(HTTPStoreCase):
    """The circuit breaker, with a real endpoint; ``test_accounts_http_breaker`` has the rest."""

    @proves("A7")
    async def test_it_is_left_alone_and_tried_again(self) -> None:
        self.serve(PIET)
        busy = {"on": True}
        right = self.accounts.render_POST

        def answering(request: Any) -> Any:
            return answer(request, b"", 503, "text/html") if busy["on"] else right(request)

        self.accounts.render_POST = answering  # type: ignore[method-assign]
        settings: dict[str, Any] = {"failures": 3, "first_rest": 0.2}
        store = self.store(f"{self.server.url}/account", **settings)
        for _ in range(3):
            self.assertIn("answers with 503", await self.refusal(store))
        self.assertIn("is left alone for another", await self.refusal(store))
        self.assertEqual([event["seconds"] for event in self.events("store-rests")], [0.2])
        busy["on"] = False
        await deferLater(reactor, 0.25)
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]
        self.assertEqual(len(self.events("store-recovered")), 1)

    async def test_however_many_wait(self) -> None:
        """When a rest begins, all who wait for their turn are told at once, and the turns are there again."""
        self.serve(PIET).manners["/slow"] = silence
        settings: dict[str, Any] = {"timeout": 1.0, "connect_timeout": 1.0, "first_rest": 0.1, "failures": 1}
        store = self.store(f"{self.server.url}/slow", connections=2, **settings)
        told: list[Any] = []
        for number in range(1000):
            store.account(f"name-{number}").addBoth(told.append)
        while len(told) < 1000:
            await deferLater(reactor, 0.01)
        self.assertTrue(all(each.check(Unavailable) for each in told))
        del self.accounts.manners["/slow"]
        await deferLater(reactor, 0.15)
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]

    async def test_no_account_stops_the_others(self) -> None:
        """A record that is wrong, or a name that the endpoint stumbles over, is no reason to rest."""
        self.serve(PIET)
        right = self.accounts.render_POST

        def stumbling(request: Any) -> Any:
            said = right(request)
            if request.question["name"] != "piet":
                return answer(request, b"{}", int(request.question["name"]))
            return said

        self.accounts.render_POST = stumbling  # type: ignore[method-assign]
        store = self.store(f"{self.server.url}/account", failures=2)
        for name in ("500", "200", "400", "404") * 3:
            self.assertIn(f"answers with {name}", await self.refusal(store, name))
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]

    async def test_who_hangs_up_does_no_harm(self) -> None:
        """A client that is gone before the answer proves nothing about the endpoint."""
        self.serve(PIET)
        store = self.store(f"{self.server.url}/account", failures=1)
        for _ in range(5):
            asking = store.account("piet")
            asking.cancel()
            with self.assertRaises(CancelledError):
                await asking
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]
        self.assertEqual(self.events("store-rests"), [])

    async def test_who_waits_for_a_turn_may_go(self) -> None:
        self.serve(PIET).manners["/slow"] = silence
        store = self.store(f"{self.server.url}/slow", connections=1, timeout=0.3, connect_timeout=0.3)
        first, *others = [store.account("piet") for _ in range(4)]
        for each in others:
            each.cancel()
            with self.assertRaises(CancelledError):
                await each
        with self.assertRaises(Unavailable):
            await first
        self.assertEqual(len(self.accounts.requests), 1)

    async def test_a_trial_that_is_given_up(self) -> None:
        """Whatever becomes of the one question after a rest, the next rest is one that ends."""
        self.serve(PIET)
        store = self.store(f"{self.server.url}/account", failures=1, first_rest=0.1)
        right, broken = store._endpoint.post, [Unanswered("no"), RuntimeError("a defect"), CancelledError()]

        def post(*arguments: Any, **settings: Any) -> Any:
            return fail(broken.pop(0)) if broken else right(*arguments, **settings)

        self.patch(store._endpoint, "post", post)
        for kind in (Unavailable, RuntimeError, CancelledError):
            with self.assertRaises(kind):
                await store.account("piet")
            await deferLater(reactor, 0.45)
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]

    async def test_stopping_ends_what_is_under_way(self) -> None:
        self.serve(PIET).manners["/slow"] = silence
        store = self.store(f"{self.server.url}/slow")
        asking = store.account("piet")
        while not self.accounts.requests:
            await deferLater(reactor, 0.01)
        began = reactor.seconds()
        await store.stop()
        with self.assertRaises((Unavailable, CancelledError)):
            await asking
        self.assertLess(reactor.seconds() - began, 1)
