"""``[realm.sql]``: accounts in a database."""

from pydantic import Field

from digipoort_msa.config.tables import Table, Text


class Sql(Table):
    """``[realm.sql]``: accounts in a database, our own tables or yours."""

    url: Text | None = Field(
        default=None,
        description="a SQLAlchemy URL such as postgresql+psycopg://user@host/database; "
        "unset means SQLite under the state directory",
    )
