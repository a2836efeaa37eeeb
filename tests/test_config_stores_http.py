"""``[realm.http]``: what the settings may say."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import ConfigError, load, toml_document
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.stores import http
from digipoort_msa.config.stores.http import Http
from digipoort_msa.interfaces import Facilities, IPasswordVerifier
from digipoort_msa.service.stores import open_store
from tests.authority import Authority
from tests.configurations import with_files

URL = "https://accounts.example.nl/account"


def table(**settings: Any) -> Http:
    return Http.model_validate(
        {"url": URL, **{name.replace("_", "-"): value for name, value in settings.items()}}
    )


class ProblemTests(SynchronousTestCase):
    def problems(self, *mechanisms: str, **settings: Any) -> dict[str, str]:
        return {
            problem.key + (" (warning)" if problem.warning else ""): problem.right
            for problem in http.problems("http", table(**settings), mechanisms or ("PLAIN",))
        }

    def test_right(self) -> None:
        for settings in (
            {},
            {"url": "https://[2001:db8::1]:8443/x?tenant=1"},
            {"url": "http://localhost:8000/account"},
            {"url": "http://127.0.0.1/account"},
            {"url": "http://[::1]:8000/account"},
            {"mode": "verify", "verify_url": URL},
            {"certificate": "/c.pem", "private_key": "/k.pem", "token_file": "/token"},
        ):
            self.assertEqual(self.problems(**settings), {}, settings)

    def test_missing(self) -> None:
        self.assertEqual(set(self.problems(url=None)), {"http.url"})
        self.assertEqual(set(self.problems(mode="verify")), {"http.verify-url"})
        self.assertEqual(set(self.problems(verify_url=URL)), {"http.verify-url"})
        self.assertEqual(set(self.problems(certificate="/c.pem")), {"http.private-key"})
        self.assertEqual(set(self.problems(private_key="/k.pem")), {"http.certificate"})

    def test_urls(self) -> None:
        for url in (
            "accounts.example.nl",
            "ftp://accounts.example.nl/",
            "https:///account",
            "https://h:0/",
            "https://h:99999/",
            "https://h:x/",
            "https://[::1/",
            "https://h/#x",
            "https://h/a b",
            "https://h/\r\nX: y",
            "https://é.nl/",
            "https://a:b@h/",
            "http://accounts.example.nl/",
            "http://10.0.0.1/",
            "http://localhost.example.nl/",
        ):
            self.assertEqual(set(self.problems(url=url)), {"http.url"}, url)
            self.assertEqual(set(self.problems(mode="verify", verify_url=url)), {"http.verify-url"}, url)

    def test_times(self) -> None:
        self.assertEqual(set(self.problems(connect_timeout=5)), {"http.connect-timeout"})
        self.assertEqual(set(self.problems(first_rest=90)), {"http.first-rest"})
        # With the guard's ten seconds in mind.
        for name, value in {"timeout": 9, "connect_timeout": 0, "connections": 0, "failures": 0}.items():
            self.assertRaises(ValidationError, table, **{name: value})

    def test_mechanisms_that_nothing_is_yielded_for(self) -> None:
        self.assertEqual(set(self.problems("DIGEST-MD5")), {"http.digest-md5 (warning)"})
        self.assertEqual(set(self.problems("SCRAM-SHA-256")), {"http.scram (warning)"})
        self.assertEqual(self.problems("DIGEST-MD5", "SCRAM-SHA-256", digest_md5=True, scram=True), {})

    def test_treq_is_missing(self) -> None:
        self.patch(http, "find_spec", lambda _: None)
        self.assertEqual(
            self.problems(), {"http": "needs treq, which is not installed: install digipoort-msa[http]"}
        )


class FileTests(SynchronousTestCase):
    """The whole configuration, with the files it names."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def problems(self, **settings: Any) -> list[str]:
        document, _ = with_files(self.folder)
        document["realm"][0] |= {"store": "http", "mechanisms": ["PLAIN"], "http": {"url": URL, **settings}}
        path = self.folder / "msa.toml"
        path.write_text(toml_document(document))
        try:
            load(path)
        except ConfigError as error:
            return [problem.key for problem in error.problems]
        return []

    def test_files(self) -> None:
        authority = Authority()
        certificate, key = authority.files("msa.example.nl")
        right = {
            "ca": authority.pem,
            "certificate": certificate,
            "private-key": key,
            "token-file": b"a-token\n",
        }
        paths = {name: str(self.folder / name) for name in right}

        def write() -> None:
            for name, octets in right.items():
                (self.folder / name).write_bytes(octets)

        write()
        self.assertEqual(self.problems(**paths), [])
        for name in right:
            self.assertEqual(self.problems(**{**paths, name: "/no/such/file"}), [f"realm[0].http.{name}"])
            (self.folder / name).write_bytes(b"")
            self.assertIn(f"realm[0].http.{name}", self.problems(**paths))
            write()

    def test_what_a_store_can_verify_follows_from_its_settings(self) -> None:
        facilities = Facilities(Clock(), None, self.folder)
        for settings, mechanisms, verifies in (
            ({}, {"PLAIN", "LOGIN"}, False),
            ({"digest-md5": True}, {"PLAIN", "LOGIN", "DIGEST-MD5"}, False),
            ({"scram": True}, {"PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, False),
            ({"mode": "verify", "verify-url": URL}, {"PLAIN", "LOGIN"}, True),
        ):
            realm = Realm.model_validate(
                {"name": "one.nl", "store": "http", "http": {"url": URL, **settings}}
            )
            store = open_store(realm, facilities)
            self.assertEqual(store.mechanisms, mechanisms)
            self.assertIs(IPasswordVerifier.providedBy(store), verifies)
