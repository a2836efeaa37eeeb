"""Real mail clients, the installed server, and a real Postfix as the core: the same octets arrive."""

import os
import signal

from attrs import evolve
from twisted.trial.unittest import SkipTest

from tests.authority import Authority
from tests.installed import ACCOUNT, PASSWORD, REALM, Server, relay, run
from tests.installed_case import MESSAGE, InstalledTestCase
from tests.mail_clients import (
    RECIPIENT,
    SENDER,
    Login,
    Refused,
    curl,
    gsasl,
    python,
    ways,
)
from tests.postfix import Postfix, free_port, without_first_field
from tests.requirements import proves


class Clients(InstalledTestCase):
    """Through Postfix, with TLS and its certificate checked."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid():
            raise SkipTest("Postfix runs only as root")
        self.postfix = Postfix(self.authority)
        self.addCleanup(self.postfix.remove)
        self.postfix.start()
        self.core = self.postfix.core

    def relaying(self, **more: object) -> Server:
        ca = self.folder / "core-ca.pem"
        ca.write_bytes(self.authority.pem)
        return self.server(relay(self.postfix.port, tls="verify", ca=ca) | more)

    def arrived(self, number: int) -> bytes:
        """The content of the core's message of this number, as the MSA gave it to Postfix."""
        messages = self.core.wait(lambda messages: len(messages) > number)
        self.assertGreater(len(messages), number, self.postfix.log())
        return without_first_field(messages[number].content)

    @proves("A2", "D1", "D4", "L1", "L2", "L3", "M2", "M4", "M6")
    def test_every_way(self) -> None:
        """Every client, mechanism and kind of TLS: the core has the same bytes."""
        server = self.relaying()
        for number, (client, login) in enumerate(ways()):
            try:
                client(server, login, MESSAGE)
            except Refused as error:
                self.fail(f"{client.__name__} {login}: {error}\n{server.logged()}")
            self.assertForwarded(self.arrived(number))
        self.assertEqual(len(self.core.messages), len(ways()))
        for message in self.core.messages:
            self.assertEqual(message.recipients, (f"TO:<{RECIPIENT}>",))
            self.assertTrue(message.sender.startswith(f"FROM:<{SENDER}> "), message.sender)
        server.await_empty_queue()
        self.assertNotIn(PASSWORD, server.logged())

    @proves("M4", "M5")
    def test_contents(self) -> None:
        """Of all kinds and sizes."""
        contents = [
            b"Subject: none\r\n",
            b"\r\n",
            b"\r\n.\r\n",
            b".\r\n..\r\n",
            b"Subject: NUL\r\n\r\n\0\0\r\n",
            b"\r\n" + b"y" * 300_000 + b"\r\n",
            b"Subject: lines\r\n\r\n" + b"\r\n" * 70_000,
            b"Subject: dots\r\n\r\n" + b".\r\n" * 50_000,
            b"Subject: 5 MiB\r\n\r\n"
            + os.urandom(5 << 20).replace(b"\r", b".").replace(b"\n", b"\r\n")
            + b"\r\n",
        ]
        server = self.relaying()
        for number, content in enumerate(contents):
            python(server, Login("PLAIN", implicit=bool(number % 2)), content)
            arrived = self.arrived(number)
            if content.startswith(b"."):  # no field, so that Postfix ends the header before it
                self.assertTrue(arrived.endswith(b"\r\n\r\n" + content), arrived)
            else:
                self.assertForwarded(arrived, content)

    @proves("A5")
    def test_wrong_passwords(self) -> None:
        """Refused with the same reply to every client."""
        limits = {
            "login-first-delay": 0,
            "login-failures-per-account-and-address": 1000,
            "login-failures-per-address": 1000,
        }
        server = self.relaying(limits=limits)
        for client, login in ways():
            for account, password in ((ACCOUNT, "wrong"), ("nobody", PASSWORD)):
                with self.assertRaises(Refused) as raised:
                    client(server, evolve(login, account=account, password=password), MESSAGE)
                # The others keep the reply to themselves, or ask for another mechanism first.
                if client in (gsasl, python):
                    self.assertIn("5.7.8 Authentication credentials invalid", str(raised.exception))
        self.assertEqual((self.core.messages, server.json("queue", "list")), ([], []))
        self.assertNotRegex(server.logged(), "queued as")

    @proves("A4")
    def test_names_outside_ascii(self) -> None:
        """As curl, gsasl and Python say them."""
        server = self.relaying()
        number = 0
        for account, password in (("zoë", "geheim é"), ("ζωή", "μυστικό")):  # in ISO-8859-1, and not
            server.add_account(account, password)
            for client in (curl, gsasl, python):
                for mechanism in ("DIGEST-MD5", "PLAIN"):
                    if client is python and mechanism == "PLAIN":
                        continue  # smtplib takes ASCII alone
                    client(server, Login(mechanism, False, account, password), MESSAGE)
                    self.assertForwarded(self.arrived(number))
                    number += 1

    @proves("D4")
    def test_a_core_that_cannot_be_verified(self) -> None:
        """Gets nothing; the operator sees why."""
        ca = self.folder / "other-ca.pem"
        ca.write_bytes(Authority().pem)
        server = self.server(relay(self.postfix.port, tls="verify", ca=ca))
        python(server, Login("PLAIN"), MESSAGE)
        server.await_log("deferred by localhost")
        (summary,) = server.json("queue", "list")
        shown = server.json("queue", "show", summary["id"])
        self.assertIn("certificate", shown["recipients"][0]["reply"])
        self.assertEqual(self.core.messages, [])

    def test_with_accounts_changed_meanwhile(self) -> None:
        """Each change holds from the next login on."""
        server = self.relaying()
        login = Login("DIGEST-MD5")

        def goes(login: Login) -> bool:
            """Over both kinds of verification."""
            results = set()
            for mechanism in ("DIGEST-MD5", "PLAIN"):
                try:
                    python(server, evolve(login, mechanism=mechanism), MESSAGE)
                    results.add(True)
                except Refused as refused:
                    self.assertIn("5.7.8", str(refused))
                    results.add(False)
            (result,) = results
            return result

        self.assertTrue(goes(login))
        server.command("account", "password", ACCOUNT, "--password-stdin", input=b"another one\n")
        self.assertFalse(goes(login))
        login = evolve(login, password="another one")
        self.assertTrue(goes(login))
        server.command("account", "disable", ACCOUNT)
        self.assertFalse(goes(login))
        server.command("account", "enable", ACCOUNT)
        self.assertTrue(goes(login))
        made = server.json("account", "add", "second", "--generate", "--realm", REALM)
        self.assertTrue(goes(evolve(login, account="second", password=made["password"])))
        server.command("account", "remove", ACCOUNT, "--yes")
        self.assertFalse(goes(login))
        self.assertEqual([found["name"] for found in server.json("account", "list")], ["second"])


class Outages(InstalledTestCase):
    """A core that is down, and a server that is restarted."""

    @proves("D2", "D3", "M6")
    def test_the_core_is_down(self) -> None:
        """Messages wait, over a restart too, and go at once when the operator says so."""
        port = free_port()
        server = self.server(relay(port))
        contents = {
            kind: kind + b"\r\n\r\n" + b"octets\r\n" * size
            for kind, size in ((b"a: 1", 1), (b"b: 2", 30_000))
        }
        for content in contents.values():
            python(server, Login("PLAIN"), content)
        server.await_log("deferred by localhost.*\n(?s:.*)deferred by localhost")
        waiting = server.json("queue", "list")
        self.assertEqual([each["recipients"] for each in waiting], [{"deferred": 1}] * 2)
        self.assertEqual({each["sender"] for each in waiting}, {f"<{SENDER}>"})
        ids = [each["id"] for each in waiting]
        for queue_id in ids:
            server.await_log(f"queued as {queue_id}")

        self.assertEqual(server.end(), -signal.SIGTERM)
        self.assertEqual(
            [each["id"] for each in server.json("queue", "list")], ids, "it is there without a server"
        )
        server.start()
        server.await_log("2 messages, 0 half-received removed")
        self.assertEqual([each["id"] for each in server.json("queue", "list")], ids)

        core = self.recorder(port)
        self.assertEqual(server.json("queue", "retry", "--all"), {"done": ids, "refused": []})
        messages = core.wait(lambda messages: len(messages) == 2)
        self.assertEqual(len(messages), 2, server.logged())
        for message in messages:
            kind = next(kind for kind in contents if b"\r\n" + kind in message.content)
            self.assertForwarded(message.content, contents[kind])
        server.await_empty_queue()
        self.assertEqual(list((server.spool / "bodies").iterdir()), [])

    def test_an_operator_removes_a_message(self) -> None:
        server = self.server(relay(free_port()))
        python(server, Login("PLAIN"), MESSAGE)
        (summary,) = server.json("queue", "list")
        server.command("queue", "remove", summary["id"], "--yes")
        server.await_empty_queue()
        self.assertNotEqual(
            run(*server.programs.msa, "--config", server.config, "queue", "show", "X1").returncode, 0
        )
