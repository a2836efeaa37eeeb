"""TLS towards clients, with real sockets and OpenSSL on both sides."""

import shutil
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.server.tls import ServerTLS, TLSFiles, TLSFilesError, describe_failure
from tests.client_authority import ClientAuthority, common_name
from tests.msa import MSATestCase
from tests.msa_certificates import certificates
from tests.msa_client import PATIENCE, Client, client_context
from tests.requirements import proves

V = ssl.TLSVersion
FAILURES = (ssl.SSLError, ConnectionResetError, EOFError)


def only(version: ssl.TLSVersion, **options: Any) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return client_context(minimum_version=version, maximum_version=version, **options)


class TLSTestCase(MSATestCase):
    def connect(self, port: int, context: ssl.SSLContext, implicit: bool = True) -> Any:
        """(version, suite, bits, compression, the certificate) or the error."""
        try:
            with Client(port, context, implicit=implicit) as client:
                if implicit:
                    client.reply()
                else:
                    client.start_tls()
                client.ask("NOOP")
                assert isinstance(client.socket, ssl.SSLSocket)
                cipher = client.socket.cipher()
                assert cipher is not None
                return (
                    client.socket.version(),
                    cipher[0],
                    client.socket.compression(),
                    client.socket.getpeercert(binary_form=True),
                )
        except FAILURES as error:
            return error

    async def assert_failed(self, words: str) -> None:
        """One line says why, and only one; the connection is closed."""
        await self.until(lambda: not self.factory.connections)
        (failed,) = self.events("tls-failed")
        self.assertIn(words, failed["reason"])
        self.assertNotIn("\n", failed["reason"])
        mentioning = [event for event in self.logged if words in str(event.get("reason", ""))]
        self.assertEqual(mentioning, [failed])
        self.logged.clear()


class VersionTests(TLSTestCase):
    @proves("L1", "L2", "L3")
    async def test_versions_chains_and_listeners(self) -> None:
        for files in (self.files.ec, self.files.rsa):
            for implicit in (True, False):
                port = self.serve(implicit=implicit, tls=ServerTLS(files))
                for version, name in ((V.TLSv1_2, "TLSv1.2"), (V.TLSv1_3, "TLSv1.3")):
                    found = await self.run_client(self.connect, port, only(version), implicit)
                    self.assertEqual(found[0], name)
                    self.assertRegex(found[1], "GCM|CHACHA20")
                    self.assertEqual(found[2], None)  # no compression
                    own = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
                    self.assertEqual(found[3], own.public_bytes(Encoding.DER))
                    logged = [event["tls"] for event in self.events("tls-started")]
                    self.assertEqual(logged[-1], f"{name} {found[1]}")

    async def test_old_versions(self) -> None:
        for implicit in (True, False):
            port = self.serve(implicit=implicit)
            for version in (V.TLSv1, V.TLSv1_1):
                context = only(version)
                context.set_ciphers("ALL:@SECLEVEL=0")
                error = await self.run_client(self.connect, port, context, implicit)
                self.assertIsInstance(error, FAILURES)
                await self.assert_failed("older than the minimum")

    async def test_minimum_version(self) -> None:
        port = self.serve(implicit=True, tls=ServerTLS(evolve(self.files.ec, minimum_version="1.3")))
        self.assertIsInstance(await self.run_client(self.connect, port, only(V.TLSv1_2)), FAILURES)
        await self.assert_failed("older than the minimum")
        self.assertEqual((await self.run_client(self.connect, port, only(V.TLSv1_3)))[0], "TLSv1.3")

    async def test_suites(self) -> None:
        """TLS 1.2: forward-secret and AEAD, or nothing."""
        for files, kind in ((self.files.ec, "ECDSA"), (self.files.rsa, "RSA")):
            port = self.serve(implicit=True, tls=ServerTLS(files))
            for suite in (f"ECDHE-{kind}-AES128-GCM-SHA256", f"ECDHE-{kind}-CHACHA20-POLY1305"):
                context = only(V.TLSv1_2)
                context.set_ciphers(suite)
                self.assertEqual((await self.run_client(self.connect, port, context))[1], suite)
            for suite in (
                f"ECDHE-{kind}-AES256-SHA384",
                f"ECDHE-{kind}-AES128-SHA",
                "AES256-GCM-SHA384",
                "DHE-RSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-AES128-CCM8",
                "ALL:!ECDHE:!TLSv1.3",
            ):
                context = only(V.TLSv1_2)
                context.set_ciphers(f"{suite}:@SECLEVEL=0")
                self.assertIsInstance(await self.run_client(self.connect, port, context), FAILURES, suite)
                await self.assert_failed("no forward-secret AEAD suite")

    async def test_renegotiation(self) -> None:
        """A client that asks for it under TLS 1.2 gets none, and the session goes on or ends."""
        port = self.serve(implicit=True)

        def script() -> bool:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            plain = socket.create_connection(("127.0.0.1", port))
            plain.settimeout(None)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE.to_bytes(8, "little") + bytes(8))
            connection = SSL.Connection(context, plain)
            connection.set_connect_state()
            try:
                connection.do_handshake()
                connection.recv(1000)
                before = connection.total_renegotiations()
                connection.renegotiate()
                connection.do_handshake()
                connection.sendall(b"NOOP\r\n")
                connection.recv(1000)
                return (
                    bool(connection.total_renegotiations() - before) and not connection.renegotiate_pending()
                )
            except SSL.Error as error:
                return "no renegotiation" not in str(error)
            finally:
                plain.close()

        self.assertFalse(await self.run_client(script))


class FailedHandshakeTests(TLSTestCase):
    """T6: one line with the reason, the connection closed, and nothing in clear."""

    @proves("T6")
    async def test_the_client_does_not_trust_us(self) -> None:
        for implicit in (True, False):
            port = self.serve(implicit=implicit)
            context = ssl.create_default_context()
            error = await self.run_client(self.connect, port, context, implicit)
            self.assertIsInstance(error, ssl.SSLCertVerificationError)
            await self.assert_failed("does not trust our certificate's authority")

    @proves("T6", "T1")
    async def test_nothing_falls_back_to_clear(self) -> None:
        port = self.serve()

        def script() -> bytes:
            with Client(port) as client:
                client.reply()
                client.ask("STARTTLS")
                client.send(b"EHLO mijnbedrijf.nl\r\nNOOP\r\nMAIL FROM:<a@b.nl>\r\n")
                return client.rest()

        answer = await self.run_client(script)
        self.assertNotIn(b"2", answer.replace(b"\x02", b""))  # a TLS alert at most: no 220, no 250
        self.assertLess(len(answer), 8)
        await self.assert_failed("does it expect STARTTLS?")

    async def test_a_client_that_leaves(self) -> None:
        for implicit in (True, False):
            port = self.serve(implicit=implicit)

            def script(port: int = port, implicit: bool = implicit) -> None:
                with Client(port) as client:
                    if not implicit:
                        client.reply()
                        client.ask("STARTTLS")
                    client.send(b"\x16\x03\x01")

            await self.run_client(script)
            await self.assert_failed("onnection")


class ClientCertificateTests(TLSTestCase):
    """L3: off by default."""

    def with_certificate(self, path: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = only(version)
        context.load_cert_chain(path, path.with_suffix(".key"))
        return context

    async def answers(self, mode: str) -> dict[str, bool]:
        """Who gets in: with a good certificate, with a stranger's, with none."""
        ca = None if mode == "off" else self.files.ca
        tls = ServerTLS(evolve(self.files.ec, client_certificates=mode, client_ca=ca))
        found: dict[str, bool] = {}
        for version in (V.TLSv1_2, V.TLSv1_3):
            port = self.serve(implicit=True, tls=tls)
            for who, context in {
                "good": self.with_certificate(self.files.client, version),
                "stranger": self.with_certificate(self.files.stranger, version),
                "none": only(version),
            }.items():
                got_in = isinstance(await self.run_client(self.connect, port, context), tuple)
                self.assertEqual(found.setdefault(who, got_in), got_in, (who, version))
                await self.until(lambda: not self.factory.connections)
        return found

    @proves("L3")
    async def test_off(self) -> None:
        self.assertEqual(await self.answers("off"), {"good": True, "stranger": True, "none": True})

    @proves("L3")
    async def test_optional(self) -> None:
        self.assertEqual(await self.answers("optional"), {"good": True, "stranger": False, "none": True})

    @proves("L3")
    async def test_required(self) -> None:
        self.assertEqual(await self.answers("required"), {"good": True, "stranger": False, "none": False})
        reasons = [event["reason"] for event in self.events("tls-failed")]
        self.assertEqual(len(reasons), 4)
        self.assertEqual(sum("one is required" in reason for reason in reasons), 2)


class ReloadTests(TLSTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.mine = TLSFiles(folder / "certificate.pem", folder / "key.pem")
        self.put(self.files.ec)

    def put(self, files: TLSFiles) -> None:
        shutil.copy(files.certificate, self.mine.certificate)
        shutil.copy(files.private_key, self.mine.private_key)

    async def test_new_connections_get_the_new_one(self) -> None:
        tls = ServerTLS(self.mine)
        port = self.serve(implicit=True, tls=tls)
        first = (await self.run_client(self.connect, port, client_context()))[3]
        self.put(self.files.rsa)

        def script() -> str:
            with Client(port, implicit=True) as client:
                client.reply()
                tls.reload()
                return client.ask("NOOP")  # the old connection goes on

        self.assertEqual(await self.run_client(script), "250 2.0.0 Ok\r\n")
        second = (await self.run_client(self.connect, port, client_context()))[3]
        self.assertNotEqual(first, second)

    async def test_a_broken_file_keeps_the_old_one(self) -> None:
        tls = ServerTLS(self.mine)
        port = self.serve(implicit=True, tls=tls)
        for break_it, words in (
            (lambda: self.mine.certificate.write_text("x"), "certificate.pem"),
            (lambda: self.mine.certificate.unlink(), "No such file"),
            (lambda: shutil.copy(self.files.rsa.certificate, self.mine.certificate), "is not the key of"),
            (lambda: self.mine.private_key.write_text(""), "key.pem"),
        ):
            self.put(self.files.ec)
            break_it()
            self.assertIn(words, str(self.assertRaises(TLSFilesError, tls.reload)))
            self.assertIsInstance(await self.run_client(self.connect, port, client_context()), tuple)


class ResumptionTests(TLSTestCase):
    async def test_a_client_that_calls_again(self) -> None:
        for version in (V.TLSv1_2, V.TLSv1_3):
            for files in (self.files.ec, evolve(self.files.ec, client_certificates="optional")):
                if files.client_certificates != "off":
                    files = evolve(files, client_ca=self.files.ca)
                port = self.serve(tls=ServerTLS(files))

                def script(port: int = port, version: ssl.TLSVersion = version) -> list[bool | None]:
                    context, session, reused = only(version), None, []
                    for _ in range(2):
                        with Client(port, context) as client:
                            client.reply()
                            client.ask("STARTTLS")
                            client.handshake(session)
                            client.ask("NOOP")
                            assert isinstance(client.socket, ssl.SSLSocket)
                            session = client.socket.session
                            reused.append(client.socket.session_reused)
                            client.ask("QUIT")
                    return reused

                # A certificate would come along unverified: see test_server_verification.
                resumed = files.client_certificates == "off"
                self.assertEqual(await self.run_client(script), [False, resumed])


class FilesTests(SynchronousTestCase):
    """What is wrong is told with the file's name."""

    def assert_error(self, words: str, **changes: Any) -> None:
        files = evolve(certificates().ec, **changes)
        self.assertIn(words, str(self.assertRaises(TLSFilesError, ServerTLS, files)))

    def test_errors(self) -> None:
        rubbish = Path(self.mktemp())
        rubbish.write_text("rubbish")
        self.assert_error(f"the certificate cannot be read from {rubbish}", certificate=rubbish)
        self.assert_error(f"the private key cannot be read from {rubbish}", private_key=rubbish)
        odd = Path(self.mktemp())
        key = X25519PrivateKey.generate()
        odd.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.assert_error("is not the key of the certificate", private_key=odd)
        self.assert_error("No such file", private_key=Path("/nonexistent"))
        self.assert_error("No such file", certificate=Path("/nonexistent"))
        self.assert_error("is not the key of the certificate", private_key=certificates().rsa.private_key)
        self.assert_error("no client-ca", client_certificates="required")
        self.assert_error("the client CA", client_certificates="required", client_ca=rubbish)

    def test_a_key_that_is_too_small(self) -> None:
        weak = ClientAuthority().issue(common_name("a"), key=generate_private_key(65537, 1024))
        shown = weak.files(Path(self.mktemp()))
        words = f"the certificate in {shown.certificate} cannot be used: ee key too small"
        self.assert_error(words, certificate=shown.certificate, private_key=shown.private_key)

    def test_an_encrypted_key_asks_nobody(self) -> None:
        """OpenSSL's own way is a question at the terminal, which would block the server."""
        key = load_pem_private_key(certificates().ec.private_key.read_bytes(), None)
        encrypted = Path(self.mktemp())
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            encrypted.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"x" * 8)))
            self.assert_error("without a passphrase", private_key=encrypted)

    def test_describe_failure(self) -> None:
        for error, words in (
            (SSL.Error([("", "", "http request")]), "http request (the client sends HTTP)"),
            (SSL.Error([("", "", "a"), ("", "", "a"), ("", "", "b")]), "a; b"),
            (SSL.Error([]), "[]"),
            (ConnectionResetError(), "ConnectionResetError"),
            (OSError("cause"), "cause"),
        ):
            self.assertEqual(describe_failure(Failure(error)), words)
