"""A DIGEST-MD5 client of its own (RFC 2831 2.1.2, 2.1.3), to hold against the server's computation.

It shares no code with ``digipoort_msa.sasl``: it reads challenges and its own responses with one
pattern, and hashes them by the letter of the RFC.
"""

import hashlib
import re

_DIRECTIVE = re.compile(rb'([a-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))', re.DOTALL)


def respond(
    challenge: bytes,
    username: str,
    password: str,
    digest_uri: str,
    realm: str | None = None,
    cnonce: str = "b2JzZXJ2ZSB0aGUgY25vbmNl",
    *,
    authzid: str | None = None,
    utf8_hash: bool = False,
) -> bytes:
    """The digest-response to ``challenge``.

    :param realm: None takes the first realm that the server offers.
    :param utf8_hash: hash in UTF-8 throughout, as clients do that do not know the ISO-8859-1 rule.
    """
    offered = _read(challenge)
    assert b"auth" in offered[b"qop"][0].split(b",")
    realm_octets = offered[b"realm"][0] if realm is None else realm.encode()
    nonce = offered[b"nonce"][0]
    fields = [
        (b"username", _quote(username.encode())),
        (b"realm", _quote(realm_octets)),
        (b"nonce", _quote(nonce)),
        (b"cnonce", _quote(cnonce.encode())),
        (b"nc", b"00000001"),
        (b"qop", b"auth"),
        (b"digest-uri", _quote(digest_uri.encode())),
        (b"charset", b"utf-8"),
    ]
    if authzid is not None:
        fields.append((b"authzid", _quote(authzid.encode())))
    secret = hashlib.md5(
        b":".join((_encode(username, utf8_hash), realm_octets, _encode(password, utf8_hash)))
    ).digest()
    a1 = secret + b":" + nonce + b":" + cnonce.encode()
    if authzid is not None:
        a1 += b":" + authzid.encode()
    value = _value(a1, nonce, cnonce.encode(), b"AUTHENTICATE:" + digest_uri.encode())
    fields.append((b"response", value))
    return b",".join(name + b"=" + text for name, text in fields)


def check_rspauth(rspauth: bytes, response: bytes, password: str, *, utf8_hash: bool = False) -> bool:
    """Does the server's ``rspauth=...`` answer ``response``, which :func:`respond` made of ``password``?"""
    sent = {name: values[0] for name, values in _read(response).items()}
    username = sent[b"username"].decode()
    secret = hashlib.md5(
        b":".join((_encode(username, utf8_hash), sent[b"realm"], _encode(password, utf8_hash)))
    ).digest()
    a1 = secret + b":" + sent[b"nonce"] + b":" + sent[b"cnonce"]
    if b"authzid" in sent:
        a1 += b":" + sent[b"authzid"]
    return rspauth == b"rspauth=" + _value(a1, sent[b"nonce"], sent[b"cnonce"], b":" + sent[b"digest-uri"])


def _value(a1: bytes, nonce: bytes, cnonce: bytes, a2: bytes) -> bytes:
    text = f"{_md5(a1)}:{nonce.decode()}:00000001:{cnonce.decode()}:auth:{_md5(a2)}"
    return _md5(text.encode()).encode()


def _md5(octets: bytes) -> str:
    return hashlib.md5(octets).hexdigest()


def _encode(text: str, utf8_hash: bool) -> bytes:
    fits = all(ord(character) < 256 for character in text)
    return text.encode("latin-1" if fits and not utf8_hash else "utf-8")


def _quote(octets: bytes) -> bytes:
    return b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _read(octets: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, quoted_text, token in _DIRECTIVE.findall(octets):
        found.setdefault(name, []).append(re.sub(rb"\\(.)", rb"\1", quoted_text) or token)
    return found
