"""The product as it is installed, started, reloaded and ended: wheel, ``twistd``, daemon, sandbox."""

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

from tests.installed import Server, checked, installed, pip, relay, run, sources
from tests.installed_case import MESSAGE, InstalledTestCase
from tests.mail_clients import (
    RECIPIENT,
    SENDER,
    Login,
    authenticate,
    python,
    tls_context,
)
from tests.requirements import proves


class Packages(InstalledTestCase):
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


class Life(InstalledTestCase):
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
            server.await_log(r"queued as \w+")  # a daemon has no standard output to log to
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


class Sandbox(InstalledTestCase):
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
