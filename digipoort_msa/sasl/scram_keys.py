"""What a server keeps of a password for SCRAM (RFC 5802 3), and how it is made.

Whoever holds the keys cannot log in with them, but can guess at the password and can pass for the server.
"""

import hmac
from hashlib import pbkdf2_hmac, sha256

from attrs import field, frozen


@frozen
class ScramKeys:
    """The keys of SCRAM-SHA-256 (RFC 7677) for one password."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)  # 32 octets: H(ClientKey)
    server_key: bytes = field(repr=False)  # 32 octets

    @classmethod
    def of(cls, password: str, salt: bytes, iterations: int) -> "ScramKeys":
        """Derive them; slow on purpose, so not for the reactor's thread.

        :param password: prepared with SASLprep.
        """
        salted = pbkdf2_hmac("sha256", password.encode(), salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        return cls(
            salt, iterations, sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")
        )
