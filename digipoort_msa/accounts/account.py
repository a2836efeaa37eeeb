"""The account, as a store keeps it."""

import enum
from datetime import datetime

from attrs import field, frozen


class Status(enum.Enum):
    """Whether an account may log in.  Explicit, so that no store can forget to look (CVE-2022-24732)."""

    ACTIVE = "active"
    DISABLED = "disabled"  # by an operator
    EXPIRED = "expired"  # its time is over
    LOCKED = "locked"  # by a rule of the store; this MSA's own throttle never locks an account (A8)


@frozen(kw_only=True)
class Account:
    """One account of one realm.  Neither ``repr`` nor the log ever shows its verifiers (A7)."""

    name: str  # prepared with SASLprep (A4), exact
    realm: str
    status: Status
    password_hash: str = field(repr=False)  # a passlib hash; "" where no password can be right
    digest_secrets: tuple[bytes, ...] = field(default=(), repr=False)  # 16 octets each; () without DIGEST-MD5
    created: datetime  # UTC, to the second
    changed: datetime  # the last change of its status or password

    @property
    def may_log_in(self) -> bool:
        return self.status is Status.ACTIVE
