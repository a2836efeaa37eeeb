"""PLAIN (RFC 4616)."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl import Challenge, Context, Denied, Malformed, PasswordCredential, Verify
from digipoort_msa.sasl.plain import PLAIN
from tests.requirements import proves

CONTEXT = Context(("example.nl",), frozenset({"msa.example.nl"}), "nonce")


def credential(message: bytes) -> object:
    """What PLAIN wants verified, given ``message`` as the initial response."""
    step = next(PLAIN.start(CONTEXT, message))
    assert isinstance(step, Verify)
    return step.credential


@proves("A2")
class PlainTests(SynchronousTestCase):
    def test_initial_response(self) -> None:
        exchange = PLAIN.start(CONTEXT, b"\0tim\0tanstaaftanstaaf")
        expected = Verify(PasswordCredential("tim", "tanstaaftanstaaf", "tim"))
        self.assertEqual(next(exchange), expected)
        self.assertRaises(StopIteration, exchange.send, b"")

    def test_without_an_initial_response_the_challenge_is_empty(self) -> None:
        exchange = PLAIN.start(CONTEXT, None)
        self.assertEqual(next(exchange), Challenge(b""))
        expected = Verify(PasswordCredential("tim", "secret", "tim"))
        self.assertEqual(exchange.send(b"\0tim\0secret"), expected)
        self.assertRaises(StopIteration, exchange.send, b"")

    def test_an_empty_initial_response_is_a_message(self) -> None:
        self.assertRaises(Malformed, credential, b"")

    def test_authzid_equal_to_the_authcid(self) -> None:
        expected = PasswordCredential("Ursel", "xipj3plmq", "Ursel")
        self.assertEqual(credential(b"Ursel\0Ursel\0xipj3plmq"), expected)

    def test_authzid_of_another(self) -> None:
        self.assertRaisesRegex(Denied, "authzid", credential, b"Kurt\0Ursel\0xipj3plmq")

    @proves("A4")
    def test_saslprep(self) -> None:
        message = "\u2168\0I\u00adX\0Ange\u0301".encode()
        self.assertEqual(credential(message), PasswordCredential("IX", "Ang\u00e9", "IX"))

    def test_malformed(self) -> None:
        messages = {
            "no NUL": b"tim",
            "one NUL": b"tim\0secret",
            "three NULs": b"\0tim\0sec\0ret",
            "no authcid": b"\0\0secret",
            "no passwd": b"\0tim\0",
            "not UTF-8": b"\0tim\0\xff",
            "authzid not UTF-8": b"\xff\0tim\0secret",
            "too long a name": b"\0" + b"t" * 1025 + b"\0secret",
            "too long altogether": b"\0tim\0" + b"s" * 4096,
        }
        for name, message in messages.items():
            with self.subTest(name):
                self.assertRaises(Malformed, credential, message)

    def test_the_longest_of_all_parts(self) -> None:
        name = b"t" * 1024
        self.assertEqual(credential(b"\0".join((name, name, name))), PasswordCredential(*[name.decode()] * 3))

    def test_no_error_shows_the_password(self) -> None:
        for message in (b"\0tim\0hunter2\xff", b"\0tim\0hunter2\x07", b"\0tim\0hunter2\0"):
            with self.subTest(message=message):
                error = self.assertRaises((Malformed, Denied), credential, message)
                self.assertNotIn("hunter2", str(error))

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=30) | st.lists(st.binary(max_size=8), max_size=4).map(b"\0".join))
    def test_raises_nothing_else(self, message: bytes) -> None:
        with contextlib.suppress(Malformed, Denied):
            credential(message)
