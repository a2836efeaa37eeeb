"""Endpoints for the ``http`` store: a real HTTPS server on loopback, and one that misbehaves."""

import json
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from digipoort_msa.accounts.http.store import HTTPStore
from digipoort_msa.config.stores.http import Http
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.service.http_accounts import open_http
from digipoort_msa.testing import AccountDescription
from tests.authority import Authority
from tests.msa import _Events as Events

reactor: Any = global_reactor
AUTHORITY = Authority()
TOKEN = "a-token.of_letters~+/="

#: What a path does instead of answering: it is given the request, and returns what ``render`` does.
Manner = Callable[[Any], Any]


class Listening:
    """A factory that listens with TLS on a port of its own, and goes with all its connections."""

    def __init__(
        self, factory: Factory, authority: Authority, names: Sequence[str] = ("localhost",), **tls: Any
    ) -> None:
        self._factory = WrappingFactory(factory)
        options = authority.server(*names, **tls)
        self._port = reactor.listenSSL(0, self._factory, options, interface="127.0.0.1")
        self.port: int = self._port.getHost().port
        self.url = f"https://localhost:{self.port}"

    @property
    def connections(self) -> int:
        return len(self._factory.protocols)

    def drop(self) -> None:
        for connection in list(self._factory.protocols):
            connection.transport.abortConnection()

    async def stop(self) -> None:
        await maybeDeferred(self._port.stopListening)
        self.drop()
        while self._factory.protocols:
            await deferLater(reactor, 0)


class Accounts(Resource):
    """``/account`` and ``/verify``, as ``docs/stores/http.rst`` has them; ``manners`` are of other paths."""

    isLeaf = True

    def __init__(self, realm: str, accounts: Sequence[AccountDescription] = ()) -> None:
        super().__init__()
        self.realm = realm
        self.manners: dict[str, Manner] = {}
        self.requests: list[Any] = []  # what was asked: headers and document
        self.verifies = False
        self.generation = 0
        self.hold(accounts)

    def hold(self, accounts: Sequence[AccountDescription]) -> None:
        self.generation += 1
        self.accounts = {account.name: account for account in accounts}

    def render_POST(self, request: Any) -> Any:
        question = json.loads(request.content.read())
        self.requests.append((request.requestHeaders, question))
        request.question = question
        path = request.path.decode()
        if path in self.manners:
            return self.manners[path](request)
        about = {"realm": question["realm"], "name": question["name"]}
        account = self.accounts.get(question["name"]) if question["realm"] == self.realm else None
        if account is None:
            return answer(request, {**about, "unknown": True}, 404)
        if path == "/verify":
            return answer(request, {**about, "verified": account.password == question["password"]})
        return answer(request, {**about, **self.record(account)})

    def record(self, account: AccountDescription) -> dict[str, Any]:
        document: dict[str, Any] = {
            "status": account.status.value,
            "groups": sorted(account.groups),
            "addresses": list(account.addresses),
        }
        if self.verifies:
            return {**document, "revision": str(self.generation)}
        return {
            **document,
            "password-hash": account.password_hash(),
            "digest-secrets": [secret.hex() for secret in account.digest_secrets(self.realm)],
            "scram": scram(account),
        }


def scram(account: AccountDescription) -> str:
    keys = account.scram_keys()
    salt, stored, server = (
        b64encode(octets).decode() for octets in (keys.salt, keys.stored_key, keys.server_key)
    )
    return f"SCRAM-SHA-256${keys.iterations}:{salt}${stored}:{server}"


def answer(request: Any, document: Any, status: int = 200, media_type: str = "application/json") -> bytes:
    """What a resource's ``render`` gives back; ``document`` is JSON's, or octets as they are."""
    request.setResponseCode(status)
    request.setHeader("Content-Type", media_type)
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def silence(request: Any) -> Any:
    """No answer, ever."""
    return NOT_DONE_YET


def endpoint(accounts: Accounts, authority: Authority, *names: str, **tls: Any) -> Listening:
    site = Site(accounts)
    site.noisy = False  # type: ignore[attr-defined]
    return Listening(site, authority, names or ("localhost",), **tls)


class Script(Protocol):
    """Does what it is told once the request's header section is there; knows no HTTP."""

    def __init__(self, act: Callable[[Any], None]) -> None:
        self._act = act
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        before = self._received
        self._received += data
        if b"\r\n\r\n" in self._received and b"\r\n\r\n" not in before:
            self._act(self)


def scripted(authority: Authority, act: Callable[[Any], None]) -> Listening:
    factory = Factory.forProtocol(lambda: Script(act))  # type: ignore[arg-type]
    factory.noisy = False
    return Listening(factory, authority)


class Answering(Protocol):
    """Answers each question with a document; when it gives several, the others follow unasked."""

    def __init__(self, answers: Callable[[Any], Sequence[Any]]) -> None:
        self._answers = answers
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        header, _, content = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", header)
        if length is None or len(content) < int(length[1]):
            return
        self._received = b""
        first, *others = self._answers(json.loads(content))
        self._write(first)
        for document in others:  # not in one segment: what is beyond an answer is thrown away with it
            reactor.callLater(0, self._write, document)

    def _write(self, document: Any) -> None:
        content = json.dumps(document).encode()
        header = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self.transport.write(header.encode() + content)


def answering(authority: Authority, answers: Callable[[Any], Sequence[Any]]) -> Listening:
    factory = Factory.forProtocol(lambda: Answering(answers))  # type: ignore[arg-type]
    factory.noisy = False
    return Listening(factory, authority)


def ca_file(authority: Authority, folder: Path) -> Path:
    file = folder / "ca.pem"
    file.write_bytes(authority.pem)
    return file


class HTTPStoreCase(Events, TestCase):
    """Servers and stores, which go with the test."""

    realm = "one.nl"
    timeout = 60

    def setUp(self) -> None:
        self.collect_events()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.ca = ca_file(AUTHORITY, self.folder)

    def serve(self, *accounts: AccountDescription) -> Accounts:
        self.accounts = Accounts(self.realm, accounts)
        self.server = self.running(endpoint(self.accounts, AUTHORITY))
        return self.accounts

    def running(self, server: Listening) -> Listening:
        self.addCleanup(server.stop)
        return server

    def store(self, url: str, **settings: Any) -> HTTPStore:
        """:param settings: those of ``[realm.http]`` that are not the defaults."""
        settings = {"url": url, "ca": str(self.ca), **settings}
        table = Http.model_validate({key.replace("_", "-"): value for key, value in settings.items()})
        store = open_http(self.realm, table, reactor)
        self.addCleanup(store.stop)
        return store

    async def refusal(self, store: HTTPStore, name: str = "piet") -> str:
        """Why the store cannot be asked."""
        try:
            found = await store.account(name)
        except Unavailable as error:
            return str(error)
        raise AssertionError(f"it gave {found}")
