"""The peer for logins: Postfix, with its SASL from Dovecot's authentication server.

Dovecot keeps one verifier for an account, so each mechanism has one of its own: the hash that we would keep,
and the secrets of the others.  Its cache is on; it spares the look-up, and verifies all the same.
"""

import os
import shutil
import socket
import subprocess
import time
from base64 import b64encode
from hashlib import md5
from pathlib import Path

from benchmarks.load import PASSWORD
from benchmarks.logins import ACCOUNTS
from benchmarks.servers import Postfix, Sink, tool
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.admin.certificates import CertificateFiles
from digipoort_msa.sasl.scram_keys import ScramKeys

_START = 20.0  # seconds
_ITERATIONS = 100_000  # of SCRAM, as ours has them

_CONFIGURATION = """
protocols =
listen = 127.0.0.1
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
ssl = no
auth_mechanisms = plain login digest-md5 scram-sha-256
auth_realms = {realm}
auth_default_realm = {realm}
auth_cache_size = 10M
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {directory}/auth {{
    mode = 0666
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class DovecotPostfix(Postfix):
    """Both of them."""

    name = "Postfix"

    def __init__(self, directory: Path, sink: Sink, certificates: CertificateFiles) -> None:
        super().__init__(directory, sink, certificates)
        self._dovecot: subprocess.Popen[bytes] | None = None
        home = self._home = directory / "dovecot"
        home.mkdir(mode=0o755)
        (home / "dovecot.conf").write_text(_CONFIGURATION.format(directory=home, realm=self.REALM))
        users = home / "users"
        users.write_text(
            "".join(f"{name}@{self.REALM}:{kept}::::::\n" for name, kept in self._kept().items())
        )
        users.chmod(0o644)
        with (directory / "main.cf").open("a") as settings:
            settings.write(f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {home}/auth\n")
            settings.write("smtpd_junk_command_limit = 1000000\n")  # it makes a client wait that says NOOP

    def _kept(self) -> dict[str, str]:
        name = ACCOUNTS["DIGEST-MD5"]
        secret = md5(f"{name}:{self.REALM}:{PASSWORD}".encode()).hexdigest()
        keys = ScramKeys.of(PASSWORD, os.urandom(16), _ITERATIONS)
        salt, stored, server = (
            b64encode(octets).decode() for octets in (keys.salt, keys.stored_key, keys.server_key)
        )
        return {
            ACCOUNTS["PLAIN"]: f"{{ARGON2ID}}{PasswordHashing().hash(PASSWORD)}",
            name: f"{{DIGEST-MD5}}{secret}",
            ACCOUNTS["SCRAM-SHA-256"]: f"{{SCRAM-SHA-256}}{_ITERATIONS},{salt},{stored},{server}",
        }

    def start(self) -> None:
        self._dovecot = subprocess.Popen(
            [tool("dovecot"), "-F", "-c", str(self._home / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o022,
        )
        until = time.monotonic() + _START
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(self._home / "auth"))
                break
            except OSError:
                if self._dovecot.poll() is not None or time.monotonic() > until:
                    log = self._home / "log"
                    raise RuntimeError(
                        f"Dovecot did not start: {log.read_text() if log.exists() else ''}"
                    ) from None
                time.sleep(0.05)
        super().start()

    def stop(self) -> None:
        super().stop()
        process, self._dovecot = self._dovecot, None
        if process is not None:
            process.terminate()  # the master ends its children
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._home / "run", ignore_errors=True)
