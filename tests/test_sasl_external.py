"""EXTERNAL (RFC 4422 appendix A)."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.sasl.certificate import ClientCertificate
from digipoort_msa.sasl.credentials import CertificateCredential
from digipoort_msa.sasl.external import EXTERNAL
from digipoort_msa.sasl.mechanism import Challenge, Channel, Context, Denied, Malformed, Verify
from tests.requirements import proves

CERTIFICATE = ClientCertificate(subject="CN=mijnbedrijf")
CHANNEL = Channel(certificate=CERTIFICATE)
CONTEXT = Context(("example.nl",), frozenset(), "nonce", CHANNEL)


def asked(message: bytes) -> CertificateCredential:
    """What EXTERNAL wants verified, given ``message`` as the initial response."""
    step = next(EXTERNAL.start(CONTEXT, message))
    assert isinstance(step, Verify)
    assert isinstance(step.credential, CertificateCredential)
    return step.credential


@proves("A2")
class ExternalTests(SynchronousTestCase):
    def test_whomever_the_certificate_stands_for(self) -> None:
        """``AUTH EXTERNAL =``."""
        exchange = EXTERNAL.start(CONTEXT, b"")
        self.assertEqual(next(exchange), Verify(CertificateCredential("", CERTIFICATE)))
        self.assertRaises(StopIteration, exchange.send, b"")

    def test_without_an_initial_response_the_challenge_is_empty(self) -> None:
        for response, username in ((b"", ""), (b"mijnbedrijf", "mijnbedrijf")):
            exchange = EXTERNAL.start(CONTEXT, None)
            self.assertEqual(next(exchange), Challenge(b""))
            self.assertEqual(exchange.send(response), Verify(CertificateCredential(username, CERTIFICATE)))
            self.assertRaises(StopIteration, exchange.send, b"")

    @proves("A4")
    def test_the_authzid_is_prepared(self) -> None:
        self.assertEqual(asked("mĳn\u00adbedrijf".encode()).username, "mijnbedrijf")
        self.assertEqual(asked(b"mijnbedrijf@example.nl").username, "mijnbedrijf@example.nl")

    def test_what_an_authzid_cannot_be(self) -> None:
        for message in (b"a\0", b"\0", b"\xff", b"x" * 1025):
            self.assertRaises(Malformed, asked, message)
        for message in ("a\u202e", "\u00ad", "\u0378"):
            self.assertRaises(Denied, asked, message.encode())
        self.assertEqual(len(asked(b"x" * 1024).username), 1024)

    def test_no_certificate(self) -> None:
        """It is not shown then; were it asked for all the same, it would fail."""
        self.assertFalse(EXTERNAL.can_succeed(Channel()))
        self.assertTrue(EXTERNAL.can_succeed(CHANNEL))
        exchange = EXTERNAL.start(Context(("example.nl",), frozenset(), "nonce"), b"")
        self.assertRaises(Denied, next, exchange)

    @given(st.binary(max_size=64))
    def test_any_octets(self, message: bytes) -> None:
        with contextlib.suppress(Malformed, Denied):
            self.assertNotIn("\0", asked(message).username)
