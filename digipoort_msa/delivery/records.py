"""What the DNS says, as far as deliveries ask it."""

from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")


class LookupFailed(Exception):
    """The DNS gave no answer at all: SERVFAIL, a timeout, nonsense.  "No such records" is an answer."""


@frozen
class ExchangerRecord:
    """MX (RFC 1035 3.3.9)."""

    preference: int
    host: str  # without its final dot; "." alone is nobody


@frozen
class ServiceRecord:
    """SRV (RFC 2782)."""

    priority: int
    weight: int
    port: int
    host: str  # as above


@frozen
class Answer(Generic[T]):
    """The records of one type that a name has."""

    records: tuple[T, ...] = ()
    authenticated: bool = False  # by DNSSEC, as the resolver says (the AD bit)
    exists: bool = True  # False: there is no such name (NXDOMAIN)
