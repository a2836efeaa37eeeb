"""The ways out of the settings: one for all realms that have none of their own, and one for each that has."""

from collections.abc import Callable
from time import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from digipoort_msa.config.delivery import Delivery, Hops
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.settings import Settings
from digipoort_msa.delivery.authentication import Credentials
from digipoort_msa.delivery.client import Timeouts
from digipoort_msa.delivery.dialogue import SMTP, Dialogue
from digipoort_msa.delivery.hop import NextHop
from digipoort_msa.delivery.lmtp import LMTP
from digipoort_msa.delivery.maildir import Maildir
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.resolving import Resolver
from digipoort_msa.delivery.through import Through, prompt
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import IDelivery, IIntake
from digipoort_msa.secret_files import first_line
from digipoort_msa.spool.queue_ids import QueueIds


class Deliveries:
    """Every realm's way out."""

    def __init__(self, settings: Settings, reactor: Any, recovered: Callable[[str], object]) -> None:
        """
        :param recovered: called with the name of each realm whose next hops are back.
        :raise ValueError, OSError: a file that the settings name cannot be used.
        """
        self._reactor = reactor
        self._hostname = settings.server.hostname
        self._recovered = recovered
        self._threads = ThreadPool(minthreads=0, maxthreads=2, name="delivery")  # files, and SCRAM
        self._resolvers: dict[str | None, Resolver] = {}
        self._tls: list[ClientTLS] = []
        self._all: list[IDelivery] = []
        self._by_realm: dict[str, IDelivery] = {}
        self._through: dict[str, Through] = {}
        sharing = [realm.name for realm in settings.realm if realm.delivery is None]
        if sharing:
            shared = self._make(settings.delivery, sharing)
            self._by_realm.update(dict.fromkeys(sharing, shared))
        for realm in settings.realm:
            if realm.delivery is not None:
                self._by_realm[realm.name] = self._make(realm.delivery, [realm.name])

    def of(self, realm: Realm) -> IDelivery:
        return self._by_realm[realm.name]

    def intake_of(self, realm: Realm, spool: IIntake) -> IIntake:
        """What takes a realm's messages in: the spool, or the next hop itself."""
        return self._through.get(realm.name, spool)

    def start(self) -> None:
        self._threads.start()

    def stop(self) -> "Deferred[None]":
        """Let go of connections, look-ups and threads; no delivery is under way."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await gatherResults([delivery.stop() for delivery in self._all])
        await gatherResults([resolver.stop() for resolver in self._resolvers.values()])
        self._threads.stop()

    def reload(self) -> list[str]:
        """Read the certificates towards the next hops anew.

        :return: what is wrong with those that cannot be used: what was read before stays in force.
        """
        problems = []
        for tls in self._tls:
            try:
                tls.reload()
            except (OSError, ValueError) as error:
                problems.append(str(error))
        return problems

    def _make(self, settings: Delivery, realms: list[str]) -> IDelivery:
        """The way out that a ``[delivery]`` table describes, for these realms."""
        delivery: IDelivery
        if settings.to == "maildir":
            if settings.maildir.directory is None:
                raise ValueError("delivery.maildir.directory is not set")
            delivery = Maildir(settings.maildir.directory, self._reactor, self._threads)
        elif settings.to == "lmtp":
            delivery = self._make_relay(settings.lmtp, realms, dialogue=LMTP)
        elif settings.to == "through":
            # It also takes what is in the spool from before the realm went through.
            timeouts = prompt(Timeouts(**settings.relay.timeouts.model_dump()))
            delivery = relay = self._make_relay(settings.relay, realms, timeouts=timeouts)
            self._through.update(dict.fromkeys(realms, Through(relay, QueueIds(), self._reactor)))
        else:
            delivery = self._make_relay(settings.relay, realms)
        self._all.append(delivery)
        return delivery

    def _make_relay(
        self, hops: Hops, realms: list[str], *, dialogue: Dialogue = SMTP, timeouts: Timeouts | None = None
    ) -> Relay:
        looked_up = any(hop.hop.startswith(("mx:", "srv:")) for hop in hops.next_hops)
        resolver = self._resolver(hops.resolver) if looked_up or hops.dane else None
        tls = ClientTLS(
            hops.tls,
            hops.ca if hops.tls != "none" else None,
            server_name=hops.server_name,
            certificate=hops.certificate,
            private_key=hops.private_key,
            public_key_pins=hops.public_key_pins,
            tlsa=resolver.tlsa if resolver is not None and hops.dane else None,
        )
        self._tls.append(tls)
        return Relay(
            self._reactor,
            [NextHop(**hop.model_dump()) for hop in hops.next_hops],
            self._hostname,
            tls,
            credentials=self._credentials(hops),
            dialogue=dialogue,
            resolver=resolver,
            recovered=lambda: [self._recovered(realm) for realm in realms],
            timeouts=timeouts or Timeouts(**hops.timeouts.model_dump()),
            connections=hops.connections,
            messages_per_connection=hops.messages_per_connection,
            idle_timeout=hops.idle_timeout,
            first_rest=hops.first_rest,
            longest_rest=hops.longest_rest,
            now=time,
        )

    def _resolver(self, address: str | None) -> Resolver:
        if address not in self._resolvers:
            self._resolvers[address] = Resolver(self._reactor, address)
        return self._resolvers[address]

    def _credentials(self, hops: Hops) -> Credentials | None:
        if hops.username is None or hops.password_file is None:
            return None
        password = first_line(hops.password_file.read_bytes())
        return Credentials(hops.username, password, hops.login_mechanisms, self._in_thread)

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
        return deferToThreadPool(self._reactor, self._threads, function, *arguments)
