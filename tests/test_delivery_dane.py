"""DANE: certificates against TLSA records, as values and over real TLS."""

from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.delivery import dane
from digipoort_msa.delivery.dane import (
    CERTIFICATE,
    END_ENTITY,
    FULL,
    PUBLIC_KEY,
    SHA_256,
    SHA_512,
    TLSA,
    TRUST_ANCHOR,
    Mismatch,
)
from digipoort_msa.delivery.records import Answer, LookupFailed
from digipoort_msa.delivery.tls import ClientTLS
from tests.authority import Authority
from tests.hop_session import SessionOverTLSTestCase
from tests.requirements import proves

HOST = "core.example.nl"
AUTHORITY, STRANGER = Authority(), Authority()
ROOT = x509.load_pem_x509_certificate(AUTHORITY.pem)


def certificate(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def record(usage: int, selector: int, matching: int, of: x509.Certificate) -> TLSA:
    """The record that fits a certificate."""
    octets = dane.selected(of, selector)
    digests = {FULL: octets, SHA_256: sha256(octets).digest(), SHA_512: sha512(octets).digest()}
    return TLSA(usage, selector, matching, digests[matching])


KINDS = [(s, m) for s in (CERTIFICATE, PUBLIC_KEY) for m in (FULL, SHA_256, SHA_512)]
LEAF = certificate(AUTHORITY.files(HOST)[0])
OTHER = certificate(AUTHORITY.files(HOST)[0])
EXPIRED = certificate(AUTHORITY.files(HOST, expired=True)[0])


class RecordTests(SynchronousTestCase):
    def test_usable(self) -> None:
        for usage in range(256):
            for selector, matching in KINDS:
                usable = record(usage, selector, matching, LEAF).usable
                self.assertEqual(usable, usage in (TRUST_ANCHOR, END_ENTITY))

    def test_unknown_selectors_and_matching_types(self) -> None:
        for unknown in (3, 4, 255):
            self.assertFalse(TLSA(3, unknown, SHA_256, bytes(32)).usable)
            self.assertFalse(TLSA(3, 1, unknown, bytes(32)).usable)

    def test_malformed_data(self) -> None:
        for matching, length in ((SHA_256, 32), (SHA_512, 64)):
            for wrong in (0, 20, length - 1, length + 1):
                self.assertFalse(TLSA(3, 1, matching, bytes(wrong)).usable)
        for selector in (CERTIFICATE, PUBLIC_KEY):
            self.assertFalse(TLSA(3, selector, FULL, b"no DER").usable)
        whole = dane.selected(LEAF, CERTIFICATE)
        self.assertFalse(TLSA(3, CERTIFICATE, FULL, whole[:-1]).usable)
        self.assertFalse(TLSA(3, PUBLIC_KEY, FULL, whole).usable)

    @settings(deadline=None)
    @given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=100))
    def test_whatever_the_dns_says(self, usage: int, selector: int, matching: int, data: bytes) -> None:
        for applicable in dane.applicable([TLSA(usage, selector, matching, data)]):
            self.assertRaises(Mismatch, dane.verify, [applicable], [LEAF, ROOT])

    def test_only_the_strongest_digest_counts(self) -> None:
        """RFC 7671 9: of each usage and selector on its own; whole data stays."""
        weak, strong = record(3, 1, SHA_256, LEAF), record(3, 1, SHA_512, OTHER)
        other_kind, whole = record(3, 0, SHA_256, LEAF), record(3, 1, FULL, OTHER)
        self.assertEqual(dane.applicable([weak, strong]), (strong,))
        self.assertEqual(dane.applicable([weak]), (weak,))
        self.assertEqual(dane.applicable([weak, other_kind, strong]), (other_kind, strong))
        self.assertEqual(dane.applicable([weak, whole]), (weak, whole))

    def test_an_unusable_record_outranks_nothing(self) -> None:
        weak = record(3, 1, SHA_256, LEAF)
        self.assertEqual(dane.applicable([weak, TLSA(3, 1, SHA_512, b"short")]), (weak,))


@proves("D4")
class VerdictTests(SynchronousTestCase):
    def test_end_entity(self) -> None:
        """Name, dates and issuer do not matter: whatever else is in the chain, no name has to be checked."""
        for selector, matching in KINDS:
            for leaf in (LEAF, EXPIRED, certificate(STRANGER.files("whoever.example")[0])):
                right = record(END_ENTITY, selector, matching, leaf)
                self.assertFalse(dane.verify([right], [leaf]))
                self.assertRaises(Mismatch, dane.verify, [right], [OTHER])

    def test_end_entity_is_not_looked_for_above(self) -> None:
        self.assertRaises(Mismatch, dane.verify, [record(END_ENTITY, 1, SHA_256, ROOT)], [LEAF, ROOT])

    def test_trust_anchor(self) -> None:
        for selector, matching in KINDS:
            anchor = record(TRUST_ANCHOR, selector, matching, ROOT)
            self.assertTrue(dane.verify([anchor], [LEAF, ROOT]))
            self.assertRaises(Mismatch, dane.verify, [anchor], [EXPIRED, ROOT])

    def test_trust_anchor_that_is_not_sent(self) -> None:
        self.assertTrue(dane.verify([record(TRUST_ANCHOR, CERTIFICATE, FULL, ROOT)], [LEAF]))
        for selector, matching in KINDS[1:]:
            anchor = record(TRUST_ANCHOR, selector, matching, ROOT)
            self.assertRaises(Mismatch, dane.verify, [anchor], [LEAF])

    def test_trust_anchor_beside_the_chain(self) -> None:
        """Anyone can send along the anchor of somebody else: the leaf has to come from it."""
        strange = certificate(STRANGER.files(HOST)[0])
        for selector, matching in KINDS:
            anchor = record(TRUST_ANCHOR, selector, matching, ROOT)
            self.assertRaises(Mismatch, dane.verify, [anchor], [strange, ROOT])

    def test_trust_anchor_is_not_the_leaf(self) -> None:
        anchor = record(TRUST_ANCHOR, PUBLIC_KEY, SHA_256, LEAF)
        self.assertRaises(Mismatch, dane.verify, [anchor], [LEAF, ROOT])

    def test_trust_anchor_that_signs_what_it_may_not(self) -> None:
        """A leaf that is no authority cannot be one between."""
        signed, _ = AUTHORITY.signed_by_a_leaf(HOST)
        below, above = map(certificate, signed)
        anchor = record(TRUST_ANCHOR, PUBLIC_KEY, SHA_256, ROOT)
        error = self.assertRaises(Mismatch, dane.verify, [anchor], [below, above, ROOT])
        self.assertIn("CA", str(error))

    def test_either_will_do(self) -> None:
        wrong, right = record(END_ENTITY, 1, SHA_256, OTHER), record(TRUST_ANCHOR, 1, SHA_256, ROOT)
        self.assertTrue(dane.verify([wrong, right], [LEAF, ROOT]))
        self.assertFalse(dane.verify([right, record(END_ENTITY, 1, SHA_256, LEAF)], [LEAF, ROOT]))

    def test_no_certificate(self) -> None:
        self.assertRaises(Mismatch, dane.verify, [record(END_ENTITY, 1, SHA_256, LEAF)], [])


@proves("D4")
class OverTLSTests(SessionOverTLSTestCase):
    """A hop whose certificate no authority of ours has signed, unless a test says otherwise."""

    def setUp(self) -> None:
        super().setUp()
        self.ca_file = Path(self.mktemp())
        self.ca_file.write_bytes(STRANGER.pem)
        self.asked: list[tuple[str, int]] = []

    def tls(self, *records: TLSA, authenticated: bool = True, **settings: Any) -> ClientTLS:
        def look_up(host: str, port: int) -> "Deferred[Answer[TLSA]]":
            self.asked.append((host, port))
            return succeed(Answer(records, authenticated))

        return ClientTLS("verify", self.ca_file, tlsa=look_up, **settings)

    def hop(self, *names: str, by: Authority = AUTHORITY, **how: Any) -> tuple[int, x509.Certificate]:
        chain, key = by.files(*(names or (HOST,)), **how)
        issuer = X509.from_cryptography(certificate(by.pem))
        return self.listen(by.options(chain, key, extraCertChain=[issuer])), certificate(chain)

    async def test_end_entity(self) -> None:
        for how in ({}, {"expired": True}):
            port, leaf = self.hop("whatever.example", **how)
            session = await self.open(port, self.tls(record(END_ENTITY, 1, SHA_256, leaf)))
            self.assertIn("DANE", session.connection.tls)
            self.assertEqual(self.asked[-1], (HOST, port))

    async def test_end_entity_does_not_match(self) -> None:
        """However good the certificate is otherwise."""
        port, _ = self.hop(by=STRANGER)
        refusal = await self.refusal(port, self.tls(record(END_ENTITY, 1, SHA_256, LEAF)))
        self.assertIn("451 4.7.5", refusal)
        self.assertIn("TLSA", refusal)
        self.assertEqual([c[:4] for c in self.servers[-1].commands], [b"EHLO", b"STAR"])

    async def test_trust_anchor(self) -> None:
        port, _ = self.hop()
        await self.open(port, self.tls(record(TRUST_ANCHOR, 0, SHA_256, ROOT)))
        port, _ = self.hop("evil.example.nl")
        refusal = await self.refusal(port, self.tls(record(TRUST_ANCHOR, 0, SHA_256, ROOT)))
        self.assertIn("another host", refusal)
        port, _ = self.hop(expired=True)
        refusal = await self.refusal(port, self.tls(record(TRUST_ANCHOR, 0, SHA_256, ROOT)))
        self.assertIn("expired", refusal)

    async def test_pins_count_besides(self) -> None:
        port, leaf = self.hop()
        tls = self.tls(record(END_ENTITY, 1, SHA_256, leaf), public_key_pins=["A" * 43 + "="])
        self.assertIn("public-key-pins", await self.refusal(port, tls))

    async def test_ordinary_proof(self) -> None:
        """Where no record may be trusted, or none can be used, the authorities decide as ever."""
        trusted, _ = self.hop(by=STRANGER)
        untrusted, other = self.hop()
        for tls in (
            self.tls(),
            self.tls(authenticated=False),
            self.tls(record(END_ENTITY, 1, SHA_256, other), authenticated=False),
            self.tls(record(1, 1, SHA_256, other), TLSA(3, 1, SHA_256, b"short")),
        ):
            session = await self.open(trusted, tls)
            self.assertNotIn("DANE", session.connection.tls)
            self.assertIn("not trusted here", await self.refusal(untrusted, tls))

    async def test_a_hop_from_a_forged_answer(self) -> None:
        """RFC 7672 2.2.1: its records could be the forger's own."""
        port, leaf = self.hop()
        tls = self.tls(record(END_ENTITY, 1, SHA_256, leaf))
        for expected in ({}, {"server_name": HOST}):
            tls = self.tls(record(END_ENTITY, 1, SHA_256, leaf), **expected)
            self.assertIn("451 4.7.5", await self.refusal(port, tls, secure=False))
        self.assertEqual(self.asked, [])

    async def test_an_address_has_no_records(self) -> None:
        port, leaf = self.hop()
        tls = self.tls(record(END_ENTITY, 1, SHA_256, leaf))
        self.assertIn("not trusted here", await self.refusal(port, tls, "127.0.0.1"))
        self.assertEqual(self.asked, [])

    async def test_no_answer(self) -> None:
        """A forger who can only block answers must not get the hop taken without its records."""
        port, _ = self.hop(by=STRANGER)
        tls = ClientTLS("verify", self.ca_file, tlsa=lambda host, port: fail(LookupFailed("SERVFAIL")))
        refusal = await self.refusal(port, tls)
        for words in ("451 4.7.5", "SERVFAIL", "resolver", "dane"):
            self.assertIn(words, refusal)
        self.assertEqual(self.servers[-1].commands, [])


class DERTests(SynchronousTestCase):
    def test_selected(self) -> None:
        self.assertEqual(dane.selected(LEAF, CERTIFICATE), LEAF.public_bytes(Encoding.DER))
        self.assertIn(dane.selected(LEAF, PUBLIC_KEY), LEAF.public_bytes(Encoding.DER))
