"""The ground that tests of the installed product stand on: a message, and a server in a scratch folder."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import Authority
from tests.installed import Server, installed
from tests.recorder import Recorder

# Dots wherever they could be taken for something, octets of every value, lines of every length.
MESSAGE = b"\r\n".join(
    [
        b"From: <sender@example.nl>",
        b"To: an incomplete address",
        b"Received: by a hop before; Sun, 22 Nov 2026 06:56:02 +0000",
        b"Subject: \xe9\xe9n bericht",
        b"",
        b".",
        b"..",
        b".dot",
        b"trailing space ",
        b"",
        bytes({*range(1, 256)} - {10, 13}),
        b"x" * 5000,
        b"",
        b"",
    ]
)
RECEIVED = (
    rb"Received: from (?:client\.example|\[127\.0\.0\.1\]) \(\[127\.0\.0\.1\]\)\r\n"
    rb"\t\(using TLSv1\.[23] [A-Z0-9_-]+\)\r\n"
    rb"\tby localhost with ESMTPSA id [A-Z0-9]+\r\n"
    rb"\tfor <recipient@core\.example>;\r\n"
    rb"\t[^\r\n]+\r\n"
)


class InstalledTestCase(SynchronousTestCase):
    """Has an authority and a scratch folder that everybody may pass through."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def server(self, settings: dict[str, object], *, start: bool = True) -> Server:
        server = Server(self.folder / "msa", self.authority, settings, installed())
        self.addCleanup(server.kill)
        server.add_account()
        if start:
            server.start()
        return server

    def recorder(self, port: int = 0) -> Recorder:
        recorder = Recorder(port)
        self.addCleanup(recorder.close)
        return recorder

    def assertForwarded(self, arrived: bytes, content: bytes = MESSAGE) -> None:
        """One field of ours in front, and then what the client sent (M2)."""
        self.assertRegex(arrived[: -len(content)], rb"\A" + RECEIVED + rb"\Z")
        self.assertEqual(arrived[-len(content) :], content)
