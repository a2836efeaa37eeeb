"""A SASL mechanism, X-TOKEN: one response, ``name SP token``; the token is verified as a password is."""

from digipoort_msa.sasl.credentials import PasswordCredential
from digipoort_msa.sasl.identity import prepared
from digipoort_msa.sasl.mechanism import Challenge, Context, Exchange, Malformed, Mechanism, Verify

MAXIMUM_OCTETS = 512


def _exchange(context: Context, initial_response: bytes | None) -> Exchange:
    response = (yield Challenge(b"")) if initial_response is None else initial_response
    if len(response) > MAXIMUM_OCTETS:
        raise Malformed(f"{len(response)} octets; {MAXIMUM_OCTETS} are allowed")
    name, space, token = response.partition(b" ")
    if not space:
        raise Malformed("no space between name and token")
    username = prepared(name, "name")
    yield Verify(PasswordCredential(username, prepared(token, "token"), username))


X_TOKEN = Mechanism("X-TOKEN", in_clear=False, start=_exchange)
