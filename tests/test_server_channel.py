"""Channel bindings, with OpenSSL at both ends of a TLS connection in memory."""

import contextlib
import tempfile
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha384, sha512
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.server.channel import Bindings, channel_of
from digipoort_msa.server.tls import ServerTLS, TLSFiles
from tests.requirements import proves

_SHA_1 = b"""-----BEGIN CERTIFICATE-----
MIIBbTCCARSgAwIBAgIUTx5QgL2v/yyQ/FW9GnKP/q8cbDMwCQYHKoZIzj0EATAM
MQowCAYDVQQDDAF4MCAXDTI2MTEyMjEyMjgwMFoYDzIxMjYxMDI5MTIyODAwWjAM
MQowCAYDVQQDDAF4MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE99GDe4bf85L3
0Xf0QX4XX9gdCkFs75E3R3h2Qyw+7gg32fgAlgqNZBgUf9ZLhqOwsrXpngTj1C7E
NXsgG0DOCKNTMFEwHQYDVR0OBBYEFDoEE91fYSpyjdpPlkPBifL3CVvYMB8GA1Ud
IwQYMBaAFDoEE91fYSpyjdpPlkPBifL3CVvYMA8GA1UdEwEB/wQFMAMBAf8wCQYH
KoZIzj0EAQNIADBFAiEAsEVuIXtKQ1sZ9z+OdvW8sQBQLWNLQc4M6OOBRoyjxeUC
IBOECUYtdc80Abic/xHlTLlxNyGiDaHb3e5+cLrnnOKC
-----END CERTIFICATE-----
"""


def self_signed(directory: Path, key: Any, algorithm: Any, rsa_padding: Any = None) -> tuple[TLSFiles, bytes]:
    """A certificate and its DER."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=5))
        .sign(key, algorithm, rsa_padding=rsa_padding)
    )
    files = TLSFiles(directory / "server.pem", directory / "server.key")
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files, certificate.public_bytes(Encoding.DER)


def client_context(version: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    return context


def connect(
    tls: ServerTLS, client_with: int | SSL.Context, session: SSL.Session | None = None
) -> tuple[SSL.Connection, SSL.Connection]:
    """Both ends, after a handshake: ours, the client's.

    :param client_with: the version of TLS, or a context.
    """
    context = client_context(client_with) if isinstance(client_with, int) else client_with
    client = SSL.Connection(context, None)
    client.set_connect_state()
    if session is not None:
        client.set_session(session)
    server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
    server.set_accept_state()
    for _ in range(4):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65536))
    for end, other in ((server, client), (client, server)):
        end.send(b"x")  # TLS 1.3 brings the session's ticket along
        other.bio_write(end.bio_read(65536))
        assert other.recv(10) == b"x"
    return server, client


def exported(client: SSL.Connection) -> bytes:
    """As the client computes it (RFC 9266 4.1)."""
    return client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")


@proves("A2")
class BindingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="msa-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.ec = ec.generate_private_key(ec.SECP256R1())

    def test_tls_1_3(self) -> None:
        files, der = self_signed(self.directory, self.ec, hashes.SHA256())
        tls = ServerTLS(files)
        server, client = connect(tls, SSL.TLS1_3_VERSION)
        bindings = channel_of(server).bindings
        expected = {"tls-exporter": exported(client), "tls-server-end-point": sha256(der).digest()}
        self.assertEqual(dict(bindings), expected)
        self.assertEqual(list(bindings), list(expected))
        self.assertEqual((len(bindings), bool(bindings)), (2, True))
        self.assertRaises(KeyError, bindings.__getitem__, "tls-unique")
        other = channel_of(connect(tls, SSL.TLS1_3_VERSION)[0]).bindings
        self.assertNotEqual(other["tls-exporter"], bindings["tls-exporter"])
        self.assertEqual(other["tls-server-end-point"], bindings["tls-server-end-point"])

    def test_tls_1_2(self) -> None:
        """No exporter, which a man in the middle can make the same on both sides (RFC 7627 1)."""
        files, der = self_signed(self.directory, self.ec, hashes.SHA256())
        server, client = connect(ServerTLS(files), SSL.TLS1_2_VERSION)
        bindings = channel_of(server).bindings
        self.assertEqual(dict(bindings), {"tls-server-end-point": sha256(der).digest()})
        self.assertTrue(bindings)
        self.assertTrue(exported(client))  # OpenSSL itself would give one
        self.assertIsNone(bindings.get("tls-exporter"))

    def test_the_hash_is_the_signatures(self) -> None:
        """RFC 5929 4.1."""
        rsa_key = rsa.generate_private_key(65537, 2048)
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)
        for key, algorithm, rsa_padding, expected in (
            (self.ec, hashes.SHA384(), None, sha384),
            (self.ec, hashes.SHA512(), None, sha512),
            (rsa_key, hashes.SHA256(), None, sha256),
            (rsa_key, hashes.SHA384(), pss, sha384),
        ):
            files, der = self_signed(self.directory, key, algorithm, rsa_padding)
            bindings = Bindings(ServerTLS(files).serverConnectionForTLS(None))  # type: ignore[arg-type]
            self.assertEqual(bindings["tls-server-end-point"], expected(der).digest())

    def test_a_broken_hash_is_not_used(self) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_cipher_list(b"DEFAULT@SECLEVEL=0")
        certificate = x509.load_pem_x509_certificate(_SHA_1)
        context.use_certificate(certificate)
        bindings = Bindings(SSL.Connection(context, None))
        digest = sha256(certificate.public_bytes(Encoding.DER)).digest()
        self.assertEqual(bindings["tls-server-end-point"], digest)

    def test_a_signature_without_a_hash(self) -> None:
        files, _ = self_signed(self.directory, ed25519.Ed25519PrivateKey.generate(), None)
        tls = ServerTLS(files)
        self.assertEqual(list(channel_of(connect(tls, SSL.TLS1_3_VERSION)[0]).bindings), ["tls-exporter"])
        nothing = channel_of(connect(tls, SSL.TLS1_2_VERSION)[0]).bindings
        self.assertEqual((dict(nothing), bool(nothing)), ({}, False))

    def test_no_certificate(self) -> None:
        nothing = Bindings(SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None))
        self.assertEqual(nothing.get("tls-server-end-point"), None)

    def test_the_certificate_is_that_of_the_connection(self) -> None:
        """Not the one that came with a SIGHUP since; what the client has seen decides."""
        files, before = self_signed(self.directory, self.ec, hashes.SHA256())
        tls = ServerTLS(files)
        server, _ = connect(tls, SSL.TLS1_3_VERSION)
        _, after = self_signed(self.directory, self.ec, hashes.SHA384())
        tls.reload()
        later, _ = connect(tls, SSL.TLS1_3_VERSION)
        self.assertEqual(Bindings(server)["tls-server-end-point"], sha256(before).digest())
        self.assertEqual(Bindings(later)["tls-server-end-point"], sha384(after).digest())

    def test_a_resumed_session(self) -> None:
        """The same certificate, though it is not shown again; another exporter."""
        files, der = self_signed(self.directory, self.ec, hashes.SHA256())
        shown: list[object] = []  # the certificates that clients have looked at
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            tls = ServerTLS(files)
            context = client_context(version)
            context.set_verify(
                SSL.VERIFY_PEER, lambda _, certificate, *rest: shown.append(certificate) or True
            )
            first, client = connect(tls, context)
            session = client.get_session()
            shown.clear()
            server, client = connect(tls, context, session)
            self.assertEqual(shown, [])
            self.assertEqual(Bindings(server)["tls-server-end-point"], sha256(der).digest())
            if version == SSL.TLS1_3_VERSION:
                self.assertEqual(Bindings(server)["tls-exporter"], exported(client))
                self.assertNotEqual(Bindings(server)["tls-exporter"], Bindings(first)["tls-exporter"])
            # After a reload nothing is resumed: no client goes by a certificate that we no longer have.
            tls.reload()
            connect(tls, context, session)
            self.assertNotEqual(shown, [])
