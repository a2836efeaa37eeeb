"""A throwaway database server in a folder of its own, on a unix socket: what PostgreSQL and MariaDB share.

Its data need not survive a power cut, so nothing is synced.  It runs as an unprivileged user, and not longer
than the process that started it, however that ends.  ``running()`` of :mod:`tests.postgresql` and
:mod:`tests.mariadb` gives the one of this process, which starts when a test first asks.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy.engine import URL

CONNECTIONS = 20  # that it takes at most
STANDING = "standing"  # a database that is made once


class DatabaseServer:
    """Runs from :meth:`start` to :meth:`remove`."""

    crash = signal.SIGKILL  # ends it at once, children and all
    forced = ""  # to drop a database that is connected to

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="db-", dir="/tmp"))  # short: there is a socket in it
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        self._stands = False
        if os.geteuid() == 0:
            shutil.chown(self.directory, "nobody", "nogroup")
        try:
            self.lay_out()
        except BaseException:
            self.remove()
            raise

    @property
    def socket(self) -> Path:
        """Where it listens."""
        raise NotImplementedError

    def lay_out(self) -> None:
        """Make what has to be there before the first start."""

    def command(self) -> list[str]:
        """The server in the foreground."""
        raise NotImplementedError

    def url(self, database: str) -> URL:
        """To one of its databases, as its superuser."""
        raise NotImplementedError

    def execute(self, statement: str, database: str | None = None) -> list[tuple[object, ...]]:
        """Run a statement, outside any database of ours if none is named; returns its rows.

        :raise Exception: the driver's own, where it does not answer.
        """
        raise NotImplementedError

    def as_nobody(self, *command: str) -> list[str]:
        """A command line that runs as an unprivileged user and ends with this process."""
        user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig=KILL", *user, *command]

    def start(self, seconds: float = 30) -> None:
        """:raise AssertionError: it does not answer."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.as_nobody(*self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        end = monotonic() + seconds
        while True:
            try:
                self.execute("SELECT 1")
            except Exception as error:
                if monotonic() > end or self._process.poll() is not None:
                    raise AssertionError(f"it does not answer: {error}\n{self.log()}") from error
                sleep(0.02)
            else:
                return

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def kill(self) -> None:
        """It is gone without a word to anyone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(self.crash)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def fresh(self) -> URL:
        """A new and empty database; whatever was in the former one is gone."""
        former, name = f"msa{self._number}", f"msa{self._number + 1}"
        if self._number:
            self.execute(f"DROP DATABASE {former}{self.forced}")
        self.execute(f"CREATE DATABASE {name}")
        self._number += 1
        return self.url(name)

    def standing(self) -> URL:
        """A database that is made once."""
        if not self._stands:
            self.execute(f"CREATE DATABASE {STANDING}")
            self._stands = True
        return self.url(STANDING)

    def remove(self) -> None:
        self.kill()
        end = monotonic() + 5
        while self.directory.exists() and monotonic() < end:  # a child may still be writing its last
            shutil.rmtree(self.directory, ignore_errors=True)
