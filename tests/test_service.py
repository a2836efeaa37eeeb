"""The whole MSA, from its settings: it starts, serves, reloads and stops."""

import gc
import os
import shutil
import signal
import socket
import sys
import threading
from email import message_from_bytes
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from digipoort_msa.accounts.administration import Administration
from digipoort_msa.accounts.ledger import Ledger
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.settings import Settings
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import Facilities
from digipoort_msa.policy.recipients import RecipientsRule
from digipoort_msa.policy.sender import SenderRule
from digipoort_msa.service import Options, make_service, makeService
from digipoort_msa.service.listeners import certificate_names, digest_hosts
from digipoort_msa.service.msa import SubmissionService, TwistdService
from digipoort_msa.service.policies import make_policies
from digipoort_msa.spool.schema import SpoolError
from tests.configurations import with_files
from tests.msa import MSATestCase
from tests.msa_certificates import certificates
from tests.msa_client import ACCOUNT, MESSAGE, PASSWORD, Client, client_context, plain, stuffed
from tests.requirements import proves

REALM = "overheidstransactiepoort.nl"


class ServiceTestCase(MSATestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()

    def settings(self, **tables: Any) -> Settings:
        tables = {
            "listener": [
                {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "starttls"},
                {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "implicit"},
            ],
            "passwords": {"memory-kib": 8, "time-cost": 1},
            "delivery": {"to": "maildir", "maildir": {"directory": str(self.folder / "maildir")}},
            **tables,
        }
        document, self.cert = with_files(self.folder, **tables)
        return Settings.model_validate(document)

    def add_account(self, settings: Settings, realm: str = REALM) -> None:
        state = settings.server.state_directory
        accounts = open_accounts(realm=realm, url=None, state_directory=state)
        hashing = PasswordHashing(memory_kib=8, time_cost=1)
        names = [realm.name for realm in settings.realm]
        Administration(accounts, hashing, digest=True, realms=names).add(ACCOUNT, PASSWORD)
        accounts.close()

    def start(self, settings: Settings) -> SubmissionService:
        """As twistd does; stopped at the end of the test."""
        umask = os.umask(0o22)
        self.addCleanup(os.umask, umask)
        interval = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, interval)
        service = make_service(settings, reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self.stop_once, service)
        return service

    def stop_once(self, service: SubmissionService) -> "Deferred[None] | None":
        return service.stopService() if service.running else None

    def ports(self) -> dict[str, int]:
        return {event["tls"]: int(event["address"].rpartition(":")[2]) for event in self.events("listening")}

    def client(self, port: int, implicit: bool = False) -> Client:
        return Client(port, client_context_for(self.cert.ca), implicit=implicit)


def client_context_for(ca: Path) -> Any:
    context = client_context()
    context.load_verify_locations(ca)
    return context


class RestartTests(ServiceTestCase):
    @proves("A8")
    async def test_failed_logins_are_counted_on(self) -> None:
        """Over a restart; and what the account used is written down."""
        settings = self.settings(
            limits={"login-failures-per-account-and-address": 2, "login-first-delay": 0.0}
        )
        self.add_account(settings)

        def script(passwords: tuple[str, ...]) -> list[str]:
            with self.client(self.ports()["implicit"], implicit=True) as client:
                client.reply()
                client.ask("EHLO x.nl")
                return [client.ask(f"AUTH PLAIN {plain(password=one)}")[:3] for one in passwords]

        service = self.start(settings)
        self.assertEqual(await self.run_client(script, ("wrong", PASSWORD)), ["535", "235"])
        await service.stopService()
        service = self.start(settings)
        self.assertEqual(await self.run_client(script, ("wrong",)), ["535"])
        await service.stopService()
        self.start(settings)
        self.assertEqual(await self.run_client(script, (PASSWORD,)), ["421"])
        ledger = Ledger(settings.server.state_directory, working=False)
        self.addCleanup(ledger.close)
        self.assertEqual(list(ledger.usage(REALM)), [(REALM, ACCOUNT, "PLAIN")])


class RunTests(ServiceTestCase):
    @proves("L1", "L2", "A2", "M2", "M6", "D1")
    async def test_from_login_to_maildir(self) -> None:
        settings = self.settings()
        self.add_account(settings)
        service = self.start(settings)
        verifyObject(IService, service)
        ports = self.ports()
        self.assertEqual(set(ports), {"starttls", "implicit"})

        def script(implicit: bool) -> str:
            with self.client(ports["implicit" if implicit else "starttls"], implicit) as client:
                client.reply() if implicit else client.start_tls()
                assert client.digest()[-1].startswith("235")
                return client.submit()

        ids = [(await self.run_client(script, implicit)).split()[-1] for implicit in (True, False)]
        new = self.folder / "maildir" / "new"
        await self.until(lambda: new.is_dir() and len(list(new.iterdir())) == 2)
        delivered = [path.read_bytes() for path in new.iterdir()]
        for octets in delivered:
            self.assertTrue(octets.endswith(MESSAGE))
        received = "".join(message_from_bytes(octets)["Received"] for octets in delivered)
        for queue_id in ids:
            self.assertIn(f" id {queue_id}", received)
        await self.until(lambda: len(self.events("delivered")) == 2)
        self.assertEqual({event["queue_id"] for event in self.events("delivered")}, set(ids))

    async def test_the_spool_is_everyone_elses_no_business(self) -> None:
        settings = self.settings()
        self.start(settings)
        for path in (self.folder / "state").rglob("*"):
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    @proves("M9", "M6")
    async def test_stop(self) -> None:
        """A message that is being received is not kept; one that was answered is; nothing is left running."""
        settings = self.settings()
        self.add_account(settings)
        before = threading.active_count()
        service = self.start(settings)
        port = self.ports()["implicit"]
        ready: list[int] = []

        def script() -> bytes:
            with self.client(port, implicit=True) as client:
                client.reply()
                client.login()
                assert "queued as" in client.submit()
                client.ask("MAIL FROM:<a@b.nl>")
                client.ask("RCPT TO:<a@b.nl>")
                client.ask("DATA")
                client.send(b"Subject: x\r\n\r\n" + b"half" * 100_000)
                ready.append(1)
                return client.rest()

        answer = self.run_client(script)
        await self.until(lambda: ready)
        await service.stopService()
        self.assertEqual((await answer)[:9], b"421 4.3.2")
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        self.assertFalse(service.running)
        await self.until(lambda: threading.active_count() <= before + 5)
        self.assertEqual(list((self.folder / "state" / "spool").rglob("*.incoming")), [])

        self.logged.clear()
        self.start(settings)  # the same folder serves again
        (opened,) = self.events("spool-open")
        self.assertEqual(opened["half_received"], 0)
        self.assertEqual(self.events("listening")[0]["tls"], "starttls")

    async def test_stop_with_nobody_there_is_quick(self) -> None:
        service = self.start(self.settings())
        start = reactor.seconds()
        await service.stopService()
        self.assertLess(reactor.seconds() - start, 5)

    async def test_two_realms(self) -> None:
        settings = self.settings(realm=[{"name": "een.nl", "mechanisms": ["PLAIN"]}, {"name": "twee.nl"}])
        self.add_account(settings, "twee.nl")
        self.start(settings)
        port = self.ports()["implicit"]

        def script(username: str) -> str:
            with self.client(port, implicit=True) as client:
                client.reply()
                assert "AUTH DIGEST-MD5 PLAIN LOGIN" in client.ask("EHLO x")
                return client.login(username)[:3]

        self.assertEqual(await self.run_client(script, ACCOUNT), "535")
        self.assertEqual(await self.run_client(script, f"{ACCOUNT}@twee.nl"), "235")

    @proves("A8")
    async def test_the_limits_are_the_settings(self) -> None:
        settings = self.settings(
            limits={
                "message-size": 1000,
                "recipients": 100,
                "errors": 4,
                "login-failures-per-account-and-address": 2,
                "login-first-delay": 0.0,
            }
        )
        self.add_account(settings)
        self.start(settings)
        port = self.ports()["implicit"]

        def script() -> None:
            with self.client(port, implicit=True) as client:
                client.reply()
                assert "250-SIZE 1000\r\n" in client.ask("EHLO x")
                client.login()
                assert client.ask("MAIL FROM:<a@b.nl> SIZE=1001")[:9] == "552 5.3.4"
                client.ask("MAIL FROM:<a@b.nl>")
                client.send(b"RCPT TO:<a@b.nl>\r\n" * 101)
                codes = [client.reply()[:9] for _ in range(101)]
                assert codes == ["250 2.1.5"] * 100 + ["452 4.5.3"], codes
                client.ask("DATA")
                client.send(stuffed(b"x" * 998 + b"\r\n" + b"y\r\n"))
                assert client.reply()[:9] == "552 5.3.4"
                for _ in range(2):
                    assert client.ask("XYZZY")[:3] == "500"
                assert client.rest()[:9] == b"421 4.7.0"
            for code in ("535", "535", "421"):
                with self.client(port, implicit=True) as client:
                    client.reply()
                    assert client.login("niemand", "fout")[:3] == code

        await self.run_client(script)


class ReloadTests(ServiceTestCase):
    def put(self, settings: Settings) -> None:
        """Another certificate, of the same authority as the tests' other ones, for the same key's file."""
        shutil.copy(certificates().ec.certificate, settings.tls.certificate)
        shutil.copy(certificates().ec.private_key, settings.tls.private_key)

    async def test_sighup(self) -> None:
        settings = self.settings()
        self.start(settings)
        port = self.ports()["implicit"]

        def certificate() -> Any:
            with self.client(port, implicit=True) as client:
                return client.socket.getpeercert(binary_form=True)  # type: ignore[union-attr]

        first = await self.run_client(certificate)
        settings.tls.certificate.write_text("broken")
        os.kill(os.getpid(), signal.SIGHUP)
        await self.until(lambda: self.events("certificate-kept"))
        self.assertIn(str(settings.tls.certificate), self.events("certificate-kept")[0]["reason"])
        self.assertEqual(await self.run_client(certificate), first)

        self.put(settings)
        os.kill(os.getpid(), signal.SIGHUP)
        await self.until(lambda: self.events("certificate-loaded"))
        self.assertNotEqual(await self.run_client(certificate), first)

    @proves("A3", "L5")
    async def test_the_names_of_a_new_certificate_count(self) -> None:
        """A digest-uri may name the host that the certificate of today names."""
        server = {"hostname": "msa.example.nl", "state-directory": str(self.folder / "state")}
        settings = self.settings(server=server)
        self.assertEqual(digest_hosts(settings), {"msa.example.nl", "localhost", "127.0.0.1", "::1", REALM})
        service = self.start(settings)
        self.assertIn("::1", service.listeners[0].factory.digest_hosts)
        self.put(settings)
        service.reload()
        for factory in (listener.factory for listener in service.listeners):
            self.assertNotIn("::1", factory.digest_hosts)


class FaultTests(ServiceTestCase):
    def test_a_taken_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            settings = self.settings(
                listener=[{"endpoint": f"tcp:{port}:interface=127.0.0.1", "tls": "starttls"}]
            )
            self.addCleanup(os.umask, os.umask(0o22))
            service = make_service(settings, reactor)
            error = self.assertRaises(CannotListenError, service.privilegedStartService)
        self.assertIn(f"127.0.0.1:{port}", str(error))
        self.assertIn("in use", str(error))

    def test_twistd_says_it_in_one_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            settings = self.settings(listener=[{"endpoint": endpoint, "tls": "starttls"}])
            self.addCleanup(os.umask, os.umask(0o22))
            ended = self.assertRaises(SystemExit, TwistdService(settings, reactor).privilegedStartService)
        self.assertIn("in use", str(ended.code))

    async def test_twistd_says_what_is_wrong_with_the_spool(self) -> None:
        settings = self.settings()
        self.start(settings)
        second = TwistdService(settings, reactor)
        ended = self.assertRaises(SystemExit, second.startService)
        self.assertIn("in use by another process", str(ended.code))

    def test_what_is_there_at_the_start_is_not_looked_through_for_garbage(self) -> None:
        self.addCleanup(gc.unfreeze)
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        service = TwistdService(self.settings(), reactor)
        self.addCleanup(service.stopService)
        service.startService()
        self.assertTrue(gc.get_freeze_count())

    async def test_a_taken_spool(self) -> None:
        settings = self.settings()
        self.start(settings)
        second = make_service(settings, reactor)
        error = self.assertRaises(SpoolError, second.startService)
        self.assertIn("in use by another process", str(error))

    def test_make_service_says_what_is_wrong(self) -> None:
        """One message for a person, and EX_CONFIG; no traceback."""
        settings = self.settings()
        (self.folder / "msa.toml").write_text(
            f"""
            [server]
            hostname = "localhost"
            state-directory = "{settings.server.state_directory}"
            [[listener]]
            endpoint = "tcp:0"
            tls = "starttls"
            [tls]
            certificate = "{settings.tls.certificate}"
            private-key = "{settings.tls.private_key}"
            [[realm]]
            name = "een.nl"
            [delivery]
            to = "maildir"
            [delivery.maildir]
            directory = "{self.folder / "maildir"}"
            """
        )
        options = Options()
        options.parseOptions(["--config", str(self.folder / "msa.toml")])
        self.assertIsInstance(makeService(options), SubmissionService)
        for break_it, words in (
            (lambda: settings.tls.private_key.write_text(""), "key.pem"),
            (lambda: (self.folder / "msa.toml").write_text("[server]\nhostnam = 1"), "hostname"),
            (lambda: (self.folder / "msa.toml").unlink(), "msa.toml"),
        ):
            break_it()
            self.patch(sys, "stderr", said := Said())
            exit_ = self.assertRaises(SystemExit, makeService, options)
            self.assertEqual(exit_.code, os.EX_CONFIG)
            self.assertIn(words, said.text)
            self.assertNotIn("Traceback", said.text)


class Said:
    text = ""

    def write(self, text: str) -> None:
        self.text += text


class WiringTests(SynchronousTestCase):
    """Settings become policies and names."""

    def policies(self, *tables: dict[str, Any]) -> tuple[Any, ...]:
        realm = Realm.model_validate({"name": "een.nl", "policy": tables})
        facilities = Facilities(None, None, Path("/nowhere"))
        return make_policies(realm, facilities, self.reported.append)

    @proves("M7")
    def test_policies(self) -> None:
        self.reported: list[Any] = []
        self.assertEqual(self.policies(), ())
        made = self.policies(
            {"rule": "recipients", "mode": "audit"},
            {"rule": "sender", "name": "own", "accounts": ["a*", "b"], "groups": ["g"]},
        )
        self.assertEqual([each.name for each in made], ["recipients", "own"])
        self.assertEqual([type(each.policy) for each in made], [RecipientsRule, SenderRule])
        self.assertEqual([each.report is None for each in made], [False, True])
        for account, groups, concerned in (
            ("a", "", True),
            ("anna", "", True),
            ("b", "", True),
            ("bert", "", False),
            ("bert", "g", True),
        ):
            identity = Identity(name=account, realm="een.nl", groups=frozenset(groups))
            self.assertEqual([each.concerns(identity) for each in made], [True, concerned], account)

    def test_certificate_names(self) -> None:
        folder = Path(self.mktemp())
        document, files = with_files(folder.absolute())
        settings = Settings.model_validate(document)
        self.assertEqual(certificate_names(settings), ("localhost", "127.0.0.1", "::1"))
        shutil.copy(certificates().ca, files.certificate)  # without a subjectAltName
        self.assertEqual(certificate_names(settings), ())

    @proves("A3", "L5")
    def test_digest_hosts(self) -> None:
        server = {"hostname": "MSA.example.nl", "digest-hosts": ["Mail.Example.NL"]}
        document, _ = with_files(Path(self.mktemp()).absolute(), server=server)
        self.assertEqual(digest_hosts(Settings.model_validate(document)), {"mail.example.nl", REALM})
