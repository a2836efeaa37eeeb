"""``[realm.cred]``: accounts that a checker of Twisted knows."""

from collections.abc import Iterator

from pydantic import Field

from digipoort_msa.config.problems import Problem
from digipoort_msa.config.tables import Table, Text


class Cred(Table):
    """``[realm.cred]``: accounts that a checker of Twisted's plug-ins knows; as ``twistd --auth`` has it."""

    checker: Text | None = Field(
        default=None,
        description='a checker and its argument, such as "file:/etc/digipoort-msa/passwords" or "unix"',
    )


def problems(key: str, cred: Cred) -> Iterator[Problem]:
    """What reaches beyond one key.

    :param key: of the table.
    """
    if cred.checker is None:
        right = 'missing; should be a checker such as "file:/etc/digipoort-msa/passwords"'
        yield Problem(f"{key}.checker", right)
