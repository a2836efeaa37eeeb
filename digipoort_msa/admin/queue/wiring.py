"""What the commands need of the settings.

The service is imported only where it is asked for: most commands are done before it would be.
"""

from collections.abc import Callable

import click

from digipoort_msa.config import Settings
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.tables import host_and_port
from digipoort_msa.smtp.envelope import Envelope
from digipoort_msa.spool.importing import Rules
from digipoort_msa.spool.queue_ids import QueueIds
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.verdicts import Verdicts


def realm_of(settings: Settings, name: str) -> Realm | None:
    return next((realm for realm in settings.realm if realm.name == name), None)


def sealing(settings: Settings) -> Sealing | None:
    """The key that content is encrypted with, if it is."""
    if settings.spool.encryption_key_file is None:
        return None
    from digipoort_msa.service.queues import make_sealing

    try:
        return make_sealing(settings)
    except OSError as error:
        file = settings.spool.encryption_key_file
        text = f"spool.encryption-key-file = {file}: cannot be read: {error.strerror}"
        raise click.ClickException(text) from error
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def verdicts_of(settings: Settings) -> Callable[[str], Verdicts | None]:
    """What returns the messages of a realm; ``None`` for a realm that is not in the settings."""
    made: dict[str, Verdicts | None] = {}
    queue_ids = QueueIds()

    def verdicts(name: str) -> Verdicts | None:
        if name not in made:
            realm = realm_of(settings, name)
            made[name] = None if realm is None else _verdicts(settings, realm, queue_ids)
        return made[name]

    return verdicts


def _verdicts(settings: Settings, realm: Realm, queue_ids: QueueIds) -> Verdicts:
    from digipoort_msa.service.queues import make_notifications, make_schedule

    try:
        notifications = make_notifications(settings, realm)
    except (ValueError, OSError) as error:
        raise click.ClickException(f"realm {realm.name}: {error}") from error
    return Verdicts(notifications, make_schedule(settings.queue_of(realm)), queue_ids)


def untried(settings: Settings) -> Callable[[str], str | None]:
    """Says of a realm why its messages are not tried; ``None`` where they are."""
    names = {realm.name for realm in settings.realm}
    return lambda name: None if name in names else f"its realm {name} is not configured"


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
