"""The MSA as an operator has it: a wheel, installed into a virtual environment, run by ``twistd``."""

import atexit
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from attrs import frozen

from digipoort_msa.config import toml_document
from tests.authority import Authority

ROOT = Path(__file__).parent.parent
_SOURCES = ("digipoort_msa", "twisted", "setup.cfg", "setup.py", "pyproject.toml", "README.rst", "LICENSE")

REALM = "overheidstransactiepoort.nl"
ACCOUNT, PASSWORD = "business", "Sesame, open %40 wide!"


def environment() -> dict[str, str]:
    """Ours, without the path that trial hands to its workers: the programs have to find their own way."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*arguments: object, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command, waited for; its output is captured."""
    options = {"env": environment(), **options}
    return subprocess.run([*map(str, arguments)], capture_output=True, timeout=timeout, **options)


def checked(*arguments: object, **options: Any) -> bytes:
    """A command that succeeds, and what it printed.

    :raise AssertionError: it did not succeed.
    """
    done = run(*arguments, **options)
    if done.returncode:
        raise AssertionError(f"{arguments}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}")
    return done.stdout


def sources(directory: Path) -> Path:
    """A copy of what a package is built from; a build leaves files beside the sources."""
    for name in _SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(source, directory / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, directory / name)
    return directory


@frozen
class Programs:
    """How the two programs are called, and from where."""

    twistd: tuple[str, ...]
    msa: tuple[str, ...]
    directory: Path | None = None  # None: from anywhere


@functools.cache
def installed() -> Programs:
    """Those of a fresh virtual environment with the project's wheel; made once in a process.

    Twisted is installed in it too: the plugin has to be found beside Twisted's own.  The other dependencies
    are those of the environment that runs the tests, by a path file: pip resolved them there from the same
    ``setup.cfg``, and to do so again would take longer than many a test.  A path file does not read the other
    environment's path files, so an editable install there is not seen.
    """
    directory = Path(tempfile.mkdtemp(prefix="digipoort-msa-"))
    directory.chmod(0o755)  # other users run it too
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    pip("wheel", "--no-deps", "--wheel-dir", directory, sources(directory / "source"))
    (wheel,) = directory.glob("*.whl")
    home = directory / "environment"
    checked(sys.executable, "-m", "venv", "--without-pip", home)
    programs = home / "bin"
    pip("--python", programs / "python", "install", "--no-deps", wheel, f"Twisted=={version('Twisted')}")
    packages = sysconfig.get_path("purelib", vars={"base": str(home)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Programs((str(programs / "twistd"),), (str(programs / "digipoort-msa"),))


def checkout() -> Programs:
    """Those of this checkout, which need no installation."""

    def program(module: str, name: str) -> tuple[str, ...]:
        return sys.executable, "-c", f"from {module} import {name}; {name}()"

    return Programs(
        program("twisted.scripts.twistd", "run"), program("digipoort_msa.admin.commands", "main"), ROOT
    )


def pip(*arguments: object) -> None:
    """Run the pip of the environment that runs the tests."""
    checked(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, timeout=300)


class Server:
    """One MSA in a folder of its own, with one account; started and ended at will.

    :ivar ports: the ports that are listened on, by the listener's TLS.
    """

    def __init__(
        self, directory: Path, authority: Authority, settings: Mapping[str, object], programs: Programs
    ) -> None:
        """:param settings: tables that replace or join those of the configuration."""
        self.directory = directory
        self.programs = programs
        directory.mkdir(parents=True, exist_ok=True)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(authority.pem)
        self.certificate, self.key = directory / "certificate.pem", directory / "key.pem"
        self.show(authority)
        self.log = directory / "log"
        self.config = directory / "msa.toml"
        self.pid_file = directory / "twistd.pid"
        self.spool = directory / "state" / "spool"
        self.config.write_text(toml_document(self._document() | dict(settings)))
        self.ports: dict[str, int] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def _document(self) -> dict[str, object]:
        return {
            "server": {"hostname": "localhost", "state-directory": str(self.directory / "state")},
            "listener": [
                {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "starttls"},
                {"endpoint": "tcp:0:interface=127.0.0.1", "tls": "implicit"},
            ],
            "tls": {"certificate": str(self.certificate), "private-key": str(self.key)},
            "realm": [{"name": REALM}],
            # Real, but not slow.
            "passwords": {"memory-kib": 64, "time-cost": 1},
            "limits": {"login-first-delay": 0},
        }

    def show(self, authority: Authority, *names: str) -> None:
        """Lay a new certificate ready; the server shows it from its next start or SIGHUP on."""
        chain, key = authority.files(*(names or ("localhost", "127.0.0.1")))
        self.key.write_bytes(key)
        self.certificate.write_bytes(chain)

    def twistd(self, *options: str) -> list[str]:
        """The command line that runs it."""
        files = ("--pidfile", str(self.pid_file), "--logfile", str(self.log))
        return [*self.programs.twistd, *files, *options, "digipoort-msa", "--config", str(self.config)]

    def start(self, seconds: float = 60) -> None:
        """Start it in the foreground (``-n``), and wait until it listens.

        :raise AssertionError: it ended, or took too long.
        """
        for log in self._logs():
            log.unlink()
        self.pid_file.unlink(missing_ok=True)  # of one that was killed
        self.process = subprocess.Popen(
            self.twistd("-n"),
            cwd=self.programs.directory or self.directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "stderr").open("ab"),
            start_new_session=True,
        )
        self.await_ports(seconds)
        # It listens before its spool is open, and a signal in between ends it on the spot.
        end = monotonic() + seconds
        while self.process.poll() is None and " is open: " not in self.logged() and monotonic() < end:
            sleep(0.02)

    def await_ports(self, seconds: float = 60) -> None:
        end = monotonic() + seconds
        while len(found := re.findall(r"listening on 127\.0\.0\.1:(\d+) \((\w+)\)", self.logged())) < 2:
            ended = self.process is not None and self.process.poll() is not None
            if ended or monotonic() > end:
                errors = self.directory / "stderr"
                text = errors.read_text() if errors.exists() else ""
                raise AssertionError(f"it does not listen: {text}{self.logged()}")
            sleep(0.02)
        self.ports = {tls: int(port) for port, tls in found}

    def _logs(self) -> list[Path]:
        """What twistd's rotation has made of the log, from its beginning."""
        return sorted(self.directory.glob("log*"), key=lambda log: -int(log.suffix[1:] or 0))

    def logged(self) -> str:
        try:
            return "".join(log.read_text() for log in self._logs())
        except FileNotFoundError:  # it is being rotated
            return self.logged()

    def await_log(self, pattern: str, seconds: float = 20) -> "re.Match[str]":
        """:raise AssertionError: no line of the log matches, after so long."""
        end = monotonic() + seconds
        while (found := re.search(pattern, self.logged())) is None:
            if monotonic() > end:
                raise AssertionError(f"{pattern!r} is not in the log:\n{self.logged()}")
            sleep(0.02)
        return found

    def await_empty_queue(self, seconds: float = 30) -> None:
        """:raise AssertionError: there are still messages after so long."""
        end = monotonic() + seconds
        while waiting := self.json("queue", "list"):
            if monotonic() > end:
                raise AssertionError(f"these are left: {waiting}\n{self.logged()}")
            sleep(0.1)

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> int | None:
        """Send it a signal and wait for its end; its exit status.  Nothing, if it does not run."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """End it, if it runs, whatever it does: for ``addCleanup``."""
        self.end(signal.SIGKILL)

    def command(self, *arguments: str, **options: Any) -> bytes:
        """What ``digipoort-msa`` prints."""
        cwd = self.programs.directory or self.directory
        return checked(*self.programs.msa, "--config", self.config, *arguments, cwd=cwd, **options)

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.command(*arguments, "--json", **options))

    def add_account(self, name: str = ACCOUNT, password: str = PASSWORD) -> None:
        self.command("account", "add", name, "--password-stdin", input=password.encode())

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def memory(self, key: str = "VmRSS") -> int:
        """A line of /proc/PID/status, in octets."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def reset_peak(self) -> None:
        """VmHWM begins anew from what is resident now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


def relay(port: int, *, tls: str = "none", ca: Path | None = None, **more: object) -> dict[str, object]:
    """``[delivery]`` towards a hop on this machine."""
    trust = {"ca": str(ca)} if ca else {}
    return {"delivery": {"relay": {"next-hops": [f"localhost:{port}"], "tls": tls, **trust, **more}}}
