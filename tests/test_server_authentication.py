"""AUTH as a client sees it, over real TLS; what it is told never depends on why (A5)."""

import base64
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from digipoort_msa.accounts.account import Status
from digipoort_msa.interfaces import IRealms, Unavailable
from digipoort_msa.sasl.digest_md5 import digest_secrets
from tests.account_doubles import account, password_credential
from tests.digest_client import respond
from tests.msa import ClockTestCase, MSATestCase, Wire, _hashing, make_realms, make_store
from tests.msa_client import ACCOUNT, PASSWORD, REALM, Client, b64, plain
from tests.requirements import proves

SUCCESS = "235 2.7.0 Authentication successful\r\n"
INVALID = "535 5.7.8 Authentication credentials invalid\r\n"


def by_plain(client: Client, username: str, password: str) -> list[str]:
    return [client.ask(f"AUTH PLAIN {plain(username, password)}")]


def by_plain_after_a_challenge(client: Client, username: str, password: str) -> list[str]:
    return [client.ask("AUTH PLAIN"), client.ask(plain(username, password))]


def by_login(client: Client, username: str, password: str) -> list[str]:
    return [
        client.ask("AUTH LOGIN"),
        client.ask(b64(username.encode())),
        client.ask(b64(password.encode())),
    ]


def by_login_with_a_name(client: Client, username: str, password: str) -> list[str]:
    return [client.ask(f"AUTH LOGIN {b64(username.encode())}"), client.ask(b64(password.encode()))]


def by_digest(client: Client, username: str, password: str) -> list[str]:
    _, *replies = client.digest(username, password)
    return ["334 a challenge\r\n", *replies]


EVERY_WAY: dict[str, Callable[[Client, str, str], list[str]]] = {
    "PLAIN": by_plain,
    "PLAIN after a challenge": by_plain_after_a_challenge,
    "LOGIN": by_login,
    "LOGIN with a name": by_login_with_a_name,
    "DIGEST-MD5": by_digest,
}


class MechanismTests(MSATestCase):
    @proves("A2", "A3", "A4", "A6")
    async def test_every_mechanism(self) -> None:
        """The password has a character outside ISO-8859-1; names may say their realm."""
        for implicit in (True, False):
            port = self.serve(implicit=implicit)

            def script(
                way: Callable[[Client, str, str], list[str]],
                username: str,
                port: int = port,
                implicit: bool = implicit,
            ) -> list[str]:
                with Client(port, implicit=implicit) as client:
                    client.reply() if implicit else client.start_tls()
                    replies = way(client, username, PASSWORD)
                    assert client.submit().startswith("250 2.0.0 Ok: queued as")
                    assert client.ask("AUTH PLAIN")[:9] == "503 5.5.1"
                    return replies

            for name, way in EVERY_WAY.items():
                for username in (ACCOUNT, f"{ACCOUNT}@{REALM}"):
                    if name == "DIGEST-MD5" and username != ACCOUNT:
                        continue  # its secret is made of the name as typed; the account has one form here
                    replies = await self.run_client(script, way, username)
                    self.assertEqual(replies[-1], SUCCESS, name)
                    if name.startswith("LOGIN"):
                        prompts = [base64.b64decode(reply[4:]) for reply in replies[:-1]]
                        self.assertEqual(prompts, [b"Username:", b"Password:"][-len(prompts) :])
                    if name == "PLAIN after a challenge":
                        self.assertEqual(replies[0], "334 \r\n")
        self.assertEqual({envelope.account for envelope, _ in self.spool.kept}, {ACCOUNT})
        self.assertEqual(
            {event["mechanism"] for event in self.events("authenticated")}, {"PLAIN", "LOGIN", "DIGEST-MD5"}
        )
        self.assertNotIn(PASSWORD, str(self.logged))

    @proves("A5")
    async def test_the_same_bytes_for_every_cause(self) -> None:
        store = make_store()
        store.accounts["verlopen"] = account(
            "verlopen",
            REALM,
            status=Status.DISABLED,
            password_hash=_hashing.hash(PASSWORD),
            digest_secrets=tuple(digest_secrets("verlopen", REALM, PASSWORD)),
        )
        store.accounts["leeg"] = account("leeg", REALM)
        port = self.serve(implicit=True, store=store)

        def script(way: Callable[[Client, str, str], list[str]], username: str, password: str) -> Any:
            with Client(port, implicit=True) as client:
                client.reply()
                replies = way(client, username, password)
                return replies, client.ask("MAIL FROM:<a@b.nl>")

        for name, way in EVERY_WAY.items():
            answers = [
                await self.run_client(script, way, username, password)
                for username, password in (
                    (ACCOUNT, "fout"),
                    ("niemand", PASSWORD),
                    ("niemand@elders.nl", PASSWORD),
                    ("verlopen", PASSWORD),
                    ("leeg", PASSWORD),
                )
            ]
            self.assertEqual(answers[0][0][-1], INVALID)
            self.assertEqual(answers[0][1], "530 5.7.0 Authentication required\r\n")
            self.assertEqual(answers, [answers[0]] * len(answers), name)
        # The log knows more.
        self.assertGreater(len({event["reason"] for event in self.events("not-authenticated")}), 1)

    @proves("A6", "M9")
    async def test_three_failures(self) -> None:
        port = self.serve()

        def script(way: Callable[[Client, str, str], list[str]]) -> bytes:
            with Client(port) as client:
                client.start_tls()
                for _ in range(3):
                    self.assertEqual(way(client, ACCOUNT, "fout")[-1], INVALID)
                return client.rest()

        for way in EVERY_WAY.values():
            farewell = await self.run_client(script, way)
            self.assertEqual(farewell, b"421 4.7.0 Too many failed authentications; try again later\r\n")

    @proves("A6")
    async def test_two_failures_and_a_success(self) -> None:
        port = self.serve(implicit=True)

        def script() -> None:
            with Client(port, implicit=True) as client:
                client.reply()
                for way in (by_plain, by_digest):
                    self.assertEqual(way(client, ACCOUNT, "fout")[-1], INVALID)
                self.assertEqual(by_login(client, ACCOUNT, PASSWORD)[-1], SUCCESS)

        await self.run_client(script)

    @proves("A3")
    async def test_digest_uri_hosts(self) -> None:
        port = self.serve(implicit=True)

        def script(host: str) -> str:
            with Client(port, implicit=True) as client:
                client.reply()
                return client.digest(host=host)[-1]

        self.assertEqual(await self.run_client(script, "LOCALHOST"), SUCCESS)
        self.assertEqual(await self.run_client(script, "elsewhere.example"), INVALID)

    @proves("A3")
    async def test_a_nonce_serves_once(self) -> None:
        """A response that was right is worth nothing to another exchange."""
        port = self.serve(implicit=True)

        def script() -> list[str]:
            with Client(port, implicit=True) as client:
                client.reply()
                challenges, answers = [], []
                response = ""
                for _ in range(2):
                    challenge = base64.b64decode(client.ask("AUTH DIGEST-MD5")[4:])
                    challenges.append(challenge)
                    response = response or b64(respond(challenge, ACCOUNT, PASSWORD, "smtp/localhost"))
                    answers.append(client.ask(response)[:4])
                    if len(answers) == 1:
                        answers.append(client.ask("*")[:9])
                self.assertNotEqual(*challenges)
                return answers

        self.assertEqual(await self.run_client(script), ["334 ", "501 5.7.0", "535 "])


class ExchangeTests(ClockTestCase):
    """The same without sockets: each step, and each thing that can go wrong."""

    def challenge(self, wire: Wire) -> bytes:
        return base64.b64decode(wire.ask("AUTH DIGEST-MD5")[4:])

    def fresh(self, **options: Any) -> Wire:
        if options:
            self.server(**options)
        wire = self.connect()
        wire.read()
        return wire

    @proves("A3")
    def test_the_login_counts_after_the_empty_line(self) -> None:
        wire = self.fresh()
        response = respond(self.challenge(wire), ACCOUNT, PASSWORD, "smtp/localhost")
        self.assertTrue(wire.ask(b64(response)).startswith("334 "))
        self.assertEqual(self.events("authenticated"), [])
        wire.say("MAIL FROM:<a@b.nl>")  # no base64: it ends the exchange
        self.assertEqual(wire.read()[:9], "501 5.5.2")
        self.assertEqual(wire.ask("MAIL FROM:<a@b.nl>"), "530 5.7.0 Authentication required\r\n")

        response = respond(self.challenge(wire), ACCOUNT, PASSWORD, "smtp/localhost")
        wire.ask(b64(response))
        self.assertEqual(wire.ask(""), SUCCESS)
        self.assertEqual(wire.ask("MAIL FROM:<a@b.nl>"), "250 2.1.0 Ok\r\n")

    @proves("A3")
    def test_more_than_the_empty_line(self) -> None:
        wire = self.fresh()
        response = respond(self.challenge(wire), ACCOUNT, PASSWORD, "smtp/localhost")
        wire.ask(b64(response))
        self.assertEqual(wire.ask(b64(b"x"))[:3], "501")
        self.assertEqual(self.events("authenticated"), [])

    @proves("A2", "A6")
    def test_what_a_client_may_get_wrong(self) -> None:
        for lines, answer in {
            ("AUTH",): "501 5.5.4",
            ("AUTH KERBEROS_V4",): "504 5.5.4",
            ("AUTH PLAIN !",): "501 5.5.2",
            ("AUTH PLAIN AA==AA==",): "501 5.5.2",
            ("AUTH PLAIN", "*"): "501 5.7.0",
            ("AUTH LOGIN", "*"): "501 5.7.0",
            ("AUTH DIGEST-MD5", "*"): "501 5.7.0",
            ("AUTH DIGEST-MD5", "eA=="): "501 5.5.2",
            ("AUTH DIGEST-MD5 eA==",): "501 5.5.2",
            ("AUTH PLAIN =",): "501 5.5.2",
            ("AUTH PLAIN eA==",): "501 5.5.2",
            ("AUTH PLAIN", "x" * 12_400): "500 5.5.6",
            (f"AUTH PLAIN {b64(b'x' * 9000)}",): "501 5.5.2",  # 12,000 octets fit
        }.items():
            wire = self.fresh()
            answers = [wire.ask(line) for line in lines]
            self.assertEqual(answers[-1][:9], answer, lines)
            self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}"), SUCCESS)

    @proves("A6")
    def test_auth_in_a_transaction(self) -> None:
        wire = self.logged_in()
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}")[:9], "503 5.5.1")
        wire.say("MAIL FROM:<a@b.nl> AUTH=<>")
        self.assertEqual(wire.read(), "250 2.1.0 Ok\r\n")
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}")[:9], "503 5.5.1")
        self.assertIn("\r\n503 5.5.1", wire.ask("EHLO x", f"AUTH PLAIN {plain()}"))

    @proves("A6")
    def test_plain_heads_a_pipeline(self) -> None:
        wire = self.fresh()
        wire.say("EHLO mijnbedrijf.nl", f"AUTH PLAIN {plain()}", "MAIL FROM:<a@b.nl>", "RCPT TO:<c@d.nl>")
        self.assertTrue(wire.read().endswith(f"{SUCCESS}250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"))

    @proves("A7")
    def test_only_what_the_realm_can_verify(self) -> None:
        store = make_store()
        store.mechanisms = frozenset({"PLAIN", "LOGIN"})
        wire = self.fresh(store=store)
        self.assertIn("250-AUTH PLAIN LOGIN\r\n", wire.ask("EHLO x"))
        self.assertEqual(wire.ask("AUTH DIGEST-MD5")[:9], "504 5.5.4")
        clear = self.connect(secure=False)
        clear.read()
        self.assertNotIn("AUTH", clear.ask("EHLO x"))

    def test_a_store_that_cannot_be_asked(self) -> None:
        store = make_store()
        store.failure = Unavailable("the database is down")
        wire = self.fresh(store=store)
        for _ in range(10):  # it is not the client's failure, and is not counted
            self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}")[:9], "454 4.7.0")
        response = respond(self.challenge(wire), ACCOUNT, PASSWORD, "smtp/localhost")
        self.assertEqual(wire.ask(b64(response))[:9], "454 4.7.0")
        store.failure = None
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}"), SUCCESS)

    def test_a_store_that_is_broken(self) -> None:
        store = make_store()
        store.failure = ZeroDivisionError("a defect")
        wire = self.fresh(store=store)
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}")[:9], "454 4.7.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @proves("A8", "M9")
    def test_throttled(self) -> None:
        self.server(per_account_and_source=2)
        for _ in range(2):
            self.assertEqual(self.fresh().ask(f"AUTH PLAIN {plain(password='fout')}"), INVALID)
        wire = self.fresh()
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}")[:9], "421 4.7.0")
        self.assertTrue(wire.closed)
        self.assertIn("too many failed logins", self.events("not-authenticated")[-1]["reason"])

    @proves("A8")
    def test_a_slowed_login_keeps_its_place(self) -> None:
        """What was pipelined behind a login that waits is answered after it, and in order."""
        self.server(first_delay=1.0)
        wire = self.fresh()
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain(password='fout')}"), INVALID)
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}", "MAIL FROM:<a@b.nl>", "XYZZY"), "")
        self.clock.advance(1)
        self.assertEqual([line[:3] for line in wire.read().split("\r\n")], ["235", "250", "500", ""])

    def test_a_client_that_leaves_in_between(self) -> None:
        realms = HeldRealms()
        self.server(realms=realms)
        for outcome in (self.submitter(), Unavailable("late"), ZeroDivisionError()):
            wire = self.fresh()
            self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}"), "")
            wire.lose()
            login = realms.logins.pop()
            (login.errback if isinstance(outcome, Exception) else login.callback)(outcome)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events("authenticated"), [])

    def submitter(self) -> Any:
        return self.successResultOf(
            make_realms(self.clock, self.spool).login(
                password_credential(ACCOUNT, PASSWORD), "192.0.2.1", "PLAIN"
            )
        )

    def test_realms_that_raise(self) -> None:
        wire = self.fresh(realms=RaisingRealms())
        self.assertEqual(wire.ask(f"AUTH PLAIN {plain()}")[:9], "451 4.3.0")
        self.assertEqual(wire.ask("NOOP"), "250 2.0.0 Ok\r\n")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_credential_in_the_log(self) -> None:
        wire = self.fresh()
        wire.ask(f"AUTH PLAIN {plain(password='hunter2')}")
        wire.ask("AUTH PLAIN " + b64(b"hunter2"))
        wire.ask("AUTH LOGIN", b64(ACCOUNT.encode()), b64(b"hunter2"))
        wire.ask(f"AUTH LOGIN {b64(b'hunter2')} x")
        self.assertNotIn("hunter2", str(self.logged))
        self.assertNotIn(b64(b"hunter2").rstrip("="), str(self.logged))

    def test_a_name_cannot_forge_a_line(self) -> None:
        wire = self.fresh()
        wire.ask("AUTH PLAIN " + b64("\0piet\u2028S2 authenticated\0x".encode()))
        for event in self.events("not-authenticated"):
            self.assertTrue(event["username"].isprintable())


@implementer(IRealms)
class HeldRealms:
    """Logins that the test answers."""

    def __init__(self) -> None:
        self.logins: list[Deferred[Any]] = []

    def offered(self, channel: object, allowed: object = None) -> tuple[str, ...]:
        return ("PLAIN",)

    def scram_keys(self, username: str) -> Any:
        raise NotImplementedError

    def retired(self, allowed: object = None) -> frozenset[str]:
        return frozenset()

    def why_nobody(self, certificate: object) -> str:
        raise NotImplementedError

    def realms_offering(self, mechanism: str) -> tuple[str, ...]:
        return (REALM,)

    def login(self, credential: object, source: str, mechanism: str) -> "Deferred[Any]":
        self.logins.append(Deferred())
        return self.logins[-1]


@implementer(IRealms)
class RaisingRealms(HeldRealms):
    def login(self, credential: object, source: str, mechanism: str) -> "Deferred[Any]":
        raise ZeroDivisionError
