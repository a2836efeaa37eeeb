"""Opening the ``sql`` accounts of a realm from plain values: the one way for the service and the operator's
commands.
"""

from pathlib import Path

from digipoort_msa.accounts.seal import Seal
from digipoort_msa.accounts.sql import SQLAccounts, open_engine


def open_accounts(*, realm: str, url: str | None, state_directory: Path) -> SQLAccounts:
    """Open the accounts of a realm; a database is not connected to before it is first asked.

    :param url: a SQLAlchemy URL; ``None`` for ``accounts.sqlite`` in ``state_directory``, which the
        realms share.
    :param state_directory: where ``accounts.key`` is too; made if it is missing.
    :raise OSError: a file in the state directory cannot be made or read.
    :raise ValueError: the URL, or the key file, is no good; the text says why.
    """
    state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, database = state_directory / "accounts.key", state_directory / "accounts.sqlite"
    if database.exists() and not key.exists():
        raise ValueError(
            f"{key} is missing, and {database} was made with it; put it back.  Where it is lost for good, "
            f"head -c 32 /dev/urandom > {key} makes another, and DIGEST-MD5 then needs new passwords"
        )
    seal = Seal.from_file(key)
    return SQLAccounts(open_engine(url or f"sqlite:///{database}"), realm, seal)
