"""What goes out to an endpoint and what comes back, against a real HTTPS server and worse."""

import gzip
import json
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import LoopingCall, deferLater

from digipoort_msa.accounts.account import Status
from digipoort_msa.accounts.http import endpoint as endpoint_module
from digipoort_msa.accounts.http.store import HTTPStore
from digipoort_msa.config.stores.http import Http
from digipoort_msa.service.http_accounts import open_http
from digipoort_msa.testing import AccountDescription
from tests.authority import Authority
from tests.json_endpoint import (
    AUTHORITY,
    TOKEN,
    Accounts,
    HTTPStoreCase,
    Script,
    answer,
    endpoint,
    reactor,
    scripted,
    silence,
)

PIET = AccountDescription(name="piet")
JSON = b"Content-Type: application/json\r\n"


class QuestionTests(HTTPStoreCase):
    """What goes out."""

    async def test_what_is_asked(self) -> None:
        self.serve(PIET)
        token = self.folder / "token"
        token.write_text(f"{TOKEN}\n")
        url = f"{self.server.url}/account"
        store = self.store(url, mode="verify", verify_url=f"{self.server.url}/verify", token_file=str(token))
        self.accounts.verifies = True
        account = await store.account("piet")
        assert account is not None
        self.assertIs(await store.verify(account, "geheim"), True)  # type: ignore[attr-defined]
        self.assertIs(await store.verify(account, "g"), False)  # type: ignore[attr-defined]
        self.assertEqual(
            [question for _, question in self.accounts.requests],
            [
                {"realm": "one.nl", "name": "piet"},
                {"realm": "one.nl", "name": "piet", "password": "geheim"},
                {"realm": "one.nl", "name": "piet", "password": "g"},
            ],
        )
        for headers, _ in self.accounts.requests:
            self.assertEqual(headers.getRawHeaders("authorization"), [f"Bearer {TOKEN}"])
            self.assertEqual(headers.getRawHeaders("content-type"), ["application/json; charset=UTF-8"])
            self.assertEqual(headers.getRawHeaders("accept-encoding"), ["identity"])
            self.assertIsNone(headers.getRawHeaders("cookie"))

    async def test_what_is_left_out_is_not_missed(self) -> None:
        self.serve()
        self.accounts.manners["/account"] = lambda request: answer(
            request, {**request.question, "status": "active"}
        )
        account = await self.store(f"{self.server.url}/account").account("piet")
        assert account is not None
        self.assertEqual((account.status, account.password_hash, account.scram), (Status.ACTIVE, "", None))

    async def test_connections_are_kept(self) -> None:
        self.serve(PIET)
        store = self.store(f"{self.server.url}/account")
        for _ in range(5):
            await store.account("piet")
        self.assertEqual(self.server.connections, 1)

    async def test_a_kept_connection_that_was_closed(self) -> None:
        """Endpoints close what is idle.  Nobody's login fails for that."""
        self.serve(PIET)
        store = self.store(f"{self.server.url}/account")
        await store.account("piet")
        self.server.drop()
        account = await store.account("piet")
        self.assertEqual(account and account.name, "piet")

    async def test_a_kept_connection_whose_time_is_over_after_it_was_closed(self) -> None:
        """Its time is ended without a complaint, and what is kept can be dropped ever after."""
        self.serve(PIET)
        self.patch(endpoint_module, "_IDLE", 0.01)
        store = self.store(f"{self.server.url}/account")
        await store.account("piet")
        self.server.drop()
        await deferLater(reactor, 0.05)
        self.assertEqual(self.flushLoggedErrors(), [])
        await store.stop()

    async def test_only_so_many_at_once(self) -> None:
        self.serve(PIET)
        waiting: list[Any] = []
        self.accounts.manners["/slow"] = lambda request: waiting.append(request) or silence(request)  # type: ignore[func-returns-value]
        store = self.store(f"{self.server.url}/slow", connections=2)
        asking = [store.account("piet") for _ in range(5)]
        while len(waiting) < 2:
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.05)
        self.assertEqual(len(waiting), 2)
        del self.accounts.manners["/slow"]
        for request in waiting:
            request.write(answer(request, {**request.question, "status": "active"}))
            request.finish()
        for each in asking:
            self.assertEqual((await each).name, "piet")

    async def test_no_cookie_is_kept(self) -> None:
        self.serve(PIET)

        def baking(request: Any) -> Any:
            request.addCookie("session", "x" * 100)
            return answer(request, {**request.question, "status": "active"})

        self.accounts.manners["/account"] = baking
        store = self.store(f"{self.server.url}/account")
        for _ in range(2):
            await store.account("piet")
        self.assertIsNone(self.accounts.requests[-1][0].getRawHeaders("cookie"))

    async def test_a_redirect_is_not_followed(self) -> None:
        self.serve(PIET)

        def redirecting(request: Any) -> Any:
            request.setHeader("Location", f"{self.server.url}/account")
            return answer(request, {}, 307)

        self.accounts.manners["/old"] = redirecting
        store = self.store(f"{self.server.url}/old")
        self.assertIn("/old answers with 307", await self.refusal(store))
        self.assertEqual(len(self.accounts.requests), 1)


class TLSTests(HTTPStoreCase):
    """Who it is, and who we are."""

    async def test_who_it_is(self) -> None:
        stranger = self.running(endpoint(Accounts(self.realm, [PIET]), Authority()))
        expired = self.running(endpoint(Accounts(self.realm, [PIET]), AUTHORITY, "localhost", expired=True))
        another = self.running(endpoint(Accounts(self.realm, [PIET]), AUTHORITY, "accounts.example.nl"))
        for server, reason in (
            (stranger, "certificate verify failed"),
            (expired, "certificate verify failed"),
            (another, "its certificate is not for the host that url names"),
        ):
            self.assertIn(reason, await self.refusal(self.store(f"{server.url}/account")))

    async def test_a_systems_authorities_do_not_know_it(self) -> None:
        self.serve(PIET)
        table = Http.model_validate({"url": f"{self.server.url}/account"})
        store = open_http(self.realm, table, reactor)
        self.addCleanup(store.stop)
        self.assertIn("certificate verify failed", await self.refusal(store))

    async def test_an_address(self) -> None:
        accounts = Accounts(self.realm, [PIET])
        server = self.running(endpoint(accounts, AUTHORITY, "127.0.0.1"))
        store = self.store(f"https://127.0.0.1:{server.port}/account")
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]

    async def test_who_we_are(self) -> None:
        """An endpoint that asks for a client's certificate."""
        certificate, key = AUTHORITY.files("msa.example.nl")
        (self.folder / "client.pem").write_bytes(certificate)
        (self.folder / "client.key").write_bytes(key)
        trust = trustRootFromCertificates([Certificate.loadPEM(AUTHORITY.pem)])
        accounts = Accounts(self.realm, [PIET])
        server = self.running(endpoint(accounts, AUTHORITY, "localhost", trustRoot=trust))
        url = f"{server.url}/account"
        await self.refusal(self.store(url))
        ours = {
            "certificate": str(self.folder / "client.pem"),
            "private_key": str(self.folder / "client.key"),
        }
        store = self.store(url, **ours)
        self.assertEqual((await store.account("piet")).name, "piet")  # type: ignore[union-attr]

    def test_files_that_are_wrong(self) -> None:
        nonsense = self.folder / "nonsense"
        nonsense.write_text("nonsense\n{secret}\n")
        certificate, key = AUTHORITY.files("a")
        _, another = AUTHORITY.files("b")
        for name, octets in {"c": certificate, "k": key, "a": another}.items():
            (self.folder / name).write_bytes(octets)
        folder = str(self.folder)
        for settings, text in (
            ({"ca": str(nonsense)}, "nonsense holds no PEM certificates"),
            (
                {"certificate": str(nonsense), "private_key": f"{folder}/k"},
                "nonsense holds no PEM certificate",
            ),
            (
                {"certificate": f"{folder}/c", "private_key": str(nonsense)},
                "nonsense holds no PEM private key",
            ),
            ({"certificate": f"{folder}/c", "private_key": f"{folder}/a"}, "a is not the key of the first"),
        ):
            with self.assertRaises(ValueError) as caught:
                self.store("https://localhost/", **settings)
            self.assertIn(text, str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))
        for token in ("two words", "", "a\rb", "é"):
            nonsense.write_text(token)
            with self.assertRaisesRegex(ValueError, "nonsense should hold a token as its first line"):
                self.store("https://localhost/", token_file=str(nonsense))
        with self.assertRaises(FileNotFoundError):
            self.store("https://localhost/", ca="/no/such/file")


def saying(*octets: bytes) -> Callable[[Any], None]:
    """Sends all that, and then nothing."""
    return lambda protocol: protocol.transport.write(b"".join(octets))


class HostileTests(HTTPStoreCase):
    """Servers that are no HTTP servers, or bad ones: in bounded time and memory, and never a yes."""

    def answering(self, act: Callable[[Any], None], **settings: Any) -> HTTPStore:
        self.raw = self.running(scripted(AUTHORITY, act))
        return self.store(f"{self.raw.url}/account", **{"timeout": 0.3, "connect_timeout": 0.3, **settings})

    def forever(self, first: bytes, octets: bytes, seconds: float = 0.0) -> Callable[[Any], None]:
        """Sends ``first``, and then ``octets`` again and again."""

        def act(protocol: Any) -> None:
            protocol.transport.write(first)
            sending = LoopingCall(protocol.transport.write, octets)
            sending.clock = reactor
            protocol.connectionLost = lambda _: sending.running and sending.stop()
            sending.start(seconds, now=False)

        return act

    async def test_it_never_ends(self) -> None:
        """Slowly it runs into the timeout, quickly into a bound on what is received."""
        ok = b"HTTP/1.1 200 OK\r\n"
        chunked = ok + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
        for what, act, reason in (
            ("silence", saying(), "no answer in 0.3 s"),
            ("slow headers", self.forever(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.02), "no answer in 0.3 s"),
            (
                "a slow body",
                self.forever(ok + JSON + b"Content-Length: 5000\r\n\r\n", b" ", 0.02),
                "no answer in 0.3 s",
            ),
            (
                "early hints",
                self.forever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.02),
                "no answer in 0.3 s",
            ),
            ("a long line", self.forever(ok + b"X: ", b"x" * 4096), "ConnectionLost"),
            ("many headers", self.forever(ok, b"X: y\r\n" * 1000), "it sent more than 131072 octets"),
            (
                "many hints",
                self.forever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500),
                "more than|no answer",
            ),
            (
                "a big body",
                saying(ok, JSON, b"Content-Length: 70000\r\n\r\n", b" " * 70000),
                "more than 65536",
            ),
            (
                "an endless body",
                self.forever(chunked, b"1000\r\n" + b" " * 4096 + b"\r\n"),
                "more than 65536",
            ),
            (
                "endless extensions",
                self.forever(chunked + b"1;", b"x" * 4096),
                "more than|no answer|Chunk|Malformed",
            ),
        ):
            began = reactor.seconds()
            store = self.answering(act, timeout=2 if reason.startswith("it sent") else 0.3)
            said = await self.refusal(store)
            self.assertRegex(said, reason, what)
            self.assertLess(reactor.seconds() - began, 5, what)
            while self.raw.connections:  # nothing goes on behind our back
                await deferLater(reactor, 0.01)

    async def test_it_ends_too_soon(self) -> None:
        document = json.dumps({"realm": self.realm, "name": "piet", "status": "active"}).encode()
        ok = b"HTTP/1.1 200 OK\r\n" + JSON
        length = b"Content-Length: %d\r\n\r\n" % len(document)

        def then(close: str, *octets: bytes) -> Callable[[Any], None]:
            def act(protocol: Any) -> None:
                protocol.transport.write(b"".join(octets))
                reactor.callLater(0.02, getattr(protocol.transport, close))

            return act

        for close in ("loseConnection", "abortConnection"):
            for what, octets in {
                "nothing": b"",
                "half a status": b"HTTP/1.1 20",
                "half a header": ok[:-5],
                "no body": ok + length,
                "half a body": ok + length + document[:-4],
                "a body without length": ok + b"Connection: close\r\n\r\n" + document,
                "half a chunk": ok + b"Transfer-Encoding: chunked\r\n\r\n40\r\n" + document[:20],
                "no last chunk": ok
                + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(document), document),
            }.items():
                said = await self.refusal(self.answering(then(close, octets), timeout=2))
                self.assertNotIn("no answer in", said, f"{close} {what}")
        right = self.answering(saying(ok, length, document))
        self.assertEqual((await right.account("piet")).name, "piet")  # type: ignore[union-attr]

    async def test_it_is_no_http(self) -> None:
        for octets in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"220 mail.example.nl ESMTP\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n",
            b"HTTP/1.1 OK 200\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            bytes(range(256)) * 20,
            b"\0" * 200_000,
        ):
            await self.refusal(self.answering(saying(octets)))
        self.flushLoggedErrors()

    async def test_nothing_is_unpacked(self) -> None:
        """Ten megabytes in ten kilobytes, and gzip at all."""
        document = {"realm": self.realm, "name": "piet", "status": "active"}
        for content in (gzip.compress(b" " * 10_000_000), gzip.compress(json.dumps(document).encode())):
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n" % len(content)
            said = await self.refusal(self.answering(saying(head, JSON, b"\r\n", content)))
            self.assertIn("its answer is compressed, which it was not asked for", said)

    async def test_it_knows_no_tls(self) -> None:
        factory = Factory.forProtocol(lambda: Script(saying()))  # type: ignore[arg-type]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"https://localhost:{port.getHost().port}/account"
        self.assertIn(
            "no answer in 0.2 s", await self.refusal(self.store(url, timeout=0.2, connect_timeout=0.2))
        )

    async def test_what_it_says_is_not_told(self) -> None:
        """An answer could hold a hash; the log shows no more of it than what is wrong."""
        self.serve()
        for document in ({"status": "$argon2id$secret"}, b'{"status": "$argon2id$secret"'):
            self.accounts.manners["/account"] = lambda request, it=document: answer(request, it)
            said = await self.refusal(self.store(f"{self.server.url}/account"))
            self.assertNotIn("secret", said)
