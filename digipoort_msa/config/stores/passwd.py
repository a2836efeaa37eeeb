"""``[realm.passwd]``: accounts in Apache's files."""

from collections.abc import Iterator

from pydantic import Field

from digipoort_msa.config.problems import Problem
from digipoort_msa.config.tables import AbsolutePath, Table


class Passwd(Table):
    """``[realm.passwd]``: accounts in files as Apache's htpasswd and htdigest write them, at least one of the
    two.  They are read again when they change.  Of htdigest the lines count that have this realm's name.
    """

    htpasswd: AbsolutePath | None = Field(
        default=None,
        description="a file of name:hash, for PLAIN and LOGIN; unset means without",
    )
    htdigest: AbsolutePath | None = Field(
        default=None,
        description="a file of name:realm:hash, for DIGEST-MD5; unset means without",
    )


def problems(key: str, passwd: Passwd) -> Iterator[Problem]:
    """What reaches beyond one key.

    :param key: of the table.
    """
    if passwd.htpasswd is None and passwd.htdigest is None:
        right = 'missing; should be a file such as "/etc/digipoort-msa/htpasswd", or htdigest should be set'
        yield Problem(f"{key}.htpasswd", right)
