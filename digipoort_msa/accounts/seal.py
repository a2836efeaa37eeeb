"""DIGEST-MD5's secrets at rest.

H(user:realm:password) is as good as the password to anyone who holds it (RFC 6331), and unlike the password's
hash it is not slow.  So it is encrypted with a key that is not in the database: a copy of the database
alone, a backup or a leaked table, opens no account.  The account's realm and name are bound to it, so that a
row's secrets fit no other row.

Several servers on one database share the key file.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from digipoort_msa.accounts.framing import framed

SECRET = 16  # octets: an MD5 digest
_NONCE = 12
_KEY = 32


class Seal:
    """AES-256-GCM over the secrets of one account at a time."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY:
            raise ValueError(f"the key is {len(key)} octets, not {_KEY}")
        self._cipher = AESGCM(key)

    @classmethod
    def from_file(cls, path: Path) -> "Seal":
        """Read the key, or make one where there is no file yet.

        :raise OSError: the file cannot be read or made.
        :raise ValueError: the file is not a key.
        """
        create_private(path, os.urandom(_KEY))
        try:
            return cls(path.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{path}: {error}; put back the file that the accounts were made with"
            ) from error

    def close(self, secrets: tuple[bytes, ...], realm: str, name: str) -> bytes:
        """Encrypt; no secrets give no octets."""
        if not secrets:
            return b""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, b"".join(secrets), framed(realm, name))

    def open(self, octets: bytes, realm: str, name: str) -> tuple[bytes, ...]:
        """The inverse of :meth:`close`.

        :raise ValueError: sealed with another key, for another account, or damaged.
        """
        if not octets:
            return ()
        try:
            joined = self._cipher.decrypt(octets[:_NONCE], octets[_NONCE:], framed(realm, name))
        except InvalidTag as error:
            raise ValueError("the DIGEST-MD5 secrets do not open with this key") from error
        return tuple(joined[at : at + SECRET] for at in range(0, len(joined), SECRET))


def create_private(path: Path, octets: bytes = b"") -> None:
    """Make a file that only the service's user can read; leave one that exists as it is.

    An operator may run a command as root before the service ever started: what is made then belongs to
    the owner of the directory, who is the one to use it.  The content is complete before the name is there.
    """
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
            if os.geteuid() == 0:
                directory = path.parent.stat()
                os.fchown(file.fileno(), directory.st_uid, directory.st_gid)
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # someone else was first
    finally:
        os.unlink(draft)
