"""What is as good as a password, or half as good, encrypted at rest.

H(user:realm:password) of DIGEST-MD5 is as good as the password to anyone who holds it (RFC 6331), and
unlike the password's hash it is not slow.  SCRAM's keys let their holder pass for the server, and guess
(RFC 5802 9).  So they are encrypted with a key that is not in the database: a copy of the database alone, a
backup or a leaked table, opens no account.  What they are, the account's realm and its name are bound to
them, so that what is in one field fits no other field, of this row or another.

There may be several keys, so that one can take another's place (:mod:`.rekeying`): the first seals, all of
them open.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from digipoort_msa.accounts.framing import framed

KEY = 32  # octets
SECRET = 16  # octets of a DIGEST-MD5 secret: an MD5 digest
_NONCE = 12


class Seal:
    """AES-256-GCM over one field at a time."""

    def __init__(self, key: bytes, *former: bytes) -> None:
        """
        :param key: seals.
        :param former: only open.
        """
        for each in (key, *former):
            if len(each) != KEY:
                raise ValueError(f"the key is {len(each)} octets, not {KEY}")
        self._ciphers = tuple(AESGCM(each) for each in (key, *former))

    def close(self, octets: bytes, *bound_to: str) -> bytes:
        """Encrypt; nothing gives nothing."""
        if not octets:
            return b""
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[0].encrypt(nonce, octets, framed(*bound_to))

    def open(self, sealed: bytes, *bound_to: str) -> bytes:
        """The inverse of :meth:`close`.

        :raise ValueError: sealed with a key that is not here, for another field, or damaged.
        """
        if not sealed:
            return b""
        for cipher in self._ciphers:
            try:
                return _opened(cipher, sealed, bound_to)
            except InvalidTag:
                continue
        raise ValueError("it does not open with this key" if len(self._ciphers) == 1 else "no key opens it")

    def is_current(self, sealed: bytes, *bound_to: str) -> bool:
        """Does the key that seals open it, too?"""
        if not sealed:
            return True
        try:
            _opened(self._ciphers[0], sealed, bound_to)
        except InvalidTag:
            return False
        return True

    def refresh(self) -> bool:
        """Have the keys changed since they were last used?  These never do; a key file's do."""
        return False


def _opened(cipher: AESGCM, sealed: bytes, bound_to: tuple[str, ...]) -> bytes:
    if len(sealed) < _NONCE:
        raise InvalidTag
    return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], framed(*bound_to))
