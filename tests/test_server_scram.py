"""SCRAM over our real listener, with clients that share nothing with us (gsasl, scramp), and with somebody
who ends TLS in between."""

import base64
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from scramp import ScramClient as TheirClient
from twisted.internet.defer import Deferred

from digipoort_msa.interfaces import Unavailable
from digipoort_msa.sasl.scram_keys import ScramKeys
from digipoort_msa.server.tls import ServerTLS, TLSFiles
from tests import mail_clients
from tests.account_doubles import MemoryStore, account
from tests.mail_clients import Login
from tests.msa import ClockTestCase, MSATestCase, Wire, make_store
from tests.msa_client import ACCOUNT, PASSWORD, PATIENCE, REALM, Client, b64, client_context
from tests.requirements import proves
from tests.scram_client import ScramClient

V = ssl.TLSVersion
SCRAM, PLUS = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
MECHANISMS = (PLUS, SCRAM, "DIGEST-MD5")
CONTENT = b"Subject: aangifte\r\n\r\n.met een punt\r\n"


@frozen
class Target:
    """What :mod:`tests.mail_clients` know of a server."""

    ca: Path
    ports: dict[str, int] = field(factory=dict)


def login(mechanism: str, account: str = ACCOUNT, password: str = PASSWORD) -> Login:
    return Login(mechanism, account=account, password=password)


def scramp(
    port: int,
    mechanism: str,
    username: str = ACCOUNT,
    password: str = PASSWORD,
    *,
    bound: bool = True,
    **options: Any,
) -> str:
    """Log in with scramp's client and say QUIT; the reply to AUTH.

    :param bound: it knows channel binding, of the type that scramp has.
    """
    with Client(port, client_context(**options)) as client:
        client.start_tls()
        shown = client.ask("EHLO client.example")
        binding = ("tls-server-end-point", client.socket) if bound else None
        theirs = TheirClient([mechanism], username, password, channel_binding=binding)
        answer = client.ask(f"AUTH {mechanism} {b64(theirs.get_client_first().encode())}")
        if answer.startswith("334 "):
            theirs.set_server_first(base64.b64decode(answer[4:]).decode())
            answer = client.ask(b64(theirs.get_client_final().encode()))
        if answer.startswith("334 "):
            theirs.set_server_final(base64.b64decode(answer[4:]).decode())
            answer = client.ask("")
        client.ask("QUIT")
    assert mechanism in shown.split() or answer.startswith("5")
    return answer


class Between:
    """Passes SMTP on line by line, and ends TLS on both sides: whom a channel binding is against.

    Its certificate is one that the client trusts.
    """

    def __init__(self, port: int, shows: TLSFiles, *, hides: str = "") -> None:
        """:param hides: a mechanism that it takes off EHLO's list."""
        self._server = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._hides = f" {hides}".encode() if hides else b"\0"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(shows.certificate, shows.private_key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(2 * PATIENCE)
        self._listener.close()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(PATIENCE)
        server = self._server
        try:
            self._pass_replies(server, client)
            while command := _line(client):
                server.sendall(command)
                self._pass_replies(server, client)
                if command == b"STARTTLS\r\n":
                    server = client_context(check_hostname=False).wrap_socket(server)
                    client = self._context.wrap_socket(client, server_side=True)
        except OSError:
            pass  # one of them is gone
        finally:
            server.close()
            client.close()

    def _pass_replies(self, server: socket.socket, client: socket.socket) -> None:
        while line := _line(server):
            client.sendall(line.replace(self._hides, b""))
            if line[3:4] == b" ":
                break


def _line(peer: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (octet := peer.recv(1)):
        line += octet
    return line


def make_scram_store() -> MemoryStore:
    """An account with keys, and one without."""
    full = evolve(make_store().accounts[ACCOUNT], scram=ScramKeys.of(PASSWORD, bytes(16), 4096))
    return MemoryStore(full, account("without", REALM), mechanisms=MECHANISMS)


class ScramTestCase(MSATestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = make_scram_store()

    def listen(self, **options: Any) -> Target:
        options = {"mechanisms": MECHANISMS, **options}
        return Target(self.files.ca, {"starttls": self.serve(store=self.store, **options)})

    def reasons(self) -> list[str]:
        """Why logins failed, since it was last asked for."""
        found = [event["reason"] for event in self.events("not-authenticated")]
        self.logged.clear()
        return found


@proves("A2")
class GsaslTests(ScramTestCase):
    """GNU SASL, which binds to tls-exporter under TLS 1.3, by GnuTLS."""

    async def test_it_logs_in_and_submits(self) -> None:
        for files in (self.files.ec, self.files.rsa):
            target = self.listen(tls=ServerTLS(files))
            await self.run_client(mail_clients.gsasl, target, login(PLUS), CONTENT)
            (event,) = self.events("authenticated")
            self.assertEqual((event["account"], event["mechanism"]), (ACCOUNT, PLUS))
            self.assertEqual(self.spool.contents.pop(), CONTENT)
            self.spool.kept.clear()
            self.logged.clear()

    async def ask(self, target: Target, *options: str) -> int:
        """A login without a message; the exit status."""
        command = ["gsasl", "--smtp", f"--connect=localhost:{target.ports['starttls']}"]
        command += [f"--x509-ca-file={target.ca}", f"--authentication-id={ACCOUNT}", f"--password={PASSWORD}"]
        done = await self.run_client(
            subprocess.run,
            [*command, *options],
            input=b"QUIT\r\n",
            capture_output=True,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            timeout=PATIENCE,
        )
        return int(done.returncode)

    async def test_left_to_itself_it_takes_the_strongest(self) -> None:
        target = self.listen()
        for options, mechanism in (((), PLUS), ((f"--mechanism={SCRAM}", "--no-cb"), SCRAM)):
            self.assertEqual(await self.ask(target, *options), 0)
            (event,) = self.events("authenticated")
            self.assertEqual(event["mechanism"], mechanism)
            self.logged.clear()

    async def test_under_tls_1_2_it_knows_a_type_alone_that_we_do_not_have(self) -> None:
        target = self.listen()
        tls_1_2 = "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2"
        self.assertEqual(await self.ask(target, tls_1_2), 1)
        expected = "this connection has no channel binding 'tls-unique'; it has: tls-server-end-point"
        self.assertEqual(self.reasons(), [expected])
        self.assertEqual(await self.ask(target, tls_1_2, f"--mechanism={SCRAM}", "--no-cb"), 0)

    @proves("A5")
    async def test_refused(self) -> None:
        target = self.listen()
        for username, password, reason in (
            (ACCOUNT, "g\u20acheimer", "the password is wrong"),
            ("nobody", PASSWORD, "there is no such account"),
            ("without", PASSWORD, "no SCRAM keys are kept for it; a login with PLAIN or LOGIN makes them"),
        ):
            client = self.run_client(mail_clients.gsasl, target, login(PLUS, username, password), CONTENT)
            refused = await self.assertFailure(client, mail_clients.Refused)
            self.assertIn("535 5.7.8 Authentication credentials invalid", str(refused))
            self.assertEqual(self.reasons(), [reason])

    async def test_somebody_in_between(self) -> None:
        """The password is right, and gsasl trusts the certificate that it was shown."""
        target = self.listen()
        between = Between(target.ports["starttls"], self.files.rsa)
        self.addCleanup(between.close)
        deceived = evolve(target, ports={"starttls": between.port})
        await self.assertFailure(
            self.run_client(mail_clients.gsasl, deceived, login(PLUS), CONTENT), mail_clients.Refused
        )
        (reason,) = self.reasons()
        self.assertIn("somebody stands between the client and us", reason)


@proves("A2")
class ScrampTests(ScramTestCase):
    """scramp, which binds to tls-server-end-point, by the standard library's TLS."""

    async def test_it_logs_in(self) -> None:
        for files in (self.files.ec, self.files.rsa):
            port = self.listen(tls=ServerTLS(files)).ports["starttls"]
            for version in (V.TLSv1_2, V.TLSv1_3):
                for mechanism, bound in ((PLUS, True), (SCRAM, False)):
                    answer = await self.run_client(
                        scramp, port, mechanism, bound=bound, minimum_version=version, maximum_version=version
                    )
                    self.assertEqual(answer, "235 2.7.0 Authentication successful\r\n")
        self.assertEqual(len(self.events("authenticated")), 8)

    async def test_the_wrong_password(self) -> None:
        port = self.listen().ports["starttls"]
        for mechanism, bound in ((PLUS, True), (SCRAM, False)):
            answer = await self.run_client(scramp, port, mechanism, password="anders", bound=bound)
            self.assertEqual(answer, "535 5.7.8 Authentication credentials invalid\r\n")
        self.assertEqual(self.reasons(), 2 * ["the password is wrong"])

    async def test_somebody_in_between(self) -> None:
        """What the channel binding is for: without it, nobody would have seen anything."""
        port = self.listen().ports["starttls"]
        for mechanism, bound, hides, reason in (
            (PLUS, True, "", "somebody stands between the client and us"),
            (SCRAM, True, PLUS, "somebody changed the list"),
            (SCRAM, False, "", None),
        ):
            between = Between(port, self.files.rsa, hides=hides)
            answer = await self.run_client(scramp, between.port, mechanism, bound=bound)
            between.close()
            if reason is None:
                self.assertTrue(answer.startswith("235 "))
            else:
                self.assertTrue(answer.startswith("535 "))
                (said,) = self.reasons()
                self.assertIn(reason, said)

    async def test_plus_only_where_there_is_something_to_bind_to(self) -> None:
        """And a client that could bind, but was not asked to, is taken at its word."""
        port = self.listen(mechanisms=(SCRAM,)).ports["starttls"]
        self.assertTrue((await self.run_client(scramp, port, SCRAM, bound=True)).startswith("235 "))
        self.assertTrue((await self.run_client(scramp, port, PLUS, bound=True)).startswith("504 "))


@proves("T2")
class ShownTests(ScramTestCase):
    async def test_what_ehlo_shows(self) -> None:
        port = self.listen().ports["starttls"]

        def look(version: ssl.TLSVersion) -> tuple[str, str]:
            with Client(port, client_context(minimum_version=version, maximum_version=version)) as client:
                client.reply()
                clear = client.ask("EHLO client.example")
                client.ask("STARTTLS")
                client.handshake()
                return clear, client.ask("EHLO client.example")

        for version in (V.TLSv1_2, V.TLSv1_3):
            clear, under_tls = await self.run_client(look, version)
            self.assertIn("-AUTH DIGEST-MD5\r\n", clear)
            self.assertIn("-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 DIGEST-MD5\r\n", under_tls)


@proves("A2")
class ExchangeTests(ClockTestCase):
    """The two questions to the store, and what may happen around them."""

    def setUp(self) -> None:
        super().setUp()
        self.store = make_scram_store()
        self.server(store=self.store, mechanisms=MECHANISMS, per_account_and_source=3)

    def begin(self, client: ScramClient, mechanism: str = SCRAM) -> tuple[Wire, str]:
        wire = self.connect()
        wire.ask("EHLO client.example")
        return wire, wire.ask(f"AUTH {mechanism} {b64(client.first())}")

    def finish(self, wire: Wire, client: ScramClient, challenge: str) -> str:
        answer = wire.ask(b64(client.final(base64.b64decode(challenge[4:]))))
        if answer.startswith("334 "):
            assert client.knows(base64.b64decode(answer[4:]))
            answer = wire.ask("")
        return answer

    def test_an_exchange(self) -> None:
        client = ScramClient(ACCOUNT, PASSWORD)
        wire, challenge = self.begin(client)
        self.assertEqual(self.finish(wire, client, challenge), "235 2.7.0 Authentication successful\r\n")
        self.assertTrue(wire.submit().endswith("queued as Q00001\r\n"))

    def test_the_store_is_down(self) -> None:
        for moment in ("lookup", "verification"):
            client = ScramClient(ACCOUNT, PASSWORD)
            if moment == "lookup":
                self.store.failure = Unavailable("down")
            wire, answer = self.begin(client)
            if moment == "verification":
                self.store.failure = Unavailable("down")
                answer = self.finish(wire, client, answer)
            self.assertEqual(answer, "454 4.7.0 Accounts cannot be checked now; try again later\r\n")
            self.assertEqual(self.events("not-authenticated")[-1]["username"], ACCOUNT)
            self.store.failure = None

    def test_the_password_is_changed_in_between(self) -> None:
        client = ScramClient(ACCOUNT, PASSWORD)
        wire, challenge = self.begin(client)
        changed = ScramKeys.of("nieuw", bytes(16), 4096)
        self.store.accounts[ACCOUNT] = evolve(self.store.accounts[ACCOUNT], scram=changed)
        self.assertTrue(self.finish(wire, client, challenge).startswith("535 "))

    def test_cancelled_by_the_client(self) -> None:
        client = ScramClient(ACCOUNT, PASSWORD)
        wire, _ = self.begin(client)
        self.assertTrue(wire.ask("*").startswith("501 "))
        challenge = wire.ask(f"AUTH {SCRAM} {b64(client.first())}")
        self.assertTrue(self.finish(wire, client, challenge).startswith("235 "))

    def test_the_client_goes_while_the_store_is_asked(self) -> None:
        waiting: list[Deferred[Any]] = []

        def account(_: str) -> "Deferred[Any]":
            waiting.append(Deferred())
            return waiting[-1]

        self.store.account = account
        wire, answer = self.begin(ScramClient(ACCOUNT, PASSWORD))
        self.assertEqual((answer, len(waiting)), ("", 1))
        wire.lose()
        waiting[0].callback(self.store.accounts[ACCOUNT])
        self.assertEqual(wire.read(), "")

    @proves("A5")
    def test_whoever_it_is_it_looks_the_same(self) -> None:
        """The same lines of the same form, whatever name; only the log tells."""
        forms = set()
        for username in (ACCOUNT, "without", "nobody"):
            client = ScramClient(username, "anders")
            wire, challenge = self.begin(client)
            nonce, salt, iterations = base64.b64decode(challenge[4:]).decode().split(",")
            forms.add((len(nonce), len(salt), len(iterations), self.finish(wire, client, challenge)))
        lengths = {form[:2] for form in forms}
        self.assertEqual(len(lengths), 1, forms)
        self.assertEqual({form[3] for form in forms}, {"535 5.7.8 Authentication credentials invalid\r\n"})

    @proves("A8")
    def test_guesses_are_counted(self) -> None:
        answers = []
        for _ in range(4):
            client = ScramClient(ACCOUNT, "anders")
            wire, challenge = self.begin(client)
            answers.append(self.finish(wire, client, challenge)[:3])
        self.assertEqual(answers, ["535", "535", "535", "421"])
