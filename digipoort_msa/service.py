"""The one place that picks classes: settings become the services that twistd runs.

``twistd digipoort-msa --config FILE`` finds :class:`Options` and :func:`makeService` here.  To add a store,
a policy or a delivery back end, implement its interface and name it in the function that builds its kind
below.
"""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.python import usage
from twisted.python.threadpool import ThreadPool

from digipoort_msa import config, log
from digipoort_msa.accounts.cache import VerifiedPasswords
from digipoort_msa.accounts.passwords import PasswordHashing, Passwords
from digipoort_msa.accounts.realm import Realm, Realms
from digipoort_msa.accounts.stores import open_accounts
from digipoort_msa.accounts.threads import Threads
from digipoort_msa.accounts.throttle import Throttle
from digipoort_msa.config.settings import Realm as RealmSettings
from digipoort_msa.config.settings import Settings
from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.maildir import Maildir
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import IDelivery, IPolicy
from digipoort_msa.policy.addresses import AddressPatterns, BoundSender, Recipients, Senders
from digipoort_msa.policy.headers import HeaderRules
from digipoort_msa.sasl.registry import MECHANISMS
from digipoort_msa.server.admission import Admission
from digipoort_msa.server.factory import SubmissionFactory
from digipoort_msa.server.tls import ServerTLS, TLSFiles, TLSFilesError
from digipoort_msa.smtp.settings import SessionSettings
from digipoort_msa.spool.queue import Queue
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.store import Spool
from digipoort_msa.submission import HEAD, Submitter

#: Seconds that clients have at a stop to hear the verdicts they wait for.
FAREWELL = 10.0
#: Lookups and verifications that may wait for a thread, for each thread there is.
_WAITING_PER_THREAD = 100
_LOOKUP_THREADS = 2
#: Seconds that a thread may keep the interpreter while another wants it.  The spool's commits and the
#: reactor hand over to each other thousands of times a second; Python's 5 ms would be most of a commit.
_SWITCH_INTERVAL = 0.0005


class Options(usage.Options):
    """``twistd digipoort-msa``'s own options."""

    optParameters = [["config", "c", "/etc/digipoort-msa/msa.toml", "The configuration file."]]  # noqa: RUF012


def makeService(options: Options) -> IService:
    """What twistd calls.  A configuration that cannot be used ends the program with EX_CONFIG."""
    from twisted.internet import reactor

    try:
        return TwistdService(config.load(Path(options["config"])), reactor)
    except (config.ConfigError, TLSFilesError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(os.EX_CONFIG) from None


def make_service(settings: Settings, reactor: Any) -> "SubmissionService":
    """The whole MSA, not yet started.

    :raise TLSFilesError, ValueError, OSError: a file that the settings name cannot be used.
    """
    return SubmissionService(settings, reactor)


class SubmissionService(MultiService):
    """Everything that runs, and the order in which it starts and stops: what others rely on starts first
    and stops last."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        super().__init__()
        self._settings = settings
        self._reactor = reactor
        self._threads: list[Threads] = []
        self._accounts: list[Any] = []
        self._file_pool = ThreadPool(minthreads=0, maxthreads=2, name="maildir")
        self.tls = ServerTLS(
            TLSFiles(
                settings.tls.certificate,
                settings.tls.private_key,
                settings.tls.minimum_version,
                settings.tls.client_certificates,
                settings.tls.client_ca,
            )
        )
        self.spool = Spool(
            reactor, settings.server.state_directory / "spool", small=settings.spool.inline_size
        )
        self.delivery = self._make_delivery()
        self.queue = self._make_queue()
        self._realms = self._make_realms()
        self._factories: list[SubmissionFactory] = []
        for factory, endpoint in self._make_listeners():
            self._factories.append(factory)
            ListenerService(factory, endpoint, reactor).setServiceParent(self)

    # -- life ------------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        os.umask(int(self._settings.server.umask, 8))
        super().privilegedStartService()

    def startService(self) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL)
        for problem in config.warnings(self._settings):
            log.emit(log.CONFIG_WARNING, problem=str(problem))
        self._file_pool.start()
        recovery = self.spool.start()
        log.emit(
            log.SPOOL_OPEN,
            directory=str(self.spool.directory),
            messages=recovery.messages,
            half_received=recovery.half_received,
        )
        for queue_id in recovery.missing:
            log.emit(log.BODY_MISSING, queue_id=queue_id)
        self.queue.start()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        super().startService()

    def stopService(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        await MultiService.stopService(self)  # the listeners: no new connections, and a word to the open ones
        await self.queue.stop()
        await self.delivery.stop()
        await self.spool.stop()
        for threads in self._threads:
            threads.stop()
        for accounts in self._accounts:
            accounts.close()
        self._file_pool.stop()

    def reload(self) -> None:
        """Take up a new certificate (SIGHUP); a broken one leaves the old one in force."""
        try:
            self.tls.reload()
            hosts = digest_hosts(self._settings)
        except (TLSFilesError, ValueError, OSError) as error:
            log.emit(log.CERTIFICATE_KEPT, reason=str(error))
        else:
            for factory in self._factories:
                factory.digest_hosts = hosts
            log.emit(log.CERTIFICATE_LOADED, file=str(self.tls.files.certificate))

    # -- what it is made of ------------------------------------------------------------------------------

    def _make_delivery(self) -> IDelivery:
        delivery = self._settings.delivery
        if delivery.to == "maildir":
            if delivery.maildir.directory is None:
                raise ValueError("delivery.maildir.directory is not set")
            return Maildir(delivery.maildir.directory, self._reactor, self._file_pool)
        relay = delivery.relay
        credentials = None
        if relay.username is not None and relay.password_file is not None:
            lines = relay.password_file.read_text(encoding="utf-8").splitlines()
            credentials = Credentials(relay.username, lines[0] if lines else "")
        return Relay(
            self._reactor,
            [Hop.from_text(hop.hop) for hop in relay.next_hops],
            self._settings.server.hostname,
            ClientTLS(relay.tls, relay.ca),
            credentials=credentials,
            timeouts=Timeouts(**relay.timeouts.model_dump()),
            connections=relay.connections,
            messages_per_connection=relay.messages_per_connection,
            idle_timeout=relay.idle_timeout,
        )

    def _make_queue(self) -> Queue:
        queue = self._settings.queue
        schedule = Schedule(
            first_delay=queue.first_delay,
            factor=queue.delay_factor,
            maximum_delay=queue.maximum_delay,
            jitter=queue.jitter,
            give_up_after=queue.give_up_after,
        )
        return Queue(self.spool, self.delivery, self._reactor, schedule=schedule, active=queue.active)

    def _make_realms(self) -> Realms:
        passwords, limits = self._settings.passwords, self._settings.limits
        verification = Passwords(
            PasswordHashing(
                memory_kib=passwords.memory_kib,
                time_cost=passwords.time_cost,
                parallelism=passwords.parallelism,
            ),
            self._make_threads("passwords", passwords.threads),
            VerifiedPasswords(self._reactor.seconds, seconds=passwords.cache_seconds),
        )
        lookups = self._make_threads("accounts", _LOOKUP_THREADS)
        throttle = Throttle(
            self._reactor.seconds,
            per_account_and_source=limits.login_failures_per_account_and_address,
            per_source=limits.login_failures_per_address,
            per_account=limits.login_failures_per_account,
            window=limits.login_window,
            first_delay=limits.login_first_delay,
            longest_delay=limits.login_longest_delay,
            trust_for=limits.login_trust,
        )
        realms = [self._make_realm(realm, verification, lookups) for realm in self._settings.realm]
        return Realms(realms, throttle, self._reactor, MECHANISMS)

    def _make_realm(self, realm: RealmSettings, verification: Passwords, lookups: Threads) -> Realm:
        accounts = open_accounts(
            realm.store,
            realm=realm.name,
            url=realm.url,
            state_directory=self._settings.server.state_directory,
        )
        self._accounts.append(accounts)
        policies = make_policies(realm)

        def submitter(realm_name: str, account: str) -> Submitter:
            return Submitter(
                realm_name, account, self.spool, self._reactor, policies, realm.add_missing_headers
            )

        store = accounts.for_reactor(lookups)
        return Realm(realm.name, realm.mechanisms, store, verification, submitter)

    def _make_threads(self, name: str, size: int) -> Threads:
        threads = Threads(self._reactor, name, size=size, waiting=size * _WAITING_PER_THREAD)
        self._threads.append(threads)
        return threads

    def _make_listeners(self) -> list[tuple[SubmissionFactory, str]]:
        settings, limits = self._settings, self._settings.limits
        offered = self._realms.mechanisms
        session_settings = SessionSettings(
            hostname=settings.server.hostname,
            message_size=limits.message_size,
            recipients=limits.recipients,
            errors=limits.errors,
            authentication_failures=limits.authentication_failures,
            mechanisms=offered,
            clear_mechanisms=tuple(name for name in offered if not MECHANISMS[name].plaintext),
        )
        admission = Admission(limits.connections, limits.connections_per_address)
        hosts = digest_hosts(settings)
        return [
            (
                SubmissionFactory(
                    reactor=self._reactor,
                    session_settings=session_settings,
                    realms=self._realms,
                    digest_hosts=hosts,
                    tls=self.tls,
                    admission=admission,
                    implicit=listener.tls == "implicit",
                    proxied=listener.endpoint.startswith("haproxy:"),
                    listener=listener.endpoint,
                    idle_timeout=limits.idle_timeout,
                    handshake_timeout=limits.handshake_timeout,
                ),
                listener.endpoint,
            )
            for listener in settings.listener
        ]


class TwistdService(SubmissionService):
    """The same under twistd: what keeps it from starting is one line, not a traceback."""

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except CannotListenError as error:
            raise SystemExit(str(error)) from None

    def startService(self) -> None:
        try:
            super().startService()
        except (SpoolError, OSError) as error:
            raise SystemExit(str(error)) from None


class ListenerService(Service):
    """One endpoint with its factory."""

    def __init__(self, factory: SubmissionFactory, endpoint: str, reactor: Any) -> None:
        """:raise ValueError: the endpoint needs a socket from systemd, and there is none."""
        self._factory = factory
        try:
            self._endpoint = serverFromString(reactor, endpoint)
        except LookupError:
            raise ValueError(
                f'listener "{endpoint}": systemd handed over no such socket; start the service by its socket '
                "unit, or listen with tcp:PORT"
            ) from None
        self._reactor = reactor
        self._port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Bind before privileges are dropped, so that port 587 needs no more than twistd's own uid change.

        :raise CannotListenError: the port is taken or not ours to take.
        """
        failures: list[Any] = []
        self._endpoint.listen(self._factory).addCallbacks(self._listening, failures.append)
        if failures:
            failures[0].raiseException()

    def stopService(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        self._factory.close_connections()
        for _ in range(int(FAREWELL / 0.05)):
            if not self._factory.connections:
                break
            await deferLater(self._reactor, 0.05)
        for connection in list(self._factory.connections):
            connection.abort()
        await deferLater(self._reactor, 0)  # an aborted connection is lost in the next turn

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        address = port.getHost()
        host, number = getattr(address, "host", None), getattr(address, "port", None)
        log.emit(
            log.LISTENING,
            address=_host_and_port(host, number) if host else self._factory.listener,
            tls="implicit" if self._factory.implicit else "starttls",
        )


def _host_and_port(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def make_policies(realm: RealmSettings) -> tuple[IPolicy, ...]:
    """A realm's rules, in the order in which they are asked."""
    policies: list[IPolicy] = []
    if realm.senders:
        policies.append(Senders(AddressPatterns.of(realm.senders)))
    if realm.bind_sender:
        granted = {
            account: AddressPatterns.of(patterns) for account, patterns in realm.sender_addresses.items()
        }
        policies.append(BoundSender(granted))
    if realm.recipients:
        policies.append(Recipients(AddressPatterns.of(realm.recipients)))
    patterns = {name: re.compile(pattern) for name, pattern in realm.header_patterns.items()}
    if realm.required_headers or patterns or realm.maximum_header_size < HEAD:
        policies.append(HeaderRules(realm.required_headers, patterns, realm.maximum_header_size))
    return tuple(policies)


def digest_hosts(settings: Settings) -> frozenset[str]:
    """The names that a DIGEST-MD5 digest-uri may bear (A3): what the operator lists, else our host name and
    the certificate's names.  A realm's name always counts: curl puts that in the host's place."""
    names = settings.server.digest_hosts or (settings.server.hostname, *certificate_names(settings))
    return frozenset(name.lower().rstrip(".") for name in (*names, *(realm.name for realm in settings.realm)))


def certificate_names(settings: Settings) -> tuple[str, ...]:
    """The host names and addresses of the certificate's subjectAltName."""
    certificate = x509.load_pem_x509_certificates(settings.tls.certificate.read_bytes())[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*hosts, *map(str, addresses))
