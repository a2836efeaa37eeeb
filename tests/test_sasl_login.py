"""LOGIN (draft-murchison-sasl-login)."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl import Challenge, Context, Denied, Malformed, PasswordCredential, Verify
from digipoort_msa.sasl.login import LOGIN
from tests.requirements import proves

CONTEXT = Context(("example.nl",), frozenset({"msa.example.nl"}), "nonce")
EXPECTED = Verify(PasswordCredential("tim", "secret", "tim"))


class LoginTests(SynchronousTestCase):
    @proves("A2", "A6")
    def test_two_prompts_to_the_letter(self) -> None:
        exchange = LOGIN.start(CONTEXT, None)
        self.assertEqual(next(exchange), Challenge(b"Username:"))
        self.assertEqual(exchange.send(b"tim"), Challenge(b"Password:"))
        self.assertEqual(exchange.send(b"secret"), EXPECTED)
        self.assertRaises(StopIteration, exchange.send, b"")

    @proves("A2", "A6")
    def test_the_initial_response_is_the_user_name(self) -> None:
        exchange = LOGIN.start(CONTEXT, b"tim")
        self.assertEqual(next(exchange), Challenge(b"Password:"))
        self.assertEqual(exchange.send(b"secret"), EXPECTED)

    @proves("A4")
    def test_saslprep(self) -> None:
        exchange = LOGIN.start(CONTEXT, "I\u00adX".encode())
        next(exchange)
        self.assertEqual(exchange.send("\u00aa".encode()), Verify(PasswordCredential("IX", "a", "IX")))

    def test_malformed_names(self) -> None:
        for name in (b"", b"\xff", b"t\0m", b"t" * 1025):
            with self.subTest(name=name[:10]):
                self.assertRaises(Malformed, next, LOGIN.start(CONTEXT, name))

    def test_malformed_passwords(self) -> None:
        for password in (b"", b"\xff", b"se\0cret", b"s" * 1025):
            with self.subTest(password=password[:10]):
                exchange = LOGIN.start(CONTEXT, b"tim")
                next(exchange)
                self.assertRaises(Malformed, exchange.send, password)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=30), st.binary(max_size=30))
    def test_raises_nothing_else(self, name: bytes, password: bytes) -> None:
        exchange = LOGIN.start(CONTEXT, None)
        next(exchange)
        with contextlib.suppress(Malformed, Denied):
            exchange.send(name)
            exchange.send(password)
