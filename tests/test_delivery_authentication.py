"""Logins at a next hop: PLAIN, LOGIN and SCRAM-SHA-256, with hops that are honest and hops that are not."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramException, ScramMechanism
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery import authentication, failures
from digipoort_msa.delivery.authentication import MOST_ITERATIONS, Credentials, log_in
from digipoort_msa.delivery.client import ClientConnection, Timeouts
from digipoort_msa.delivery.failures import HopFailure
from digipoort_msa.interfaces import Unavailable
from tests.next_hop import MemoryTransport
from tests.requirements import proves

PASSWORD = "correct horse"
ALL = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
Script = Iterator[bytes]
#: RFC 7677 3.
_NONCE = "rOprNGfwEbeRWgbNEkqO"
_VECTOR = (
    b"n,,n=user,r=" + _NONCE.encode(),
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)


def challenge(octets: bytes) -> bytes:
    return b"334 " + b64encode(octets) + b"\r\n"


class LoginTestCase(SynchronousTestCase):
    def log_in(self, script: Callable[..., Any], *offered: str, **how: Any) -> Deferred[None]:
        """Log in at a hop that is a generator: it gets our lines and yields its replies."""
        self.computed: list[Callable[..., Any]] = []
        how.setdefault("mechanisms", ALL)
        how.setdefault("in_thread", self.in_thread)
        credentials = Credentials(how.pop("username", "user"), how.pop("password", PASSWORD), **how)
        self.connection = ClientConnection(Clock(), "hop:25", Timeouts())
        self.transport = MemoryTransport(self.connection)
        self.connection.makeConnection(self.transport)
        self.connection.dataReceived(b"220 hop\r\n")
        self.successResultOf(Deferred.fromCoroutine(self.connection.reply(1)))
        result = Deferred.fromCoroutine(log_in(self.connection, offered or ALL, credentials))
        self.lines: list[bytes] = []
        hop = script(self)
        next(hop, None)
        while line := self.transport.value():
            self.transport.clear()
            self.lines.append(line.removesuffix(b"\r\n"))
            self.connection.dataReceived(hop.send(self.lines[-1]))
        return result

    def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.computed.append(work)
        return succeed(work(*arguments))

    def refused(self, login: Deferred[None], *words: str, dropped: bool = True) -> None:
        reply = self.failureResultOf(login, HopFailure).value.reply
        for word in words:
            self.assertIn(word, str(reply))
        self.assertTrue(reply.transient)
        self.assertEqual(self.transport.lost, dropped)
        for secret in (PASSWORD, b64encode(PASSWORD.encode()).decode()):
            self.assertNotIn(secret, str(reply))


class ScramHop:
    """An honest SCRAM server; a subclass is not."""

    iterations = 4096

    def __init__(self) -> None:
        facts = ScramMechanism().make_auth_info(PASSWORD, iteration_count=self.iterations)
        self._server = ScramMechanism().make_server(lambda name: facts)

    def __call__(self, test: LoginTestCase) -> Script:
        line = yield b""  # type: ignore[misc]
        self._server.set_client_first(b64decode(line.removeprefix(b"AUTH SCRAM-SHA-256 ")).decode())
        line = yield challenge(self.first(self._server.get_server_first()).encode())
        try:
            self._server.set_client_final(b64decode(line).decode())
        except ScramException:
            yield b"535 5.7.8 No\r\n"
            return
        line = yield self.final(self._server.get_server_final())
        assert line == b""
        yield b"235 2.7.0 Ok\r\n"

    def first(self, message: str) -> str:
        return message

    def final(self, message: str) -> bytes:
        return challenge(message.encode())


def says(*replies: bytes) -> Callable[[LoginTestCase], Script]:
    """A hop that says this, whatever it hears."""

    def hop(test: LoginTestCase) -> Script:
        yield b""
        for reply in replies:  # noqa: UP028 (a tuple cannot be sent to)
            yield reply

    return hop


@proves("D4")
class ChoiceTests(LoginTestCase):
    def test_the_first_of_ours_that_the_hop_has(self) -> None:
        for offered, mechanism in (
            (("LOGIN", "PLAIN", "SCRAM-SHA-256"), "SCRAM-SHA-256"),
            (("GSSAPI", "LOGIN", "PLAIN"), "PLAIN"),
            (("LOGIN", "CRAM-MD5"), "LOGIN"),
        ):
            self.refused(self.log_in(says(b"535 5.7.8 No\r\n"), *offered), "5.7.8", dropped=False)
            self.assertEqual(self.lines[0].split(b" ")[1].decode(), mechanism)

    def test_none_in_common(self) -> None:
        login = self.log_in(says(), "PLAIN", "LOGIN", mechanisms=("SCRAM-SHA-256",))
        self.refused(login, "451 4.7.8", "PLAIN, LOGIN", "login-mechanisms", "SCRAM-SHA-256", dropped=False)
        self.assertEqual(self.lines, [])

    def test_settings(self) -> None:
        for wrong in (
            {"mechanisms": ("CRAM-MD5",)},
            {"mechanisms": ()},
            {"mechanisms": ALL},  # no thread
            {"username": "a\0b"},
        ):
            self.assertRaises(ValueError, Credentials, **{"username": "u", "password": "p", **wrong})
        self.assertNotIn(PASSWORD, repr(Credentials("user", PASSWORD)))


@proves("D4")
class PlainAndLoginTests(LoginTestCase):
    def test_plain(self) -> None:
        self.successResultOf(self.log_in(says(b"235 Ok\r\n"), "PLAIN"))
        self.assertEqual(self.lines, [b"AUTH PLAIN " + b64encode(b"\0user\0" + PASSWORD.encode())])

    def test_login(self) -> None:
        script = says(challenge(b"Username:"), challenge(b"Password:"), b"235 Ok\r\n")
        self.successResultOf(self.log_in(script, "LOGIN"))
        self.assertEqual(self.lines, [b"AUTH LOGIN", b64encode(b"user"), b64encode(PASSWORD.encode())])

    def test_refused_at_each_step(self) -> None:
        prompts = [challenge(b"Username:"), challenge(b"Password:")]
        for step in range(3):
            login = self.log_in(says(*prompts[:step], b"535 5.7.8 No\r\n"), "LOGIN")
            self.refused(login, "451 4.7.8", "535 5.7.8 No", "password-file", dropped=False)
            self.assertEqual(len(self.lines), step + 1)

    def test_early_success(self) -> None:
        """235 before the password was said: it is not us whom the hop has let in."""
        for replies in ([b"235 Ok\r\n"], [challenge(b"Username:"), b"235 Ok\r\n"]):
            self.refused(self.log_in(says(*replies), "LOGIN"), "451 4.7.8", "334 was due")

    def test_no_end(self) -> None:
        for reply in (b"334 \r\n", b"250 Ok\r\n", b"354 go on\r\n"):
            self.refused(self.log_in(says(reply), "PLAIN"), "235 was due")

    def test_lost_at_each_step(self) -> None:
        def dying(after: int) -> Callable[[LoginTestCase], Script]:
            def hop(test: LoginTestCase) -> Script:
                yield b""
                for _ in range(after):
                    yield b"334 \r\n"
                test.connection.connectionLost()
                yield b""

            return hop

        for mechanism, steps in (("PLAIN", 1), ("LOGIN", 3), ("SCRAM-SHA-256", 1)):
            for after in range(steps):
                login = self.log_in(dying(after), mechanism)
                self.failureResultOf(login, HopFailure)


@proves("D4")
class ScramTests(LoginTestCase):
    def test_vector(self) -> None:
        """RFC 7677 3."""

        class Known(authentication.ScramClient):  # type: ignore[misc]
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, c_nonce=_NONCE)

        self.patch(authentication, "ScramClient", Known)
        script = says(challenge(_VECTOR[1]), challenge(_VECTOR[3]), b"235 Ok\r\n")
        self.successResultOf(self.log_in(script, password="pencil"))
        self.assertEqual(self.lines[0], b"AUTH SCRAM-SHA-256 " + b64encode(_VECTOR[0]))
        self.assertEqual(self.lines[1:], [b64encode(_VECTOR[2]), b""])
        self.assertEqual(len(self.computed), 1)

    def test_honest_hop(self) -> None:
        self.successResultOf(self.log_in(ScramHop()))
        self.assertEqual(len(self.computed), 1)
        self.assertNotIn(b64encode(PASSWORD.encode()), b"".join(self.lines))

    def test_wrong_password(self) -> None:
        login = self.log_in(ScramHop(), password="wrong")
        self.refused(login, "451 4.7.8", "password-file", dropped=False)

    def test_iterations_are_bounded_before_anything_is_computed(self) -> None:
        class Greedy(ScramHop):
            def first(self, message: str) -> str:
                return message.replace("i=4096", f"i={self.asked}")

            asked = 0

        for asked in (
            "0",
            "1",
            "4095",
            str(MOST_ITERATIONS + 1),
            "9" * 10,
            "9" * 400,
            "-4096",
            "4096.0",
            "٤٠٩٦",
        ):
            hop = Greedy()
            hop.asked = asked
            self.refused(self.log_in(hop), "451 4.7.8")
            self.assertEqual(self.computed, [])
            self.assertEqual(len(self.lines), 1)

    def test_most_iterations(self) -> None:
        class Thorough(ScramHop):
            iterations = MOST_ITERATIONS

        self.successResultOf(self.log_in(Thorough()))

    def test_nonce_has_to_go_on_from_ours(self) -> None:
        def first(change: Callable[[str], str]) -> Callable[[LoginTestCase], Script]:
            def hop(test: LoginTestCase) -> Script:
                line = yield b""  # type: ignore[misc]
                ours = b64decode(line.rpartition(b" ")[2]).decode().rpartition("r=")[2]
                yield challenge(f"r={change(ours)},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())

            return hop

        for change in (lambda n: n, lambda n: n[:-1] + "!", lambda n: "x" + n, lambda n: "", lambda n: "abc"):
            self.refused(self.log_in(first(change)), "451 4.7.8")
            self.assertEqual(self.computed, [])

    def test_server_first_is_garbage(self) -> None:
        for message in (b"", b"\0", b"\xff\xfe", b"r=", b"hello", b"e=unknown-user", b"m=ext," + _VECTOR[1]):
            self.refused(self.log_in(says(challenge(message))), "451 4.7.8", "login-mechanisms")
            self.assertEqual(self.computed, [])

    def test_not_base64(self) -> None:
        for text in (b"*", b"====", b"r=abc", b"\xff\xff", b"AAA", b"QQ==QQ=="):
            self.refused(self.log_in(says(b"334 " + text + b"\r\n")), "451 4.7.8")

    @settings(deadline=None, max_examples=50)
    @given(st.binary(max_size=1500))
    def test_any_server_first(self, message: bytes) -> None:
        self.refused(self.log_in(says(challenge(message))), "451")

    @settings(deadline=None, max_examples=50)
    @given(st.binary(max_size=1500))
    def test_any_server_final(self, message: bytes) -> None:
        class Garbler(ScramHop):
            def final(self, _: str) -> bytes:
                return challenge(message)

        self.refused(self.log_in(Garbler()), "451")

    def test_signature(self) -> None:
        """A hop that does not know our password cannot have taken our login, whatever it says."""

        class Impostor(ScramHop):
            def final(self, message: str) -> bytes:
                return challenge(b"v=" + b64encode(bytes(32)))

        self.refused(self.log_in(Impostor()), "451 4.7.8", "signature")

    def test_success_without_a_proof(self) -> None:
        class Hasty(ScramHop):
            def final(self, message: str) -> bytes:
                return b"235 2.7.0 Ok\r\n"

        self.refused(self.log_in(Hasty()), "451 4.7.8", "without a proof")
        self.refused(self.log_in(says(b"235 2.7.0 Ok\r\n")), "451 4.7.8", "334 was due")
        self.assertEqual(self.computed, [])

    def test_error_as_the_final_message(self) -> None:
        class Refusing(ScramHop):
            def final(self, message: str) -> bytes:
                return challenge(b"e=invalid-proof")

        self.refused(self.log_in(Refusing()), "451 4.7.8", "signature")

    def test_no_end(self) -> None:
        script = ScramHop()
        steps: list[bytes] = []

        def hop(test: LoginTestCase) -> Script:
            inner = script(test)
            reply = next(inner)
            while True:
                line = yield reply  # type: ignore[misc]
                reply = inner.send(line)
                steps.append(reply)
                if reply.startswith(b"235"):
                    reply = b"334 \r\n"

        self.refused(self.log_in(hop), "235 was due")
        self.assertEqual(len(steps), 3)

    def test_no_thread_now(self) -> None:
        login = self.log_in(ScramHop(), in_thread=lambda *_: fail(Unavailable("too many wait")))
        self.refused(login, "451 4.3.0", "too many wait")

    def test_what_saslprep_forbids(self) -> None:
        login = self.log_in(ScramHop(), password="\ue000" + PASSWORD)
        self.refused(login, "451 4.3.0", "SCRAM-SHA-256")
        self.assertEqual(self.lines, [])

    def test_connection_lost_while_it_is_computed(self) -> None:
        waiting: list[Deferred[Any]] = []

        def in_thread(work: Any) -> Deferred[Any]:
            waiting.append(Deferred().addCallback(lambda _: work()))
            return waiting[-1]

        login = self.log_in(ScramHop(), in_thread=in_thread)
        self.connection.connectionLost()
        waiting[0].callback(None)
        self.failureResultOf(login, HopFailure)

    def test_cancelled_while_it_is_computed(self) -> None:
        """No fault of the hop's: it need not rest."""
        login = self.log_in(ScramHop(), in_thread=lambda *_: Deferred())
        login.cancel()
        self.assertIs(self.failureResultOf(login, HopFailure).value.reply, failures.STOPPING)
        self.assertTrue(self.transport.lost)


@proves("D4")
class EchoTests(LoginTestCase):
    """A hop that tells back what we told it: it ends up in the log and in notifications otherwise."""

    def echoes(self) -> list[bytes]:
        plain = b64encode(b"\0user\0" + PASSWORD.encode())
        return [PASSWORD.encode(), b64encode(PASSWORD.encode()), plain, plain.rstrip(b"="), b"x" + plain]

    def test_in_the_refusal(self) -> None:
        for echo in self.echoes():
            for reply in (
                b"535 5.7.8 " + echo + b"?\r\n",
                b"535-a\r\n535 " + echo + b"\r\n",
                b"250 " + echo + b"\r\n",
            ):
                login = self.log_in(says(reply), "PLAIN")
                text = str(self.failureResultOf(login, HopFailure).value.reply)
                self.assertIn("[concealed]", text)
                self.assertNotIn(echo.decode(), text)

    def test_outside_ascii(self) -> None:
        password = "wachtwoord é"
        login = self.log_in(says(b"535 " + password.encode() + b"\r\n"), "PLAIN", password=password)
        self.assertNotIn("wachtwoord", str(self.failureResultOf(login, HopFailure).value.reply))

    def test_later(self) -> None:
        self.successResultOf(self.log_in(says(b"235 Ok\r\n"), "PLAIN"))
        for echo in self.echoes():
            rcpt = Deferred.fromCoroutine(self.connection.command(b"RCPT TO:<a@b>", 1))
            self.connection.dataReceived(b"550 5.7.1 your password is " + echo + b"\r\n")
            self.assertNotIn(echo.decode(), str(self.successResultOf(rcpt)))

    def test_in_what_is_no_reply(self) -> None:
        login = self.log_in(says(PASSWORD.encode() + b"\r\n"), "PLAIN")
        self.refused(login, "451 4.5.0", "not a reply")
