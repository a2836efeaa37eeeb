"""LDAP's messages: octets in, answers out, by libldap behind a socket pair.

libldap is told that the one end of the pair is its connection to the server.  What it writes is taken from
the other end, and what the server sent is put there, a whole message at a time; both ends are non-blocking.
There is one request at a time, and an answer to any other is passed over.

Referrals are never followed.  Were libldap to look for a server of its own, for whatever reason, it would
look where none can be.
"""

import socket
from collections.abc import Mapping
from typing import Any

import ldap
from attrs import frozen
from ldap.controls import ResponseControl
from ldap.controls.ppolicy import PasswordPolicyControl
from ldap.extop import ExtendedRequest

#: The address that libldap believes in; there can be no socket below this device.
_NOWHERE = "ldapi://%2Fdev%2Fnull%2Fnowhere"
_START_TLS = "1.3.6.1.4.1.1466.20037"
#: Of 389 Directory Server and its kin: the password has expired, and nothing but changing it is allowed.
_PASSWORD_EXPIRED = "2.16.840.1.113730.3.4.4"  # noqa: S105 (the number of a control)
_POLICY_ERRORS = {
    0: "the password has expired",
    1: "the account is locked",
    2: "the password must be changed",
}

_LONGEST_MESSAGE = 1 << 20  # octets; an entry has a few thousand
_LONGEST_ANSWER = 4 << 20  # octets of all its messages
_PIECE = 8192  # octets that libldap reads at once

SUCCESS = 0
SIZE_LIMIT_EXCEEDED = 4
REFERRAL = 10
NO_SUCH_OBJECT = 32

#: What an answer can begin with, by what it has to end with.
_PARTS = {
    ldap.RES_BIND: {ldap.RES_BIND},
    ldap.RES_EXTENDED: {ldap.RES_EXTENDED},
    ldap.RES_SEARCH_RESULT: {ldap.RES_SEARCH_ENTRY, ldap.RES_SEARCH_REFERENCE, ldap.RES_SEARCH_RESULT},
}

SCOPES = {
    "base": ldap.SCOPE_BASE,
    "one": ldap.SCOPE_ONELEVEL,
    "sub": ldap.SCOPE_SUBTREE,
}

Attributes = Mapping[str, tuple[bytes, ...]]  # by their names in lower case


class NotLDAP(Exception):
    """What came is not what LDAP allows here, or the request is not; the connection is of no more use."""


@frozen
class Entry:
    """One entry that a search found."""

    dn: str
    attributes: Attributes

    def values(self, attribute: str | None) -> tuple[bytes, ...]:
        return self.attributes.get(attribute.lower(), ()) if attribute else ()


@frozen
class Answer:
    """What the server said to a request, good or bad."""

    code: int  # RFC 4511 4.1.9; 0 is success
    text: str  # for the log
    entries: tuple[Entry, ...] = ()  # of a search; references to elsewhere are left out
    policy: str = ""  # what a password policy has against a login although the bind was a success


class Codec:
    """The messages of one connection."""

    def __init__(self) -> None:
        self._outside, inside = socket.socketpair()
        self._outside.setblocking(False)
        inside.setblocking(False)
        # Its descriptor is libldap's from here on.
        self._ldap: Any = ldap.initialize(_NOWHERE, fileno=inside.detach())
        self._ldap.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
        self._ldap.set_option(ldap.OPT_REFERRALS, 0)
        self._ldap.set_option(ldap.OPT_DEREF, ldap.DEREF_NEVER)
        self._expected: tuple[int, int] | None = None  # the request's id, and its answer's type
        self._received = bytearray()  # of a message that is not whole yet
        self._remaining = 0  # octets that the answer may still have

    # -- requests: each returns what to send -------------------------------------------------------------

    def start_tls(self) -> bytes:
        return self._ask(ldap.RES_EXTENDED, self._ldap.extop, ExtendedRequest(_START_TLS, None))

    def bind(self, dn: str, password: str) -> bytes:
        """A simple bind.

        :raise ValueError: one of the two is empty.  Servers answer such a bind with success, although nobody
            has proven to be anybody (RFC 4513 5.1.2).
        """
        if not dn or not password:
            raise ValueError("a bind without a name or without a password proves nothing")
        controls = [PasswordPolicyControl()]
        return self._ask(ldap.RES_BIND, self._ldap.simple_bind, dn, password, controls)

    def search(
        self,
        base: str,
        scope: str,
        filter_text: str,
        attributes: tuple[str, ...],
        *,
        size: int,
        seconds: float,
    ) -> bytes:
        """
        :param size: entries that the server may send.
        :param seconds: that the server may take.
        """
        limits = {"sizelimit": size, "timeout": max(1, round(seconds))}
        names = list(attributes) or ["1.1"]  # no attributes (RFC 4511 4.5.1.8)
        search = self._ldap.search_ext
        return self._ask(
            ldap.RES_SEARCH_RESULT, search, base, SCOPES[scope], filter_text, names, 0, None, None, **limits
        )

    def _ask(self, expected: int, send: Any, *arguments: Any, **named: Any) -> bytes:
        try:
            self._expected = send(*arguments, **named), expected
            self._remaining = _LONGEST_ANSWER
            return self._written()
        except ldap.LDAPError as error:
            raise NotLDAP(_described(error)) from None
        except OSError as error:
            raise NotLDAP(str(error)) from error

    def _written(self) -> bytes:
        octets = self._outside.recv(_LONGEST_MESSAGE)
        if _message_size(bytearray(octets)) != len(octets):
            raise NotLDAP("the request is too long")  # to fit between the sockets
        return octets

    # -- answers -----------------------------------------------------------------------------------------

    def receive(self, octets: bytes) -> Answer | None:
        """Take what the server sent.

        :return: the answer, once it is complete.
        :raise NotLDAP: see there.
        """
        self._received += octets
        while (size := _message_size(self._received)) is not None and size <= len(self._received):
            message = bytes(self._received[:size])
            del self._received[:size]
            if self._expected is None:
                raise NotLDAP("it speaks without being asked")
            self._remaining -= size
            if self._remaining < 0:
                raise NotLDAP("it sends more than was asked for")
            for start in range(0, size, _PIECE):
                answer = self._feed(message[start : start + _PIECE], *self._expected)
                if answer is not None:
                    self._expected = None
                    return answer
        return None

    def _feed(self, piece: bytes, number: int, expected: int) -> Answer | None:
        """Hand a piece of a message to libldap, which reads one message at a time, and see what it has."""
        try:
            self._outside.sendall(piece)
            kind, found, _, controls, _, _ = self._ldap.result4(
                number, all=1, timeout=0, resp_ctrl_classes=_CONTROLS
            )
        except ldap.LDAPError as error:
            facts = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
            if facts.get("result", -1) <= 0 or facts.get("msgtype") not in _PARTS[expected]:
                raise NotLDAP(_described(error)) from None
            return Answer(facts["result"], _described(error))
        except Exception as error:  # what a server can send has no end
            raise NotLDAP(f"it sends what cannot be read: {error}") from error
        if kind is None:
            return None
        if kind != expected:
            raise NotLDAP("its answer is not one to what was asked")
        objections = filter(None, (control.says for control in controls))
        return Answer(SUCCESS, "success", _entries(found), "; ".join(objections))

    def close(self) -> bytes:
        """Let go of libldap.

        :return: what to send before the connection is closed.
        """
        try:
            self._ldap.unbind_ext_s()
            return self._outside.recv(_LONGEST_MESSAGE)
        except (ldap.LDAPError, OSError, AttributeError):
            return b""  # a connection that is gone needs no goodbye
        finally:
            self._outside.close()


class _Policy(ResponseControl):
    """The response of a password policy (draft-behera-ldap-password-policy-11)."""

    says = ""

    def decodeControlValue(self, encodedControlValue: bytes) -> None:
        control = PasswordPolicyControl()
        try:
            control.decodeControlValue(encodedControlValue)
        except Exception as error:  # one that is not understood must not be passed over
            raise ValueError(f"the password policy's response cannot be read: {error}") from error
        if control.error is not None:
            self.says = _POLICY_ERRORS.get(control.error, f"password policy error {control.error}")
        elif control.graceAuthNsRemaining is not None:
            self.says = _POLICY_ERRORS[0]


class _Expired(ResponseControl):
    says = _POLICY_ERRORS[0]


_CONTROLS = {PasswordPolicyControl.controlType: _Policy, _PASSWORD_EXPIRED: _Expired}


def _message_size(octets: bytearray) -> int | None:
    """Octets of the message at the front (RFC 4511 5.1); ``None`` where it takes more to tell.

    :raise NotLDAP: there is none.
    """
    if not octets:
        return None
    if octets[0] != 0x30:
        raise NotLDAP("what it sends is not LDAP")
    if len(octets) < 2:
        return None
    start, size = 2, octets[1]
    if size & 0x80:
        start += size & 0x7F
        if not 2 < start <= 6:
            raise NotLDAP("it sends a message without a sensible length")
        if len(octets) < start:
            return None
        size = int.from_bytes(octets[2:start], "big")
    if size > _LONGEST_MESSAGE:
        raise NotLDAP("it sends a message that is too long")
    return start + size


def _entries(found: Any) -> tuple[Entry, ...]:
    return tuple(
        Entry(dn, {name.lower(): tuple(values) for name, values in attributes.items()})
        for dn, attributes in found or ()
        if dn is not None  # None marks a reference (RFC 4511 4.5.3)
    )


def _described(error: Exception) -> str:
    """An error of libldap or of the server in a few words; it has nothing of a request."""
    facts = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    told = [str(facts[key]) for key in ("desc", "info") if facts.get(key)]
    return ": ".join(told) or type(error).__name__
