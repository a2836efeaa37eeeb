"""Real milters of Debian's packages, each in a folder of its own, as the documentation configures them.

The page's places are replaced by those of the folder; what is added makes a start quick: a database of one
signature for ClamAV, and next to no rules for rspamd.
"""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import textwrap
import tomllib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "policies" / "external.rst"
#: What the industry has agreed to call a virus.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
VIRUS = "Test.Eicar.UNOFFICIAL"
#: What spam filters have agreed to refuse, and to mark.
SPAM = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
MARKED = b"YJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def page(caption: str) -> str:
    """A configuration of the documentation."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"   :caption: {re.escape(caption)}\n\n((?:   .*\n|\n)+)", text)
    assert found is not None, caption
    return textwrap.dedent(found[1])


def rule(caption: str) -> dict[str, Any]:
    """The one rule of a configuration of the documentation."""
    (realm,) = tomllib.loads(page(caption))["realm"]
    (one,) = realm["policy"]
    return dict(one)


class Program:
    """A server, from :meth:`start` to :meth:`end`, with the log that it writes to standard output."""

    def __init__(self, directory: Path, name: str, *command: object) -> None:
        self.log = directory / f"{name}.out"
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, address: Path | int, seconds: float = 30) -> None:
        """
        :param address: where it is to listen: a socket or a port.
        :raise AssertionError: it does not.
        """
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o022,
        )
        end = monotonic() + seconds
        while not _listens(address):
            if monotonic() > end or self._process.poll() is not None:
                raise AssertionError(f"{self._command} does not listen:\n{self.log.read_text()}")
            sleep(0.02)

    def end(self, seconds: float = 10) -> None:
        """For ``addCleanup``; nothing, if it does not run.

        :param seconds: how long it may take on SIGTERM.
        """
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Servers:
    """A folder of the user who the servers run as: theirs where root starts them, else ours."""

    def __init__(self, user: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="milter-"))  # short: there are unix sockets in it
        self.directory.chmod(0o755)
        self.is_root = os.geteuid() == 0
        self.user = user if self.is_root else pwd.getpwuid(os.geteuid()).pw_name

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        for one in (path.parent, path):
            shutil.chown(one, self.user)
        return path

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


class ClamAV(_Servers):
    """clamd and clamav-milter; ``milter`` and ``scanner`` can be ended and started again."""

    def __init__(self) -> None:
        super().__init__("clamav")
        self.write("database/test.ndb", f"Test.Eicar:0:*:{EICAR.hex()}\n")
        self.socket = self.directory / "clamav-milter.ctl"
        self._clamd = self.directory / "clamd.ctl"
        scanner = self.write("clamd.conf", self._at_home(page("/etc/clamav/clamd.conf")) + "MaxThreads 2\n")
        milter = self.write("milter.conf", self._at_home(page("/etc/clamav/clamav-milter.conf")))
        self.scanner = Program(self.directory, "clamd", "/usr/sbin/clamd", "--foreground", "-c", scanner)
        self.milter = Program(self.directory, "milter", "/usr/sbin/clamav-milter", "-c", milter)

    def start(self) -> None:
        self.scanner.start(self._clamd)
        self.milter.start(self.socket)

    def another(self, settings: Mapping[str, str]) -> tuple[Program, Path]:
        """One more milter, with these settings in place of the page's."""
        text = self._at_home(page("/etc/clamav/clamav-milter.conf"))
        place, log = self.directory / "another.ctl", self.directory / "another.log"
        for name, value in {"MilterSocket": f"unix:{place}", "LogFile": str(log), **settings}.items():
            text = re.sub(rf"(?m)^{name} .*\n", "", text) + f"{name} {value}\n"
        return Program(
            self.directory, "another", "/usr/sbin/clamav-milter", "-c", self.write("another", text)
        ), place

    def end(self) -> None:
        self.milter.end(0)  # libmilter takes seconds
        self.scanner.end()
        self.remove()

    def _at_home(self, text: str) -> str:
        text = re.sub(r"/(run|tmp|var/log)(/clamav)?(?=[/\n])", str(self.directory), text)
        text = text.replace("/var/lib/clamav", str(self.directory / "database"))
        if not self.is_root:
            text = text.replace("User clamav\n", "")
        return text + "Foreground yes\n"


_RSPAMD = """
options {{
  url_tld = "{directory}/suffixes";   # of the thousands there are
  disable_hyperscan = true;
  hs_cache_dir = "{directory}";
  tempdir = "{directory}";
  filters = "";
  gtube_patterns = "all";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 0; }}
}}
lang_detection {{ languages = "{directory}/none"; }}
logging {{ type = "console"; level = "info"; }}
actions {{
{actions}
}}
worker "rspamd_proxy" {{
  count = 1;
{worker}
}}
"""


class Rspamd(_Servers):
    """rspamd's proxy, which is a milter and scans by itself."""

    def __init__(self, port: int) -> None:
        super().__init__("_rspamd")
        self.port = port
        shutil.chown(self.directory, self.user)
        self.write("suffixes", "nl\ncom\n")
        worker = page("/etc/rspamd/local.d/worker-proxy.inc").replace(":11332", f":{port}")
        facts = {"directory": self.directory, "worker": worker}
        actions = page("/etc/rspamd/local.d/actions.conf")
        configuration = self.write("rspamd.conf", _RSPAMD.format(actions=actions, **facts))
        user = ("-u", self.user, "-g", self.user) if self.is_root else ()
        self.program = Program(self.directory, "rspamd", "/usr/bin/rspamd", "-f", *user, "-c", configuration)

    def start(self) -> None:
        self.program.start(self.port)

    def end(self) -> None:
        self.program.end()
        self.remove()


def _listens(address: Path | int) -> bool:
    place: Any = str(address) if isinstance(address, Path) else ("127.0.0.1", address)
    with closing(socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET)) as one:
        return one.connect_ex(place) == 0
