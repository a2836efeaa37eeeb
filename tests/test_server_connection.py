"""Admission: how many connections there may be, and who they are from."""

import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.server.admission import Admission
from tests.msa import ClockTestCase, MSATestCase
from tests.msa_client import Client
from tests.requirements import proves

TOO_MANY = "421 4.7.0 Too many connections; try again later\r\n"


class AdmissionTests(SynchronousTestCase):
    @proves("L4", "M9")
    def test_in_all_and_from_one_address(self) -> None:
        admission = Admission(3, 2)
        self.assertTrue(admission.enter("192.0.2.1"))
        self.assertTrue(admission.enter("192.0.2.1"))
        self.assertFalse(admission.enter("192.0.2.1"))
        self.assertTrue(admission.enter("192.0.2.2"))
        self.assertFalse(admission.enter("192.0.2.3"))
        admission.leave("192.0.2.1")
        self.assertTrue(admission.enter("192.0.2.1"))

    def test_one_host_has_a_whole_network(self) -> None:
        """A host with an IPv6 /64 is one client, whichever of its addresses it calls from."""
        admission = Admission(100, 2)
        self.assertTrue(admission.enter("2001:db8::1"))
        self.assertTrue(admission.enter("2001:db8::2"))
        self.assertFalse(admission.enter("2001:db8:0:0:ffff::3"))
        self.assertTrue(admission.enter("2001:db8:0:1::1"))

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "192.0.2.1", "2001:db8::1", "::1"]))))
    def test_what_enters_leaves(self, steps: list[tuple[bool, str]]) -> None:
        """Never more than allowed, and nothing is remembered of who has left."""
        admission = Admission(4, 2)
        inside: list[str] = []
        for enters, address in steps:
            if enters:
                allowed = len(inside) < 4 and inside.count(address) < 2
                self.assertEqual(admission.enter(address), allowed)
                inside += [address] * allowed
            elif inside:
                admission.leave(inside.pop())
        for address in inside:
            admission.leave(address)
        self.assertEqual((admission._open, admission._by_address), (0, {}))


class ConnectionTests(ClockTestCase):
    @proves("L4", "M9")
    def test_one_too_many(self) -> None:
        self.server(connections_per_address=1)
        first, second = self.connect(secure=False), self.connect(secure=False)
        self.assertEqual(first.read()[:4], "220 ")
        self.assertEqual(second.read(), TOO_MANY)
        self.assertTrue(second.closed)
        second.send(b"EHLO x\r\n")
        self.assertEqual(second.read(), "")
        second.lose()
        self.assertEqual(self.connect("192.0.2.2", secure=False).read()[:4], "220 ")
        first.lose()
        third = self.connect(secure=False)
        self.assertEqual(third.read()[:4], "220 ")

    def test_under_implicit_tls_no_handshake_is_made(self) -> None:
        self.server(connections=1)
        self.connect()
        refused = self.connect(handshake=False)
        self.assertTrue(refused.transport.aborted)
        self.assertEqual(refused.read(), "")
        refused.lose()
        self.assertEqual(self.events("tls-failed"), [])
        (event,) = self.events("disconnected")
        self.assertIn("Too many connections", event["reason"])

    def test_one_form_of_each_address(self) -> None:
        """A zone is no part of an address literal (RFC 5321 4.1.3); a proxy's words are checked."""
        for shown, address in {
            "fe80::1%eth0": "fe80::1",
            "2001:DB8:0:0:0:0:0:7": "2001:db8::7",
            "::ffff:192.0.2.1": "192.0.2.1",
            "x]\t(evil": "unknown",
        }.items():
            wire = self.connect(shown)
            self.assertEqual(wire.protocol._trace().client_address, address)

    def test_a_unix_socket(self) -> None:
        wire = self.connect(secure=False)
        wire.transport.peerAddr = UNIXAddress(None)
        wire.protocol._connection.identify(wire.transport)
        self.assertEqual(wire.protocol._connection.peer, "local")


class ListenerTests(MSATestCase):
    @proves("L4", "M9")
    async def test_across_listeners(self) -> None:
        """Both listeners count, and a connection that is gone makes room."""
        clear = self.serve(connections_per_address=2)
        admission = self.factory.admission
        implicit = self.serve(implicit=True)
        self.factory.admission = admission

        def script() -> list[Any]:
            with Client(clear) as one, Client(implicit, implicit=True) as two, Client(clear) as three:
                one.start_tls()
                two.reply()
                answers: list[Any] = [three.rest().decode()]
                try:
                    Client(implicit, implicit=True)
                except OSError:  # no handshake is made
                    answers.append("closed")
                return [*answers, one.ask("NOOP"), two.ask("NOOP")]

        ok = "250 2.0.0 Ok\r\n"
        self.assertEqual(await self.run_client(script), [TOO_MANY, "closed", ok, ok])
        await self.until(lambda: admission._open == 0)

        def again() -> str:
            with Client(clear) as client:
                return client.start_tls()[:4]

        self.assertEqual(await self.run_client(again), "220 ")

    async def test_a_unix_listener(self) -> None:
        path = self.mktemp()
        self.serve(endpoint=f"unix:{path}")

        def script() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(path)
                client.sendall(b"QUIT\r\n")
                octets = b""
                while more := client.recv(1000):
                    octets += more
                return octets

        self.assertTrue((await self.run_client(script)).endswith(b"221 2.0.0 Bye\r\n"))
        self.assertEqual(self.events("connected")[0]["peer"], "local")
