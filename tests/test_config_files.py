"""Rules on the files that settings name."""

import os
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.admin.certificates import certificate_files
from digipoort_msa.config import ConfigError, settings_from, warnings
from digipoort_msa.config.settings import Settings
from digipoort_msa.secret_files import encryption_keys, first_line
from tests.configurations import with_files


class Files(SynchronousTestCase):
    """Each file may be missing, damaged, the wrong one, or too open."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.tables, self.files = with_files(self.folder)

    def problems(self, **tables: Any) -> list[str]:
        try:
            settings_from({**self.tables, **tables})
        except ConfigError as error:
            return str(error).split("\n")
        return []

    def warned(self, **tables: Any) -> str:
        return "\n".join(map(str, warnings(Settings.model_validate({**self.tables, **tables}))))

    def relay(self, **keys: object) -> dict[str, object]:
        return {"relay": {"next-hops": ["core.example.nl:25"], **keys}}

    def test_right(self) -> None:
        self.assertEqual(self.problems(), [])
        self.assertEqual(self.warned(), "")

    def test_missing(self) -> None:
        """Both are told."""
        for path in (self.files.certificate, self.files.private_key):
            path.unlink()
        self.assertEqual(
            self.problems(),
            [
                f'tls.certificate = "{self.files.certificate}": cannot be read: No such file or directory',
                f'tls.private-key = "{self.files.private_key}": cannot be read: No such file or directory',
            ],
        )

    def test_without_files(self) -> None:
        """A command that needs no certificate does not look."""
        self.files.certificate.unlink()
        settings_from(self.tables, files=False)

    def test_damaged(self) -> None:
        """The key's text is never shown."""
        self.files.certificate.write_text("hello")
        self.files.private_key.write_text("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n")
        certificate, key = self.problems()
        self.assertIn("should hold a PEM certificate", certificate)
        self.assertIn("should hold a PEM private key without a passphrase", key)
        self.assertNotIn("secret", key)

    def test_not_a_pair(self) -> None:
        other = certificate_files(self.folder / "other", datetime.now(UTC))
        self.files.private_key.write_bytes(other.private_key.read_bytes())
        (line,) = self.problems()
        self.assertIn(f"should be the key of the first certificate in {self.files.certificate}", line)

    def test_an_open_key(self) -> None:
        """A key that everyone on the machine may read is a warning; a group's is not."""
        self.files.private_key.chmod(0o640)
        self.assertEqual(self.warned(), "")
        self.files.private_key.chmod(0o644)
        self.assertIn("is open to everyone on this machine (mode 0644)", self.warned())

    def test_expired(self) -> None:
        past = datetime.now(UTC) - timedelta(days=500)
        old = certificate_files(self.folder / "old", past)
        tls = {"certificate": str(old.certificate), "private-key": str(old.private_key)}
        self.assertIn("expired at ", self.warned(tls=tls))

    def test_another_name(self) -> None:
        self.assertIn(
            "is not for server.hostname (msa.example.nl)", self.warned(server={"hostname": "msa.example.nl"})
        )

    def test_authorities(self) -> None:
        """Only where they are in use."""
        damaged = self.folder / "ca"
        damaged.write_text("hello")
        (line,) = self.problems(delivery=self.relay(ca=str(damaged)))
        self.assertIn("delivery.relay.ca", line)
        tls = {**self.tables["tls"], "client-ca": str(damaged)}
        self.assertEqual(self.problems(tls=tls), [])
        (line,) = self.problems(tls={**tls, "client-certificates": "optional"})
        self.assertIn("tls.client-ca", line)
        self.assertEqual(self.problems(delivery=self.relay(ca=str(self.files.ca))), [])

    def test_password_file(self) -> None:
        path = self.folder / "password"
        login = self.relay(username="msa", **{"password-file": str(path)})
        self.assertIn("cannot be read", self.problems(delivery=login)[0])
        path.write_text("\nsecret")
        self.assertIn("should hold a password as its first line", self.problems(delivery=login)[0])
        path.write_text("secret\n")
        path.chmod(0o604)
        self.assertEqual(self.problems(delivery=login), [])
        self.assertIn("is open to everyone", self.warned(delivery=login))

    def test_nothing_of_a_secret_is_told(self) -> None:
        """Of what does not fit in a key or password file, not one octet."""
        path = self.folder / "secret"
        for octets, right in (
            (b"\xe9" * 64, "it is not text"),
            (b64encode(b"e9"), "a key of 2 octets"),
            (b"\n", "it is empty"),
            (b"e9" * 32 + b"\nnot a key", "should hold 32 octets in hex or base64"),
            (b"not a key", "should hold 32 octets in hex or base64"),
        ):
            path.write_bytes(octets)
            (line,) = self.problems(spool={"encryption-key-file": str(path)})
            self.assertIn(right, line)
            self.assertNotIn("0xe9", line)
        for octets, right in ((b"\xe9", "it is not UTF-8"), (b"a\0b", "it holds NUL")):
            path.write_bytes(octets)
            (line,) = self.problems(delivery=self.relay(username="msa", **{"password-file": str(path)}))
            self.assertIn(right, line)
            self.assertNotIn("0xe9", line)

    def test_keys(self) -> None:
        """One a line: that of today, and former ones."""
        one, two = bytes(range(32)), bytes(range(32, 64))
        for octets in (
            one.hex().encode() + b"\n" + b64encode(two),
            b"\r\n " + b64encode(one) + b"\r\n" + two.hex().upper().encode() + b"\r\n",
        ):
            self.assertEqual(encryption_keys(octets), (one, two))

    def test_password(self) -> None:
        """It ends at the line's end, and at nothing else that Unicode takes for one."""
        self.assertEqual(first_line("a\x0b\u2028b\r\nc".encode()), "a\x0b\u2028b")

    def test_files_of_the_sql_store(self) -> None:
        """The database's password, and the key of what is sealed."""
        file = self.folder / "file"
        for name, good, right in (
            ("password-file", b"geheim\n", "a password as its first line"),
            ("key-file", bytes(32).hex().encode(), "32 octets in hex or base64"),
        ):
            realm = {"name": "x.nl", "sql": {name: str(file), "url": "sqlite:////x"}}
            (line,) = self.problems(realm=[realm])
            self.assertIn(f"realm[0].sql.{name}", line)
            self.assertIn("cannot be read", line)
            file.touch(0o600)
            (line,) = self.problems(realm=[realm])
            self.assertIn(right, line)
            file.write_bytes(good)
            self.assertEqual(self.problems(realm=[realm]), [])
            file.unlink()

    def test_texts(self) -> None:
        """The folder of a realm's own texts has to be there."""
        folder = self.folder / "texts"
        (line,) = self.problems(notification={"templates": str(folder)})
        self.assertIn("notification.templates", line)
        self.assertIn("cannot be read", line)
        folder.mkdir()
        (folder / "failed.nl.txt").mkdir()
        (line,) = self.problems(notification={"templates": str(folder)})
        self.assertIn("failed.nl.txt: Is a directory", line)
        (folder / "failed.nl.txt").rmdir()
        self.assertEqual(self.problems(notification={"templates": str(folder)}), [])

    def test_folders(self) -> None:
        """A file cannot be the state directory; a folder that is not there yet can."""
        file = self.folder / "file"
        file.touch()
        server = {"hostname": "localhost", "state-directory": str(file)}
        self.assertIn("should be a folder", self.problems(server=server)[0])
        server = {"hostname": "localhost", "state-directory": str(file / "below")}
        self.assertIn("cannot be used: Not a directory", self.problems(server=server)[0])

    def test_unreadable(self) -> None:
        """For whom it is; root reads all."""
        self.files.private_key.chmod(0)
        if os.geteuid() != 0:
            self.assertIn("Permission denied", self.problems()[0])
        else:
            self.assertEqual(self.problems(), [])
