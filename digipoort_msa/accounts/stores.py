"""Opening the ``sql`` accounts of a realm from plain values: the one way for the service and the operator's
commands.
"""

from pathlib import Path

from sqlalchemy import Engine

from digipoort_msa.accounts.engine import open_engine
from digipoort_msa.accounts.foreign import ForeignAccounts
from digipoort_msa.accounts.keyring import Keyring
from digipoort_msa.accounts.passwords import PasswordHashing
from digipoort_msa.accounts.sql import SQLAccounts
from digipoort_msa.database_urls import database_url
from digipoort_msa.secret_files import first_line
from digipoort_msa.statements import account_query, scram_query, upgrade_query


def open_accounts(
    *,
    realm: str,
    url: str | None,
    state_directory: Path,
    password_file: Path | None = None,
    key_file: Path | None = None,
) -> SQLAccounts:
    """Open the accounts of a realm in our own tables; a database is not connected to before it is first
    asked.

    :param url: a SQLAlchemy URL; ``None`` for ``accounts.sqlite`` in ``state_directory``, which the
        realms share.
    :param state_directory: where ``accounts.key`` is too; made if it is missing.
    :param password_file: its first line is the password for the database.
    :param key_file: the keys, where they are not in ``accounts.key``; it is never written.
    :raise OSError: a file cannot be made or read.
    :raise ValueError: the URL, or a file, is no good; the text says why.
    """
    state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, database = state_directory / "accounts.key", state_directory / "accounts.sqlite"
    if key_file is None and database.exists() and not key.exists():
        raise ValueError(
            f"{key} is missing, and {database} was made with it; put it back.  Where it is lost for good, "
            f"head -c 32 /dev/urandom > {key} makes another, and DIGEST-MD5 and SCRAM then need new passwords"
        )
    seal = Keyring(key, make=True) if key_file is None else Keyring(key_file)
    return SQLAccounts(_engine(url or f"sqlite:///{database}", password_file), realm, seal)


def open_foreign(
    *,
    realm: str,
    url: str,
    query: str,
    password_file: Path | None = None,
    upgrade: str | None = None,
    scram: str | None = None,
) -> ForeignAccounts:
    """Open the accounts of a realm in somebody else's tables; nothing is connected to before it is first
    asked.

    :param query: see :func:`digipoort_msa.statements.account_query`, and the functions beside it for the
        others.
    :raise OSError: the file cannot be read.
    :raise ValueError: the URL, a query or the file is no good; the text says why.
    """
    return ForeignAccounts(
        _engine(url, password_file),
        realm,
        account_query(query),
        upgrade=None if upgrade is None else upgrade_query(upgrade),
        scram=None if scram is None else scram_query(scram),
        readable=PasswordHashing().readable,
    )


def _engine(url: str, password_file: Path | None) -> Engine:
    try:
        parsed = database_url(url)
    except ValueError as error:
        raise ValueError(f"the URL of the database should be {error}") from None
    if password_file is not None:
        try:
            parsed = parsed.set(password=first_line(password_file.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{password_file} should hold a password as its first line: {error}") from None
    return open_engine(parsed)
