"""``digipoort-msa certificate``."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.admin.commands import main
from digipoort_msa.config import toml_document
from tests.client_authority import ClientAuthority, Issued, common_name, crl_file
from tests.configurations import document

RULE = {"field": "san-email", "pattern": "*@clients.example", "account": "*"}
SIGNS_NOTHING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class CertificateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.root = ClientAuthority("Root")
        self.below = ClientAuthority("Issuing", self.root)
        (self.folder / "ca.pem").write_bytes(self.root.pem)
        crl_file(self.folder / "crl.pem", self.root.revoking(), self.below.revoking())
        self.issued = self.issue()

    def issue(self, **options: Any) -> Issued:
        email = x509.RFC822Name("piet@clients.example")
        return self.below.issue(common_name("Piet"), alternatives=[email], **options)

    def run_command(self, issued: Issued, *arguments: str, chain: bool = True, **tls: Any) -> Result:
        tls = {"client-ca": str(self.folder / "ca.pem"), "client-crl": str(self.folder / "crl.pem"), **tls}
        realms = [
            {"name": "one.nl", "mechanisms": ["EXTERNAL"], "certificate": [RULE]},
            {"name": "two.nl", "mechanisms": ["EXTERNAL"], "certificate": [{**RULE, "field": "common-name"}]},
            {"name": "three.nl"},
        ]
        tables = document(realm=realms, tls={"client-certificates": "optional", **tls})
        config = self.folder / "msa.toml"
        config.write_text(toml_document(tables))
        file = str(issued.files(self.folder, chain=chain).certificate)
        return CliRunner().invoke(main, ["--config", str(config), "certificate", file, *arguments])

    def test_for_a_person(self) -> None:
        result = self.run_command(self.issued)
        self.assertEqual(result.exit_code, 0, result.output)
        lines = [line.split(None, 1) for line in result.stdout.splitlines()]
        self.assertIn(["subject", "CN=Piet"], lines)
        self.assertIn(["issuer", "CN=Issuing"], lines)
        self.assertIn(["san-email", "piet@clients.example"], lines)
        self.assertIn(["verifies", "yes"], lines)
        self.assertIn(["in", "one.nl    piet"], lines)
        self.assertIn("nobody: no rule of realm two.nl fits", result.stdout)

    def test_for_a_machine(self) -> None:
        found = json.loads(self.run_command(self.issued, "--json").stdout)
        self.assertEqual((found["common-name"], found["fault"]), (["Piet"], None))
        self.assertEqual([one["account"] for one in found["accounts"]], ["piet", None])

    def test_faults(self) -> None:
        past = {"start": -timedelta(days=2), "end": -timedelta(days=1)}
        for issued, chain, words in (
            (self.issue(**past), True, "CN=Piet: it has expired"),
            (self.issue(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), True, "not meant for TLS clients"),
            (self.issue(extensions=[SIGNS_NOTHING]), True, "CN=Piet: it is not meant for TLS clients"),
            (self.issue(key=rsa.generate_private_key(65537, 1024)), True, "CN=Piet: its key is too weak"),
            (self.issued, False, "its authority is not in client-ca"),
            (ClientAuthority("Others").issue(), True, "its authority is not in client-ca"),
        ):
            result = self.run_command(issued, chain=chain)
            self.assertEqual(result.exit_code, 1)
            self.assertIn(words, result.stdout)

    def test_revoked(self) -> None:
        crl_file(self.folder / "crl.pem", self.root.revoking(), self.below.revoking(self.issued.certificate))
        self.assertIn("it is revoked", self.run_command(self.issued).stdout)

    def test_nobodys(self) -> None:
        result = self.run_command(self.below.issue(common_name("Piet")))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("nobody: no rule of realm one.nl fits", result.stdout)

    def test_files_that_cannot_be_used(self) -> None:
        (self.folder / "broken").write_text("x")
        for key, file, words in (
            ("client-ca", "broken", "tls.client-ca: there are no PEM certificates in"),
            ("client-ca", "missing", "tls.client-ca: there are no PEM certificates in"),
            ("client-crl", "broken", "there is none"),
            ("client-crl", "missing", "No such file"),
        ):
            result = self.run_command(self.issued, **{key: str(self.folder / file)})
            self.assertEqual(result.exit_code, 1)
            self.assertIn(words, result.stderr)
        hostile = self.below.issue(common_name("Piet\n"))
        self.assertIn("cannot be printed", self.run_command(hostile).stderr)
