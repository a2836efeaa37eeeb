"""A real Postfix as the next hop: an instance of its own in a folder of its own, on a loopback port.

It demands STARTTLS and hands every message on over LMTP, byte for byte.  It refuses the recipient
``nobody@core.example``, and a message with the field ``X-Refuse``.  Postfix runs only as root.
"""

import os
import shutil
import smtplib
import socket
import subprocess
import tempfile
from pathlib import Path
from time import monotonic, sleep

from tests.authority import Authority
from tests.recorder import Recorder

MASTER = Path("/usr/lib/postfix/sbin/master")
_QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace")
_OWNED = (*_QUEUES, "private", "public", "maildrop")
_MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = core.example
mydestination =
alias_maps =
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
local_header_rewrite_clients =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
  check_recipient_access inline:{{{{nobody@core.example = 550 5.1.1 No such user}}}}
header_checks = regexp:{directory}/header_checks
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {directory}/tls.pem
smtpd_tls_session_cache_database =
message_size_limit = 60000000
mailbox_size_limit = 0
default_transport = lmtp:[127.0.0.1]:{lmtp}
lmtp_host_lookup = native
lmtp_tls_security_level = none
lmtp_line_length_limit = 0
lmtp_connection_cache_on_demand = no
disable_mime_output_conversion = yes
"""
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
flush     unix  n  -  n  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
lmtp      unix  -  -  n  -     -  lmtp
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
discard   unix  -  -  n  -     -  discard
anvil     unix  -  -  n  -     1  anvil
scache    unix  -  -  n  -     1  scache
postlog   unix-dgram n -  n  -  1  postlogd
"""


class Postfix:
    """Runs from :meth:`start` to :meth:`stop`; what it delivers is in ``core``."""

    def __init__(self, authority: Authority) -> None:
        self.core = Recorder(lmtp=True)
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="core-"))  # short: there are unix sockets in it
        self._process: subprocess.Popen[bytes] | None = None
        umask = os.umask(0o022)  # whatever another test has left: Postfix has several users
        try:
            self._lay_out(authority)
        finally:
            os.umask(umask)

    def _lay_out(self, authority: Authority) -> None:
        self.directory.chmod(0o755)
        chain, key = authority.files("localhost")
        facts = {"directory": self.directory, "lmtp": self.core.port, "port": self.port}
        (self.directory / "tls.pem").write_bytes(key + chain)
        (self.directory / "tls.pem").chmod(0o600)
        (self.directory / "main.cf").write_text(_MAIN.format(**facts))
        (self.directory / "master.cf").write_text(_MASTER.format(**facts))
        (self.directory / "header_checks").write_text("/^X-Refuse:/ REJECT Not with this field\n")
        (self.directory / "queue").mkdir()
        (self.directory / "queue" / "pid").mkdir()
        for name in ("data", *(f"queue/{name}" for name in _OWNED)):
            (self.directory / name).mkdir()
            shutil.chown(self.directory / name, "postfix")

    def start(self, seconds: float = 20) -> None:
        """:raise AssertionError: it does not greet."""
        self._process = subprocess.Popen(
            [str(MASTER), "-c", str(self.directory), "-d"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o022,
        )
        end = monotonic() + seconds
        while True:
            try:
                smtplib.SMTP("127.0.0.1", self.port, timeout=5).quit()
            except (OSError, smtplib.SMTPException) as error:
                if monotonic() > end or self._process.poll() is not None:
                    raise AssertionError(f"Postfix does not greet: {error}\n{self.log()}") from error
                sleep(0.02)
            else:
                return

    def log(self) -> str:
        file = self.directory / "maillog"
        return file.read_text() if file.exists() else ""

    def stop(self) -> None:
        """On SIGTERM, master ends its children."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def remove(self) -> None:
        """For ``addCleanup``."""
        self.stop()
        self.core.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def without_first_field(content: bytes) -> bytes:
    """The content below its first header field: below the trace that a hop has added."""
    lines = content.splitlines(keepends=True)
    rest = next(number for number in range(1, len(lines)) if not lines[number].startswith((b" ", b"\t")))
    return content[sum(map(len, lines[:rest])) :]
