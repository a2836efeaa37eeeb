"""Several realms in one server, each with a way out, a schedule and notifications of its own (D1, D2, D3)."""

import base64
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import Authority
from tests.installed import PASSWORD, Server, checkout
from tests.raw_client import RawClient
from tests.recorder import Message, Recorder
from tests.requirements import proves

SENDER, ACCOUNT = "declarant@business.example", "declarant@business.example"
CONTENT = b"Subject: [V=NL123456789.02.05]\r\nMessage-ID: <1@business.example>\r\n\r\nIn order.\r\n"


class RealmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.relayed, self.handed, self.passed = Recorder(), Recorder(lmtp=True), Recorder()
        for recorder in (self.relayed, self.handed, self.passed):
            self.addCleanup(recorder.close)
        folder = Path(self.mktemp()).absolute()
        self.maildir = folder / "maildir"

        def hops(recorder: Recorder) -> dict[str, object]:
            return {"next-hops": [f"127.0.0.1:{recorder.port}"], "tls": "none"}

        realms = {
            "relay": {"to": "relay", "relay": hops(self.relayed)},
            "lmtp": {"to": "lmtp", "lmtp": hops(self.handed)},
            "maildir": {"to": "maildir", "maildir": {"directory": str(self.maildir)}},
            "through": {"to": "through", "relay": hops(self.passed)},
        }
        settings: dict[str, object] = {
            "realm": [
                {"name": f"{name}.example", "delivery": way, "notification": {"languages": ["en"]}}
                for name, way in realms.items()
            ]
        }
        self.server = Server(folder, Authority(), settings, checkout())
        self.addCleanup(self.server.kill)
        for name in realms:
            self.server.command(
                "account", "add", ACCOUNT, "--realm", f"{name}.example", "--password-stdin",
                input=PASSWORD.encode(),
            )  # fmt: skip
        self.server.start()

    def submit(self, realm: str, *rcpts: tuple[bytes, int], mail: bytes = b"", end: int = 250) -> None:
        with RawClient(self.server, log_in=False) as client:
            client.command(b"EHLO client.example", 250)
            plain = base64.b64encode(f"\0{ACCOUNT}@{realm}.example\0{PASSWORD}".encode())
            client.command(b"AUTH PLAIN " + plain, 235)
            client.command(b"MAIL FROM:<%b>%b" % (SENDER.encode(), mail), 250)
            for rcpt, code in rcpts:
                client.command(b"RCPT TO:" + rcpt, code)
            if end == 250:
                client.command(b"DATA", 354)
                client.send(CONTENT)
                client.command(b".", 250)

    def arrived(self, recorder: Recorder, number: int) -> list[Message]:
        messages = recorder.wait(lambda messages: len(messages) >= number)
        self.assertEqual(len(messages), number, self.server.logged())
        return messages

    def report(self, message: Message) -> tuple[Any, Any]:
        """A notification's own header, and what it says of its one recipient."""
        self.assertEqual(message.sender.split()[0], "FROM:<>")
        self.assertEqual(message.recipients, (f"TO:<{SENDER}>",))
        notification: Any = message_from_bytes(message.content, policy=policy.default)
        self.assertEqual(notification.get_content_type(), "multipart/report")
        _, status, original = notification.iter_parts()
        _, of_recipient = status.get_payload()
        self.assertIn("[V=NL123456789.02.05]", original.as_string())
        return notification, of_recipient

    @proves("D1", "D2", "D3")
    def test_each_goes_its_way(self) -> None:
        """What the hop refuses, of several recipients one, comes back to the sender by the same way."""
        core, nobody = b"<core@core.example>", b"<nobody@core.example>"
        self.submit("relay", (core, 250), (nobody, 250), mail=b" RET=HDRS ENVID=A+2B1")
        first, second = self.arrived(self.relayed, 2)
        self.assertTrue(first.content.endswith(CONTENT))
        self.assertEqual(first.recipients, ("TO:<core@core.example>",))
        notification, recipient = self.report(second)
        self.assertEqual(notification["Auto-Submitted"], "auto-replied")
        self.assertEqual(recipient["Final-Recipient"], "rfc822; nobody@core.example")
        self.assertEqual((recipient["Action"], recipient["Status"]), ("failed", "5.1.1"))
        self.assertIn("There is nobody of this name", recipient["Diagnostic-Code"])
        self.assertIn("Original-Envelope-Id: A+1", second.content.decode())

        self.submit("lmtp", (core + b" NOTIFY=SUCCESS,FAILURE", 250))
        first, second = self.arrived(self.handed, 2)
        self.assertTrue(first.content.endswith(CONTENT))
        _, recipient = self.report(second)
        self.assertEqual((recipient["Action"], recipient["Status"]), ("delivered", "2.0.0"))

        self.submit("maildir", (core, 250))
        self.server.await_empty_queue()
        (file,) = (self.maildir / "new").iterdir()
        self.assertTrue(file.read_bytes().endswith(CONTENT))

        self.submit("through", (core, 250), (nobody, 550))
        (message,) = self.arrived(self.passed, 1)
        self.assertEqual(message.recipients, ("TO:<core@core.example>",))
        self.assertTrue(message.content.endswith(CONTENT))
        self.assertEqual(self.server.json("queue", "list"), [])

    @proves("D2")
    def test_nobody_to_tell(self) -> None:
        """What fails without anybody who wants to know, or may, waits for an operator."""
        self.submit("relay", (b"<nobody@core.example> NOTIFY=NEVER", 250))
        self.server.await_log(r" held")
        (held,) = self.server.json("queue", "list", "--state", "held")
        shown = self.server.json("queue", "show", held["id"])
        self.assertIn("NOTIFY", str(shown["recipients"]))
        self.assertEqual([message for message in self.relayed.messages if message.recipients], [])
        done = self.server.json("queue", "remove", "--yes", held["id"])
        self.assertEqual(done, {"done": [held["id"]], "refused": [], "pending": [held["id"]]})
        self.server.await_empty_queue()
