"""A real Postfix as next hop that wants a certificate of ours and a login, which a real Dovecot checks."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials
from digipoort_msa.delivery.tls import ClientTLS
from tests.authority import Authority
from tests.next_hop import MESSAGE, envelope
from tests.postfix import MASTER, Postfix, free_port, without_first_field
from tests.requirements import proves

DOVECOT = shutil.which("dovecot") or "/usr/sbin/dovecot"
_DOVECOT = """
base_dir = {directory}/run
log_path = {directory}/log
protocols =
ssl = no
default_internal_user = dovecot
default_login_user = dovenull
auth_mechanisms = plain login scram-sha-256
disable_plaintext_auth = no
passdb {{
  driver = static
  args = password={{PLAIN}}{password}
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""
_POSTFIX = """
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{sasl}
smtpd_tls_auth_only = yes
smtpd_tls_CAfile = {directory}/ca.pem
smtpd_tls_req_ccert = yes
smtpd_relay_restrictions = permit_sasl_authenticated, reject
"""
PASSWORD = "correct-horse-battery"


class Dovecot:
    """Its authentication alone, on a loopback port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="auth-"))
        self.directory.chmod(0o755)
        facts = {"directory": self.directory, "port": self.port, "password": PASSWORD}
        (self.directory / "dovecot.conf").write_text(_DOVECOT.format(**facts))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 20) -> None:
        """:raise AssertionError: it does not listen."""
        self._process = subprocess.Popen(
            [DOVECOT, "-F", "-c", str(self.directory / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = monotonic() + seconds
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if monotonic() > end or self._process.poll() is not None:
                log = self.directory / "log"
                raise AssertionError(f"Dovecot does not listen: {log.read_text() if log.exists() else ''}")
            sleep(0.02)

    def remove(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@skipUnless(
    MASTER.exists() and Path(DOVECOT).exists() and os.geteuid() == 0, "needs Postfix and Dovecot, as root"
)
@proves("D1", "D4")
class PostfixLoginTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.authority = Authority()
        self.dovecot = Dovecot()
        self.addCleanup(self.dovecot.remove)
        self.postfix = Postfix(self.authority)
        self.addCleanup(self.postfix.remove)
        self.ca_file = self.file(self.authority.pem)
        shutil.copy(self.ca_file, self.postfix.directory / "ca.pem")
        (self.postfix.directory / "ca.pem").chmod(0o644)
        self.shown = {
            name: self.file(octets)
            for name, octets in zip(
                ("certificate", "private_key"), self.authority.files("msa.example.nl"), strict=True
            )
        }

    def file(self, octets: bytes) -> Path:
        path = Path(self.mktemp())
        path.write_bytes(octets)
        return path

    def start(self) -> None:
        facts = {"sasl": self.dovecot.port, "directory": self.postfix.directory}
        with (self.postfix.directory / "main.cf").open("a") as main:
            main.write(_POSTFIX.format(**facts))
        self.dovecot.start()
        self.postfix.start()

    async def reply(self, mechanism: str, password: str = PASSWORD, **tls: Any) -> str:
        relay = Relay(
            reactor,
            [Hop("localhost", self.postfix.port)],
            "msa.example.nl",
            ClientTLS("verify", self.ca_file, **tls),
            credentials=Credentials("relay", password, (mechanism,), deferToThread),
            endpoint=lambda hop: TCP4ClientEndpoint(reactor, "127.0.0.1", hop.port),
        )
        [outcome] = (await relay.deliver(envelope(), MESSAGE)).values()
        await relay.stop()
        return str(outcome.reply)

    async def test_every_mechanism(self) -> None:
        self.start()
        for mechanism in ("SCRAM-SHA-256", "PLAIN", "LOGIN"):
            self.assertIn("250 2.0.0", await self.reply(mechanism, **self.shown), self.postfix.log())
            self.assertIn(f"sasl_method={mechanism}", self.postfix.log())
        messages = self.postfix.core.wait(lambda messages: len(messages) == 3)
        self.assertEqual([without_first_field(message.content) for message in messages], [MESSAGE.octets] * 3)

    async def test_wrong_password(self) -> None:
        self.start()
        for mechanism in ("SCRAM-SHA-256", "PLAIN", "LOGIN"):
            refusal = await self.reply(mechanism, "wrong-horse", **self.shown)
            self.assertIn("451 4.7.8", refusal)
            self.assertIn("password-file", refusal)

    async def test_no_certificate(self) -> None:
        self.start()
        refusal = await self.reply("PLAIN")
        self.assertIn("421 4.7.1", refusal)  # in Postfix's own words
        self.assertIn("No client certificate", refusal)
