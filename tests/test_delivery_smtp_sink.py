"""A real hop: the smtp-sink of Debian's Postfix."""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ProcessProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from digipoort_msa.delivery.hop import Hop
from digipoort_msa.delivery.relay import Relay
from digipoort_msa.delivery.tls import ClientTLS
from tests.next_hop import Content, envelope
from tests.requirements import proves

SINK = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class _Sink(ProcessProtocol):
    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def processEnded(self, reason: object) -> None:
        self.ended.callback(None)


@proves("D1", "M2")
class SinkTests(TestCase):
    timeout = 30

    @inlineCallbacks
    def start(self, *options: str) -> Any:
        """Start a sink that keeps each message as a file; fires with its port."""
        if SINK is None:
            raise SkipTest("smtp-sink is not installed: it comes with Debian's package postfix")
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o777)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        sink = _Sink()
        arguments = [SINK, *user, *options, "-d", "m.", f"127.0.0.1:{port}", "100"]
        process = reactor.spawnProcess(sink, SINK, arguments, path=str(self.folder))
        self.addCleanup(lambda: (process.signalProcess("TERM"), sink.ended)[1])
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        for _ in range(200):
            try:
                protocol = yield connectProtocol(endpoint, Protocol())
            except ConnectError:
                yield deferLater(reactor, 0.02)
            else:
                protocol.transport.abortConnection()
                return port
        raise AssertionError("smtp-sink does not listen")

    def relay(self, port: int, **settings: Any) -> Relay:
        relay = Relay(reactor, [Hop("127.0.0.1", port)], "msa.example.nl", ClientTLS("none"), **settings)
        self.addCleanup(relay.stop)
        return relay

    def received(self) -> list[bytes]:
        """The contents, with LF for each line end and without the fields that the sink puts in front."""
        contents = []
        for path in self.folder.iterdir():
            octets = path.read_bytes()
            contents.append(octets[octets.index(b"Subject:") :])
        return sorted(contents)

    @inlineCallbacks
    def test_octets(self) -> Any:
        for options in ([], ["-p"]):  # with and without PIPELINING
            port = yield self.start(*options)
            relay = self.relay(port, connections=4)
            contents = [
                Content(
                    b"Subject: %d\r\n\r\n" % number,
                    b".\r\n..\r\n.a" + b"\r",
                    b"\n.\r\n" + b"x" * number * 500 + b"\r\n\r\n",
                    b".",
                    b"\r\n",
                )
                for number in range(20)
            ]
            deliveries = [relay.deliver(envelope("a@example.nl", "b@example.nl"), each) for each in contents]
            for succeeded, outcomes in (yield DeferredList(deliveries)):
                self.assertTrue(succeeded, outcomes)
                self.assertEqual({outcome.reply.code for outcome in outcomes.values()}, {250})
            yield relay.stop()
            sent = sorted(content.octets.replace(b"\r\n", b"\n") for content in contents)
            self.assertEqual(
                [octets.rstrip(b"\n") for octets in self.received()],
                [octets.rstrip(b"\n") for octets in sent],
            )

    @inlineCallbacks
    def test_refusals(self) -> Any:
        """The sink's own ways to say no: at RCPT, at DATA, at the end of data; for now and for good."""
        for option, code in (("-r", 450), ("-f", 500)):
            for verb in ("rcpt", "data", "."):
                port = yield self.start(option, verb)
                relay = self.relay(port)
                for _ in range(2):
                    outcomes = yield relay.deliver(envelope(), Content(b"Subject: x\r\n\r\n"))
                    [outcome] = outcomes.values()
                    self.assertEqual(outcome.reply.code, code, (verb, outcome))

    @inlineCallbacks
    def test_hangs_up(self) -> Any:
        for verb in ("connect", "ehlo", "mail", "rcpt", "data", "."):
            port = yield self.start("-q", verb)
            outcomes = yield self.relay(port).deliver(envelope(), Content(b"Subject: x\r\n\r\n"))
            [outcome] = outcomes.values()
            self.assertTrue(outcome.reply.transient, (verb, outcome))
