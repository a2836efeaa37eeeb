"""The names in a client's certificate: those of real ones, and what hostile ones try."""

import subprocess
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.server.client_certificate import Unusable, client_certificate, names_in
from tests.client_authority import ClientAuthority, common_name

AUTHORITY = ClientAuthority("CA, of us")

SUBJECT = [
    (NameOID.COUNTRY_NAME, "NL"),
    (NameOID.STATE_OR_PROVINCE_NAME, "Zuid-Holland"),
    (NameOID.LOCALITY_NAME, "'s-Gravenhage"),
    (NameOID.STREET_ADDRESS, "Straat 1"),
    (NameOID.ORGANIZATION_NAME, 'Bedrijf, "X" + Zn €'),
    (NameOID.ORGANIZATIONAL_UNIT_NAME, "a=b"),
    (NameOID.ORGANIZATION_IDENTIFIER, "NTRNL-12345678"),
    (NameOID.SERIAL_NUMBER, "00000001234567890000"),
    (NameOID.EMAIL_ADDRESS, "a@b.nl"),
    (NameOID.TITLE, "t"),
    (NameOID.GIVEN_NAME, "g"),
    (NameOID.SURNAME, "s"),
    (NameOID.DOMAIN_COMPONENT, "example"),
    (NameOID.USER_ID, "u"),
    (NameOID.COMMON_NAME, " #a;<b>\\ "),
]


class NamesTests(SynchronousTestCase):
    def test_every_name(self) -> None:
        issued = AUTHORITY.issue(
            SUBJECT,
            alternatives=[
                x509.RFC822Name("Piet@b.nl"),
                x509.DNSName("b.nl"),
                x509.DNSName("*.c.nl"),
                x509.UniformResourceIdentifier("urn:oin:1"),
                x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a"),
            ],
        ).certificate
        names = names_in(issued)
        self.assertEqual(names.common_names, (" #a;<b>\\ ",))
        self.assertEqual(names.serial_numbers, ("00000001234567890000",))
        self.assertEqual(names.organization_identifiers, ("NTRNL-12345678",))
        self.assertEqual(names.emails, ("Piet@b.nl",))
        self.assertEqual(names.dns_names, ("b.nl", "*.c.nl"))
        self.assertEqual(names.uris, ("urn:oin:1",))
        self.assertEqual(names.issuer, "CN=CA\\, of us")
        self.assertEqual(names.serial, issued.serial_number)

    def openssl(self, certificate: x509.Certificate, *options: str) -> str:
        pem = certificate.public_bytes(Encoding.PEM)
        done = subprocess.run(
            ["openssl", "x509", "-noout", *options], input=pem, capture_output=True, check=True
        )
        return done.stdout.decode().partition("=")[2].strip("\n")

    def test_as_openssl_shows_them(self) -> None:
        """That is what an operator copies into a rule."""
        certificate = AUTHORITY.issue(SUBJECT).certificate
        names = names_in(certificate)
        form = ("-nameopt", "RFC2253,-esc_msb,utf8")
        self.assertEqual(self.openssl(certificate, "-subject", *form), names.subject)
        self.assertEqual(self.openssl(certificate, "-issuer", *form), names.issuer)
        fingerprint = self.openssl(certificate, "-fingerprint", "-sha256")
        self.assertEqual(fingerprint.replace(":", "").lower(), names.fingerprint)

    def test_a_certificate_without_names(self) -> None:
        names = names_in(AUTHORITY.issue().certificate)
        self.assertEqual((names.subject, names.common_names, names.emails), ("", (), ()))

    def unusable(self, *names: Any, **options: Any) -> None:
        self.assertRaises(Unusable, names_in, AUTHORITY.issue(*names, **options).certificate)

    def test_text_that_is_none(self) -> None:
        """CVE-2009-2408 and its kin: a NUL, line ends, controls, and what turns text around."""
        for character in "\0\n\r\t\x7f\x85\u2028\u202e\u200b\ufeff\u00ad":
            self.unusable(common_name(f"mijnbedrijf{character}.evil.example"))
            self.unusable([(NameOID.ORGANIZATION_IDENTIFIER, f"1{character}")])
            if character.isascii():
                self.unusable(alternatives=[x509.DNSName(f"b.nl{character}.evil.example")])
                self.unusable(alternatives=[x509.RFC822Name(f"a@b.nl{character}")])
                self.unusable(alternatives=[x509.UniformResourceIdentifier(f"urn:b{character}")])

    def test_a_control_elsewhere_in_the_subject(self) -> None:
        for character in "\n\u202e":
            self.unusable([(NameOID.ORGANIZATION_NAME, f"a{character}")])

    def test_one_that_openssl_alone_can_read(self) -> None:
        class Connection:
            def get_peer_certificate(self, *, as_cryptography: bool) -> object:
                raise ValueError("error parsing asn1 value")

        self.assertRaises(Unusable, client_certificate, Connection())

    def test_too_much(self) -> None:
        self.unusable(alternatives=[x509.DNSName(f"{number}.nl") for number in range(101)])
        self.unusable(alternatives=[x509.DNSName("a" * 1025)])
        self.unusable([(NameOID.ORGANIZATION_NAME, "a" * 64)] * 20)

    def test_extensions_that_cannot_be_read(self) -> None:
        for octets in (b"", b"\x30\x03\x87\x01\x00", b"\x30\x03\x81\x01\xff"):
            kind = x509.SubjectAlternativeName.oid
            self.unusable(extensions=[x509.UnrecognizedExtension(kind, octets)])
