"""The tables of the ``sql`` store, the same on SQLite, PostgreSQL and MariaDB.

Names compare octet for octet.  MariaDB's text columns fold case and accents, or at least pad with
spaces, whatever their collation; there a name is its UTF-8 octets in a VARBINARY.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Date, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

VERSION = 2  # of this schema; :mod:`.migrations` brings a database to it
NAME_LENGTH = 255  # characters


class ExactText(TypeDecorator[str]):
    """Text that equals only itself."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(VARBINARY(4 * NAME_LENGTH))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(String(NAME_LENGTH, collation="C"))
        return dialect.type_descriptor(String(NAME_LENGTH))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is not None and dialect.name in ("mysql", "mariadb"):
            return value.encode()
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return bytes(value).decode() if isinstance(value, bytes | bytearray) else value


METADATA = MetaData()

SCHEMA = Table(
    "account_schema",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1: there is one row
    Column("version", Integer, nullable=False),
)

ACCOUNTS = Table(
    "account",
    METADATA,
    Column("realm", ExactText, primary_key=True),
    Column("name", ExactText, primary_key=True),
    Column("status", String(16), nullable=False),  # a Status value
    Column("password_hash", Text, nullable=False),
    Column("digest_secrets", LargeBinary, nullable=False),  # sealed; no octets without DIGEST-MD5
    Column("created", BigInteger, nullable=False),  # Unix time, seconds
    Column("changed", BigInteger, nullable=False),
    # Since version 2; a release that knows version 1 alone makes rows without them.
    Column("scram", LargeBinary),  # sealed; NULL or no octets without SCRAM
    Column("expires", BigInteger),  # Unix time, seconds, from which it may log in no more; NULL: no end
    Column("digest_until", Date),  # the last day on which it may use DIGEST-MD5; NULL: no end of its own
    Column("addresses", Text),  # a JSON list of patterns, in ASCII; NULL: none
    Column("member_of", Text),  # a JSON list of groups, likewise
)
