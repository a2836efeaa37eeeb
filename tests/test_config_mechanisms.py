"""Rules on mechanisms, their end, and client certificates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import ConfigError, settings_from, warnings
from digipoort_msa.config.client_authorities import revocation_lists
from digipoort_msa.config.settings import Settings
from tests.client_authority import DAY, ClientAuthority, common_name, crl_file, partial
from tests.configurations import document, with_files

ENC = Encoding.PEM
RULE = {"field": "common-name", "pattern": "*", "account": "*"}
TODAY = datetime.now(UTC).date()


def found(*, realm: Any, **tables: Any) -> list[str]:
    """What is said of a document: errors, or else warnings."""
    whole = document(realm=[{"name": "a", **realm}], **tables)
    try:
        settings = settings_from(whole, files=False)
    except ConfigError as error:
        return str(error).split("\n")
    said = [str(problem) for problem in warnings(settings)]
    return [line for line in said if not line.startswith(("tls.certificate", "tls.private-key"))]


class Ends(SynchronousTestCase):
    """``digest-md5-until``."""

    def ends(self, days: int, *mechanisms: str) -> str:
        until = TODAY + days * DAY
        (line,) = found(realm={"mechanisms": mechanisms, "digest-md5-until": until}) or [""]
        self.assertTrue(not line or line.startswith(f"realm[0].digest-md5-until = {until}: "), line)
        return line

    def test_far(self) -> None:
        self.assertEqual(self.ends(31, "DIGEST-MD5", "PLAIN"), "")

    def test_near(self) -> None:
        self.assertIn("is near (30 days)", self.ends(30, "DIGEST-MD5", "PLAIN"))
        self.assertIn("is near (0 days)", self.ends(0, "DIGEST-MD5", "PLAIN"))

    def test_past(self) -> None:
        self.assertIn("is over: DIGEST-MD5 is off", self.ends(-1, "DIGEST-MD5", "PLAIN"))

    def test_nothing_left(self) -> None:
        self.assertIn("leaves nothing to log in with", self.ends(400, "DIGEST-MD5"))
        lines = found(realm={"mechanisms": ["DIGEST-MD5"], "digest-md5-until": TODAY - DAY})
        self.assertIn("listener[0]: offers nothing to log in with", lines)

    def test_no_effect(self) -> None:
        self.assertIn("has no effect", self.ends(400, "PLAIN"))


class Listeners(SynchronousTestCase):
    """``listener.mechanisms`` and ``listener.client-certificates``."""

    def listener(self, **keys: Any) -> dict[str, Any]:
        return {"endpoint": "tcp:587", "tls": "starttls", **keys}

    def test_mechanisms(self) -> None:
        plain = {"mechanisms": ["PLAIN"]}
        self.assertEqual(found(realm=plain, listener=[self.listener(mechanisms=["PLAIN"])]), [])
        self.assertEqual(
            found(realm=plain, listener=[self.listener(mechanisms=["PLAIN", "PLAIN"])]),
            ['listener[0].mechanisms[1] = "PLAIN": should be there once'],
        )
        self.assertEqual(
            found(realm=plain, listener=[self.listener(mechanisms=["LOGIN"])]),
            [
                'listener[0].mechanisms[0] = "LOGIN": has no effect: no realm offers it',
                "listener[0]: offers nothing to log in with",
            ],
        )

    def test_an_authority_is_needed(self) -> None:
        for tables, where in (
            ({"tls": {"client-certificates": "optional"}}, "tls"),
            ({"listener": [self.listener(**{"client-certificates": "optional"})]}, "listener[0]"),
        ):
            (line,) = found(realm={}, **tables)
            self.assertEqual(
                line, f'tls.client-ca: missing; {where}.client-certificates = "optional" needs a PEM file'
            )
        off = self.listener(**{"client-certificates": "off"})
        self.assertEqual(found(realm={}, tls={"client-certificates": "required"}, listener=[off]), [])

    def test_lists_that_nobody_looks_at(self) -> None:
        (line,) = found(realm={}, tls={"client-crl": "/x"})
        self.assertIn("tls.client-crl: has no effect", line)


class External(SynchronousTestCase):
    """``realm.certificate``."""

    tls = {"client-certificates": "optional", "client-ca": "/ca.pem", "client-crl": "/crl.pem"}  # noqa: RUF012

    def found(self, *rules: dict[str, str], mechanisms: Any = ("EXTERNAL",), **tables: Any) -> list[str]:
        tables = {"tls": self.tls, **tables}
        lines = found(realm={"mechanisms": mechanisms, "certificate": rules}, **tables)
        return [line for line in lines if "cannot be read" not in line]

    def test_right(self) -> None:
        self.assertEqual(self.found(RULE), [])
        fingerprint = {"field": "fingerprint", "pattern": ":".join(["0A"] * 32), "account": "a"}
        self.assertEqual(self.found(fingerprint), [])
        self.assertEqual(self.found({"field": "san-email", "pattern": "*@a.nl", "account": "x-*"}), [])

    def test_rules(self) -> None:
        for changes, line in (
            ({"pattern": "*a*"}, 'certificate[0].pattern = "*a*": should have one * at most'),
            ({"account": "**"}, 'certificate[0].account = "**": should have * only where'),
            ({"pattern": "a"}, 'certificate[0].account = "*": should have * only where'),
            ({"field": "fingerprint", "pattern": "0a", "account": "a"}, "SHA-256 fingerprint"),
            ({"field": "san-email", "pattern": "a.nl", "account": "a"}, "should be an address"),
            ({"field": "cn"}, 'certificate[0].field = "cn": should be which name'),
            ({"pattern": ""}, 'certificate[0].pattern = "": should be what that name'),
        ):
            (said,) = self.found({**RULE, **changes})
            self.assertTrue(said.startswith("realm[0].certificate[0]."), said)
            self.assertIn(line, said)

    def test_without_rules(self) -> None:
        self.assertIn("realm[0].certificate: missing; EXTERNAL", self.found()[0])

    def test_rules_alone(self) -> None:
        (line,) = self.found(RULE, mechanisms=["PLAIN"])
        self.assertIn("realm[0].certificate: has no effect", line)

    def test_offered_nowhere(self) -> None:
        listeners = [
            {"endpoint": "tcp:1", "tls": "implicit", "client-certificates": "off"},
            {"endpoint": "tcp:2", "tls": "implicit", "mechanisms": ["PLAIN"]},
        ]
        (line,) = self.found(RULE, mechanisms=["EXTERNAL", "PLAIN"], listener=listeners)
        self.assertIn("EXTERNAL is offered nowhere", line)

    def test_without_lists(self) -> None:
        tls = {name: value for name, value in self.tls.items() if name != "client-crl"}
        (line,) = self.found(RULE, tls=tls)
        self.assertIn("tls.client-crl: missing; EXTERNAL", line)


class Files(SynchronousTestCase):
    """``tls.client-ca`` and ``tls.client-crl``."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.root = ClientAuthority("Root")
        self.below = ClientAuthority("Issuing", self.root)

    def found(self, crl: bytes | None, *, ca: bytes | None = None) -> list[str]:
        tables, _ = with_files(self.folder)
        (self.folder / "ca.pem").write_bytes(self.root.pem if ca is None else ca)
        tables["tls"] |= {"client-certificates": "optional", "client-ca": str(self.folder / "ca.pem")}
        if crl is not None:
            (self.folder / "crl.pem").write_bytes(crl)
            tables["tls"]["client-crl"] = str(self.folder / "crl.pem")
        try:
            settings_from(tables)
        except ConfigError as error:
            return str(error).split("\n")
        return [str(problem) for problem in warnings(Settings.model_validate(tables))]

    def crl(self, authority: ClientAuthority, **options: Any) -> bytes:
        return crl_file(self.folder / "one", authority.revoking(**options)).read_bytes()

    def test_right(self) -> None:
        self.assertEqual(self.found(None), [])
        self.assertEqual(self.found(self.crl(self.root) + self.crl(self.below)), [])

    def test_broken(self) -> None:
        one = self.crl(self.root)
        for octets, words in (
            (b"", "it is empty"),
            (b"x", "there is none"),
            (self.root.pem, "not each block in it is a whole CRL"),
            (one + self.root.pem, "not each block in it is a whole CRL"),
            (one + one[:100], "not each block in it is a whole CRL"),
            (one.replace(b"M", b"N"), "should hold PEM lists"),
        ):
            (line,) = self.found(octets)
            self.assertTrue(line.startswith("tls.client-crl = "), line)
            self.assertIn(words, line)

    def test_several(self) -> None:
        octets = self.crl(self.root) + b"# a comment\r\n" + self.crl(self.below).replace(b"\n", b"\r\n")
        self.assertEqual(
            [crl.issuer for crl in revocation_lists(octets)], [self.root.subject, self.below.subject]
        )

    def test_a_list_that_is_not_complete(self) -> None:
        """OpenSSL passes over it without a word, so that what is revoked there alone would be let in."""
        whole = self.crl(self.root)
        some_reasons = frozenset([x509.ReasonFlags.key_compromise])
        for extension, words in (
            (x509.DeltaCRLIndicator(1), "the list of CN=Root is a delta"),
            (partial(indirect_crl=True), "the list of CN=Root is an indirect one"),
            (partial(only_some_reasons=some_reasons), "the list of CN=Root is about some reasons"),
        ):
            (line,) = self.found(whole + self.crl(self.root, extensions=[extension]))
            self.assertTrue(line.startswith("tls.client-crl = "), line)
            self.assertIn(words, line)
        users = self.crl(self.root, extensions=[partial(only_contains_user_certs=True)])
        self.assertEqual(len(revocation_lists(users)), 1)

    def test_in_der(self) -> None:
        """As authorities publish it."""
        (line,) = self.found(self.root.revoking().public_bytes(Encoding.DER))
        self.assertIn("openssl crl -inform DER", line)

    def test_what_has_certificates_refused(self) -> None:
        root = self.crl(self.root)
        stranger = ClientAuthority("Root")
        for octets, words in (
            (self.crl(self.below), "has no list of CN=Root"),
            (self.crl(stranger), "has a list of CN=Root that it has not signed"),
            (root + self.crl(self.below, start=-2 * DAY, end=-DAY), "CN=Issuing that is out of date since"),
            (root + self.crl(self.below, start=-3 * DAY, end=DAY - timedelta(minutes=1)), "is good until"),
        ):
            (line,) = self.found(octets)
            self.assertTrue(line.startswith("tls.client-crl = "), line)
            self.assertIn(words, line)

    def test_authorities(self) -> None:
        old = ClientAuthority("Old", start=-2 * DAY, end=-DAY)
        for ca, words in (
            (self.root.pem + self.below.pem, None),
            (self.below.pem, "has CN=Issuing, and not CN=Root above it"),
            (self.root.pem + old.pem, "has CN=Old, which expired at"),
        ):
            lines = self.found(None, ca=ca)
            self.assertEqual(len(lines), words is not None)
            if words is not None:
                self.assertTrue(lines[0].startswith("tls.client-ca = "), lines)
                self.assertIn(words, lines[0])
        (line,) = self.found(None, ca=b"x")
        self.assertIn("tls.client-ca", line)

    def test_not_looked_at_where_nobody_is_asked(self) -> None:
        tables, _ = with_files(self.folder)
        tables["tls"]["client-ca"] = "/nonexistent"
        settings_from(tables)

    def test_of_a_client(self) -> None:
        """A certificate is no authority's list."""
        self.assertRaises(
            ValueError, revocation_lists, self.root.issue(common_name("a")).certificate.public_bytes(ENC)
        )
