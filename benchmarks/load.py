"""The load: a client that costs as little as Python lets it, in a process of its own.

Plain blocking sockets in threads, octets made beforehand, no certificate checked: what is left is mostly
OpenSSL's own work.  The result is one JSON object on stdout; its times are of the system's monotonic clock,
so that the runner can compare them with its own.

    python -m benchmarks.load sessions --port 5587 --connections 10 --messages 1000
    python -m benchmarks.load stream   --port 5587 --connections 10 --messages 5000
    python -m benchmarks.load paced    --port 5587 --connections 10 --messages 1000 --rate 100
    python -m benchmarks.load idle     --port 5587 --connections 1000
"""

import argparse
import itertools
import json
import socket
import ssl
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import md5

ACCOUNT, PASSWORD = "business", "correct-horse-battery"
SENDER, RECIPIENT = b"administration@business.example", b"receiver@overheid.example"
_SECONDS = 120.0  # that a server may take for one reply

_EHLO = b"EHLO client.business.example\r\n"
_PLAIN = b"AUTH PLAIN " + b64encode(f"\0{ACCOUNT}\0{PASSWORD}".encode()) + b"\r\n"
_ENVELOPE = b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (SENDER, RECIPIENT)
_QUIT = b"QUIT\r\n"


def message(octets: int) -> bytes:
    """A message of this size, end of data included in what is returned but not in the size."""
    head = b"From: <%b>\r\nTo: <%b>\r\nSubject: load\r\n\r\n" % (SENDER, RECIPIENT)
    line = b"The quick brown fox jumps over the lazy dog, and nobody had to ask it twice.\r\n"
    lines, rest = divmod(octets - len(head), len(line))
    last = b"." * (rest - 2) + b"\r\n" if rest >= 2 else b""
    return head + line * lines + last.replace(b".", b"-") + b".\r\n"


class Client:
    """One connection."""

    def __init__(self, port: int, context: ssl.SSLContext, source: str = "127.0.0.1") -> None:
        self._context = context
        self._socket = socket.create_connection(
            ("127.0.0.1", port), timeout=_SECONDS, source_address=(source, 0)
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def reply(self, code: bytes) -> bytes:
        """The next reply, which has to have this code."""
        while True:
            lines = self._unread.split(b"\r\n")
            for number, line in enumerate(lines[:-1]):
                if line[3:4] == b" ":
                    if line[:3] != code:
                        raise RuntimeError(f"{code!r} was expected, {line!r} came")
                    self._unread = b"\r\n".join(lines[number + 1 :])
                    return line
            received = self._socket.recv(65536)
            if not received:
                raise RuntimeError(f"{code!r} was expected, the connection was closed")
            self._unread += received

    def secure(self) -> None:
        self._socket = self._context.wrap_socket(self._socket)

    def starttls(self) -> None:
        self.reply(b"220")
        self.send(_EHLO)
        self.reply(b"250")
        self.send(b"STARTTLS\r\n")
        self.reply(b"220")
        self.secure()
        self.send(_EHLO)
        self.reply(b"250")

    def authenticate(self, mechanism: str) -> None:
        if mechanism == "PLAIN":
            self.send(_PLAIN)
        else:
            self.send(b"AUTH DIGEST-MD5\r\n")
            challenge = self.reply(b"334")[4:]
            self.send(b64encode(digest_response(b64decode(challenge))) + b"\r\n")
            self.reply(b"334")
            self.send(b"\r\n")
        self.reply(b"235")

    def close(self) -> None:
        self._socket.close()


def digest_response(challenge: bytes) -> bytes:
    """The answer of RFC 2831 2.1.2 to a challenge with qop=auth and one realm."""
    directives = dict(part.partition("=")[::2] for part in challenge.decode().split(","))
    nonce, realm = directives["nonce"].strip('"'), directives["realm"].strip('"')
    uri, cnonce = "smtp/localhost", "0a4f113b"
    secret = md5(f"{ACCOUNT}:{realm}:{PASSWORD}".encode()).digest()
    a1 = md5(secret + f":{nonce}:{cnonce}".encode()).hexdigest()
    a2 = md5(f"AUTHENTICATE:{uri}".encode()).hexdigest()
    response = md5(f"{a1}:{nonce}:00000001:{cnonce}:auth:{a2}".encode()).hexdigest()
    return (
        f'charset=utf-8,username="{ACCOUNT}",realm="{realm}",nonce="{nonce}",nc=00000001,cnonce="{cnonce}",'
        f'digest-uri="{uri}",response={response},qop=auth'
    ).encode()


def full_session(options: argparse.Namespace, context: ssl.SSLContext, content: bytes) -> None:
    """Connect, STARTTLS, AUTH, one message, QUIT."""
    client = Client(options.port, context)
    client.starttls()
    client.authenticate(options.mechanism)
    client.send(_ENVELOPE)
    client.reply(b"250")
    client.reply(b"250")
    client.reply(b"354")
    client.send(content + _QUIT)
    client.reply(b"250")
    client.reply(b"221")
    client.close()


def sessions(options: argparse.Namespace, context: ssl.SSLContext) -> None:
    """Full sessions, one after the other on each thread."""
    content = message(options.size)
    turns = itertools.count()

    def work() -> None:
        while next(turns) < options.messages:
            full_session(options, context, content)

    in_threads(options.connections, work)


def stream(options: argparse.Namespace, context: ssl.SSLContext) -> None:
    """Many messages on each connection; the next envelope goes out with the end of the message before it."""
    content = message(options.size)
    turns = itertools.count()

    def work() -> None:
        client = Client(options.port, context)
        client.starttls()
        client.authenticate(options.mechanism)
        if next(turns) < options.messages:
            client.send(_ENVELOPE)
            more = True
            while more:
                client.reply(b"250")
                client.reply(b"250")
                client.reply(b"354")
                more = next(turns) < options.messages
                client.send(content + (_ENVELOPE if more else _QUIT))
                client.reply(b"250")
            client.reply(b"221")
        client.close()

    in_threads(options.connections, work)


def paced(options: argparse.Namespace, context: ssl.SSLContext) -> dict[str, float]:
    """Messages on kept connections, at a steady rate or as fast as the server takes them.

    :return: when each one's 250 came, by its Subject.
    """
    content = message(options.size)
    turns = itertools.count()
    acknowledged: dict[str, float] = {}
    began = time.monotonic()

    def work() -> None:
        client = Client(options.port, context)
        client.starttls()
        client.authenticate(options.mechanism)
        while (number := next(turns)) < options.messages:
            if options.rate:
                time.sleep(max(0.0, began + number / options.rate - time.monotonic()))
            token = f"{options.mark}{number}"
            client.send(_ENVELOPE)
            client.reply(b"250")
            client.reply(b"250")
            client.reply(b"354")
            client.send(content.replace(b"Subject: load", b"Subject: " + token.encode(), 1))
            client.reply(b"250")
            acknowledged[token] = time.monotonic()
        client.send(_QUIT)
        client.reply(b"221")
        client.close()

    in_threads(options.connections, work)
    return acknowledged


def idle(options: argparse.Namespace, context: ssl.SSLContext) -> None:
    """Open connections, say that they are there, and keep them until stdin ends."""
    clients: list[Client] = []
    turns = itertools.count()

    def work() -> None:
        while next(turns) < options.connections:
            client = Client(options.port, context)
            if options.implicit:  # the bare TLS server, which says 250 to everything
                client.secure()
                client.reply(b"220")
                client.send(_EHLO)
                client.reply(b"250")
            else:
                client.starttls()
                client.authenticate(options.mechanism)
            clients.append(client)

    in_threads(4, work)
    print("open", flush=True)
    sys.stdin.read()
    for client in clients:
        client.close()


def client_context() -> ssl.SSLContext:
    """TLS that checks no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run ``work`` in each of so many threads; the first error is raised here."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["sessions", "stream", "paced", "idle"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--mechanism", choices=["PLAIN", "DIGEST-MD5"], default="PLAIN")
    parser.add_argument("--implicit", action="store_true")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second; 0: as fast as can be")
    parser.add_argument("--mark", default="", help="what each Subject begins with")
    options = parser.parse_args()
    context = client_context()
    threading.stack_size(256 * 1024)
    began, began_cpu = time.monotonic(), time.process_time()
    works: dict[str, Callable[[argparse.Namespace, ssl.SSLContext], dict[str, float] | None]] = {
        "sessions": sessions,
        "stream": stream,
        "paced": paced,
        "idle": idle,
    }
    acknowledged = works[options.work](options, context)
    ended, ended_cpu = time.monotonic(), time.process_time()
    result = {"began": began, "ended": ended, "cpu": ended_cpu - began_cpu, "acknowledged": acknowledged}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
