"""A SCRAM-SHA-256 client of its own (RFC 5802 3 and 5), to hold against the server's computation.

It shares no code with ``digipoort_msa.sasl``, and does what ``scramp``'s client does not: ``tls-exporter``,
an authzid, extensions, and whatever lies a test wants told.
"""

import base64
import hashlib
import hmac


class ScramClient:
    """One login, message by message."""

    def __init__(
        self,
        username: str,
        password: str,
        *,
        flag: str = "n",
        channel_data: bytes = b"",
        authzid: str | None = None,
        nonce: str = "rOprNGfwEbeRWgbNEkqO",
        extension: str = "",
    ) -> None:
        """
        :param flag: the gs2-cbind-flag: ``n``, ``y`` or ``p=type``.
        :param channel_data: with the last of them, the channel's.
        :param extension: such as ``,x=1``, at the end of both messages.
        """
        self._password = password
        self._nonce = nonce
        self._extension = extension
        self._gs2_header = f"{flag},{'' if authzid is None else 'a=' + _saslname(authzid)},"
        self._channel_data = channel_data
        self._bare = f"n={_saslname(username)},r={nonce}{extension}"
        self._server_signature = b""

    def first(self) -> bytes:
        return (self._gs2_header + self._bare).encode()

    def final(self, server_first: bytes) -> bytes:
        nonce, salt, iterations = (part[2:] for part in server_first.decode().split(","))
        assert nonce.startswith(self._nonce)
        assert len(nonce) > len(self._nonce)
        salted = hashlib.pbkdf2_hmac(
            "sha256", self._password.encode(), base64.b64decode(salt, validate=True), int(iterations)
        )
        client_key = _hmac(salted, b"Client Key")
        binding = base64.b64encode(self._gs2_header.encode() + self._channel_data).decode()
        without_proof = f"c={binding},r={nonce}{self._extension}"
        message = f"{self._bare},{server_first.decode()},{without_proof}".encode()
        signature = _hmac(hashlib.sha256(client_key).digest(), message)
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), message)
        proof = (int.from_bytes(client_key) ^ int.from_bytes(signature)).to_bytes(32)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def knows(self, server_final: bytes) -> bool:
        """Has the server proved that it knows the keys?"""
        return server_final == b"v=" + base64.b64encode(self._server_signature)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _saslname(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")
