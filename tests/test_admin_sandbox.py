"""The sandbox, in pieces and as a whole: started as a person starts it, with every printed command run."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from threading import Timer
from unittest.mock import patch

from click.testing import CliRunner
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log
from digipoort_msa.admin.recipes import Sandbox, recipes
from digipoort_msa.admin.sandbox import (
    ACCOUNT,
    HOST,
    REALM,
    EventPrinter,
    check_port,
    claimed,
    default_directory,
    prepare,
    sandbox,
)
from tests.shell import environment

ROOT = Path(__file__).parent.parent


class Pieces(SynchronousTestCase):
    """What is made before the start."""

    def setUp(self) -> None:
        self.addCleanup(os.umask, os.umask(0o022))  # the command sets its own, in this process
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def test_configuration(self) -> None:
        """An ordinary file, read the ordinary way."""
        settings, facts = prepare(self.folder, 5587, 5465)
        self.assertEqual(
            [(listener.endpoint, listener.tls) for listener in settings.listener],
            [("tcp:5587:interface=127.0.0.1", "starttls"), ("tcp:5465:interface=127.0.0.1", "implicit")],
        )
        self.assertEqual(settings.delivery.to, "maildir")
        self.assertEqual(settings.delivery.maildir.directory, facts.maildir)
        self.assertEqual((facts.account, facts.realm, settings.realm[0].name), (ACCOUNT, REALM, REALM))
        for name in ("sandbox.toml", "state/accounts.sqlite", "state/accounts.key"):
            self.assertEqual(stat.S_IMODE((self.folder / name).stat().st_mode), 0o600, name)

    def test_the_password_is_kept(self) -> None:
        """As long as sandbox.json can be read; it is random otherwise."""
        _, first = prepare(self.folder, 0, 0)
        _, second = prepare(self.folder, 0, 0)
        self.assertNotEqual(first.password, second.password)
        file = self.folder / "sandbox.json"
        file.write_text(json.dumps(second.document(1)))
        _, third = prepare(self.folder, 0, 0)
        self.assertEqual(third.password, second.password)
        for text in ("", "{}", "[]", '{"password": 3}', '{"password": "x y"}', '{"password": ""}'):
            file.write_text(text)
            self.assertGreaterEqual(len(prepare(self.folder, 0, 0)[1].password), 24)

    def test_port_taken(self) -> None:
        """One line that names the port and the option."""
        with socket.socket() as other:
            other.bind((HOST, 0))
            other.listen()
            port = other.getsockname()[1]
            for option in ("--starttls-port", "--implicit-port"):
                arguments = ["--directory", str(self.folder), option, str(port)]
                other_option = ({"--starttls-port", "--implicit-port"} - {option}).pop()
                result = CliRunner().invoke(sandbox, [*arguments, other_option, "0"])
                expected = f"Error: port {port} on 127.0.0.1 is taken; choose another with {option}\n"
                self.assertEqual((result.exit_code, result.output), (1, expected))
        check_port("--starttls-port", port)
        self.assertEqual(list(self.folder.iterdir()), [], "nothing is made in vain")

    def test_same_port_twice(self) -> None:
        result = CliRunner().invoke(sandbox, ["--starttls-port", "1234", "--implicit-port", "1234"])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("must differ", result.output)

    def test_a_folder_that_cannot_be(self) -> None:
        """A line that says which, not a traceback."""
        file = self.folder / "file"
        file.touch()
        arguments = ["--directory", str(file / "below"), "--starttls-port", "0", "--implicit-port", "0"]
        result = CliRunner().invoke(sandbox, arguments)
        self.assertEqual(
            (result.exit_code, result.output), (1, f"Error: {file / 'below'}: Not a directory\n")
        )

    def test_damaged_state(self) -> None:
        """What cannot be used is named, with the way out, and without a traceback."""
        arguments = ["--directory", str(self.folder), "--starttls-port", "0", "--implicit-port", "0"]
        state = self.folder / "state"
        for name in ("accounts.key", "accounts.sqlite"):
            prepare(self.folder, 0, 0)
            (state / name).write_bytes(b"damaged " * 100)
            result = CliRunner().invoke(sandbox, arguments)
            self.assertEqual((result.exit_code, type(result.exception)), (1, SystemExit), result.output)
            self.assertIn(f"to begin anew, remove {self.folder}", result.output)
            shutil.rmtree(state)

    def test_in_use(self) -> None:
        """Two sandboxes do not share a folder."""
        arguments = ["--directory", str(self.folder), "--starttls-port", "0", "--implicit-port", "0"]
        with claimed(self.folder):
            result = CliRunner().invoke(sandbox, arguments)
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"a sandbox runs in {self.folder} already", result.output)

    def test_default_directory(self) -> None:
        with patch.dict(os.environ, {"XDG_STATE_HOME": "/state", "HOME": "/home/user"}):
            self.assertEqual(default_directory(), Path("/state/digipoort-msa/sandbox"))
            os.environ["XDG_STATE_HOME"] = "relative"  # to be ignored, says the specification
            self.assertEqual(default_directory(), Path("/home/user/.local/state/digipoort-msa/sandbox"))


class Events(SynchronousTestCase):
    """A line for each event, and for each failure."""

    def setUp(self) -> None:
        self.printer = EventPrinter()
        self.lines: list[str] = []
        self.patch(log, "_logger", Logger(namespace="digipoort_msa", observer=self.printer))
        self.patch(sys.modules["digipoort_msa.admin.sandbox"].click, "echo", self.lines.append)

    def test_an_event(self) -> None:
        log.emit(log.REFUSED, session="s1", command="MAIL", reply="550 5.7.1", reason="not\nyours")
        self.assertRegex(self.lines[0], r"^\d\d:\d\d:\d\d s1 MAIL refused with 550 5\.7\.1: not\\nyours$")

    def test_ports(self) -> None:
        """LISTENING is for the welcome."""
        log.emit(log.LISTENING, address="127.0.0.1:5587", tls="starttls")
        log.emit(log.LISTENING, address="::1:5465", tls="implicit")
        self.assertEqual((self.printer.ports, self.lines), ({"starttls": 5587, "implicit": 5465}, []))

    def test_a_failure(self) -> None:
        """In one line; the traceback is in the file."""
        log.failure(log.DEFECT, Failure(ValueError("that was it")), where="a test")
        self.assertRegex(self.lines[0], r"unexpected failure in a test: that was it \(the log has more\)$")

    def test_what_is_not_ours(self) -> None:
        """Only its errors."""
        other = Logger(namespace="twisted", observer=self.printer)
        other.info("hello")
        other.emit(LogLevel.critical, "help")
        self.assertRegex("".join(self.lines), "^[0-9:]+ help$")


class Running(SynchronousTestCase):
    """The whole, in a process of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def start(self) -> subprocess.Popen[str]:
        """Start it and wait for ``ready``."""
        program = "from digipoort_msa.admin.commands import main; main()"
        ports = ["--starttls-port", "0", "--implicit-port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", program, "sandbox", "--directory", str(self.folder), *ports],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        limit = Timer(120, process.kill)
        limit.start()
        self.addCleanup(limit.cancel)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.welcome = ""
        for line in process.stdout:
            if line == "ready\n":
                return process
            self.welcome += line
        raise AssertionError(f"it ended: {self.welcome}")

    def end(self, process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
        """End it, and return what it printed since ``ready``."""
        process.send_signal(number)
        assert process.stdout is not None
        printed = process.stdout.read()
        self.assertEqual(process.wait(), 0, printed)
        return printed

    def facts(self) -> Sandbox:
        """From sandbox.json alone, as a script would."""
        file = self.folder / "sandbox.json"
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        found = json.loads(file.read_text())
        return Sandbox(
            host=found["host"],
            starttls_port=found["ports"]["starttls"],
            implicit_port=found["ports"]["implicit"],
            account=found["account"],
            password=found["password"],
            realm=found["realm"],
            ca=Path(found["ca"]),
            maildir=Path(found["maildir"]),
        )

    def test_every_recipe(self) -> None:
        """Each printed command works as it stands, and its story is told line by line."""
        process = self.start()
        facts = self.facts()
        outputs = {}
        for client, command in recipes(facts).items():
            self.assertIn(f"# {client}\n{command}\n", self.welcome)
            done = subprocess.run(
                ["sh", "-c", command],
                env=environment(),
                input="NOOP\nQUIT\n",
                capture_output=True,
                text=True,
                timeout=60,
            )
            outputs[client] = done.stdout + done.stderr
            self.assertEqual(done.returncode, 0, f"{client}: {outputs[client]}")
            if client.startswith("openssl"):
                self.assertIn("221 2.0.0", outputs[client])
        printed = self.end(process)
        for told in (" connected from 127.0.0.1", " TLS is up: TLSv1.3", " with DIGEST-MD5", " with PLAIN"):
            self.assertIn(told, printed)
        delivered = [line for line in printed.splitlines() if " delivered to recipient@example.nl" in line]
        messages = list((facts.maildir / "new").iterdir())
        self.assertEqual(len(messages), 4)
        self.assertEqual(len(delivered), 4)
        for message in messages:
            self.assertIn(str(message), printed)
            self.assertIn(f"queued as {message.name}", printed)

    def test_why(self) -> None:
        """A wrong password, and a client that does not trust the CA, are told with the reason."""
        process = self.start()
        address = f"smtp://localhost:{self.facts().starttls_port}"
        curl = ["curl", "-sS", "--ssl-reqd", "--mail-from", "a@example.nl", "--mail-rcpt", "b@example.nl"]
        for options in (
            ["--cacert", str(self.facts().ca), "--user", "business:not-the-one"],
            ["--user", "a:b"],
        ):
            done = subprocess.run(
                [*curl, *options, "--upload-file", "-", address],
                capture_output=True,
                timeout=60,
                input=b"\r\n",
            )
            self.assertNotEqual(done.returncode, 0)
        printed = self.end(process, signal.SIGTERM)
        refusal = "from 127.0.0.1 failed with 535 5.7.8 Authentication credentials invalid, for business: "
        self.assertIn(refusal, printed)
        self.assertIn("TLS failed with 127.0.0.1: ", printed)
        self.assertNotIn("not-the-one", printed + (self.folder / "log").read_text())

    def test_state_is_kept(self) -> None:
        """The next start has the same account and the same CA, and they work."""
        process = self.start()
        before, certificate = self.facts(), self.facts().ca.read_bytes()
        self.end(process)
        process = self.start()
        after = self.facts()
        self.assertEqual((after.password, after.ca.read_bytes()), (before.password, certificate))
        command = recipes(after)["curl (implicit TLS)"]
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.end(process)
