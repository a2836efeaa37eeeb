"""Who submits: what policies and the intake may know of an account that has logged in."""

from attrs import frozen


@frozen(kw_only=True)
class Identity:
    """An account, as it was when it logged in.  It carries nothing that a login is verified with."""

    name: str  # as its store keeps it
    realm: str
    groups: frozenset[str] = frozenset()  # what its store says it belongs to; policies may go by that
    addresses: tuple[str, ...] = ()  # patterns of the addresses that its store says are its own
