"""The listeners of the settings: one endpoint each, with its factory."""

from typing import Any

from cryptography import x509
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater

from digipoort_msa import log
from digipoort_msa.config.settings import Settings
from digipoort_msa.interfaces import IRealms
from digipoort_msa.server.admission import Admission
from digipoort_msa.server.factory import SubmissionFactory
from digipoort_msa.service.certificates import ListenerCertificates
from digipoort_msa.smtp.settings import SessionSettings

#: Seconds that clients have at a stop to hear the verdicts they wait for.
FAREWELL = 10.0


def make_listeners(
    settings: Settings, reactor: Any, realms: IRealms, certificates: ListenerCertificates
) -> "list[ListenerService]":
    """:raise ValueError: an endpoint needs a socket from systemd, and there is none."""
    limits = settings.limits
    session_settings = SessionSettings(
        hostname=settings.server.hostname,
        message_size=limits.message_size,
        recipients=limits.recipients,
        errors=limits.errors,
        authentication_failures=limits.authentication_failures,
    )
    admission = Admission(limits.connections, limits.connections_per_address)
    hosts = digest_hosts(settings)
    return [
        ListenerService(
            SubmissionFactory(
                reactor=reactor,
                session_settings=session_settings,
                realms=realms,
                digest_hosts=hosts,
                tls=certificates.of(listener),
                admission=admission,
                implicit=listener.tls == "implicit",
                proxied=listener.endpoint.startswith("haproxy:"),
                listener=listener.endpoint,
                mechanisms=frozenset(listener.mechanisms) if listener.mechanisms else None,
                idle_timeout=limits.idle_timeout,
                handshake_timeout=limits.handshake_timeout,
            ),
            listener.endpoint,
            reactor,
        )
        for listener in settings.listener
    ]


class ListenerService(Service):
    """One endpoint with its factory."""

    def __init__(self, factory: SubmissionFactory, endpoint: str, reactor: Any) -> None:
        """:raise ValueError: the endpoint needs a socket from systemd, and there is none."""
        self.factory = factory
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
        self._endpoint.listen(self.factory).addCallbacks(self._listening, failures.append)
        if failures:
            failures[0].raiseException()

    def stopService(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        self.factory.close_connections()
        for _ in range(int(FAREWELL / 0.05)):
            if not self.factory.connections:
                break
            await deferLater(self._reactor, 0.05)
        for connection in list(self.factory.connections):
            connection.abort()
        await deferLater(self._reactor, 0)  # an aborted connection is lost in the next turn

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        address = port.getHost()
        host, number = getattr(address, "host", None), getattr(address, "port", None)
        log.emit(
            log.LISTENING,
            address=_host_and_port(host, number) if host else self.factory.listener,
            tls="implicit" if self.factory.implicit else "starttls",
        )


def _host_and_port(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
