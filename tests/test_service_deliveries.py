"""The ways out that the settings describe."""

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import settings_from
from digipoort_msa.service.deliveries import Deliveries
from tests.configurations import with_files


class FilesTests(SynchronousTestCase):
    """What ``check`` has nothing against can be started."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def make(self, **relay: Any) -> Deliveries:
        keys = {"next-hops": ["localhost:25"], **relay}
        document, _ = with_files(self.folder, delivery={"relay": keys})
        return Deliveries(settings_from(document), Clock(), lambda realm: None)

    def test_authorities_without_tls(self) -> None:
        """They have no effect, so that their file need not be there."""
        self.make(tls="none", ca=str(self.folder / "missing.pem"))

    def test_password(self) -> None:
        """It is the same first line for both."""
        file = self.folder / "password"
        file.write_bytes("a\x0b\u2028b\r\nanother line".encode())
        (delivery,) = self.make(username="msa", **{"password-file": str(file)})._by_realm.values()
        self.assertEqual(vars(delivery)["_credentials"].password, "a\x0b\u2028b")
