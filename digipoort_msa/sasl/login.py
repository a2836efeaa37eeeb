"""LOGIN (draft-murchison-sasl-login): PLAIN's forerunner, for the clients that have nothing newer.

The prompts are exactly ``Username:`` and ``Password:``, since some clients compare them (A6).  An
initial response, which the draft does not know but clients send, is the user name.
"""

from digipoort_msa.sasl.credentials import PasswordCredential
from digipoort_msa.sasl.identity import prepared
from digipoort_msa.sasl.mechanism import Challenge, Context, Exchange, Mechanism, Verify


def _exchange(context: Context, initial_response: bytes | None) -> Exchange:
    if initial_response is None:
        name = yield Challenge(b"Username:")
    else:
        name = initial_response
    username = prepared(name, "user name")
    password = yield Challenge(b"Password:")
    yield Verify(PasswordCredential(username, prepared(password, "password"), username))


LOGIN = Mechanism("LOGIN", in_clear=False, start=_exchange)
