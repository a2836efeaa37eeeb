"""Two-way TLS in the whole MSA: which listener asks, and lists of what is revoked that change."""

import os
import socket
import ssl
from datetime import timedelta
from threading import Event
from typing import Any

from cryptography import x509
from twisted.internet.task import Clock

from digipoort_msa import log
from digipoort_msa.config.settings import Settings
from digipoort_msa.server.tls import TLSFilesError
from digipoort_msa.service import realms
from digipoort_msa.service.certificates import INTERVAL, ListenerCertificates
from tests.account_doubles import MemoryStore
from tests.client_authority import DAY, ClientAuthority, ClientFiles, common_name, crl_file
from tests.msa_client import ACCOUNT, PATIENCE, Client
from tests.requirements import proves
from tests.test_server_tls import FAILURES
from tests.test_service import REALM, ServiceTestCase, client_context_for

LISTENERS = [
    {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "starttls", "client-certificates": "optional"},
    {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "implicit"},
]
RULES = [{"field": "san-email", "pattern": "*@clients.example", "account": "*"}]


class TwoWayTestCase(ServiceTestCase):
    """One listener asks for certificates, the other does not."""

    def setUp(self) -> None:
        super().setUp()
        self.folder.mkdir()
        self.root = ClientAuthority("Root")
        self.issued = self.issue(ACCOUNT)
        self.ca = self.folder / "client-ca.pem"
        self.ca.write_bytes(self.root.pem)
        self.crl = self.folder / "client-crl.pem"
        self.revoke()

    def issue(self, name: str) -> Any:
        return self.root.issue(common_name(name), alternatives=[x509.RFC822Name(f"{name}@clients.example")])

    def revoke(self, *certificates: x509.Certificate, **options: Any) -> None:
        """As a careful program writes it: the new file is there at once."""
        crl_file(self.folder / "new", self.root.revoking(*certificates, **options)).replace(self.crl)

    def two_way(self, **tables: Any) -> Settings:
        settings = self.settings(
            **{
                "listener": LISTENERS,
                "realm": [
                    {"name": REALM, "mechanisms": ["EXTERNAL", "DIGEST-MD5", "PLAIN"], "certificate": RULES}
                ],
                **tables,
            }
        )
        document = settings.model_dump(by_alias=True, mode="json", exclude_unset=True)
        document["tls"] |= {"client-ca": str(self.ca), "client-crl": str(self.crl)}
        return Settings.model_validate(document)


class WatchTests(TwoWayTestCase):
    """By the clock."""

    def watching(self, **tables: Any) -> ListenerCertificates:
        self.clock = Clock()
        settings = self.two_way(**tables)
        watch = ListenerCertificates(settings, self.clock)
        watch.startService()
        self.addCleanup(watch.stopService)
        self.asking, self.other = map(watch.of, settings.listener)
        return watch

    def in_force(self) -> set[int]:
        """The serial numbers that are revoked."""
        self.assertEqual(self.other.files.client_crls, ())
        return {one.serial_number for crl in self.asking.files.client_crls for one in crl}

    def names(self) -> list[str]:
        return [event["event"] for event in self.logged if str(event.get("event")).startswith("revocations")]

    def test_which_listener_asks(self) -> None:
        self.watching()
        modes = (self.asking.files.client_certificates, self.other.files.client_certificates)
        self.assertEqual(modes, ("optional", "off"))

    def test_a_new_list_within_a_minute(self) -> None:
        self.watching()
        self.clock.advance(INTERVAL)
        self.assertEqual((self.in_force(), self.names()), (set(), []))
        self.revoke(self.issued.certificate)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.in_force(), {self.issued.certificate.serial_number})
        self.assertEqual(self.names(), ["revocations-loaded"])
        self.assertEqual(self.logged[-1]["revoked"], 1)

    def test_the_same_size_and_time(self) -> None:
        """A copy that keeps the time of a file of the same size is another file still."""
        self.revoke(self.issued.certificate)
        before = self.crl.stat()
        self.watching()
        other = self.issue("ander").certificate
        candidate = self.folder / "candidate"
        while crl_file(candidate, self.root.revoking(other)).stat().st_size != before.st_size:
            pass  # signatures differ by an octet or two
        os.utime(candidate, ns=(before.st_atime_ns, before.st_mtime_ns))
        candidate.replace(self.crl)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.in_force(), {other.serial_number})

    def test_a_broken_one_leaves_the_old_in_force(self) -> None:
        self.revoke(self.issued.certificate)
        self.watching()
        old = self.in_force()
        whole = self.crl.read_bytes()
        for broken, words in (
            (lambda: self.crl.write_bytes(whole[:200]), "not each block in it is a whole CRL"),
            (lambda: self.crl.write_bytes(b""), "it is empty"),
            (self.crl.unlink, "No such file"),
        ):
            broken()
            for _ in range(3):  # it is told once
                self.clock.advance(INTERVAL)
            self.assertEqual(self.in_force(), old)
            self.assertIn(words, self.events("revocations-kept")[-1]["reason"])
        self.assertEqual(len(self.events("revocations-kept")), 3)
        self.revoke()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.in_force(), set())

    def test_a_server_certificate_that_is_being_replaced(self) -> None:
        """A list is not held up by that: whom it revokes would be let in until somebody mends the key."""
        watch = self.watching()
        self.cert.private_key.write_text("half")
        self.revoke(self.issued.certificate)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.in_force(), {self.issued.certificate.serial_number})
        self.assertEqual(self.names(), ["revocations-loaded"])
        self.assertRaises(TLSFilesError, watch.reload)

    def test_a_client_ca_that_is_being_replaced(self) -> None:
        """The list is tried again, though it has not changed since."""
        self.watching()
        self.ca.write_text("half")
        self.revoke(self.issued.certificate)
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual((self.in_force(), self.names()), (set(), ["revocations-kept"]))
        self.ca.write_bytes(self.root.pem)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.in_force(), {self.issued.certificate.serial_number})

    def test_a_defect_does_not_end_the_watch(self) -> None:
        """Else nobody would be revoked any more."""
        watch = self.watching()
        self.revoke(self.issued.certificate)
        watch.taken_up = lambda: 1 / 0
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.revoke()
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.in_force(), set())

    def test_out_of_date(self) -> None:
        """Once for each list."""
        self.revoke(start=-2 * DAY, end=-timedelta(minutes=1))
        self.watching()
        self.clock.pump([INTERVAL] * 3)
        (told,) = self.events("revocations-old")
        self.assertEqual(told["issuer"], "CN=Root")

    def test_nobody_is_asked(self) -> None:
        """Then the files are not even read."""
        self.crl.unlink()
        self.watching(listener=[LISTENERS[1], LISTENERS[1]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unusable_at_the_start(self) -> None:
        self.crl.write_text("x")
        settings = self.two_way()
        error = self.assertRaises(TLSFilesError, ListenerCertificates, settings, Clock())
        self.assertIn(f"cannot be read from {self.crl}: there is none", str(error))


class ListenersTests(TwoWayTestCase):
    """With sockets."""

    def connect(self, port: int, version: ssl.TLSVersion, files: ClientFiles | None, implicit: bool) -> Any:
        """What EHLO shows under TLS, and the answer to AUTH EXTERNAL; or the error."""
        context = client_context_for(self.cert.ca)
        context.minimum_version = context.maximum_version = version
        if files is not None:
            context.load_cert_chain(files.certificate, files.private_key)
        try:
            with Client(port, context, implicit=implicit) as client:
                client.reply() if implicit else client.start_tls()
                shown = [line for line in client.ask("EHLO x").splitlines() if "AUTH" in line]
                return shown[0][4:], client.ask("AUTH EXTERNAL =")[:3]
        except FAILURES as error:
            return error

    @proves("L3", "T3", "A2")
    async def test_per_listener(self) -> None:
        settings = self.two_way()
        self.add_account(settings)
        self.start(settings)
        ports = self.ports()
        mine, nobodys = self.issued.files(self.folder), self.root.issue().files(self.folder, "nobody")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for tls, files, found in (
                ("starttls", mine, ("AUTH EXTERNAL DIGEST-MD5 PLAIN", "235")),
                ("starttls", nobodys, ("AUTH DIGEST-MD5 PLAIN", "504")),
                ("starttls", None, ("AUTH DIGEST-MD5 PLAIN", "504")),
                ("implicit", mine, ("AUTH DIGEST-MD5 PLAIN", "504")),
            ):
                answer = await self.run_client(self.connect, ports[tls], version, files, tls == "implicit")
                self.assertEqual(answer, found, (tls, version))

    @proves("L3", "T6")
    async def test_revoked_by_a_signal(self) -> None:
        """The log says why, in one line, and the client hears nothing but a failed handshake."""
        settings = self.two_way(listener=[{**LISTENERS[0], "tls": tls} for tls in ("starttls", "implicit")])
        self.add_account(settings)
        service = self.start(settings)
        mine = self.issued.files(self.folder)
        self.revoke(self.issued.certificate)
        for tls, port in self.ports().items():
            arguments = (port, ssl.TLSVersion.TLSv1_3, mine, tls == "implicit")
            if tls == "starttls":
                self.assertEqual((await self.run_client(self.connect, *arguments))[1], "235")
                service.reload()
            self.assertIsInstance(await self.run_client(self.connect, *arguments), FAILURES)
        await self.until(lambda: len(self.events("tls-failed")) == 2)
        for event in self.events("tls-failed"):
            self.assertIn(f"the client's certificate, CN={ACCOUNT}: it is revoked", event["reason"])

    @proves("L3")
    async def test_an_open_connection_of_a_revoked_one(self) -> None:
        """It is closed when the list is taken up, as is one whose authority is revoked; others go on."""
        settings = self.two_way(listener=[{**LISTENERS[0], "tls": "implicit"}])
        self.add_account(settings)
        below = ClientAuthority("Issuing", self.root)
        lists = [self.root.revoking(), below.revoking()]
        crl_file(self.crl, *lists)
        service = self.start(settings)
        port = self.ports()["implicit"]
        shown = (self.issued, below.issue(common_name("under")), self.issue("other"))

        def script(files: ClientFiles, connected: list[int]) -> str:
            context = client_context_for(self.cert.ca)
            context.load_cert_chain(files.certificate, files.private_key)
            with Client(port, context, implicit=True) as client:
                client.reply()
                connected.append(1)
                while not self.events("revocations-loaded"):
                    try:
                        client.ask("NOOP")
                    except FAILURES:
                        return "closed"
                return client.ask("NOOP")

        connected: list[int] = []
        clients = [
            self.run_client(script, one.files(self.folder, str(number)), connected)
            for number, one in enumerate(shown)
        ]
        await self.until(lambda: len(connected) == len(shown))
        crl_file(self.crl, self.root.revoking(self.issued.certificate, below.certificate), lists[1])
        service.reload()
        for revoked in clients[:2]:
            self.assertEqual(await revoked, "closed")
        log.emit(log.REVOCATIONS_LOADED, file="", revoked=1)  # ends the other's script
        self.assertEqual((await clients[2])[:3], "250")
        reasons = {event["reason"] for event in self.events("disconnected")}
        self.assertIn("the client's certificate, or an authority above it, is revoked", reasons)

    @proves("L3")
    async def test_a_handshake_from_before(self) -> None:
        """It goes on by the lists that it began with; whoever waits in it must not get past newer ones."""
        settings = self.two_way(listener=[{**LISTENERS[0], "tls": "implicit"}])
        self.add_account(settings)
        service = self.start(settings)
        port = self.ports()["implicit"]
        context = client_context_for(self.cert.ca)
        files = self.issued.files(self.folder)
        context.load_cert_chain(files.certificate, files.private_key)
        begun, go_on = [], Event()

        def script() -> bytes:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as wire:
                while True:
                    try:
                        return tls.read(512)
                    except ssl.SSLWantReadError:
                        wire.sendall(outgoing.read())
                    try:
                        received = wire.recv(65536)
                    except ConnectionResetError:
                        return b""
                    begun.append(received)
                    go_on.wait(PATIENCE)
                    incoming.write(received)

        for revoked in ((), (self.issued.certificate,)):
            self.revoke(*revoked)
            answer = self.run_client(script)
            await self.until(lambda: bool(begun))
            if revoked:
                service.reload()
            go_on.set()
            self.assertEqual((await answer)[:4], b"" if revoked else b"220 ")
            begun.clear()
            go_on.clear()
        reasons = [event["reason"] for event in self.events("disconnected")]
        self.assertIn("the files of TLS changed during its handshake", reasons)

    async def test_a_mechanism_that_the_store_cannot_verify(self) -> None:
        """It is not offered, and the log says so at the start."""
        store = MemoryStore(mechanisms=["PLAIN"])
        self.patch(realms, "open_store", lambda realm, facilities: store)
        self.start(self.two_way())
        (told,) = self.events("mechanism-idle")
        self.assertEqual((told["realm"], told["mechanisms"]), (REALM, "DIGEST-MD5"))
        port = self.ports()["implicit"]
        answer = await self.run_client(self.connect, port, ssl.TLSVersion.TLSv1_3, None, implicit=True)
        self.assertEqual(answer[0], "AUTH PLAIN")
