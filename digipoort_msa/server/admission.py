"""How many connections there may be at once (L4, M9)."""

from functools import lru_cache
from ipaddress import IPv6Address

from attrs import define, field


@define(eq=False)
class Admission:
    """Counts connections: over all listeners, and from one address.

    Of IPv6 the /64 counts as one address, since a single host has one whole.
    """

    _connections: int
    _per_address: int
    _open: int = field(default=0, init=False)
    _by_address: dict[int | str, int] = field(factory=dict, init=False)

    def enter(self, address: str) -> bool:
        """Count a connection from ``address``; False, and not counted, where it is one too many."""
        network = _network(address)
        here = self._by_address.get(network, 0)
        if self._open >= self._connections or here >= self._per_address:
            return False
        self._open += 1
        self._by_address[network] = here + 1
        return True

    def leave(self, address: str) -> None:
        """A connection that had entered is gone."""
        network = _network(address)
        self._open -= 1
        self._by_address[network] -= 1
        if not self._by_address[network]:
            del self._by_address[network]


@lru_cache(maxsize=4096)
def _network(address: str) -> int | str:
    return int(IPv6Address(address)) >> 64 if ":" in address else address
