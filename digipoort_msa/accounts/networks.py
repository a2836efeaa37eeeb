"""Where a client is: what one host can vary freely is one source, and what lies around it a network.

A source is an IPv4 address, or an IPv6 /64, since a single host has one whole.  The network around it is an
IPv4 /24 or an IPv6 /48: what one hoster or one customer typically has.  Both are texts, as an operator
reads and writes them.
"""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from attrs import frozen

_LONGEST = 45  # characters of an address; what a unix socket's peer is called is shorter still
_MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address in an IPv6 one (RFC 4291 2.5.5.2)


@frozen
class Place:
    """Where a login comes from."""

    source: str
    network: str | None  # None for what has no address


@lru_cache(maxsize=4096)
def place_of(address: str) -> Place:
    """
    :param address: an IP address, or any other word for a peer without one, such as a unix socket's.
    """
    octets = _octets(address)
    if octets is None:
        return Place(address[:_LONGEST], None)
    if len(octets) == 4:
        source = inet_ntop(AF_INET, octets)
        return Place(source, f"{source.rpartition('.')[0]}.0/24")
    return Place(
        f"{inet_ntop(AF_INET6, octets[:8] + bytes(8))}/64",
        f"{inet_ntop(AF_INET6, octets[:6] + bytes(10))}/48",
    )


def contains(wanted: str, found: str) -> bool:
    """Does a source or network, as :class:`Place` writes it, lie in a network?"""
    try:
        outer, inner = ip_network(wanted), ip_network(found)
    except ValueError:
        return False
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def network_of(text: str) -> str:
    """A network that an operator has written, in one spelling.

    :raise ValueError: it is none; the text says how to write one.
    """
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not an address such as 192.0.2.1, or a network such as 192.0.2.0/24: {error}"
        ) from None


def _octets(address: str) -> bytes | None:
    """4 or 16 octets; ``None`` for what is no address.  (:mod:`ipaddress` takes ten times as long.)"""
    for family in (AF_INET, AF_INET6):
        try:
            octets = inet_pton(family, address.partition("%")[0])
        except (OSError, ValueError):  # a NUL inside is a ValueError
            continue
        return octets[12:] if octets.startswith(_MAPPED) else octets
    return None
