"""The ways out of the settings."""

from typing import Any

from twisted.python.threadpool import ThreadPool

from digipoort_msa.config.delivery import Delivery
from digipoort_msa.config.delivery import Relay as RelaySettings
from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.maildir import Maildir
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.session import Credentials
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import IDelivery


def make_delivery(settings: Delivery, hostname: str, reactor: Any, file_pool: ThreadPool) -> IDelivery:
    """The way out that a ``[delivery]`` table describes.

    :param hostname: ours, for EHLO.
    :raise ValueError, OSError: a file that it names cannot be used.
    """
    if settings.to == "maildir":
        if settings.maildir.directory is None:
            raise ValueError("delivery.maildir.directory is not set")
        return Maildir(settings.maildir.directory, reactor, file_pool)
    return _make_relay(settings.relay, hostname, reactor)


def _make_relay(relay: RelaySettings, hostname: str, reactor: Any) -> Relay:
    credentials = None
    if relay.username is not None and relay.password_file is not None:
        lines = relay.password_file.read_text(encoding="utf-8").splitlines()
        credentials = Credentials(relay.username, lines[0] if lines else "")
    return Relay(
        reactor,
        [Hop.from_text(hop.hop) for hop in relay.next_hops],
        hostname,
        ClientTLS(relay.tls, relay.ca),
        credentials=credentials,
        timeouts=Timeouts(**relay.timeouts.model_dump()),
        connections=relay.connections,
        messages_per_connection=relay.messages_per_connection,
        idle_timeout=relay.idle_timeout,
    )
