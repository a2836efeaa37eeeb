"""A real slapd for the tests, in a folder of its own: ``ldaps``, ``ldap`` with StartTLS, and ``ldapi``.

It runs as an unprivileged user, and not longer than the process that started it.  :func:`running` gives the
one of this process, which starts when a test first asks.  Tests keep apart: each has a branch of its own, of
:meth:`Slapd.fresh`.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from random import randrange
from time import monotonic, sleep
from typing import Any

import ldap
from ldap.controls.simple import RelaxRulesControl
from ldap.modlist import addModlist

from tests.authority import Authority

SLAPD = "/usr/sbin/slapd"
SUFFIX = "dc=example,dc=nl"
ADMIN = f"cn=admin,{SUFFIX}"
ADMIN_PASSWORD = "admin-password"

Entry = Mapping[str, Any]

_CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.3.6.1.4.1.99999.1 NAME 'msaDigest' EQUALITY octetStringMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
attributetype ( 1.3.6.1.4.1.99999.2 NAME 'msaExpires' EQUALITY generalizedTimeMatch
    ORDERING generalizedTimeOrderingMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.24 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.99999.3 NAME 'msaScram' EQUALITY caseExactMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.99999.9 NAME 'msaAccount' SUP top AUXILIARY
    MAY ( msaDigest $ msaExpires $ msaScram $ employeeType ) )
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
moduleload memberof
pidfile {folder}/pid
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/certificate.pem
TLSCertificateKeyFile {folder}/key.pem
threads 4
sizelimit 100
database mdb
suffix "{suffix}"
directory {folder}/data
maxsize 16777216
dbnosync
rootdn "{admin}"
rootpw {password}
index objectClass,uid,member eq
overlay memberof
overlay ppolicy
ppolicy_use_lockout
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"""


class Slapd:
    """Runs from :meth:`start` to :meth:`remove`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="slapd-", dir="/tmp"))  # short: there is a socket in it
        self.authority = Authority()
        self.ca = self.directory / "ca.pem"
        self.password_file = self.directory / "password"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count()
        self._suffixed = False
        self._ports = _free_ports(2)
        try:
            self._lay_out()
        except BaseException:
            self.remove()
            raise

    @property
    def ldaps(self) -> str:
        return f"ldaps://localhost:{self._ports[0]}"

    @property
    def ldap(self) -> str:
        return f"ldap://localhost:{self._ports[1]}"

    @property
    def ldapi(self) -> str:
        return f"ldapi://{self._socket}"

    @property
    def ports(self) -> tuple[int, int]:
        """Of ldaps and of ldap."""
        return self._ports[0], self._ports[1]

    @property
    def _program(self) -> Path:
        return self.directory / "slapd"

    @property
    def _socket(self) -> Path:
        return self.directory / "ldapi"

    def _lay_out(self) -> None:
        certificate, key = self.authority.files("localhost", "127.0.0.1")
        self.ca.write_bytes(self.authority.pem)
        (self.directory / "certificate.pem").write_bytes(certificate)
        (self.directory / "key.pem").write_bytes(key)
        self.password_file.write_text(f"{ADMIN_PASSWORD}\n")
        (self.directory / "data").mkdir()
        # Where AppArmor is in force, Debian's profile lets the program at its own place read nothing here.
        shutil.copy(SLAPD, self._program)
        facts = {"folder": self.directory, "suffix": SUFFIX, "admin": ADMIN, "password": ADMIN_PASSWORD}
        (self.directory / "slapd.conf").write_text(_CONFIGURATION.format(**facts))
        if os.geteuid() == 0:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, "nobody", "nogroup")

    def start(self, seconds: float = 20) -> None:
        """:raise AssertionError: it does not answer."""
        urls = [self.ldaps, self.ldap, f"ldapi://{str(self._socket).replace('/', '%2F')}"]
        user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=KILL", *user),
                    *(
                        str(self._program),
                        "-d",
                        "0",
                        "-f",
                        str(self.directory / "slapd.conf"),
                        "-h",
                        " ".join(urls),
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        end = monotonic() + seconds
        while True:
            try:
                with self._administrator():
                    return
            except ldap.LDAPError as error:
                if monotonic() > end or self._process.poll() is not None:
                    raise AssertionError(f"it does not answer: {error}\n{self.log()}") from error
                sleep(0.01)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def fresh(self) -> str:
        """The name of a new and empty branch, with ``ou=people`` and ``ou=groups``."""
        suffix = {"objectClass": ["dcObject", "organization"], "dc": "example", "o": "Example"}
        with self._administrator() as connection:
            if not self._suffixed:
                connection.add_s(SUFFIX, _modifications(suffix))
                self._suffixed = True
        branch = f"ou=test{next(self._numbers)},{SUFFIX}"
        for dn in (branch, f"ou=people,{branch}", f"ou=groups,{branch}"):
            self.add(dn, {"objectClass": "organizationalUnit"})
        return branch

    def add(self, dn: str, entry: Entry) -> None:
        """:param entry: values are text, octets, or lists of these."""
        with self._administrator() as connection:
            connection.add_s(dn, _modifications(entry))

    def change(self, dn: str, changes: Entry) -> None:
        """Give attributes new values; ``None`` takes them all away."""
        with self._administrator() as connection:
            modifications = [
                (ldap.MOD_REPLACE, name, None if value is None else _octets(value))
                for name, value in changes.items()
            ]
            connection.modify_ext_s(dn, modifications, [RelaxRulesControl(True)])  # the server's own too

    def delete(self, dn: str) -> None:
        with self._administrator() as connection:
            connection.delete_s(dn)

    @contextmanager
    def _administrator(self) -> Iterator[Any]:
        connection = ldap.initialize(f"ldapi://{str(self._socket).replace('/', '%2F')}")
        connection.set_option(ldap.OPT_TIMEOUT, 10)
        connection.simple_bind_s(ADMIN, ADMIN_PASSWORD)
        try:
            yield connection
        finally:
            connection.unbind_s()

    def pause(self) -> None:
        """From now on it accepts connections, and says nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """It is gone without a word to anyone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _octets(value: Any) -> list[bytes]:
    values = value if isinstance(value, list | tuple) else [value]
    return [each if isinstance(each, bytes) else str(each).encode() for each in values]


def _modifications(entry: Entry) -> Any:
    return addModlist({name: _octets(value) for name, value in entry.items()})


def _free_ports(number: int) -> list[int]:
    """Below those that clients are given: nobody else takes one while slapd is down."""
    ports: list[int] = []
    while len(ports) < number:
        port = randrange(20000, 32000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.append(port)
    return ports


@cache
def running() -> Slapd:
    """The one of this process."""
    server = Slapd()
    atexit.register(server.remove)
    server.start()
    return server
