"""What a SASL mechanism is here (RFC 4422): a generator that neither reads a clock nor asks a store.

``start`` gives a fresh generator for one AUTH command, and nothing outlives it (CVE-2011-1720).  The
generator yields what it needs, and the driver answers:

- :class:`Challenge`: send these octets; resume with the client's response, base64 already removed.
- :class:`Verify`: ask the accounts; resume with ``b""`` only if the credential was accepted, else
  close the generator and answer 535.

It returns when the client is authenticated (235).  It raises :class:`Malformed` (501) or
:class:`Denied` (535), and nothing else, whatever the client sends.
"""

from collections.abc import Callable, Generator
from typing import TypeAlias

from attrs import frozen

from digipoort_msa.sasl.credentials import IDigestCredential, IPasswordCredential


class Malformed(Exception):
    """The client's octets break the mechanism's syntax: a 501.  The text is for the log alone."""


class Denied(Exception):
    """Well-formed, but it cannot succeed: a 535, as for a wrong password.  The text is for the log alone."""


@frozen
class Challenge:
    """Octets for the client; ``b""`` is the empty challenge."""

    octets: bytes


@frozen
class Verify:
    """A credential for the accounts to judge."""

    credential: IPasswordCredential | IDigestCredential


Exchange: TypeAlias = Generator[Challenge | Verify, bytes, None]


@frozen
class Context:
    """What an exchange may know of the server."""

    realms: tuple[str, ...]  # the realms that offer the mechanism, the default first; at least one
    hostnames: frozenset[str]  # lower case, without a trailing dot: what a client may have dialled (A3)
    nonce: str  # fresh and unguessable, for this exchange alone; printable ASCII


@frozen
class Mechanism:
    """One mechanism as the registry lists it."""

    name: str  # as in AUTH, upper case
    plaintext: bool  # the password itself crosses the wire: shown under TLS only (T2)
    start: Callable[[Context, bytes | None], Exchange]  # None: no initial response; b"": it was "="
