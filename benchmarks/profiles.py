"""``python -m benchmarks.profiles``: what a message-flow profile costs, and what the reactor feels of it.

The first figures are processor time of one thread, of a profile with a rule of each kind.  The last is how
late the reactor's clock ticks while messages of 50 MiB are read in threads, beside the same while none is.
"""

import os
import time
from base64 import encodebytes

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from digipoort_msa.identity import Identity
from digipoort_msa.policy.profile import Attachments, Pattern, Profile, ProfileRule, Types
from digipoort_msa.policy.profile.rules import Reading
from digipoort_msa.threads import Threads

MIB = 1024 * 1024
SEGMENT = 65_536  # octets at a time from the connection
PROFILE = Profile(
    name="benchmark",
    required_headers=("From", "To", "Subject", "Message-ID"),
    header_patterns={"Subject": r"^(\[[VAKS]=[A-Za-z0-9.]+\]){4}$"},
    charsets=("utf-8", "us-ascii"),
    attachments=Attachments(
        minimum=1, maximum=3, types=Types(["application/xml"]), names=Pattern(r"\.xml$"), maximum_size=2**30
    ),
)
HEAD = (
    b"From: a@bedrijf.example\r\nTo: b@core.example\r\nMessage-ID: <1@bedrijf.example>\r\n"
    b"Subject: [V=NL123456789.02.05][A=DMS.NL][K=22096222734662][S=0]\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="----=_Part_0_1234567890.1234"\r\n\r\n'
    b"------=_Part_0_1234567890.1234\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nBijgaand.\r\n"
    b"------=_Part_0_1234567890.1234\r\nContent-Type: application/xml; name=a.xml\r\n"
    b"Content-Disposition: attachment; filename=a.xml\r\nContent-Transfer-Encoding: "
)
END = b"\r\n------=_Part_0_1234567890.1234--\r\n"


def message(body: bytes, encoding: bytes) -> bytes:
    return HEAD + encoding + b"\r\n\r\n" + body + END


def base64(size: int) -> bytes:
    return encodebytes(os.urandom(size)).replace(b"\n", b"\r\n")


def seconds(octets: bytes, rounds: int = 1) -> float:
    """Of processor time, for one message."""
    segments = [octets[at : at + 4 * SEGMENT] for at in range(0, len(octets), 4 * SEGMENT)]
    start = time.thread_time()
    for _ in range(rounds):
        reading = Reading(PROFILE)
        for segment in segments:
            reading.take(segment)
        reading.finish()
    return (time.thread_time() - start) / rounds


class Ticks:
    """How late a clock of one millisecond ticks."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._last = time.perf_counter()

    def __call__(self) -> None:
        now = time.perf_counter()
        self._late.append(now - self._last)
        self._last = now

    def told(self) -> str:
        late, self._late = sorted(self._late), []
        return (
            f"99 of 100 within {late[len(late) * 99 // 100] * 1e3:.1f} ms, the worst {late[-1] * 1e3:.1f} ms"
        )


async def read(threads: Threads, octets: bytes) -> None:
    """One message, as a submission shows it to the policy."""
    judgement = ProfileRule(PROFILE, threads).begin(Identity(name="a", realm="r"), None)
    for at in range(0, len(octets), SEGMENT):
        waiting = judgement.write(octets[at : at + SEGMENT])
        if waiting is not None:
            await waiting
    waiting = judgement.complete()
    if waiting is not None:
        await waiting
    judgement.accepted()


async def stalls(octets: bytes) -> None:
    threads = Threads(reactor, "policies", size=2, waiting=200)
    ticks = Ticks()
    LoopingCall(ticks).start(0.001)
    await deferLater(reactor, 1)
    print(f"the reactor's clock, idle: {ticks.told()}")
    for _ in range(5):
        await gatherResults([Deferred.fromCoroutine(read(threads, octets)) for _ in range(4)])
    print(f"the same while 20 messages of 50 MiB are read, 4 at once: {ticks.told()}")
    threads.stop()
    reactor.stop()


def main() -> None:
    large = message(base64(37 * MIB), b"base64")
    for title, octets in (
        ("one base64 attachment", large),
        ("one 8bit attachment", message(b"x" * 70 * (50 * MIB // 70), b"8bit")),
        ("nothing but line ends, in base64", message(b"\r\n" * (25 * MIB), b"base64")),
        ("nothing but escapes, in quoted-printable", message(b"=41" * (50 * MIB // 3), b"quoted-printable")),
    ):
        print(f"50 MiB, {title}: {len(octets) / MIB / seconds(octets):.0f} MiB/s")
    small = message(base64(2600), b"base64")
    print(f"a message of {len(small)} octets: {seconds(small, 2000) * 1e6:.0f} µs")
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(stalls(large)))
    reactor.run()


if __name__ == "__main__":
    main()
