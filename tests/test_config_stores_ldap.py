"""``[realm.ldap]``: what the settings may say."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import ConfigError, load, toml_document
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.stores import ldap
from digipoort_msa.config.stores.ldap import Ldap
from digipoort_msa.interfaces import Facilities, IPasswordVerifier
from digipoort_msa.service.stores import open_store
from tests.authority import Authority
from tests.configurations import with_files

RIGHT = {"urls": ["ldaps://ldap.example.nl"], "base": "dc=example,dc=nl"}


class ProblemTests(SynchronousTestCase):
    def problems(self, *mechanisms: str, **settings: Any) -> dict[str, str]:
        table = Ldap.model_validate(
            {**RIGHT, **{name.replace("_", "-"): value for name, value in settings.items()}}
        )
        return {
            problem.key + (" (warning)" if problem.warning else ""): problem.right
            for problem in ldap.problems("ldap", table, mechanisms or ("PLAIN",))
        }

    def test_right(self) -> None:
        for settings in (
            {},
            {"urls": ["ldap://h:389/", "ldaps://[::1]:636", "ldapi:///run/slapd/ldapi"]},
            {"bind_dn": "cn=msa", "password_file": "/password"},
            {"filter": "(&(objectClass=user)(!(x=1))(|(uid={name})(mail={name})))"},
            {"disabled_filter": "(userAccountControl:1.2.840.113556.1.4.803:=2)", "locked_filter": "(a>=1)"},
            {"groups_filter": "(member={dn})", "groups_base": "ou=groups"},
            {"filter": "(cn=\\2a {name}\\29)"},
        ):
            self.assertEqual(self.problems(**settings), {}, settings)

    def test_missing(self) -> None:
        self.assertEqual(set(self.problems(urls=[], base=None)), {"ldap.urls", "ldap.base"})
        self.assertEqual(set(self.problems(bind_dn="cn=msa")), {"ldap.password-file"})
        self.assertEqual(set(self.problems(password_file="/password")), {"ldap.bind-dn"})
        self.assertEqual(set(self.problems(groups_filter="(member={dn})")), {"ldap.groups-base"})

    def test_urls(self) -> None:
        for url in (
            "ldap.example.nl",
            "http://h",
            "ldap://",
            "ldap://h:0",
            "ldap://h:99999",
            "ldapi://",
            "ldap://h/x",
        ):
            self.assertEqual(set(self.problems(urls=["ldaps://a", url])), {"ldap.urls[1]"}, url)
        self.assertEqual(set(self.problems(urls=["ldaps://a", "ldaps://a"])), {"ldap.urls[1]"})

    def test_in_clear(self) -> None:
        """To this machine, with a warning; to another, never."""
        for url in ("ldap://localhost", "ldap://127.0.0.1:389", "ldap://[::1]:389"):
            self.assertEqual(set(self.problems(urls=[url], tls="none")), {"ldap.urls[0] (warning)"}, url)
        for url in (
            "ldap://ldap.example.nl",
            "ldap://192.0.2.1",
            "ldap://[2001:db8::1]",
            "ldap://localhost.nl",
        ):
            self.assertEqual(set(self.problems(urls=[url], tls="none")), {"ldap.urls[0]"}, url)
        self.assertEqual(self.problems(urls=["ldaps://h", "ldapi:///run/ldapi"], tls="none"), {})

    def test_filters(self) -> None:
        for text in (
            "uid={name}",
            "(uid={name}",
            "(uid={name}))",
            "(&uid={name})",
            "({name})",
            "((uid={name}))",
            "",
        ):
            try:
                found = self.problems(filter=text)
            except ValidationError:
                self.assertEqual(text, "")
                continue
            self.assertEqual(set(found), {"ldap.filter"}, text)
        self.assertIn("{name}", self.problems(filter="(uid=piet)")["ldap.filter"])
        self.assertIn("{dn}", self.problems(groups_filter="(a=b)", groups_base="dc=nl")["ldap.groups-filter"])
        for name in ("disabled", "expired", "locked"):
            self.assertEqual(set(self.problems(**{f"{name}_filter": "x"})), {f"ldap.{name}-filter"})

    def test_mechanisms_that_take_an_attribute(self) -> None:
        found = self.problems("DIGEST-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN")
        self.assertEqual(set(found), {"ldap.digest-attribute (warning)", "ldap.scram-attribute (warning)"})
        found = self.problems("DIGEST-MD5", "SCRAM-SHA-256", digest_attribute="a", scram_attribute="b")
        self.assertEqual(found, {})

    def test_without_the_library(self) -> None:
        self.patch(ldap, "find_spec", lambda name: None)
        self.assertIn("digipoort-msa[ldap]", self.problems()["ldap"])

    def test_keys(self) -> None:
        for name, value in (
            ("name-attribute", "uid)(x=*"),
            ("expiry-format", "unix"),
            ("timeout", 0),
            ("connect-timeout", 9),
            ("connections", 0),
            ("scope", "all"),
            ("tls", "maybe"),
            ("ca", "ca.pem"),
        ):
            self.assertRaises(ValidationError, Ldap.model_validate, {**RIGHT, name: value})


class LoadTests(SynchronousTestCase):
    """In a whole file, with what the settings name on disk."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def load(self, **table: Any) -> Any:
        realm = {"name": "one.nl", "store": "ldap", "mechanisms": ["PLAIN"], "ldap": {**RIGHT, **table}}
        document, _ = with_files(self.folder, realm=[realm])
        path = self.folder / "msa.toml"
        path.write_text(toml_document(document))
        return load(path)

    def test_files(self) -> None:
        ca, password = self.folder / "ca.pem", self.folder / "password"
        files = {"ca": str(ca), "password-file": str(password), "bind-dn": "cn=msa"}
        error = self.assertRaises(ConfigError, self.load, **files)
        keys = {"realm[0].ldap.ca", "realm[0].ldap.password-file"}
        self.assertEqual({problem.key for problem in error.problems}, keys)
        ca.write_bytes(b"nonsense")
        password.write_bytes(b"\n")
        error = self.assertRaises(ConfigError, self.load, **files)
        self.assertEqual({problem.key for problem in error.problems}, keys)
        ca.write_bytes(Authority().pem)
        password.write_bytes(b"secret\n")
        self.assertEqual(self.load(**files).realm[0].ldap.bind_dn, "cn=msa")

    def test_a_wrong_store(self) -> None:
        error = self.assertRaises(ConfigError, self.load, filter="uid={name}")
        self.assertEqual([problem.key for problem in error.problems], ["realm[0].ldap.filter"])


class OpenTests(SynchronousTestCase):
    """Nothing is connected to when a store is opened."""

    def realm(self, **table: Any) -> Realm:
        return Realm.model_validate({"name": "one.nl", "store": "ldap", "ldap": {**RIGHT, **table}})

    def open(self, **table: Any) -> Any:
        facilities = Facilities(Clock(), None, Path(self.mktemp()))  # type: ignore[call-arg,unused-ignore]
        return open_store(self.realm(**table), facilities)

    def test_open(self) -> None:
        store = self.open(**{"digest-attribute": "x"})
        self.assertTrue(IPasswordVerifier.providedBy(store))
        self.assertEqual(store.mechanisms, {"PLAIN", "LOGIN", "DIGEST-MD5"})
        self.successResultOf(store.stop())

    def test_not_to_be_opened(self) -> None:
        for table, error in (
            ({"urls": []}, ValueError),
            ({"base": None}, ValueError),
            ({"urls": ["ldap://h:x"]}, ValueError),
            ({"ca": "/nowhere/ca.pem"}, OSError),
            ({"bind-dn": "cn=msa", "password-file": "/nowhere/password"}, OSError),
        ):
            self.assertRaises(error, self.open, **table)
