"""``[realm.sql]``: accounts in a database."""

from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from digipoort_msa import statements
from digipoort_msa.config.problems import Problem
from digipoort_msa.config.tables import SecretFile, Table, Text


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def checked(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            raise ValueError(f"one statement with bound parameters, but {error}") from None
        return text

    return AfterValidator(checked)


class Sql(Table):
    """``[realm.sql]``: accounts in a database, our own tables or, with an account-query, yours."""

    url: Text | None = Field(
        default=None,
        description="a SQLAlchemy URL such as postgresql+psycopg://user@host/database; "
        "unset means SQLite under the state directory",
    )
    password_file: SecretFile | None = Field(
        default=None,
        description='a file whose first line is the database\'s password, or "credential:NAME"; unset means '
        "the URL's",
    )
    key_file: SecretFile | None = Field(
        default=None,
        description='a file of 32 octets in hex or base64, or "credential:NAME": the key that encrypts '
        "what DIGEST-MD5 and SCRAM need, and on further lines the former ones; unset means accounts.key in "
        "the state directory, which is made",
    )
    account_query: Annotated[Text, _checked(statements.account_query)] | None = Field(
        default=None,
        description="a SELECT that binds :name, and :realm if need be, and gives an account of your own "
        "tables; unset means our own tables",
    )
    upgrade_query: Annotated[Text, _checked(statements.upgrade_query)] | None = Field(
        default=None,
        description="an UPDATE that binds :name, :old and :new: replaces a password hash in your own tables; "
        "unset means that they are left alone",
    )
    scram_query: Annotated[Text, _checked(statements.scram_query)] | None = Field(
        default=None,
        description="an UPDATE that binds :name, :old (the password hash) and :scram: keeps SCRAM keys in "
        "your own tables; unset means that they are left alone",
    )


def problems(key: str, sql: Sql) -> Iterator[Problem]:
    """What reaches beyond one key.

    :param key: of the table.
    """
    if sql.account_query is None:
        for name, value in (("upgrade-query", sql.upgrade_query), ("scram-query", sql.scram_query)):
            if value is not None:
                yield Problem(
                    f"{key}.{name}", f"is for your own tables: {key}.account-query is missing", value
                )
    else:
        if sql.url is None:
            right = "missing; should be the URL of the database that account-query is for"
            yield Problem(f"{key}.url", right)
        if sql.scram_query is not None and "scram" not in statements.account_query(sql.account_query).words:
            right = "keeps what account-query never reads; let that give a column scram"
            yield Problem(f"{key}.scram-query", right, sql.scram_query)
        if sql.key_file is not None:
            right = "is for the MSA's own tables, and account-query reads yours; take one of them out"
            yield Problem(f"{key}.key-file", right, sql.key_file)
    if sql.password_file is not None and sql.url is None:
        yield Problem(
            f"{key}.password-file", "is for the database of a url, which is missing", sql.password_file
        )
