"""What is measured: the MSA, its peer Postfix, and the next hop behind each (``smtp-sink``).

Each server lives in a folder of its own under the run's temporary folder, listens on loopback ports that
nobody else uses, and is ended by the handle it was started with.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import usage
from benchmarks.load import ACCOUNT, PASSWORD
from digipoort_msa.admin.certificates import CertificateFiles, certificate_files

ROOT = Path(__file__).resolve().parent.parent
_START = 20.0  # seconds


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def make_certificates(directory: Path) -> CertificateFiles:
    """A P-256 certificate that both servers show."""
    return certificate_files(directory, datetime.now(UTC))


class Server:
    """A process (with whatever it starts) that listens on a port."""

    name = "server"

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        with (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + _START
        while True:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.name} did not start: see {self.directory}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=_START) as client:
                    if client.recv(4) == b"220 ":
                        client.sendall(b"QUIT\r\n")
                        while client.recv(100):
                            pass
                        return
            except OSError:
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is None:
            return
        family = usage.tree(self.pid)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for process in family[1:]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process = None

    def command(self) -> list[str]:
        raise NotImplementedError


class Sink(Server):
    """The next hop: takes messages from the network and throws them away."""

    name = "smtp-sink"

    def command(self) -> list[str]:
        user = ["-u", "postfix"] if os.geteuid() == 0 else []
        return [tool("smtp-sink"), "-c", *user, f"127.0.0.1:{self.port}", "1000"]

    @property
    def messages(self) -> int:
        """How many came, from the last of the running counters."""
        with (self.directory / "output").open("rb") as output:
            output.seek(max(0, os.fstat(output.fileno()).st_size - 100))
            counters = output.read().split(b"mesg=")
        last = counters[-1].split()
        return int(last[0]) if len(counters) > 1 and last else 0


class Msa(Server):
    """digipoort-msa, relaying to a sink."""

    name = "digipoort-msa"
    realm_settings = ""  # lines of TOML
    more_settings = ""  # tables of TOML
    accounts: Sequence[str] = (ACCOUNT,)

    def __init__(self, directory: Path, sink: Sink, certificates: CertificateFiles) -> None:
        super().__init__(directory)
        self.config = directory / "msa.toml"
        self.config.write_text(
            f"""
[server]
hostname = "localhost"
state-directory = "{directory}/state"
[[listener]]
endpoint = "tcp:{self.port}:interface=127.0.0.1"
tls = "starttls"
[tls]
certificate = "{certificates.certificate}"
private-key = "{certificates.private_key}"
[[realm]]
name = "overheidstransactiepoort.nl"
{self.realm_settings}
[limits]
connections-per-address = 5000
[delivery.relay]
next-hops = ["127.0.0.1:{sink.port}"]
tls = "none"
{self.more_settings}
"""
        )
        (directory / "state").mkdir(mode=0o700)
        command = "from digipoort_msa.admin.commands import main; main()"
        for account in self.accounts:
            add = ["--config", self.config, "account", "add", account, "--password-stdin"]
            subprocess.run(
                [sys.executable, "-c", command, *add],
                cwd=ROOT,
                input=f"{PASSWORD}\n".encode(),
                stdout=subprocess.DEVNULL,
                check=True,
            )

    def command(self) -> list[str]:
        run = "from twisted.scripts.twistd import run; run()"
        log = "--logger=digipoort_msa.log_lines.observer"
        config = f"--config={self.config}"
        return [sys.executable, "-c", run, "-n", "--pidfile=", log, "digipoort-msa", config]


class Postfix(Server):
    """Debian's Postfix for the same job: STARTTLS, SASL AUTH against a sasldb, relay to a sink in clear.

    Where a default of Postfix would only hold it back on one machine, it is set aside: the pause of
    ``in_flow_delay``, the limits per client (anvil), the look-up of client names.
    """

    name = "Postfix"
    REALM = "localhost"

    def __init__(self, directory: Path, sink: Sink, certificates: CertificateFiles) -> None:
        super().__init__(directory)
        sasl, queue, data = directory / "sasl", directory / "queue", directory / "data"
        for folder in (sasl, queue, data):
            folder.mkdir(mode=0o755)
        shutil.chown(data, "postfix")
        keys = directory / "chain.pem"
        keys.touch(mode=0o600)
        keys.write_bytes(certificates.private_key.read_bytes() + certificates.certificate.read_bytes())
        database = sasl / "sasldb2"
        subprocess.run(
            [tool("saslpasswd2"), "-p", "-c", "-f", str(database), "-u", self.REALM, ACCOUNT],
            input=PASSWORD.encode(),
            check=True,
        )
        shutil.chown(database, "postfix")
        (sasl / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN DIGEST-MD5\n"
            f"sasldb_path: {database}\n"
        )
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": queue,
            "data_directory": data,
            "command_directory": "/usr/sbin",
            "daemon_directory": "/usr/lib/postfix/sbin",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "maillog_file": directory / "log",
            "maillog_file_prefixes": directory,
            "myhostname": "localhost",
            "mydestination": "",
            "mynetworks": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "local_transport": "error:none",
            "relayhost": f"[127.0.0.1]:{sink.port}",
            "smtp_tls_security_level": "none",
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_auth_only": "yes",
            "smtpd_tls_chain_files": keys,
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_local_domain": self.REALM,
            "cyrus_sasl_config_path": sasl,
            "smtpd_relay_restrictions": "permit_sasl_authenticated,reject",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated,reject",
            "smtpd_forbid_bare_newline": "yes",
            "message_size_limit": "60000000",
            "mailbox_size_limit": "0",
            "in_flow_delay": "0",
            "smtpd_peername_lookup": "no",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_connection_rate_limit": "0",
            "default_process_limit": "100",
            "initial_destination_concurrency": "10",
        }
        (directory / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        services = f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
        for service in (
            "pickup unix n - n 60 1 pickup",
            "cleanup unix n - n - 0 cleanup",
            "qmgr unix n - n 300 1 qmgr",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "verify unix - - n - 1 verify",
            "flush unix n - n 1000? 0 flush",
            "proxymap unix - - n - - proxymap",
            "smtp unix - - n - - smtp",
            "relay unix - - n - - smtp",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "anvil unix - - n - 1 anvil",
            "scache unix - - n - 1 scache",
            "postlog unix-dgram n - n - 1 postlogd",
        ):
            services += service + "\n"
        (directory / "master.cf").write_text(services)

    def command(self) -> list[str]:
        return [tool("postfix"), "-c", str(self.directory), "start-fg"]


def tool(name: str) -> str:
    """Debian keeps these where an ordinary user's PATH does not look."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise SystemExit(f"{name} is missing: apt-get install postfix sasl2-bin")
    return found
