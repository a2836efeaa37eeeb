"""An SMTP client that sends what the test says, when it says so: over a blocking socket, under TLS."""

import base64
import socket
from types import TracebackType
from typing import Self

from tests.installed import ACCOUNT, PASSWORD, Server
from tests.mail_clients import tls_context


class ConnectionLost(Exception):
    """The server is gone."""


class Unexpected(Exception):
    """A reply that the test did not expect; its text is the reply."""


class RawClient:
    """One connection, with TLS up and, unless told otherwise, logged in.

    :raise ConnectionLost: by any method.
    """

    def __init__(
        self, server: Server, *, implicit: bool = True, log_in: bool = True, seconds: float = 60
    ) -> None:
        try:
            address = ("127.0.0.1", server.ports["implicit" if implicit else "starttls"])
            self.socket = socket.create_connection(address, seconds)
            if not implicit:
                self._open()
                self.command(b"EHLO client.example", 250)
                self.command(b"STARTTLS", 220)
            self.socket = tls_context(server).wrap_socket(self.socket, server_hostname="localhost")
        except OSError as error:
            raise ConnectionLost from error
        if implicit:
            self._open()
        else:
            self._replies = self.socket.makefile("rb")
        if log_in:
            self.log_in()

    def _open(self) -> None:
        self._replies = self.socket.makefile("rb")
        self.expect(220)

    def log_in(self) -> None:
        plain = base64.b64encode(f"\0{ACCOUNT}\0{PASSWORD}".encode())
        self.command(b"EHLO client.example", 250)
        self.command(b"AUTH PLAIN " + plain, 235)

    def send(self, octets: bytes | memoryview) -> None:
        try:
            self.socket.sendall(octets)
        except OSError as error:
            raise ConnectionLost from error

    def command(self, line: bytes, *codes: int) -> bytes:
        self.send(line + b"\r\n")
        return self.expect(*codes)

    def expect(self, *codes: int) -> bytes:
        """The next reply's last line, which has one of these codes.

        :raise Unexpected: it has another.
        """
        try:
            while (line := self._replies.readline())[3:4] == b"-":
                pass
        except (OSError, ValueError) as error:
            raise ConnectionLost from error
        if not line.endswith(b"\r\n"):
            raise ConnectionLost
        if int(line[:3]) not in codes:
            raise Unexpected(line.decode())
        return line

    def close(self) -> None:
        self._replies.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
