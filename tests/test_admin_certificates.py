"""The sandbox's certificates."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.admin.certificates import certificate_files, write_private

NOW = datetime.now(UTC)


class Certificates(SynchronousTestCase):
    """Made once, and made again when they are worn out."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "tls"
        self.files = certificate_files(self.folder, NOW)

    def read(self) -> bytes:
        return b"".join(
            path.read_bytes() for path in (self.files.ca, self.files.certificate, self.files.private_key)
        )

    def again(self, now: datetime = NOW) -> bytes:
        self.assertEqual(certificate_files(self.folder, now), self.files)
        return self.read()

    def test_kept(self) -> None:
        """A restart keeps them, and so their trust."""
        before = self.read()
        self.assertEqual(self.again(), before)
        self.assertEqual(self.again(NOW + timedelta(days=300)), before)

    def test_modes(self) -> None:
        """For their owner alone; nothing else is left behind."""
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()), ["ca.pem", "certificate.pem", "key.pem"]
        )
        for path in self.folder.iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_expired(self) -> None:
        """Also a day before the end, and where the clock was set back."""
        for now in (NOW + timedelta(days=396, hours=1), NOW + timedelta(days=1000), NOW - timedelta(days=1)):
            before = self.read()
            self.assertNotEqual(self.again(now), before)

    def test_damaged(self) -> None:
        """Any of the three missing, empty, or of another pair."""
        other = certificate_files(Path(self.mktemp()), NOW)
        for name in ("ca", "certificate", "private_key"):
            path: Path = getattr(self.files, name)
            for octets in (None, b"", b"hello", getattr(other, name).read_bytes()):
                if octets is None:
                    path.unlink()
                else:
                    path.write_bytes(octets)
                broken = octets
                self.again()
                self.assertNotEqual(path.read_bytes(), broken)
                self.trusted()

    def trusted(self) -> None:
        """Python's ssl takes the pair, and the authority."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self.files.certificate, self.files.private_key)
        client = ssl.create_default_context(cafile=str(self.files.ca))
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT  # the default from Python 3.13 on
        for name in ("localhost", "127.0.0.1", "::1"):
            self.handshake(client, server, name)
        self.assertRaises(ssl.SSLCertVerificationError, self.handshake, client, server, "example.nl")

    def handshake(self, client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            client.wrap_bio(to_client, to_server, server_hostname=name),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        for end in (*ends, *ends, ends[0]):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue

    def test_trusted(self) -> None:
        self.trusted()

    def test_extensions(self) -> None:
        """P-256, for servers only, and an authority that can sign for localhost alone."""
        certificate = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
        key = certificate.public_key()
        self.assertIsInstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertIsInstance(key.curve, ec.SECP256R1)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(list(usage), [ExtendedKeyUsageOID.SERVER_AUTH])
        authority = x509.load_pem_x509_certificate(self.files.ca.read_bytes())
        constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
        self.assertTrue(constraints.critical)
        self.assertNotEqual(authority.public_key(), key)


class Writing(SynchronousTestCase):
    """Private files."""

    def test_replaces(self) -> None:
        """An open file, and a draft that a crash left behind."""
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / "f"
        path.write_text("old")
        path.chmod(0o666)
        (folder / ".f.new").symlink_to(folder / "elsewhere")
        write_private(path, b"new")
        self.assertEqual(path.read_bytes(), b"new")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual([entry.name for entry in folder.iterdir()], ["f"])
