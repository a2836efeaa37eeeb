"""DIGEST-MD5, the server's side (RFC 2831, historic since RFC 6331; A3 and A4)::

    S: realm="...",nonce="...",qop="auth",charset=utf-8,algorithm=md5-sess
    C: username="...",realm="...",nonce="...",cnonce="...",nc=00000001,qop=auth,
       digest-uri="smtp/host",response=...,charset=utf-8
    S: rspauth=...
    C: (empty)

Every directive is checked before the accounts are asked.  What RFC 6331 holds against the mechanism is
met thus: the nonce belongs to this one exchange, so there is no replay and no subsequent
authentication (2.2); qop is ``auth`` alone, since TLS does the rest; the digest-uri must name a host
that is ours, so a response given to another server is of no use here.

Values are taken as tokens or between quotation marks, whichever the client chose: clients have long
quoted ``qop`` and ``nc``, and left ``realm`` bare.
"""

import re
from functools import partial
from hmac import compare_digest

from digipoort_msa.sasl.credentials import DigestCredential
from digipoort_msa.sasl.digest_hash import Digest, digest_secrets
from digipoort_msa.sasl.directives import parse, quoted
from digipoort_msa.sasl.identity import prepared
from digipoort_msa.sasl.mechanism import Challenge, Context, Denied, Exchange, Malformed, Mechanism, Verify

__all__ = ["DIGEST_MD5", "MAXIMUM_OCTETS", "digest_secrets", "exchange"]

MAXIMUM_OCTETS = 4096  # of a digest-response (RFC 2831 2.1.2)

_REQUIRED = ("username", "realm", "nonce", "cnonce", "nc", "digest-uri", "response")
_KNOWN = frozenset((*_REQUIRED, "qop", "maxbuf", "charset", "cipher", "authzid", "algorithm"))
_NC = re.compile(rb"[0-9a-f]{8}")
_RESPONSE = re.compile(rb"[0-9a-f]{32}")
_MAXBUF = re.compile(rb"[0-9]+")


def exchange(service: bytes, context: Context, initial_response: bytes | None) -> Exchange:
    """One initial authentication (RFC 2831 2.1).

    :param service: the serv-type that digest-uri must have, in lower case.
    """
    if initial_response is not None:
        raise Malformed("an initial response: DIGEST-MD5 begins with the server's challenge")
    answer = yield Challenge(_challenge(context))
    credential = _credential(answer, service, context)
    yield Verify(credential)
    if credential.rspauth is None:
        raise Denied("accepted, though no secret was verified: the account store is at fault")
    answer = yield Challenge(b"rspauth=" + credential.rspauth)
    if answer:
        raise Malformed("the answer to rspauth has to be empty")


def _challenge(context: Context) -> bytes:
    realms = (b"realm=" + quoted(realm) for realm in context.realms)
    nonce = b"nonce=" + quoted(context.nonce)
    return b",".join((*realms, nonce, b'qop="auth"', b"charset=utf-8", b"algorithm=md5-sess"))


def _credential(answer: bytes, service: bytes, context: Context) -> DigestCredential:
    """Step two (RFC 2831 2.1.2): check everything but the secret."""
    directives = _directives(answer)
    encoding = _encoding(directives)

    if not _NC.fullmatch(directives["nc"]):
        raise Malformed("nc has to be eight lower-case hexadecimal digits")
    if not _RESPONSE.fullmatch(directives["response"]):
        raise Malformed("response has to be 32 lower-case hexadecimal digits")
    if not directives["cnonce"]:
        raise Malformed("cnonce is empty")
    username = prepared(directives["username"], "username", encoding)

    if not compare_digest(directives["nonce"], context.nonce.encode()):
        raise Denied("nonce is not the one of this exchange")
    if directives["nc"] != b"00000001":
        raise Denied(f"nc is {_shown(directives['nc'])}; a nonce is good for one response")
    _check_protection(directives)
    _check_digest_uri(directives["digest-uri"], service, context.hostnames)
    realm = _realm(directives["realm"], encoding, context.realms)
    if directives.get("authzid") and prepared(directives["authzid"], "authzid") != username:
        raise Denied("authzid is not the username, and acting for another user is not allowed")

    digest = Digest(
        nonce=directives["nonce"],
        cnonce=directives["cnonce"],
        nc=directives["nc"],
        qop=directives.get("qop", b"auth"),  # as it was sent: that is what the client hashed
        digest_uri=directives["digest-uri"],
        authzid=directives.get("authzid"),
    )
    return DigestCredential(username, realm, digest, directives["response"])


def _directives(answer: bytes) -> dict[str, bytes]:
    """The directives that mean something here, each at most once; auth-param is passed over."""
    if len(answer) > MAXIMUM_OCTETS:
        raise Malformed(f"a digest-response of {len(answer)} octets; {MAXIMUM_OCTETS} are allowed")
    try:
        pairs = [pair for pair in parse(answer) if pair[0] in _KNOWN]
    except ValueError as error:
        raise Malformed(f"the digest-response is not a list of directives: {error}") from None
    directives = dict(pairs)
    if len(directives) < len(pairs):
        raise Malformed("a directive stands twice in the digest-response")
    missing = [name for name in _REQUIRED if name not in directives]
    if missing:
        raise Malformed(f"the digest-response lacks {', '.join(missing)}")
    return directives


def _encoding(directives: dict[str, bytes]) -> str:
    """Of username and realm (RFC 2831 2.1.2, charset).

    Without charset they are in ISO-8859-1; but curl sends UTF-8 and does not say so.  A name in ISO-8859-1
    that is well-formed UTF-8 as well is none that anybody has.
    """
    charset = directives.get("charset")
    if charset is None:
        return "utf-8" if _is_utf_8(directives["username"]) else "iso-8859-1"
    if charset.lower() != b"utf-8":
        raise Malformed("charset can be utf-8 only")
    return "utf-8"


def _is_utf_8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_protection(directives: dict[str, bytes]) -> None:
    """The client has chosen what was offered: qop auth, no cipher, md5-sess."""
    if directives.get("qop", b"auth").lower() != b"auth":
        raise Denied(f"qop {_shown(directives['qop'])} was not offered, only auth was")
    if "cipher" in directives:
        raise Denied(f"cipher {_shown(directives['cipher'])}, and none was offered")
    if directives.get("algorithm", b"md5-sess").lower() != b"md5-sess":
        raise Denied(f"algorithm {_shown(directives['algorithm'])} was not offered, only md5-sess was")
    if "maxbuf" in directives and not _MAXBUF.fullmatch(directives["maxbuf"]):
        raise Malformed("maxbuf is not a number")  # its value matters to auth-int and auth-conf alone


def _check_digest_uri(digest_uri: bytes, service: bytes, hostnames: frozenset[str]) -> None:
    """serv-type "/" host [ "/" serv-name ]: the service is ours, and so are the names."""
    serv_type, *names = digest_uri.split(b"/")
    if len(names) not in (1, 2):
        raise Malformed('digest-uri has to be serv-type "/" host [ "/" serv-name ]')
    if serv_type.lower() != service:
        raise Denied(f"digest-uri {_shown(digest_uri)} is for another service than {service.decode()}")
    for name in names:
        if name.decode("utf-8", "backslashreplace").lower().removesuffix(".") not in hostnames:
            ours = ", ".join(sorted(hostnames))
            raise Denied(f"digest-uri {_shown(digest_uri)} names a host that is not ours; ours are: {ours}")


def _realm(octets: bytes, encoding: str, realms: tuple[str, ...]) -> str:
    try:
        realm = octets.decode(encoding)
    except UnicodeDecodeError:
        raise Malformed(f"realm is not in {encoding.upper()}") from None
    if realm not in realms:
        raise Denied(f"realm {_shown(octets)} was not offered")
    return realm


def _shown(octets: bytes) -> str:
    """A client's value for the log, in printable ASCII and never long."""
    return ascii(octets[:100].decode("utf-8", "backslashreplace"))


DIGEST_MD5 = Mechanism("DIGEST-MD5", in_clear=True, start=partial(exchange, b"smtp"))
