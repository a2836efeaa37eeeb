"""Names and passwords as they arrive: bounded, decoded and prepared before anything else sees them."""

from digipoort_msa.sasl.mechanism import Denied, Malformed
from digipoort_msa.sasl.saslprep import saslprep

MAXIMUM_OCTETS = 1024  # of one name or password; RFC 4616 2 asks for 255 at least


def prepared(octets: bytes, what: str, encoding: str = "utf-8") -> str:
    """A name or a password out of a response.

    :param what: its name in the RFC, for the log.
    :raise Malformed: empty, too long, not in ``encoding``, or with a NUL.
    :raise Denied: RFC 4013 prohibits it, or nothing is left of it; no account can have it.
    """
    if not octets:
        raise Malformed(f"the {what} is empty")
    if len(octets) > MAXIMUM_OCTETS:
        raise Malformed(f"the {what} has {len(octets)} octets; {MAXIMUM_OCTETS} are allowed")
    if 0 in octets:
        raise Malformed(f"the {what} holds a NUL")
    try:
        text = octets.decode(encoding)
    except UnicodeDecodeError:
        raise Malformed(f"the {what} is not in {encoding.upper()}") from None
    try:
        identity = saslprep(text)
    except ValueError as error:
        raise Denied(f"the {what} fails SASLprep: {error}") from None
    if not identity:
        raise Denied(f"nothing is left of the {what} after SASLprep")
    return identity
