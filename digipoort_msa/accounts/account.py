"""The account, as a store keeps it."""

import enum
from datetime import date, datetime

from attrs import field, frozen

from digipoort_msa.identity import Identity
from digipoort_msa.sasl.scram_keys import ScramKeys


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
    password_hash: str = field(default="", repr=False)  # a passlib hash; "" where no password can be right
    digest_secrets: tuple[bytes, ...] = field(default=(), repr=False)  # 16 octets each; () without DIGEST-MD5
    scram: ScramKeys | None = field(default=None, repr=False)  # None without SCRAM
    #: The moment (UTC) at which it ends, for the operator; ``status`` says what holds now.
    expires: datetime | None = None
    digest_until: date | None = None  # its last day (UTC) of DIGEST-MD5; None: no end of its own
    groups: frozenset[str] = frozenset()
    addresses: tuple[str, ...] = ()  # patterns of its own addresses, such as "*@example.nl"
    #: For an :class:`~digipoort_msa.interfaces.IPasswordVerifier`: changes whenever the password may have, so
    #: that a verified password can be remembered for a while.  "" where that cannot be told: it is asked each
    #: time.
    revision: str = field(default="", repr=False)
    created: datetime | None = None  # UTC, to the second; None where the store does not know
    changed: datetime | None = None  # the last change of its status or password

    @property
    def may_log_in(self) -> bool:
        return self.status is Status.ACTIVE

    @property
    def identity(self) -> Identity:
        """What policies may know of it."""
        return Identity(name=self.name, realm=self.realm, groups=self.groups, addresses=self.addresses)
