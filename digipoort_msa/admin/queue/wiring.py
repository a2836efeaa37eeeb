"""What the commands need of the settings."""

from collections.abc import Callable

import click

from digipoort_msa.config import Settings
from digipoort_msa.config.files import encryption_key
from digipoort_msa.config.settings import Realm
from digipoort_msa.config.tables import host_and_port
from digipoort_msa.interfaces import INotifications
from digipoort_msa.notification.notifications import Notifications
from digipoort_msa.notification.templates import Texts
from digipoort_msa.policy.addresses import AddressPatterns
from digipoort_msa.smtp.envelope import Envelope
from digipoort_msa.spool.importing import Rules
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.schedule import Schedule
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.verdicts import Verdicts


def realm_of(settings: Settings, name: str) -> Realm | None:
    return next((realm for realm in settings.realm if realm.name == name), None)


def sealing(settings: Settings) -> Sealing | None:
    """The key that content is encrypted with, if it is."""
    key_file = settings.spool.encryption_key_file
    try:
        return None if key_file is None else Sealing(encryption_key(key_file.read_bytes()))
    except OSError as error:
        text = f"spool.encryption-key-file = {key_file}: cannot be read: {error.strerror}"
        raise click.ClickException(text) from error
    except ValueError as error:
        raise click.ClickException(f"spool.encryption-key-file = {key_file}: {error}") from None


def verdicts_of(settings: Settings) -> Callable[[str], Verdicts | None]:
    """What returns the messages of a realm; ``None`` for a realm that is not in the settings."""
    made: dict[str, Verdicts | None] = {}
    queue_ids = QueueIds()

    def verdicts(name: str) -> Verdicts | None:
        if name not in made:
            realm = realm_of(settings, name)
            made[name] = (
                None
                if realm is None
                else Verdicts(_notifications(settings, realm), _schedule(settings, realm), queue_ids)
            )
        return made[name]

    return verdicts


def _schedule(settings: Settings, realm: Realm) -> Schedule:
    queue = settings.queue_of(realm)
    return Schedule(
        first_delay=queue.first_delay,
        factor=queue.delay_factor,
        maximum_delay=queue.maximum_delay,
        jitter=queue.jitter,
        give_up_after=queue.give_up_after,
        tell_of_delay_after=queue.tell_of_delay_after,
    )


def _notifications(settings: Settings, realm: Realm) -> INotifications:
    notification = settings.notification_of(realm)
    others = AddressPatterns.of(notification.recipients) if notification.recipients else None

    def tellable(envelope: Envelope) -> bool:
        path = envelope.reverse_path
        own = envelope.account.lower() == str(path).lower()
        return realm.bind_sender or own or (others is not None and others.match(path))

    return Notifications(
        settings.server.hostname,
        Texts.read(notification.languages, notification.templates),
        tellable,
        sender=notification.sender,
        contact=notification.contact,
        full_size=notification.full_size,
    )


def movable(settings: Settings) -> Callable[[str], str | None]:
    """Says of a realm why its messages cannot go to another hop; ``None`` where they can."""

    def objection(name: str) -> str | None:
        realm = realm_of(settings, name)
        if realm is None:
            return f"the realm {name} is not configured"
        way = settings.delivery_of(realm).to
        if way not in ("relay", "lmtp"):
            return f'the realm {name} has delivery.to = "{way}": there is no hop to choose'
        return None

    return objection


def rules_of(settings: Settings) -> Rules:
    """How the spool keeps messages."""
    in_sequence = {realm.name for realm in settings.realm if settings.queue_of(realm).in_sequence}
    immovable = movable(settings)

    def objection(envelope: Envelope) -> str | None:
        realm = realm_of(settings, envelope.realm)
        names = ", ".join(each.name for each in settings.realm)
        if realm is None:
            return f"realm = {envelope.realm}: is not configured here; there is {names}"
        if settings.delivery_of(realm).to == "through":
            return f'realm = {envelope.realm}: has delivery.to = "through", nothing of it is kept here'
        if envelope.next_hop is None:
            return None
        try:
            host_and_port(envelope.next_hop)
        except ValueError as error:
            return f"next-hop = {envelope.next_hop}: should be {error}, or null"
        why = immovable(envelope.realm)
        return None if why is None else f"next-hop = {envelope.next_hop}: {why}"

    return Rules(
        small=settings.spool.inline_size,
        watermark=settings.spool.watermark,
        sealing=sealing(settings),
        sequences=lambda realm, account: f"{realm} {account}" if realm in in_sequence else None,
        objection=objection,
    )
