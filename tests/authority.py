"""A certificate authority for tests: certificates for any name, right or wrong, on the spot."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import CertificateOptions, PrivateCertificate

_DAY = timedelta(days=1)


class Authority:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        self._certificate = self._sign(self._name, self._key, None, datetime.now(UTC), ca=True)
        self.pem = self._certificate.public_bytes(Encoding.PEM)

    def server(self, *names: str, expired: bool = False, **options: object) -> CertificateOptions:
        """What a TLS server needs to be one of ``names``, host names or IP addresses.

        :param options: further ones of ``CertificateOptions``.
        """
        return self.options(*self.files(*names, expired=expired), **options)

    @staticmethod
    def options(certificate: bytes, key: bytes, **options: object) -> CertificateOptions:
        """What a TLS server needs to show a certificate from :meth:`files`."""
        private = PrivateCertificate.loadPEM(certificate + key)
        return CertificateOptions(private.privateKey.original, private.original, **options)

    def files(self, *names: str, expired: bool = False, nonsense: bool = False) -> tuple[bytes, bytes]:
        """A server's certificate and its key, in PEM form.

        :param nonsense: its names are there, but no reader of ASN.1 would make anything of them.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        start = datetime.now(UTC) - (10 * _DAY if expired else timedelta())
        alternatives: x509.ExtensionType = x509.SubjectAlternativeName(list(map(_general_name, names)))
        if nonsense:
            alternatives = x509.UnrecognizedExtension(alternatives.oid, b"\x30\x03\x87\x01\x00")
        certificate = self._sign(x509.Name([]), key, alternatives, start)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), private

    def signed_by_a_leaf(self, name: str) -> tuple[list[bytes], bytes]:
        """A chain, without this authority, in which an ordinary certificate signs; and its first key."""
        impostor = Authority()
        impostor._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "No authority")])
        above = self._sign(impostor._name, impostor._key, None, datetime.now(UTC))
        below, key = impostor.files(name)
        return [below, above.public_bytes(Encoding.PEM)], key

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        alternatives: x509.ExtensionType | None,
        start: datetime,
        ca: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - _DAY)
            .not_valid_after(start + 5 * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=True)
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
