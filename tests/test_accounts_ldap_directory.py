"""Connections to directory servers: proven before anything is said, bounded in time, begun anew when lost."""

from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.accounts.ldap.directory import Address, Login
from digipoort_msa.accounts.ldap.store import LDAPAccountStore
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.testing import AccountDescription
from tests.authority import Authority
from tests.ldap_realm import LDAPRealm
from tests.ldap_server import BIND, EXTENDED, SEARCH, LDAPServer, entry, result, tagged
from tests.requirements import proves

reactor: Any = IReactorTime(_reactor)

PIET = AccountDescription(name="piet", password="geheim")
NOBODY = Login()


def finds(asked: int) -> list[Any]:
    """A server for whom every name is an account, and every password right."""
    return [entry("cn=piet", uid="piet"), result(asked)] if asked == SEARCH else [result(asked)]


class DirectoryCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.ldap = LDAPRealm()
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def store(self, *urls: str, **options: Any) -> LDAPAccountStore:
        store = self.ldap.store(*urls, **options)
        self.addCleanup(store.stop)
        return store

    def server(self, *script: Any, **options: Any) -> LDAPServer:
        server = LDAPServer(*script, **options)
        self.addCleanup(server.stop)
        return server

    async def assert_works(self, store: LDAPAccountStore) -> None:
        found = await store.account("piet")
        assert found is not None
        self.assertIs(await store.verify(found, "geheim"), True)
        self.assertIs(await store.verify(found, "anders"), False)

    async def unavailable(self, store: LDAPAccountStore, within: float = 2.0) -> str:
        began = reactor.seconds()
        with self.assertRaises(Unavailable) as caught:
            await store.account("piet")
        self.assertLess(reactor.seconds() - began, within)
        return str(caught.exception)


class SlapdTests(DirectoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.ldap.hold([PIET])
        self.slapd = self.ldap.slapd

    async def test_every_way_there(self) -> None:
        for url in (self.slapd.ldaps, self.slapd.ldap, self.slapd.ldapi):
            await self.assert_works(self.store(url))

    async def test_anonymously(self) -> None:
        await self.assert_works(self.store(self.slapd.ldaps, login=NOBODY))

    async def test_by_address(self) -> None:
        """An IP address is looked for among the certificate's addresses."""
        await self.assert_works(self.store(f"ldaps://127.0.0.1:{self.slapd.ports[0]}"))

    async def test_its_own_login_is_refused(self) -> None:
        password = Path(self.mktemp())
        password.write_text("no\n")  # noqa: ASYNC240 (it is a small file)
        store = self.store(login=Login(dn="cn=admin,dc=example,dc=nl", password_file=password))
        self.assertIn("the login as cn=admin,dc=example,dc=nl was refused", await self.unavailable(store))
        password.write_bytes(  # noqa: ASYNC240
            self.slapd.password_file.read_bytes()
        )
        await self.assert_works(store)  # a new password takes no restart
        password.unlink()  # noqa: ASYNC240
        await self.assert_works(store)  # over the connections that are there
        self.assertRaises(OSError, self.ldap.store, login=Login(dn="cn=admin", password_file=password))

    async def test_restarted(self) -> None:
        """The next login is served, without one that fails in between."""
        stores = [self.store(url) for url in (self.slapd.ldaps, self.slapd.ldapi)]
        for store in stores:
            await self.assert_works(store)
        self.slapd.kill()
        try:
            for store in stores:
                self.assertIn("cannot be connected to", await self.unavailable(store))
        finally:
            self.slapd.start()
        for store in stores:
            await self.assert_works(store)
        self.slapd.restart()
        for store in stores:
            await self.assert_works(store)

    async def test_silent(self) -> None:
        """It accepts connections, and says nothing more."""
        store = self.store(self.slapd.ldaps, seconds=0.5, connect_seconds=0.5)
        await self.assert_works(store)
        self.slapd.pause()
        try:
            self.assertIn("no answer in 0.5 s", await self.unavailable(store))
            self.assertIn("in 0.5 s", await self.unavailable(store))
        finally:
            self.slapd.resume()
        await self.assert_works(store)

    async def test_the_next_server(self) -> None:
        hole = self.server(lambda asked: None)
        dead = f"ldaps://127.0.0.1:{hole.port}"  # whose handshake never ends
        store = self.store(dead, self.slapd.ldaps, connect_seconds=0.5)
        await self.assert_works(store)
        self.assertEqual(hole.connections, 1)  # the second kind of connection was not tried there
        events = [event for event in self.logged if event.get("event") == "directory-unavailable"]
        self.assertEqual(len(events), 1)
        self.assertIn(dead, events[0]["reason"])

    async def test_the_only_server_does_not_rest(self) -> None:
        store = self.store(self.slapd.ldaps)
        self.slapd.kill()
        try:
            await self.unavailable(store)
        finally:
            self.slapd.start()
        await self.assert_works(store)


@proves("A7")
class ProofTests(DirectoryCase):
    """Nothing is said to a server that is not proven to be the right one."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.ca = Path(self.mktemp())
        self.ca.write_bytes(self.authority.pem)

    async def refused(self, server: LDAPServer, scheme: str = "ldaps") -> str:
        url = f"{scheme}://127.0.0.1:{server.port}"
        store = self.store(url, ca_file=self.ca, connect_seconds=0.5, seconds=0.5)
        return await self.unavailable(store)

    async def test_right(self) -> None:
        server = self.server(finds, tls=self.authority.server("127.0.0.1"))
        store = self.store(f"ldaps://127.0.0.1:{server.port}", ca_file=self.ca)
        self.assertIsNotNone(await store.account("piet"))

    async def test_wrong(self) -> None:
        chain, key = self.authority.signed_by_a_leaf("127.0.0.1")
        cases = {
            "another name": (self.authority.server("localhost", "192.0.2.1"), "names another host"),
            "expired": (self.authority.server("127.0.0.1", expired=True), "TLS failed.*expired"),
            "another authority": (Authority().server("127.0.0.1"), "TLS failed.*verify failed"),
            "signed by a leaf": (self.authority.options(chain[0], key), "TLS failed.*verify failed"),
        }
        for case, (tls, says) in cases.items():
            server = self.server(finds, tls=tls)
            self.assertRegex(await self.refused(server), says, case)
            self.assertEqual(server.requests, [], case)

    async def test_not_tls_at_all(self) -> None:
        server = self.server(finds)
        await self.refused(server)
        self.assertEqual(server.requests, [])

    async def test_start_tls_refused(self) -> None:
        for code in (1, 2, 52, 53, 80):
            server = self.server(lambda asked, code=code: [result(asked, code, "no TLS here")])  # type: ignore[misc]
            self.assertIn("StartTLS was refused", await self.refused(server, "ldap"))
            self.assertEqual(server.asked, [EXTENDED], "nothing else is said in clear")

    async def test_start_tls_and_then_in_clear(self) -> None:
        """What comes before the handshake is none of what comes after it (as T4 has it for SMTP)."""
        injected = [
            result(EXTENDED),
            (2, result(BIND)),
            (3, entry("cn=piet", uid="piet")),
            (3, result(SEARCH)),
        ]
        for script in (lambda asked: injected, lambda asked: [result(asked), b"\x30\x84\x00"]):
            server = self.server(script)
            await self.refused(server, "ldap")
            self.assertEqual(server.asked, [EXTENDED])

    async def test_start_tls_and_then_nothing(self) -> None:
        self.assertIn("in 0.5 s", await self.refused(self.server(lambda asked: [result(asked)]), "ldap"))

    def test_authorities(self) -> None:
        for octets in (b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            self.ca.write_bytes(octets)
            error = self.assertRaises(ValueError, self.ldap.store, "ldaps://localhost", ca_file=self.ca)
            self.assertIn(str(self.ca), str(error))


class ConnectionTests(DirectoryCase):
    def scripted(self, server: LDAPServer, **options: Any) -> LDAPAccountStore:
        return self.store(server.url, in_clear=True, login=NOBODY, statuses=(), **options)

    async def test_kept(self) -> None:
        server = self.server(finds)
        store = self.scripted(server)
        for _ in range(5):
            found = await store.account("piet")
            assert found is not None
            self.assertIs(await store.verify(found, "geheim"), True)
        self.assertEqual(server.connections, 2)  # one for searches, one for binds

    async def test_bounded(self) -> None:
        """The others wait."""
        server = self.server(lambda asked: None)
        store = self.scripted(server, connections=2, seconds=30)
        answers = [store.account("piet") for _ in range(10)]
        while len(server.requests) < 2:
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.05)
        self.assertEqual((server.connections, len(server.requests)), (2, 2))
        for answer in reversed(answers):
            answer.cancel()
            with self.assertRaises(CancelledError):
                await answer

    async def test_each_has_a_bounded_time_while_others_wait(self) -> None:
        """With one connection and a server that says nothing, those who wait are not served one by one."""
        self.patch(LDAPAccountStore, "_in_time", _in_time_of_half_a_second)
        server = self.server(lambda asked: None)
        store = self.scripted(server, connections=1)
        began = reactor.seconds()
        for answer in [store.account("piet") for _ in range(10)]:
            with self.assertRaises(Unavailable):
                await answer
        self.assertLess(reactor.seconds() - began, 1.5)

    async def test_given_up(self) -> None:
        """An answer that nobody waits for any more is nobody else's, and the place is free."""
        server = self.server(lambda asked: None, finds)
        store = self.scripted(server, connections=1, seconds=30)
        given_up = store.account("piet")
        while not server.requests:
            await deferLater(reactor, 0.01)
        given_up.cancel()
        with self.assertRaises(CancelledError):
            await given_up
        self.assertIsNotNone(await store.account("piet"))
        self.assertEqual(server.connections, 2)

    async def test_a_late_answer_is_nobodys(self) -> None:
        server = self.server(lambda asked: None, finds)
        store = self.scripted(server, connections=1, seconds=0.5)
        await self.unavailable(store)
        self.assertIsNotNone(await store.account("piet"))
        self.assertEqual(server.connections, 2)

    async def test_it_closes_instead_of_answering(self) -> None:
        """A kept connection may have been idle for too long; a fresh one has no such excuse."""
        server = self.server(finds, finds)
        store = self.scripted(server)
        self.assertIsNotNone(await store.account("piet"))

        def hang_up(asked: int) -> None:
            server.sessions[0].transport.loseConnection()  # type: ignore[union-attr]

        server.script = [hang_up, finds]
        self.assertIsNotNone(await store.account("piet"))
        server.script = [hang_up]
        self.assertIn("closed the connection", await self.unavailable(store))

    async def test_too_much(self) -> None:
        large = entry("cn=piet", uid="piet", mail=b"x" * 500_000)
        self.assertIsNotNone(
            await self.scripted(self.server(lambda asked: [large, result(asked)])).account("piet")
        )
        for says, script in {
            "too long": lambda asked: [entry("cn=piet", uid="piet", mail=b"x" * (1 << 20))],
            "more than was asked for": lambda asked: [large] * 20,
        }.items():
            self.assertIn(says, await self.unavailable(self.scripted(self.server(script))))

    async def test_piece_by_piece(self) -> None:
        """However the octets come, an answer is an answer."""
        message = b"".join(tagged(0x30, tagged(2, b"\x01"), part) for part in finds(SEARCH))
        server = self.server(lambda asked: [bytes([octet]) for octet in message])
        self.assertIsNotNone(await self.scripted(server).account("piet"))

    async def test_stop(self) -> None:
        server = self.server(finds)
        store = self.scripted(server)
        await gatherResults([store.account("piet") for _ in range(4)])
        await store.stop()
        while server.sessions:
            await deferLater(reactor, 0.01)
        self.assertIn("stops", await self.unavailable(store))


def _in_time_of_half_a_second(self: LDAPAccountStore, work: Any) -> Any:
    from twisted.internet.defer import Deferred

    def too_late(_: object, seconds: float) -> None:
        raise Unavailable("too late")

    return Deferred.fromCoroutine(work).addTimeout(0.5, reactor, too_late)


class AddressTests(SynchronousTestCase):
    def test_right(self) -> None:
        for url, facts in {
            "ldaps://ldap.example.nl": ("ldap.example.nl", 636, "first", ""),
            "ldap://ldap.example.nl": ("ldap.example.nl", 389, "start", ""),
            "ldap://ldap.example.nl:3389/": ("ldap.example.nl", 3389, "start", ""),
            "ldaps://[2001:db8::1]": ("2001:db8::1", 636, "first", ""),
            "ldaps://[2001:db8::1]:1636": ("2001:db8::1", 1636, "first", ""),
            "ldapi:///run/slapd/ldapi": ("", 0, "none", "/run/slapd/ldapi"),
            "ldapi://%2Frun%2Fslapd%2Fldapi": ("", 0, "none", "/run/slapd/ldapi"),
        }.items():
            found = Address.of(url)
            self.assertEqual((found.host, found.port, found.tls, found.socket), facts, url)

    def test_in_clear(self) -> None:
        self.assertEqual(Address.of("ldap://localhost", in_clear=True).tls, "none")
        self.assertEqual(Address.of("ldaps://localhost", in_clear=True).tls, "first")

    def test_wrong(self) -> None:
        for url in (
            *(
                "",
                "ldap",
                "ldap.example.nl",
                "http://ldap.example.nl",
                "ldap://",
                "ldap:///dc=nl",
                "ldapi://",
            ),
            *(
                "ldapi://run",
                "ldap://host:0",
                "ldap://host:65536",
                "ldap://host:x",
                "ldaps://[::1",
                "ldap://a/b",
            ),
            *("ldap://[x]", "ldap://[::1]x", "ldapi://%2Frun%00", "ldap://u@host", "ldap://host?x"),
        ):
            self.assertRaises(ValueError, Address.of, url)
