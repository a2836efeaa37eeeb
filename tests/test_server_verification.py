"""Two-way TLS: whose certificates verify, with OpenSSL at both ends of a connection in memory."""

import contextlib
import subprocess
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.server.client_certificate import chain_of, client_certificate
from digipoort_msa.server.tls import ServerTLS, TLSFilesError
from digipoort_msa.server.verification import fault_of
from tests.client_authority import DAY, ClientAuthority, ClientFiles, Issued, common_name, partial
from tests.msa_certificates import certificates
from tests.requirements import proves

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


class TwoWayTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.root = ClientAuthority("Root")
        self.below = ClientAuthority("Issuing", self.root)

    def server(
        self, *crls: x509.CertificateRevocationList, mode: str = "required", ca: bytes = b""
    ) -> ServerTLS:
        file = self.folder / "client-ca.pem"
        file.write_bytes(ca or self.root.pem)
        files = evolve(certificates().ec, client_certificates=mode, client_ca=file, client_crls=crls)
        return ServerTLS(files)

    def handshake(
        self,
        tls: ServerTLS,
        shown: Issued | ClientFiles | None,
        version: int = SSL.TLS1_3_VERSION,
    ) -> tuple[SSL.Connection, SSL.Connection, BaseException | None]:
        """See :meth:`connect`."""
        context = self.client_context(version)
        if isinstance(shown, Issued):
            shown = shown.files(self.folder)
        if shown is not None:
            context.use_certificate_chain_file(str(shown.certificate))
            context.use_privatekey_file(str(shown.private_key))
        return self.connect(tls, SSL.Connection(context, None))

    def client_context(self, version: int) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        return context

    def connect(
        self, tls: ServerTLS, client: SSL.Connection
    ) -> tuple[SSL.Connection, SSL.Connection, BaseException | None]:
        """The server's end, the client's, and why the server did not go on."""
        client.set_connect_state()
        server: SSL.Connection = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        for _ in range(4):
            for end, other in ((client, server), (server, client)):
                try:
                    end.do_handshake()
                except SSL.WantReadError:
                    pass
                except SSL.Error as error:
                    if end is server:
                        return server, client, error
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(65536))
        with contextlib.suppress(SSL.WantReadError):
            client.recv(1)  # the tickets of TLS 1.3
        return server, client, None

    def assert_taken(self, tls: ServerTLS, shown: Issued | ClientFiles | None) -> None:
        for version in VERSIONS:
            server, _, error = self.handshake(tls, shown, version)
            self.assertIsNone(error, fault_of(server))

    def assert_refused(self, tls: ServerTLS, shown: Issued | ClientFiles, words: str) -> None:
        for version in VERSIONS:
            server, _, error = self.handshake(tls, shown, version)
            self.assertIsInstance(error, SSL.Error)
            self.assertIn(words, str(fault_of(server)))


class ChainTests(TwoWayTestCase):
    """Without lists of what is revoked."""

    @proves("L3")
    def test_taken(self) -> None:
        for authority in (self.root, self.below):
            self.assert_taken(self.server(), authority.issue(common_name("a")))
        self.assert_taken(self.server(), self.root.issue(common_name("a"), purposes=()))
        self.assert_taken(self.server(mode="optional"), None)

    def test_the_client_is_told_whose_certificates_count(self) -> None:
        """One that has several can choose."""
        _, client, _ = self.handshake(self.server(), self.root.issue(common_name("a")))
        self.assertEqual([name.CN for name in client.get_client_ca_list()], ["Root"])

    @proves("L3")
    def test_refused(self) -> None:
        a = common_name("a")
        strangers = ClientAuthority("Root")  # of the same name
        for shown, words in {
            strangers.issue(a): "its authority is not in client-ca",
            ClientAuthority("Others").issue(a): "its authority is not in client-ca",
            self.root.issue(a, start=-2 * DAY, end=-DAY): "CN=a: it has expired",
            self.root.issue(a, start=DAY): "it is not valid yet",
            self.root.issue(a, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)): "not meant for TLS clients",
            self.root.issue(a, purposes=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)): "not meant for TLS clients",
            self.root.issue(a, key=rsa.generate_private_key(65537, 1024)): "its key is too weak",
            ClientAuthority("Issuing", self.root, end=-timedelta(hours=1)).issue(
                a
            ): "CN=Issuing: it has expired",
        }.items():
            for mode in ("required", "optional"):
                self.assert_refused(self.server(mode=mode), shown, words)

    def test_what_a_certificate_hangs_on(self) -> None:
        below = ClientAuthority("Short", self.root, end=DAY)
        issued = below.issue(common_name("a"))
        server, _, _ = self.handshake(self.server(), issued)
        chain = chain_of(server)
        assert chain is not None
        above = {("CN=Root", one.certificate.serial_number) for one in (self.root, below)}
        self.assertEqual(chain.members, {("CN=Short", issued.certificate.serial_number), *above})
        self.assertEqual(chain.end, below.certificate.not_valid_after_utc)
        server, _, _ = self.handshake(self.server(mode="optional"), None)
        self.assertIsNone(chain_of(server))

    def test_signed_by_itself(self) -> None:
        own = ClientAuthority("a")
        self.assert_refused(self.server(), Issued(own.certificate, own.key), "signed by itself")

    def test_an_authority_of_its_own_sent_along(self) -> None:
        stranger = ClientAuthority("Others")
        issued = stranger.issue(common_name("a"))
        shown = evolve(issued, intermediates=(stranger.certificate,))
        self.assert_refused(self.server(), shown, "none of those in client-ca")

    def test_a_missing_intermediate(self) -> None:
        shown = self.below.issue(common_name("a")).files(self.folder, chain=False)
        self.assert_refused(self.server(), shown, "an intermediate one has to be sent along")
        self.assert_taken(self.server(ca=self.root.pem + self.below.pem), shown)

    def test_a_signature_with_sha_1(self) -> None:
        """cryptography makes none any more; the openssl command does."""
        own = Issued(self.root.certificate, self.root.key).files(self.folder, "root")
        shown = ClientFiles(self.folder / "sha1.pem", self.folder / "sha1.key")
        command = [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-CA", own.certificate, "-CAkey", own.private_key, "-sha1", "-subj", "/CN=a", "-days", "1"),
            *("-addext", "basicConstraints=CA:FALSE", "-addext", "extendedKeyUsage=clientAuth"),
            *("-out", shown.certificate, "-keyout", shown.private_key),
        ]
        subprocess.run(command, check=True, capture_output=True)
        self.assert_refused(self.server(), shown, "it is signed with a hash that is too weak")

    def test_an_ordinary_certificate_signs(self) -> None:
        leaf = self.root.issue(common_name("leaf"))
        impostor = ClientAuthority("Others")
        impostor._signs = (leaf.certificate.subject, leaf.key)
        shown = evolve(impostor.issue(common_name("a")), intermediates=(leaf.certificate,))
        self.assert_refused(self.server(), shown, "it signs others, and is no authority")

    def test_one_that_cryptography_cannot_read(self) -> None:
        """Anybody can show one, signed by whomever: it must not end in a traceback."""
        shown = ClientAuthority("Others").issue(common_name("a")).files(self.folder)
        octets = x509.load_pem_x509_certificate(shown.certificate.read_bytes()).public_bytes(Encoding.DER)
        version_8 = octets.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1)
        lines = ["-----BEGIN CERTIFICATE-----", b64encode(version_8).decode(), "-----END CERTIFICATE-----"]
        shown.certificate.write_text("\n".join(lines))
        self.assert_refused(
            self.server(), shown, "one that cannot be read: its authority is not in client-ca"
        )


class RevocationTests(TwoWayTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.good = self.below.issue(common_name("good"))
        self.bad = self.below.issue(common_name("bad"))

    @proves("L3")
    def test_revoked(self) -> None:
        tls = self.server(self.root.revoking(), self.below.revoking(self.bad.certificate))
        self.assert_taken(tls, self.good)
        self.assert_refused(tls, self.bad, "the client's certificate, CN=bad: it is revoked")

    def test_a_revoked_authority(self) -> None:
        tls = self.server(self.root.revoking(self.below.certificate), self.below.revoking())
        self.assert_refused(
            tls, self.good, "an authority of the client's certificate, CN=Issuing: it is revoked"
        )

    def test_closed_where_it_cannot_be_known(self) -> None:
        """A list that is missing, out of date, of a time to come, or somebody else's."""
        fresh, old = self.root.revoking(), {"start": -2 * DAY, "end": -timedelta(minutes=1)}
        forged = ClientAuthority("Issuing", self.root).revoking()
        authorities = self.below.revoking(extensions=[partial(only_contains_ca_certs=True)])
        for crls, words in (
            ((fresh,), "client-crl has no list of its authority"),
            ((self.below.revoking(),), "client-crl has no list of its authority"),
            ((fresh, self.below.revoking(**old)), "out of date"),
            ((self.root.revoking(**old), self.below.revoking()), "out of date"),
            ((fresh, self.below.revoking(start=DAY)), "of a time to come"),
            ((fresh, forged), "not signed by its authority"),
            ((fresh, authorities), "but one for other certificates"),
        ):
            self.assert_refused(self.server(*crls), self.good, words)

    @proves("L3")
    def test_no_resumption(self) -> None:
        """A session that is resumed brings its certificate along, and nobody looks whether it is revoked by
        now.  The second time the client shows no certificate: it cannot get in by the first time's."""
        shown = self.root.issue(common_name("a"))
        for version in VERSIONS:
            for mode in ("optional", "required"):
                for reload in (False, True):
                    tls = self.server(self.root.revoking(), mode=mode)
                    context = self.client_context(version)
                    first = SSL.Connection(context, None)
                    first.use_certificate(shown.certificate)
                    first.use_privatekey(shown.key)
                    server, _, error = self.connect(tls, first)
                    self.assertIsNone(error)
                    self.assertIsNotNone(client_certificate(server))
                    if reload:
                        tls.reload()
                    second = SSL.Connection(context, None)
                    second.set_session(first.get_session())
                    server, _, error = self.connect(tls, second)
                    if mode == "optional":
                        self.assertIsNone(error)
                        self.assertIsNone(client_certificate(server))
                    else:
                        self.assertIn("peer did not return a certificate", str(error))

    def test_broken_files_change_nothing(self) -> None:
        tls = self.server(self.root.revoking(), self.below.revoking())
        for client_ca in (None, self.folder / "missing.pem"):
            self.assertRaises(TLSFilesError, tls.prepare, evolve(tls.files, client_ca=client_ca))
        self.assert_taken(tls, self.good)

    def test_prepared_is_not_in_force(self) -> None:
        tls = self.server(self.root.revoking(), self.below.revoking())
        crls = (self.root.revoking(), self.below.revoking(self.bad.certificate))
        use: Any = tls.prepare(evolve(tls.files, client_crls=crls))
        self.assert_taken(tls, self.bad)
        use()
        self.assert_refused(tls, self.bad, "revoked")
