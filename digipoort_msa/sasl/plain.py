"""PLAIN (RFC 4616): ``[authzid] NUL authcid NUL passwd``, in one response.

Acting for another user is not offered: an authzid is empty, or is the authcid again.
"""

from digipoort_msa.sasl.credentials import PasswordCredential
from digipoort_msa.sasl.identity import MAXIMUM_OCTETS, prepared
from digipoort_msa.sasl.mechanism import Challenge, Context, Denied, Exchange, Malformed, Mechanism, Verify


def _exchange(context: Context, initial_response: bytes | None) -> Exchange:
    if initial_response is None:
        message = yield Challenge(b"")
    else:
        message = initial_response
    yield Verify(_credential(message))


def _credential(message: bytes) -> PasswordCredential:
    if len(message) > 3 * MAXIMUM_OCTETS + 2:
        raise Malformed(f"a PLAIN message of {len(message)} octets; {3 * MAXIMUM_OCTETS + 2} are allowed")
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise Malformed(f"a PLAIN message has two NULs, this one {len(parts) - 1}")
    authzid, authcid, passwd = parts
    username = prepared(authcid, "authcid")
    if authzid and prepared(authzid, "authzid") != username:
        raise Denied("the authzid is not the authcid, and acting for another user is not allowed")
    return PasswordCredential(username, prepared(passwd, "passwd"), username)


PLAIN = Mechanism("PLAIN", in_clear=False, start=_exchange)
