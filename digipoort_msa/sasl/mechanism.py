"""What a SASL mechanism is here (RFC 4422): a generator that neither reads a clock nor asks a store.

``start`` gives a fresh generator for one AUTH command, and nothing outlives it (CVE-2011-1720).  The
generator yields what it needs, and the driver answers:

- :class:`Challenge`: send these octets; resume with the client's response, base64 already removed.
- :class:`Lookup`: ask for the SCRAM keys of a name; resume with
  :class:`~digipoort_msa.sasl.scram_keys.ScramKeys`, which there are for every name, known or not.
- :class:`Verify`: ask the accounts; resume with ``b""`` only if the credential was accepted, else
  close the generator and answer 535.

It returns when the client is authenticated (235).  It raises :class:`Malformed` (501) or
:class:`Denied` (535), and nothing else, whatever the client sends.
"""

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from attrs import frozen

from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.credentials import ICredential


class Malformed(Exception):
    """The client's octets break the mechanism's syntax: a 501.  The text is for the log alone."""


class Denied(Exception):
    """Well-formed, but it cannot succeed: a 535, as for a wrong password.  The text is for the log alone."""


@frozen
class Challenge:
    """Octets for the client; ``b""`` is the empty challenge."""

    octets: bytes


@frozen
class Lookup:
    """A name whose SCRAM keys the exchange has to know before it can go on (RFC 5802 5)."""

    username: str


@frozen
class Verify:
    """A credential for the accounts to judge."""

    credential: ICredential


#: Resumed with octets, but with ScramKeys after a Lookup.
Exchange: TypeAlias = Generator[Challenge | Lookup | Verify, Any, None]


@frozen
class Channel:
    """What the TLS connection itself can prove."""

    bindings: Mapping[str, bytes] = MappingProxyType({})  # type (RFC 5929, RFC 9266) -> data
    certificate: ClientCertificate | None = None  # verified by TLS; None where the client showed none


NO_CHANNEL = Channel()


@frozen
class Context:
    """What an exchange may know of the server."""

    realms: tuple[str, ...]  # the realms that offer the mechanism, the default first; at least one
    hostnames: frozenset[str]  # lower case, without a trailing dot: what a client may have dialled (A3)
    nonce: str  # fresh and unguessable, for this exchange alone; printable ASCII without a comma
    channel: Channel = NO_CHANNEL
    mechanisms: tuple[str, ...] = ()  # those that this connection was shown: for SCRAM, to see a downgrade


@frozen
class Mechanism:
    """One mechanism as the registry lists it."""

    name: str  # as in AUTH, upper case
    in_clear: bool  # shown before TLS, where none is honoured (T2)
    start: Callable[[Context, bytes | None], Exchange]  # None: no initial response; b"": it was "="
    #: Can it succeed on a connection that can prove this much?
    can_succeed: Callable[[Channel], bool] = lambda _: True
