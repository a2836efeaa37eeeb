"""What only the rooms themselves can judge of settings, and would keep the service from starting."""

from collections.abc import Iterator

from digipoort_msa.config import Problem
from digipoort_msa.config.settings import Settings
from digipoort_msa.service.queues import make_notifications


def unusable(settings: Settings) -> Iterator[Problem]:
    """Every problem of settings that :func:`digipoort_msa.config.load` has nothing against.

    Files are read; nothing is written, kept open or started.
    """
    told = set()
    for index, realm in enumerate(settings.realm):
        key = "notification" if realm.notification is None else f"realm[{index}].notification"
        try:
            make_notifications(settings, realm)
        except ValueError as error:
            if key not in told:
                yield Problem(f"{key}.templates", str(error))
            told.add(key)
