"""A real Dovecot as the next hop: LMTP alone, in a folder of its own, on loopback and a unix socket."""

import grp
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

from tests.postfix import free_port

DOVECOT = Path("/usr/sbin/dovecot")
_CONFIGURATION = """
protocols = lmtp
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
{owner}
first_valid_uid = 0
first_valid_gid = 0
ssl = no
mail_location = maildir:~/Maildir
mail_save_crlf = yes
# %Lu: what is addressed is what is looked up
auth_username_format = %Lu
lmtp_save_to_detail_mailbox = no
# nobody logs in, but its authentication process does not start without one
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
userdb {{
  driver = passwd-file
  args = {directory}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener lmtp {{
    mode = 0600
  }}
}}
"""
#: Of a user who is not root, whose Dovecot can change neither user nor root directory.
_UNPRIVILEGED = """
default_internal_user = {user}
default_login_user = {user}
default_internal_group = {group}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


class Dovecot:
    """Runs from :meth:`start` to :meth:`remove`, with a mailbox for each of ``addresses``."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="lmtp-"))  # short: there are unix sockets in it
        self.socket = self.directory / "run" / "lmtp"
        self._process: subprocess.Popen[bytes] | None = None
        user, owner = pwd.getpwuid(os.geteuid()), ""
        if user.pw_uid:
            owner = _UNPRIVILEGED.format(user=user.pw_name, group=grp.getgrgid(user.pw_gid).gr_name)
        else:
            user = pwd.getpwnam("nobody")  # no mailbox is root's
        facts = {"directory": self.directory, "port": self.port, "owner": owner}
        self._configuration = self.directory / "dovecot.conf"
        self._configuration.write_text(_CONFIGURATION.format(**facts))
        with (self.directory / "users").open("w") as users:
            for address in addresses:
                home = self.directory / "homes" / address
                users.write(f"{address}::{user.pw_uid}:{user.pw_gid}::{home}::\n")
        (self.directory / "homes").mkdir()
        shutil.chown(self.directory / "homes", user.pw_uid)
        for path, mode in ((self.directory, 0o755), (self.directory / "users", 0o644)):
            path.chmod(mode)  # Dovecot has several users

    def start(self, seconds: float = 20) -> None:
        """:raise AssertionError: it does not listen."""
        self._process = subprocess.Popen(
            [str(DOVECOT), "-F", "-c", str(self._configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o022,
        )
        end = monotonic() + seconds
        while True:
            try:
                with closing(socket.create_connection(("127.0.0.1", self.port), timeout=5)) as connection:
                    if connection.recv(3) == b"220":
                        return
            except OSError:
                pass
            if monotonic() > end or self._process.poll() is not None:
                raise AssertionError(f"Dovecot does not greet\n{self.log()}")
            sleep(0.02)

    def messages(self, address: str) -> list[bytes]:
        """What is in a mailbox, with the fields that Dovecot puts in front."""
        folder = self.directory / "homes" / address / "Maildir" / "new"
        files = sorted(folder.iterdir(), key=_arrival) if folder.is_dir() else []
        return [file.read_bytes() for file in files]

    def log(self) -> str:
        file = self.directory / "log"
        return file.read_text() if file.exists() else ""

    def remove(self) -> None:
        """For ``addCleanup``.  On SIGTERM, the master ends its children."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def _arrival(file: Path) -> tuple[int, int]:
    """Seconds and microseconds, as a Maildir's names have them: 1763800000.M42P1234.host."""
    seconds, rest = file.name.split(".", 1)
    return int(seconds), int(rest[1 : rest.index("P")])
