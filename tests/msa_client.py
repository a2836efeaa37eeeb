"""The client of :mod:`tests.msa`: blocking code with sockets and OpenSSL; ``PATIENCE`` bounds each step."""

import base64
import socket
import ssl
from typing import Any

from tests.digest_client import check_rspauth, respond
from tests.msa_certificates import certificates

PATIENCE = 20  # seconds, far more than a step needs

HOSTNAME = "msa.overheidstransactiepoort.nl"
REALM = "overheidstransactiepoort.nl"
ACCOUNT, PASSWORD = "mijnbedrijf", "g€heim"
MESSAGE = b"Subject: aangifte\r\n\r\n.regel met een punt\r\n\xe9\x00\r\n"


def plain(username: str = ACCOUNT, password: str = PASSWORD) -> str:
    """PLAIN's response, in base64."""
    return b64(f"\0{username}\0{password}".encode())


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def mail() -> bytes:
    """Up to DATA."""
    return b"MAIL FROM:<ik@mijnbedrijf.nl>\r\nRCPT TO:<belastingdienst@overheid.nl>\r\nDATA\r\n"


def stuffed(message: bytes) -> bytes:
    """As it goes behind DATA, with its end."""
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def transaction(message: bytes = MESSAGE) -> bytes:
    """MAIL, RCPT, DATA and content, as one pipeline that does not wait for the 354."""
    return mail() + stuffed(message)


def client_context(**options: Any) -> ssl.SSLContext:
    """A client that trusts the test authority and wants ``localhost``."""
    context = ssl.create_default_context(cafile=str(certificates().ca))
    for name, value in options.items():
        setattr(context, name, value)
    return context


class Client:
    """A blocking client."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, *, implicit: bool = False) -> None:
        self._buffer = b""
        self.context = context or client_context()
        self.socket: socket.socket | ssl.SSLSocket
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if implicit:
            self.handshake()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def handshake(self, session: ssl.SSLSession | None = None) -> None:
        assert not self._buffer, "the server spoke in clear behind STARTTLS"
        self.socket = self.context.wrap_socket(self.socket, server_hostname="localhost", session=session)

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> str:
        """The next reply, with all its lines."""
        text = ""
        while True:
            while b"\r\n" not in self._buffer:
                more = self.socket.recv(65536)
                if not more:
                    raise EOFError(f"closed after {text!r} {self._buffer!r}")
                self._buffer += more
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            text += line.decode() + "\r\n"
            if line[3:4] == b" ":
                return text

    def ask(self, line: str) -> str:
        self.send(f"{line}\r\n".encode())
        return self.reply()

    def rest(self) -> bytes:
        """All there is until the server closes."""
        octets = self._buffer
        try:
            while more := self.socket.recv(65536):
                octets += more
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass
        return octets

    def start_tls(self) -> str:
        """STARTTLS and the handshake; returns the greeting."""
        greeting = self.reply()
        assert self.ask("STARTTLS") == "220 Ready to start TLS\r\n"
        self.handshake()
        return greeting

    def digest(self, username: str = ACCOUNT, password: str = PASSWORD, host: str = "localhost") -> list[str]:
        """AUTH DIGEST-MD5 as RFC 2831 has it; returns the replies."""
        replies = [self.ask("AUTH DIGEST-MD5")]
        response = respond(base64.b64decode(replies[0][4:]), username, password, f"smtp/{host}")
        replies.append(self.ask(b64(response)))
        if replies[1].startswith("334 "):
            assert check_rspauth(base64.b64decode(replies[1][4:]), response, password)
            replies.append(self.ask(""))
        return replies

    def login(self, username: str = ACCOUNT, password: str = PASSWORD) -> str:
        return self.ask(f"AUTH PLAIN {plain(username, password)}")

    def submit(self, message: bytes = MESSAGE) -> str:
        """One transaction, step by step; returns the last reply."""
        for line, code in {
            "MAIL FROM:<ik@mijnbedrijf.nl>": "250",
            "RCPT TO:<belastingdienst@overheid.nl>": "250",
            "DATA": "354",
        }.items():
            answer = self.ask(line)
            assert answer.startswith(code), answer
        self.send(stuffed(message))
        return self.reply()
