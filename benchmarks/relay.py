"""How much CPU the relay spends on a message: into Postfix's smtp-sink, over reused plain connections.

    python -m benchmarks.relay [--messages 20000] [--size 4096] [--connections 10]

A content is made up as it is read, so that the memory shown is the relay's own.
"""

import argparse
import os
import resource
import socket
import subprocess
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from zope.interface import implementer

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from digipoort_msa.interfaces import IContent, IContentReader
from digipoort_msa.smtp.envelope import Envelope, Path

SEGMENT = (b"x" * 70 + b"\r\n") * 3640  # 256 KiB at most
ENVELOPE = Envelope("Q", "r", "a", "s", Path("a", "example.nl"), (Path("b", "example.nl"),), 0.0)


@implementer(IContent)
class Content:
    eight_bit = False

    def __init__(self, size: int) -> None:
        self.size = size

    def open(self) -> "Reader":
        return Reader(self.size)


@implementer(IContentReader)
class Reader:
    def __init__(self, size: int) -> None:
        self._left = size

    def read(self) -> "Deferred[bytes]":
        segment = SEGMENT[: self._left]
        self._left -= len(segment)
        return succeed(segment if self._left or segment.endswith(b"\r\n") else segment[:-2] + b"\r\n")

    def close(self) -> None:
        pass


async def deliver(port: int, messages: int, size: int, connections: int) -> None:
    hop = Hop("127.0.0.1", port)
    relay = Relay(
        reactor,
        [hop],
        "benchmark.example",
        ClientTLS("none"),
        connections=connections,
        messages_per_connection=messages,
    )
    content = Content(size)
    waiting = iter(range(messages))

    async def work() -> None:
        for _ in waiting:
            for outcome in (await relay.deliver(ENVELOPE, content)).values():
                assert outcome.reply.code == 250, outcome

    await relay.deliver(ENVELOPE, content)
    cpu, wall = time.process_time(), time.monotonic()
    for worker in [Deferred.fromCoroutine(work()) for _ in range(connections)]:
        await worker
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{messages / cpu:,.0f} messages and {messages * size / cpu / 1e6:,.0f} MB a second of CPU")
    print(f"{messages / wall:,.0f} messages a second; {peak:.0f} MiB at most")
    await relay.stop()


async def main(arguments: argparse.Namespace) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    sink = subprocess.Popen(["/usr/sbin/smtp-sink", *user, f"127.0.0.1:{port}", "1000"])  # noqa: ASYNC220 - before any work
    try:
        await deferLater(reactor, 0.5)
        await deliver(port, arguments.messages, arguments.size, arguments.connections)
    finally:
        sink.terminate()
        reactor.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=4_096)
    parser.add_argument("--connections", type=int, default=10)
    arguments = parser.parse_args()
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main(arguments)))
    reactor.run()
