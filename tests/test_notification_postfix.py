"""A real Postfix takes our notifications, hands them on as they are, and finds nothing to bounce."""

import os
import smtplib
import ssl
from pathlib import Path as FilePath
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase

from digipoort_msa.delivery import ClientTLS, Hop, Relay
from digipoort_msa.smtp.envelope import (
    NULL_PATH,
    Action,
    Envelope,
    MailParameters,
    Notify,
    Path,
    RcptParameters,
)
from digipoort_msa.smtp.reply import Reply
from tests.authority import Authority
from tests.next_hop import Content
from tests.notifying import LATER, MESSAGE, fate, groups, parts, read, written
from tests.postfix import Postfix, without_first_field
from tests.requirements import proves

#: Of each kind one, with all that makes them differ.
NOTIFICATIONS = {
    "failed": written(),
    "delayed": written(fate(action=Action.DELAYED, reply=LATER)),
    "relayed": written(fate(action=Action.RELAYED, reply=Reply(250, "2.0.0", ("Ok",)))),
    "whole": written(ret="FULL", envid="A+2BB"),
    "eight-bit": written(ret="FULL", message=MESSAGE + b".caf\xe9\r\n.\r\n"),
    "encoded": written(message=b"Subject: caf\xe9\r\nX: " + b"x" * 5000 + b"\r\n\r\n"),
    "recipient outside ASCII": written(fate("j\u00fcrgen@core.example")),
    "sender outside ASCII": written(
        sender="j\u00fcrgen@example.nl", message="Subject: \u20ac\r\n\r\n".encode()
    ),
    "many": written(*(fate(f"recipient-{number}@core.example") for number in range(1000))),
}


@proves("D2", "D3")
class PostfixTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("Postfix runs only as root")
        self.authority = Authority()
        self.postfix = Postfix(self.authority)
        self.addCleanup(self.postfix.remove)
        self.postfix.start()

    def arrived(self, number: int) -> list[bytes]:
        messages = self.postfix.core.wait(lambda messages: len(messages) >= number)
        self.assertEqual(len(messages), number, self.postfix.log())
        for message in messages:
            self.assertTrue(message.sender.startswith("FROM:<>"), message.sender)
        return [without_first_field(message.content) for message in messages]

    def assertArrived(self, sent: list[bytes]) -> None:
        arrived = self.arrived(len(sent))
        self.assertEqual(sorted(arrived), sorted(sent))
        for octets in arrived:
            self.assertEqual(len(parts(octets)), 3)
            self.assertEqual(read(octets).defects, [])
            self.assertIn("Final-Recipient", groups(octets)[1])

    def test_by_the_standard_librarys_client(self) -> None:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        with smtplib.SMTP("127.0.0.1", self.postfix.port, timeout=20) as client:
            client._host = "localhost"  # type: ignore[attr-defined]  # what the certificate has to name
            client.starttls(context=context)
            for octets in NOTIFICATIONS.values():
                client.sendmail("", ["sender@example.nl"], octets, ["BODY=8BITMIME", "SMTPUTF8"])
        self.assertArrived(list(NOTIFICATIONS.values()))

    @inlineCallbacks
    def test_by_our_own(self) -> Any:
        """As the queue sends them."""
        ca = FilePath(self.mktemp())
        ca.write_bytes(self.authority.pem)
        hop = Hop("localhost", self.postfix.port)
        relay = Relay(reactor, [hop], "msa.example.nl", ClientTLS("verify", ca))
        self.addCleanup(relay.stop)
        for name, octets in NOTIFICATIONS.items():
            addressee = Path.from_text(str(read(octets)["To"]))
            envelope = Envelope(
                queue_id="0NOTICE",
                realm="realm",
                account="account",
                session_id="",
                reverse_path=NULL_PATH,
                recipients=(addressee,),
                received_at=0.0,
                parameters=MailParameters(
                    body_8bitmime=not octets.isascii(), smtputf8=not addressee.is_ascii
                ),
                recipient_parameters={addressee: RcptParameters(notify=frozenset({Notify.NEVER}))},
            )
            outcomes = yield relay.deliver(envelope, Content(octets))
            [outcome] = outcomes.values()
            self.assertEqual(outcome.reply.code, 250, (name, outcome))
        self.assertArrived(list(NOTIFICATIONS.values()))
