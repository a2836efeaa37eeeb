"""``digipoort-msa sandbox``: a complete MSA on this machine alone, to try a client against.

It is the ordinary service with a configuration made for it: what works here works in production.  All its
state is in one folder and outlives a restart::

    sandbox.toml    the configuration; written anew at each start
    sandbox.json    what a script has to know: ports, account, password, CA file, Maildir
    tls/            the certificates (see ``certificates``)
    state/          accounts and spool
    maildir/        where messages arrive: the stand-in for the core
    log             everything, of this start; the terminal shows one line per event
"""

import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import strftime

import click
from attrs import evolve
from twisted.internet.error import CannotListenError
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    textFileLogObserver,
)
from zope.interface import implementer

from digipoort_msa import log
from digipoort_msa.accounts.administration import AccountError, Administration, generated_password
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.admin.certificates import CertificateFiles, certificate_files, write_private
from digipoort_msa.admin.recipes import Sandbox, recipes
from digipoort_msa.config import ConfigError, Settings, load, toml_document
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.spool.schema import SpoolError

HOST = "127.0.0.1"
REALM = "overheidstransactiepoort.nl"
ACCOUNT = "business"


def default_directory() -> Path:
    """A folder of the user's for state (XDG Base Directory Specification)."""
    state_home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state_home) if Path(state_home).is_absolute() else Path.home() / ".local" / "state"
    return base / "digipoort-msa" / "sandbox"


@click.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_directory,
    show_default="$XDG_STATE_HOME/digipoort-msa/sandbox",
    help="Where its state is kept.",
)
@click.option(
    "--starttls-port",
    type=click.IntRange(0, 65535),
    default=5587,
    show_default=True,
    help="The submission port; 0 for any free one.",
)
@click.option(
    "--implicit-port",
    type=click.IntRange(0, 65535),
    default=5465,
    show_default=True,
    help="The implicit-TLS port; 0 for any free one.",
)
def sandbox(directory: Path, starttls_port: int, implicit_port: int) -> None:
    """Run a complete MSA on 127.0.0.1, to try a client against.

    It makes its own certificates and one account, and delivers into a Maildir.  Ctrl-C ends it; the next
    start goes on with the same state.
    """
    os.umask(0o077)
    ports = {"--starttls-port": starttls_port, "--implicit-port": implicit_port}
    if starttls_port and starttls_port == implicit_port:
        raise click.UsageError("--starttls-port and --implicit-port must differ")
    for option, port in ports.items():
        check_port(option, port)
    directory = directory.absolute()
    try:
        with claimed(directory):
            settings, facts = prepare(directory, starttls_port, implicit_port)
            _run(settings, facts, directory)
    except OSError as error:
        raise click.ClickException(f"{error.filename or directory}: {error.strerror}") from None
    except (ConfigError, Unavailable, ValueError) as error:
        anew = f"to begin anew, remove {directory} or choose another with --directory"
        raise click.ClickException(f"what an earlier start left cannot be used: {error}\n{anew}") from None


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Keep the folder, made if missing, to ourselves.

    :raise click.ClickException: another sandbox has it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"a sandbox runs in {directory} already; choose another folder with --directory"
            raise click.ClickException(text) from None
        yield
    finally:
        os.close(descriptor)


def check_port(option: str, port: int) -> None:
    """Try the port before anything is made.

    :raise click.ClickException: it cannot be had; the text names it, and the option that chooses another.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise click.ClickException(
                f"port {port} on {HOST} {reason}; choose another with {option}"
            ) from None


# -- what is made before the start -----------------------------------------------------------------


def prepare(directory: Path, starttls_port: int, implicit_port: int) -> tuple[Settings, Sandbox]:
    """Make what is missing in ``directory``: certificates, configuration, account.

    :return: the settings, read from the configuration file by the ordinary way, and what a client needs.
    :raise OSError: a file cannot be made.
    """
    certificates = certificate_files(directory / "tls", datetime.now(UTC))
    config = directory / "sandbox.toml"
    document = configuration(directory, certificates, starttls_port, implicit_port)
    heading = "# Written by `digipoort-msa sandbox` at each start; what is changed here is lost.\n\n"
    write_private(config, (heading + toml_document(document)).encode())
    settings = load(config)
    password = _kept_password(directory / "sandbox.json") or generated_password()
    _make_account(settings, password)
    return settings, Sandbox(
        host=HOST,
        starttls_port=starttls_port,
        implicit_port=implicit_port,
        account=ACCOUNT,
        password=password,
        realm=REALM,
        ca=certificates.ca,
        maildir=directory / "maildir",
    )


def configuration(
    directory: Path, certificates: CertificateFiles, starttls_port: int, implicit_port: int
) -> dict[str, object]:
    """The sandbox's configuration file, as a document; all else is the defaults."""
    return {
        "server": {"hostname": "localhost", "state-directory": str(directory / "state")},
        "listener": [
            {"endpoint": f"tcp:{starttls_port}:interface={HOST}", "tls": "starttls"},
            {"endpoint": f"tcp:{implicit_port}:interface={HOST}", "tls": "implicit"},
        ],
        "tls": {"certificate": str(certificates.certificate), "private-key": str(certificates.private_key)},
        "realm": [
            {
                "name": REALM,
                "mechanisms": ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "DIGEST-MD5", "PLAIN", "LOGIN"],
            }
        ],
        "notification": {"recipients": ["*@example.nl"]},
        "delivery": {"to": "maildir", "maildir": {"directory": str(directory / "maildir")}},
    }


def _kept_password(path: Path) -> str | None:
    """The password that an earlier start wrote down, if it can be read."""
    try:
        password = json.loads(path.read_bytes())["password"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return password if isinstance(password, str) and re.fullmatch(r"[!-~]{12,}", password) else None


def _make_account(settings: Settings, password: str) -> None:
    """The account has this password after this, whatever was there before."""
    (realm,) = settings.realm
    accounts = open_accounts(
        realm=realm.name, url=realm.sql.url, state_directory=settings.server.state_directory
    )
    passwords = settings.passwords
    hashing = PasswordHashing(
        memory_kib=passwords.memory_kib, time_cost=passwords.time_cost, parallelism=passwords.parallelism
    )
    administration = Administration(
        accounts, hashing, digest=True, realms=[realm.name], scram_iterations=realm.scram_iterations
    )
    try:
        administration.add(ACCOUNT, password)
    except AccountError:  # it is there
        administration.set_password(ACCOUNT, password)
        administration.enable(ACCOUNT)
    finally:
        accounts.close()


# -- the service in the foreground -----------------------------------------------------------------


@implementer(ILogObserver)
class EventPrinter:
    """Prints one plain line for each event of :mod:`digipoort_msa.log`, and for each failure of anything.

    :ivar ports: the ports that are listened on, by the listener's TLS; from the LISTENING events.
    """

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}

    def __call__(self, event: LogEvent) -> None:
        ours = event.get("log_namespace") == "digipoort_msa"
        if ours and event.get("event") == log.LISTENING.name:
            self.ports[event["tls"]] = int(str(event["address"]).rpartition(":")[2])
        elif ours or event["log_level"] >= LogLevel.error:
            failure = event.get("log_failure")
            reason = f": {failure.getErrorMessage()} (the log has more)" if failure is not None else ""
            click.echo(f"{strftime('%H:%M:%S')} {formatEvent(event)}{reason}")


def _run(settings: Settings, facts: Sandbox, directory: Path) -> None:
    """Run the service until a signal; says ``ready`` when clients may come."""
    # Only here: a reactor is installed by its import, and other commands need none.
    from twisted.internet import reactor

    from digipoort_msa.service import make_service

    def ready() -> None:
        real = evolve(facts, starttls_port=printer.ports["starttls"], implicit_port=printer.ports["implicit"])
        document = json.dumps(real.document(os.getpid()), indent=2) + "\n"
        write_private(directory / "sandbox.json", document.encode())
        click.echo(welcome(real, directory))

    printer = EventPrinter()
    with (directory / "log").open("w", encoding="utf-8") as everything:
        globalLogBeginner.beginLoggingTo([printer, textFileLogObserver(everything)], redirectStandardIO=False)
        service = make_service(settings, reactor)
        try:
            service.privilegedStartService()
            service.startService()
        except (CannotListenError, SpoolError) as error:
            raise click.ClickException(str(error)) from None
        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        reactor.callWhenRunning(ready)
        reactor.run()
    click.echo("The sandbox has ended; the next start goes on with the same state.")


def welcome(facts: Sandbox, directory: Path) -> str:
    """What is printed once the sandbox listens."""
    lines = [
        "The sandbox of digipoort-msa is up.",
        "",
        f"  STARTTLS       {facts.host}:{facts.starttls_port}",
        f"  implicit TLS   {facts.host}:{facts.implicit_port}",
        f"  account        {facts.account}",
        f"  password       {facts.password}",
        f"  realm          {facts.realm}",
        f"  CA file        {facts.ca}",
        f"  messages go to {facts.maildir}",
        f"  for scripts    {directory / 'sandbox.json'}",
        "",
        "Commands to copy:",
    ]
    for client, command in recipes(facts).items():
        lines += ["", f"# {client}", command]
    return "\n".join([*lines, "", "Ctrl-C ends it.  What happens:", "ready"])
