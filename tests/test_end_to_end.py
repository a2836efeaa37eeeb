"""The product as it is used: an installed wheel, ``twistd``, real mail clients, and Postfix as the core."""

import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep

from attrs import evolve
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.authority import Authority
from tests.installed import ACCOUNT, PASSWORD, REALM, Server, checked, installed, pip, relay, run, sources
from tests.mail_clients import (
    RECIPIENT,
    SENDER,
    Login,
    Refused,
    authenticate,
    curl,
    gsasl,
    python,
    tls_context,
    ways,
)
from tests.postfix import Postfix, free_port, without_first_field
from tests.recorder import Recorder
from tests.requirements import proves

# Dots wherever they could be taken for something, octets of every value, lines of every length.
MESSAGE = b"\r\n".join(
    [
        b"From: <sender@example.nl>",
        b"To: an incomplete address",
        b"Received: by a hop before; Sun, 22 Nov 2026 06:56:02 +0000",
        b"Subject: \xe9\xe9n bericht",
        b"",
        b".",
        b"..",
        b".dot",
        b"trailing space ",
        b"",
        bytes({*range(1, 256)} - {10, 13}),
        b"x" * 5000,
        b"",
        b"",
    ]
)

RECEIVED = (
    rb"Received: from (?:client\.example|\[127\.0\.0\.1\]) \(\[127\.0\.0\.1\]\)\r\n"
    rb"\t\(using TLSv1\.[23] [A-Z0-9_-]+\)\r\n"
    rb"\tby localhost with ESMTPSA id [A-Z0-9]+\r\n"
    rb"\tfor <recipient@core\.example>;\r\n"
    rb"\t[^\r\n]+\r\n"
)


class Case(SynchronousTestCase):
    """Has an authority and a scratch folder that everybody may pass through."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def server(self, settings: dict[str, object], *, start: bool = True) -> Server:
        server = Server(self.folder / "msa", self.authority, settings, installed())
        self.addCleanup(server.kill)
        server.add_account()
        if start:
            server.start()
        return server

    def recorder(self, port: int = 0) -> Recorder:
        recorder = Recorder(port)
        self.addCleanup(recorder.close)
        return recorder

    def assertForwarded(self, arrived: bytes, content: bytes = MESSAGE) -> None:
        """One field of ours in front, and then what the client sent (M2)."""
        self.assertRegex(arrived[: -len(content)], rb"\A" + RECEIVED + rb"\Z")
        self.assertEqual(arrived[-len(content) :], content)


class Packages(Case):
    """What is installed, and how it is called."""

    def anywhere(self, *arguments: object, **options: object) -> str:
        """From a folder that has nothing to do with it, with nothing inherited that might help."""
        options = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, **options}
        return checked(*arguments, **options).decode()

    def test_the_wheel(self) -> None:
        """Has both programs."""
        programs = installed()
        self.assertIn("--config=", self.anywhere(*programs.twistd, "digipoort-msa", "--help"))
        self.assertRegex(self.anywhere(*programs.msa, "--version"), r"^digipoort-msa, version \d")
        self.assertRegex(
            self.anywhere(*programs.twistd, "--help"), r"digipoort-msa +A Message Submission Agent"
        )

    def test_nothing_can_be_written(self) -> None:
        """Not even the plugins' cache: a service's user owns no program."""
        programs = installed()
        (plugins,) = Path(programs.twistd[0]).parent.parent.glob("lib/python*/site-packages/twisted/plugins")
        cache = plugins / "dropin.cache"
        cache.unlink(missing_ok=True)
        plugins.chmod(0o555)
        self.addCleanup(plugins.chmod, 0o755)
        # Root may write anywhere, unless it leaves off its capabilities.
        user = () if os.geteuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
        said = self.anywhere(*user, *programs.twistd, "digipoort-msa", "--help")
        self.assertIn("--config=", said)
        self.assertFalse(cache.exists())

    def test_pip_install(self) -> None:
        """``pip install .`` has them too."""
        target = self.folder / "target"
        pip("install", "--no-deps", "--target", target, sources(self.folder / "source"))
        environment = {"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"}
        said = self.anywhere(sys.executable, target / "bin" / "digipoort-msa", "--version", env=environment)
        self.assertIn("version", said)
        twistd = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
        said = self.anywhere(*twistd, "digipoort-msa", "--help", env=environment)
        self.assertIn("--config=", said)
        where = self.anywhere(
            sys.executable, "-c", "import digipoort_msa; print(digipoort_msa.__file__)", env=environment
        )
        self.assertTrue(where.startswith(str(target)), where)

    def test_a_broken_configuration(self) -> None:
        """Ends twistd with EX_CONFIG and says where it is broken."""
        config = self.folder / "msa.toml"
        config.write_text("[server]\nhostnam = 3\n")
        twistd = (*installed().twistd, "-n", "--pidfile", self.folder / "pid")
        done = run(*twistd, "digipoort-msa", "--config", config, cwd=self.folder)
        self.assertEqual(done.returncode, os.EX_CONFIG)
        self.assertIn(b"hostnam", done.stderr)
        self.assertNotIn(b"Traceback", done.stdout + done.stderr)


class Clients(Case):
    """Through Postfix, with TLS and its certificate checked."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid():
            raise SkipTest("Postfix runs only as root")
        self.postfix = Postfix(self.authority)
        self.addCleanup(self.postfix.remove)
        self.postfix.start()
        self.core = self.postfix.core

    def relaying(self, **more: object) -> Server:
        ca = self.folder / "core-ca.pem"
        ca.write_bytes(self.authority.pem)
        return self.server(relay(self.postfix.port, tls="verify", ca=ca) | more)

    def arrived(self, number: int) -> bytes:
        """The content of the core's message of this number, as the MSA gave it to Postfix."""
        messages = self.core.wait(lambda messages: len(messages) > number)
        self.assertGreater(len(messages), number, self.postfix.log())
        return without_first_field(messages[number].content)

    @proves("A2", "D1", "D4", "L1", "L2", "L3", "M2", "M4", "M6")
    def test_every_way(self) -> None:
        """Every client, mechanism and kind of TLS: the core has the same bytes."""
        server = self.relaying()
        for number, (client, login) in enumerate(ways()):
            try:
                client(server, login, MESSAGE)
            except Refused as error:
                self.fail(f"{client.__name__} {login}: {error}\n{server.logged()}")
            self.assertForwarded(self.arrived(number))
        self.assertEqual(len(self.core.messages), len(ways()))
        for message in self.core.messages:
            self.assertEqual(message.recipients, (f"TO:<{RECIPIENT}>",))
            self.assertTrue(message.sender.startswith(f"FROM:<{SENDER}> "), message.sender)
        server.await_empty_queue()
        self.assertNotIn(PASSWORD, server.logged())

    @proves("M4", "M5")
    def test_contents(self) -> None:
        """Of all kinds and sizes."""
        contents = [
            b"Subject: none\r\n",
            b"\r\n",
            b"\r\n.\r\n",
            b".\r\n..\r\n",
            b"Subject: NUL\r\n\r\n\0\0\r\n",
            b"\r\n" + b"y" * 300_000 + b"\r\n",
            b"Subject: lines\r\n\r\n" + b"\r\n" * 70_000,
            b"Subject: dots\r\n\r\n" + b".\r\n" * 50_000,
            b"Subject: 5 MiB\r\n\r\n"
            + os.urandom(5 << 20).replace(b"\r", b".").replace(b"\n", b"\r\n")
            + b"\r\n",
        ]
        server = self.relaying()
        for number, content in enumerate(contents):
            python(server, Login("PLAIN", implicit=bool(number % 2)), content)
            arrived = self.arrived(number)
            if content.startswith(b"."):  # no field, so that Postfix ends the header before it
                self.assertTrue(arrived.endswith(b"\r\n\r\n" + content), arrived)
            else:
                self.assertForwarded(arrived, content)

    @proves("A5")
    def test_wrong_passwords(self) -> None:
        """Refused with the same reply to every client."""
        limits = {
            "login-first-delay": 0,
            "login-failures-per-account-and-address": 1000,
            "login-failures-per-address": 1000,
        }
        server = self.relaying(limits=limits)
        for client, login in ways():
            for account, password in ((ACCOUNT, "wrong"), ("nobody", PASSWORD)):
                with self.assertRaises(Refused) as raised:
                    client(server, evolve(login, account=account, password=password), MESSAGE)
                # The others keep the reply to themselves, or ask for another mechanism first.
                if client in (gsasl, python):
                    self.assertIn("5.7.8 Authentication credentials invalid", str(raised.exception))
        self.assertEqual((self.core.messages, server.json("queue", "list")), ([], []))
        self.assertNotRegex(server.logged(), "queued as")

    @proves("A4")
    def test_names_outside_ascii(self) -> None:
        """As curl, gsasl and Python say them."""
        server = self.relaying()
        number = 0
        for account, password in (("zoë", "geheim é"), ("ζωή", "μυστικό")):  # in ISO-8859-1, and not
            server.add_account(account, password)
            for client in (curl, gsasl, python):
                for mechanism in ("DIGEST-MD5", "PLAIN"):
                    if client is python and mechanism == "PLAIN":
                        continue  # smtplib takes ASCII alone
                    client(server, Login(mechanism, False, account, password), MESSAGE)
                    self.assertForwarded(self.arrived(number))
                    number += 1

    @proves("D4")
    def test_a_core_that_cannot_be_verified(self) -> None:
        """Gets nothing; the operator sees why."""
        ca = self.folder / "other-ca.pem"
        ca.write_bytes(Authority().pem)
        server = self.server(relay(self.postfix.port, tls="verify", ca=ca))
        python(server, Login("PLAIN"), MESSAGE)
        server.await_log("deferred by localhost")
        (summary,) = server.json("queue", "list")
        shown = server.json("queue", "show", summary["id"])
        self.assertIn("certificate", shown["recipients"][0]["reply"])
        self.assertEqual(self.core.messages, [])

    def test_with_accounts_changed_meanwhile(self) -> None:
        """Each change holds from the next login on."""
        server = self.relaying()
        login = Login("DIGEST-MD5")

        def goes(login: Login) -> bool:
            """Over both kinds of verification."""
            results = set()
            for mechanism in ("DIGEST-MD5", "PLAIN"):
                try:
                    python(server, evolve(login, mechanism=mechanism), MESSAGE)
                    results.add(True)
                except Refused as refused:
                    self.assertIn("5.7.8", str(refused))
                    results.add(False)
            (result,) = results
            return result

        self.assertTrue(goes(login))
        server.command("account", "password", ACCOUNT, "--password-stdin", input=b"another one\n")
        self.assertFalse(goes(login))
        login = evolve(login, password="another one")
        self.assertTrue(goes(login))
        server.command("account", "disable", ACCOUNT)
        self.assertFalse(goes(login))
        server.command("account", "enable", ACCOUNT)
        self.assertTrue(goes(login))
        made = server.json("account", "add", "second", "--generate", "--realm", REALM)
        self.assertTrue(goes(evolve(login, account="second", password=made["password"])))
        server.command("account", "remove", ACCOUNT, "--yes")
        self.assertFalse(goes(login))
        self.assertEqual([found["name"] for found in server.json("account", "list")], ["second"])


class Outages(Case):
    """A core that is down, and a server that is restarted."""

    @proves("D2", "D3", "M6")
    def test_the_core_is_down(self) -> None:
        """Messages wait, over a restart too, and go at once when the operator says so."""
        port = free_port()
        server = self.server(relay(port))
        contents = {
            kind: kind + b"\r\n\r\n" + b"octets\r\n" * size
            for kind, size in ((b"a: 1", 1), (b"b: 2", 30_000))
        }
        for content in contents.values():
            python(server, Login("PLAIN"), content)
        server.await_log("deferred by localhost.*\n(?s:.*)deferred by localhost")
        waiting = server.json("queue", "list")
        self.assertEqual([each["recipients"] for each in waiting], [{"deferred": 1}] * 2)
        self.assertEqual({each["sender"] for each in waiting}, {f"<{SENDER}>"})
        ids = [each["id"] for each in waiting]
        for queue_id in ids:
            server.await_log(f"queued as {queue_id}")

        self.assertEqual(server.end(), -signal.SIGTERM)
        self.assertEqual(
            [each["id"] for each in server.json("queue", "list")], ids, "it is there without a server"
        )
        server.start()
        server.await_log("2 messages, 0 half-received removed")
        self.assertEqual([each["id"] for each in server.json("queue", "list")], ids)

        core = self.recorder(port)
        self.assertEqual(server.json("queue", "retry", "--all"), {"retry": ids})
        messages = core.wait(lambda messages: len(messages) == 2)
        self.assertEqual(len(messages), 2, server.logged())
        for message in messages:
            kind = next(kind for kind in contents if b"\r\n" + kind in message.content)
            self.assertForwarded(message.content, contents[kind])
        server.await_empty_queue()
        self.assertEqual(list((server.spool / "bodies").iterdir()), [])

    def test_an_operator_removes_a_message(self) -> None:
        server = self.server(relay(free_port()))
        python(server, Login("PLAIN"), MESSAGE)
        (summary,) = server.json("queue", "list")
        server.command("queue", "remove", summary["id"], "--yes")
        self.assertEqual(server.json("queue", "list"), [])
        self.assertNotEqual(
            run(*server.programs.msa, "--config", server.config, "queue", "show", "X1").returncode, 0
        )


class Life(Case):
    """Start, reload and end."""

    def serial(self, server: Server) -> int:
        """Of the certificate that a new connection is shown."""
        context = tls_context(server)
        with (
            socket.create_connection(("localhost", server.ports["implicit"]), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return int(secure.getpeercert()["serialNumber"], 16)

    @proves("L5")
    def test_reload(self) -> None:
        """SIGHUP: a new certificate for new connections, and none is lost; a broken one is not taken."""
        server = self.server(relay(self.recorder().port))
        before = self.serial(server)
        context = tls_context(server)
        with smtplib.SMTP("localhost", server.ports["starttls"], timeout=20) as client:
            client.starttls(context=context)
            server.show(self.authority)
            os.kill(server.pid, signal.SIGHUP)
            server.await_log("new connections get the certificate")
            after = self.serial(server)
            self.assertNotEqual(after, before)
            server.certificate.write_text("no certificate")
            os.kill(server.pid, signal.SIGHUP)
            server.await_log("the old certificate stays in force")
            self.assertEqual(self.serial(server), after)
            authenticate(client, Login("DIGEST-MD5"))
            self.assertEqual(client.sendmail(SENDER, [RECIPIENT], MESSAGE), {})

    def test_end(self) -> None:
        """On SIGTERM and on SIGINT: clients are told, the queue is kept, nothing is left behind.

        twistd ends itself by the signal that it got, once all is stopped.  To systemd and a shell alike that
        is a clean end by SIGTERM.
        """
        server = self.server(relay(self.recorder().port))
        for number in (signal.SIGTERM, signal.SIGINT):
            with smtplib.SMTP("localhost", server.ports["starttls"], timeout=20) as client:
                pid = server.pid
                start = monotonic()
                self.assertEqual(server.end(number), -number)
                self.assertLess(monotonic() - start, 10)
                self.assertEqual(client.getreply(), (421, b"4.3.2 Service is restarting; try again later"))
                client.close()
            self.assertFalse(Path(f"/proc/{pid}").exists())
            self.assertFalse(server.pid_file.exists())
            self.assertNotIn("Traceback", server.logged())
            self.assertEqual((server.directory / "stderr").read_text(), "")
            server.start()

    def test_daemon(self) -> None:
        """Without ``-n``: in the background, known by its pid file."""
        core = self.recorder()
        server = self.server(relay(core.port), start=False)
        started = run(*server.twistd(), cwd=self.folder)
        self.assertEqual((started.returncode, started.stderr), (0, b""))
        server.await_ports()
        pid = int(server.pid_file.read_text())
        handle = os.pidfd_open(pid)
        self.addCleanup(os.close, handle)
        try:
            python(server, Login("PLAIN", implicit=True), MESSAGE)
            (message,) = core.wait(bool)
            self.assertForwarded(message.content)
        finally:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            end = monotonic() + 20
            while server.pid_file.exists() and monotonic() < end:
                sleep(0.02)
        self.assertFalse(server.pid_file.exists(), server.logged())

    @proves("L1", "L2", "T7")
    def test_tls(self) -> None:
        """1.2 and 1.3, and nothing older."""
        server = self.server(relay(self.recorder().port))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = tls_context(server)
            context.minimum_version = context.maximum_version = version
            with smtplib.SMTP_SSL(
                "localhost", server.ports["implicit"], context=context, timeout=20
            ) as client:
                authenticate(client, Login("LOGIN"))
                self.assertEqual(client.sendmail(SENDER, [RECIPIENT], MESSAGE), {})
        old = ["openssl", "s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
        done = run(*old, "-connect", f"localhost:{server.ports['implicit']}", stdin=subprocess.DEVNULL)
        self.assertNotEqual(done.returncode, 0)
        server.await_log("TLS failed with 127.0.0.1: unsupported protocol")


class Sandbox(Case):
    """``digipoort-msa sandbox`` from the wheel; test_admin_sandbox has the rest."""

    def test_from_anywhere(self) -> None:
        """It starts with nothing there, serves, and ends on Ctrl-C."""
        home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, home)
        output = self.folder / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*installed().msa, "sandbox", "--starttls-port", "0", "--implicit-port", "0"],
                cwd="/",
                env={"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        directory = home / ".local" / "state" / "digipoort-msa" / "sandbox"
        end = monotonic() + 60
        while "\nready\n" not in output.read_text() and process.poll() is None and monotonic() < end:
            sleep(0.02)
        text = output.read_text()
        recipe = re.search(r"^# curl \(STARTTLS, DIGEST-MD5\)\n(.+)$", text, re.MULTILINE)
        assert recipe is not None, text
        checked("sh", "-c", recipe[1])
        new = directory / "maildir" / "new"
        while not (new.exists() and list(new.iterdir())) and monotonic() < end:
            sleep(0.02)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(20), 0, output.read_text())
        (message,) = new.iterdir()
        self.assertIn(b"Hello.", message.read_bytes())
        self.assertRegex(output.read_text(), r"queued as \w+: \d+ octets from <sender@example\.nl>")
