"""The clients of :mod:`benchmarks.authentication`, in a process of their own: see there.

    python -m benchmarks.logins logins --port 5587 --seconds 3 --connections 10 --mechanism SCRAM-SHA-256
    python -m benchmarks.logins guess  --port 5587 --seconds 8 --connections 50
    python -m benchmarks.logins probe  --port 5587 --seconds 8
    python -m benchmarks.logins submit --port 5587 --seconds 8
    python -m benchmarks.logins hashes --seconds 3 --connections 2

Each prints one JSON object: how many, how long each took in seconds, and for how long it went on.
"""

import argparse
import hmac
import json
import random
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cache, partial
from hashlib import md5, pbkdf2_hmac, sha256

from benchmarks.load import PASSWORD, RECIPIENT, SENDER, Client, client_context, in_threads, message
from digipoort_msa.accounts.passwords import PasswordHashing

#: Each mechanism has an account of its own: Dovecot keeps one verifier for an account.
ACCOUNTS = {"PLAIN": "business", "DIGEST-MD5": "digest", "SCRAM-SHA-256": "scram"}
WRONG = "correct-horse-buttery"
_PAUSE = 0.005  # seconds between two probes
_BETWEEN_SUBMISSIONS = 0.05
_NAMES = 500  # that are guessed at
_CONTEXT = client_context()
_random = random.Random()


def _encoded(octets: bytes) -> bytes:
    return b64encode(octets) + b"\r\n"


def plain(client: Client, name: str, password: str) -> None:
    client.send(b"AUTH PLAIN " + _encoded(f"\0{name}\0{password}".encode()))


def digest(client: Client, name: str, password: str) -> None:
    client.send(b"AUTH DIGEST-MD5\r\n")
    challenge = b64decode(client.reply(b"334")[4:]).decode()
    directives = dict(part.partition("=")[::2] for part in challenge.split(","))
    nonce, realm = directives["nonce"].strip('"'), directives["realm"].strip('"')
    uri, cnonce = "smtp/localhost", "0a4f113b"
    secret = md5(f"{name}:{realm}:{password}".encode()).digest()
    a1 = md5(secret + f":{nonce}:{cnonce}".encode()).hexdigest()
    a2 = md5(f"AUTHENTICATE:{uri}".encode()).hexdigest()
    response = md5(f"{a1}:{nonce}:00000001:{cnonce}:auth:{a2}".encode()).hexdigest()
    answer = (
        f'charset=utf-8,username="{name}",realm="{realm}",nonce="{nonce}",nc=00000001,cnonce="{cnonce}",'
        f'digest-uri="{uri}",response={response},qop=auth'
    )
    client.send(_encoded(answer.encode()))
    client.reply(b"334")
    client.send(b"\r\n")


@cache
def _client_key(password: str, salt: bytes, iterations: int) -> bytes:
    """Clients may keep it (RFC 5802 3); this one has to: the machine's time is the server's."""
    salted = pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return hmac.digest(salted, b"Client Key", "sha256")


def scram(client: Client, name: str, password: str) -> None:
    bare = f"n={name},r=rOprNGfwEbeRWgbNEkqO"
    client.send(b"AUTH SCRAM-SHA-256 " + _encoded(b"n,," + bare.encode()))
    server_first = b64decode(client.reply(b"334")[4:]).decode()
    nonce, salt, iterations = (part[2:] for part in server_first.split(","))
    key = _client_key(password, b64decode(salt), int(iterations))
    without_proof = f"c=biws,r={nonce}"
    signature = hmac.digest(sha256(key).digest(), f"{bare},{server_first},{without_proof}".encode(), "sha256")
    proof = (int.from_bytes(key) ^ int.from_bytes(signature)).to_bytes(32)
    client.send(_encoded(f"{without_proof},p={b64encode(proof).decode()}".encode()))
    client.reply(b"334")
    client.send(b"\r\n")


_MECHANISMS: dict[str, Callable[[Client, str, str], None]] = {
    "PLAIN": plain,
    "DIGEST-MD5": digest,
    "SCRAM-SHA-256": scram,
}


class Until:
    """Work that is done over and over until the time is up; any thread may note how long a piece took."""

    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic()
        self._end = self.began + seconds
        self.took: list[float] = []

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self._end

    def note(self, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        self.took.append(time.monotonic() - began)


def log_in(port: int, mechanism: str) -> None:
    """A connection with one login; with none where ``mechanism`` is empty."""
    client = Client(port, _CONTEXT)
    client.starttls()
    if mechanism:
        _MECHANISMS[mechanism](client, ACCOUNTS[mechanism], PASSWORD)
        client.reply(b"235")
    client.send(b"QUIT\r\n")
    client.reply(b"221")
    client.close()


def logins(options: argparse.Namespace, until: Until) -> None:
    def work() -> None:
        while until.goes_on:
            until.note(partial(log_in, options.port, options.mechanism))

    in_threads(options.connections, work)


def guess(options: argparse.Namespace, until: Until) -> None:
    """Each connection comes from an address of its own, as a botnet's do: one that guesses again and again
    from the same is soon made to wait, and burdens nobody."""

    def work() -> None:
        while until.goes_on:
            source = f"127.{_random.randint(1, 254)}.{_random.randint(1, 254)}.{_random.randint(1, 254)}"
            client = Client(options.port, _CONTEXT, source)
            client.starttls()
            name = f"guessed{_random.randrange(_NAMES)}"

            def guessed(client: Client = client, name: str = name) -> None:
                plain(client, name, WRONG)
                client.reply(b"535")

            until.note(guessed)
            client.close()

    in_threads(options.connections, work)


def probe(options: argparse.Namespace, until: Until) -> None:
    """NOOP on a connection that is logged in: what it waits for, the reactor was busy with."""
    client = Client(options.port, _CONTEXT)
    client.starttls()
    plain(client, ACCOUNTS["PLAIN"], PASSWORD)
    client.reply(b"235")

    def noop() -> None:
        client.send(b"NOOP\r\n")
        client.reply(b"250")

    noop()
    while until.goes_on:
        until.note(noop)
        time.sleep(_PAUSE)
    client.close()


def submit(options: argparse.Namespace, until: Until) -> None:
    """Whole sessions of an account in good standing, each with a message of 4 KiB."""
    content = message(4096)
    envelope = b"MAIL FROM:<%b>\r\nRCPT TO:<%b>\r\nDATA\r\n" % (SENDER, RECIPIENT)

    def session() -> None:
        client = Client(options.port, _CONTEXT)
        client.starttls()
        plain(client, ACCOUNTS["PLAIN"], PASSWORD)
        client.reply(b"235")
        client.send(envelope)
        for code in (b"250", b"250", b"354"):
            client.reply(code)
        client.send(content + b"QUIT\r\n")
        for code in (b"250", b"221"):
            client.reply(code)
        client.close()

    while until.goes_on:
        until.note(session)
        time.sleep(_BETWEEN_SUBMISSIONS)


def hashes(options: argparse.Namespace, until: Until) -> None:
    """No server at all: verifications of a password, in as many threads as the server has for them."""
    hashing = PasswordHashing()
    password_hash = hashing.hash(PASSWORD)

    def work() -> None:
        while until.goes_on:
            until.note(partial(hashing.verify, WRONG, password_hash))

    in_threads(options.connections, work)


_WORKS = {"logins": logins, "guess": guess, "probe": probe, "submit": submit, "hashes": hashes}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=_WORKS)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--mechanism", choices=["", *_MECHANISMS], default="")
    options = parser.parse_args()
    threading.stack_size(256 * 1024)
    until = Until(options.seconds)
    _WORKS[options.work](options, until)
    print(json.dumps({"took": until.took, "seconds": time.monotonic() - until.began}), flush=True)


if __name__ == "__main__":
    main()
