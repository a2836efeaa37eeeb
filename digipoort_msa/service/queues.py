"""The spool of the settings, and a queue over it for each realm."""

from collections.abc import Callable
from time import time
from typing import Any

from digipoort_msa.config.queue import Queue as QueueSettings
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.settings import Settings
from digipoort_msa.interfaces import IDelivery
from digipoort_msa.notification.notifications import Notifications
from digipoort_msa.notification.templates import Texts
from digipoort_msa.policy.addresses import AddressPatterns, OwnAddresses
from digipoort_msa.secret_files import encryption_keys
from digipoort_msa.smtp.envelope import Envelope
from digipoort_msa.spool.queue import Queue
from digipoort_msa.spool.queues import Queues
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.store import Spool


def make_spool(settings: Settings, reactor: Any) -> Spool:
    """:raise ValueError, OSError: the key that encrypts content cannot be used."""
    in_sequence = {realm.name for realm in settings.realm if settings.queue_of(realm).in_sequence}

    def sequence(realm: str, account: str) -> str | None:
        return f"{realm} {account}" if realm in in_sequence else None

    return Spool(
        reactor,
        settings.server.state_directory / "spool",
        small=settings.spool.inline_size,
        watermark=settings.spool.watermark,
        sequences=sequence if in_sequence else None,
        sealing=make_sealing(settings),
    )


def make_sealing(settings: Settings) -> Sealing | None:
    """What encrypts contents at rest, where the settings want that.

    :raise ValueError, OSError: the key cannot be used.
    """
    file = settings.spool.encryption_key_file
    if file is None:
        return None
    try:
        return Sealing(*encryption_keys(file.read_bytes()))
    except ValueError as error:
        raise ValueError(f"spool.encryption-key-file = {file}: {error}") from error


def make_queues(
    settings: Settings, reactor: Any, spool: Spool, delivery_of: Callable[[Realm], IDelivery]
) -> Queues:
    """:raise ValueError: the texts of notifications cannot be used."""
    return Queues(
        spool,
        reactor,
        [
            Queue(
                realm.name,
                spool,
                delivery_of(realm),
                make_notifications(settings, realm),
                reactor,
                schedule=make_schedule(settings.queue_of(realm)),
                active=settings.queue_of(realm).active,
                now=time,
            )
            for realm in settings.realm
        ],
        now=time,
    )


def make_schedule(queue: QueueSettings) -> Schedule:
    return Schedule(
        first_delay=queue.first_delay,
        factor=queue.delay_factor,
        maximum_delay=queue.maximum_delay,
        jitter=queue.jitter,
        give_up_after=queue.give_up_after,
        tell_of_delay_after=queue.tell_of_delay_after,
    )


def make_notifications(settings: Settings, realm: Realm) -> Notifications:
    """:raise ValueError: its texts cannot be used."""
    notification = settings.notification_of(realm)
    return Notifications(
        settings.server.hostname,
        Texts.read(notification.languages, notification.templates),
        known_sender(settings, realm),
        sender=notification.sender,
        contact=notification.contact,
        full_size=notification.full_size,
    )


def known_sender(settings: Settings, realm: Realm) -> Callable[[Envelope], bool]:
    """Is an envelope's sender known to be its account's own, by the realm's settings as they are today?"""
    told = AddressPatterns.of(settings.notification_of(realm).recipients)
    own = OwnAddresses.of(realm.addresses)
    bound = senders_are_bound(realm)

    def known(envelope: Envelope) -> bool:
        path = envelope.reverse_path
        return bound or told.match(path) or own.known(envelope.account, path)

    return known


def senders_are_bound(realm: Realm) -> bool:
    """Is each sender that the realm accepts the account's own, or one that a pattern grants it?"""
    return any(
        (policy.rule, policy.mode) == ("sender", "enforce") and not (policy.accounts or policy.groups)
        for policy in realm.policy
    )
