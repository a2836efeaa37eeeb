"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677)::

    C: n,,n=user,r=rOprNGfwEbeRWgbNEkqO
    S: r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096
    C: c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,
       p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=
    S: v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=
    C: (empty)

The client begins with a gs2-header: ``n,,`` is a client that knows no channel binding, ``y,,`` one that does
but was shown no -PLUS, ``p=type,,`` one that binds its proof to the channel.  It comes again in ``c=``, under
the proof, followed by the channel's own data.  So whoever stands between the two and ends TLS on both sides
can neither pass a bound proof on, nor take -PLUS off the list unseen (RFC 5802 6).

``scramp``, which the delivery side logs in with, is not used here: its server refuses ``tls-exporter``, the
one type there is for TLS 1.3, and every authzid, and it judges a proof by the keys of a moment before.  What
remains without its parser is the six lines of :meth:`ScramCredential.verify`.  The tests hold both against
each other.
"""

import re
from base64 import b64decode, b64encode
from functools import partial
from hmac import compare_digest

from digipoort_msa.sasl.credentials import ScramCredential
from digipoort_msa.sasl.identity import prepared
from digipoort_msa.sasl.mechanism import (
    Challenge,
    Context,
    Denied,
    Exchange,
    Lookup,
    Malformed,
    Mechanism,
    Verify,
)
from digipoort_msa.sasl.scram_keys import ScramKeys

__all__ = ["MAXIMUM_OCTETS", "SCRAM_SHA_256", "SCRAM_SHA_256_PLUS", "exchange"]

MAXIMUM_OCTETS = 4096  # of a client-first-message; client-final may be longer by the base64 of its gs2-header

# RFC 5802 7.  UTF-8 is decoded before; an attribute that is defined there is no extension.
_SASLNAME = "(?:[^\0,=]|=2C|=3D)+"
_NONCE = "[!-+\\--~]{1,1024}"
_BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?"
_EXTENSIONS = "(?:,[A-Zbdf-hj-loqtuw-z]=[^\0,]+)*"
_CLIENT_FIRST = re.compile(
    f"(?P<gs2_header>(?P<flag>[ny]|p=(?P<type>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>{_SASLNAME}))?,)"
    f"(?P<bare>(?P<mandatory>m=[^\0,]+,)?n=(?P<username>{_SASLNAME}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
_CLIENT_FINAL = re.compile(
    f"(?P<without_proof>c=(?P<binding>{_BASE64}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
    ",p=(?P<proof>[A-Za-z0-9+/]{43}=)"
)


def exchange(plus: bool, context: Context, initial_response: bytes | None) -> Exchange:
    """One authentication.

    :param plus: the mechanism is the one with channel binding.
    """
    message = (yield Challenge(b"")) if initial_response is None else initial_response
    first = _match(_CLIENT_FIRST, message, MAXIMUM_OCTETS, "client-first-message")
    if first["mandatory"]:
        raise Denied(f"the client insists on the extension {_shown(first['mandatory'][:-1])}, unknown here")
    username = _name(first["username"], "username")
    if first["authzid"] and _name(first["authzid"], "authzid") != username:
        raise Denied("the authzid is not the username, and acting for another user is not allowed")
    binding = first["gs2_header"].encode() + _channel_data(plus, first["flag"], first["type"], context)

    keys: ScramKeys = yield Lookup(username)
    nonce = first["nonce"] + context.nonce
    server_first = f"r={nonce},s={_base64(keys.salt)},i={keys.iterations}"
    message = yield Challenge(server_first.encode())

    final = _match(_CLIENT_FINAL, message, 3 * MAXIMUM_OCTETS, "client-final-message")
    if not compare_digest(final["nonce"], nonce):
        raise Denied("the nonce is not the one of this exchange")
    if not compare_digest(final["binding"], _base64(binding)):
        raise Denied(
            "the channel binding is another: somebody stands between the client and us, or the client errs"
        )
    auth_message = f"{first['bare']},{server_first},{final['without_proof']}"
    credential = ScramCredential(username, auth_message.encode(), b64decode(final["proof"]))
    yield Verify(credential)
    if credential.server_signature is None:
        raise Denied("accepted, though no keys were verified: the account store is at fault")
    answer = yield Challenge(b"v=" + b64encode(credential.server_signature))
    if answer:
        raise Malformed("the answer to the server-final-message has to be empty")


def _match(message: re.Pattern[str], octets: bytes, maximum: int, what: str) -> re.Match[str]:
    if len(octets) > maximum:
        raise Malformed(f"a {what} of {len(octets)} octets; {maximum} are allowed")
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise Malformed(f"the {what} is not in UTF-8") from None
    match = message.fullmatch(text)
    if match is None:
        raise Malformed(f"the octets are no {what} (RFC 5802 7)")
    return match


def _name(saslname: str, what: str) -> str:
    return prepared(saslname.replace("=2C", ",").replace("=3D", "=").encode(), what)


def _channel_data(plus: bool, flag: str, kind: str | None, context: Context) -> bytes:
    """What ``c=`` has to hold behind the gs2-header (RFC 5802 6)."""
    if not plus:
        if kind is not None:
            raise Denied("the client binds the channel, which is for the -PLUS mechanism alone")
        if flag == "y" and SCRAM_SHA_256_PLUS.name in context.mechanisms:
            raise Denied("the client was shown no -PLUS, though we offer it: somebody changed the list")
        return b""
    if kind is None:
        raise Denied("a -PLUS mechanism without channel binding")
    data = context.channel.bindings.get(kind)
    if not data:
        ours = ", ".join(context.channel.bindings) or "none"
        raise Denied(f"this connection has no channel binding {_shown(kind)}; it has: {ours}")
    return data


def _base64(octets: bytes) -> str:
    return b64encode(octets).decode("ascii")


def _shown(text: str) -> str:
    """A client's value for the log, in printable ASCII and never long."""
    return ascii(text[:100])


SCRAM_SHA_256 = Mechanism("SCRAM-SHA-256", in_clear=False, start=partial(exchange, False))
SCRAM_SHA_256_PLUS = Mechanism(
    "SCRAM-SHA-256-PLUS",
    in_clear=False,
    start=partial(exchange, True),
    can_succeed=lambda channel: bool(channel.bindings),
)
