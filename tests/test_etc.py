"""The sample configuration and the systemd units."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config import load
from digipoort_msa.config.certificate import Certificate
from digipoort_msa.config.delivery import Lmtp
from digipoort_msa.config.policies.rate import RateLimit
from digipoort_msa.config.policy import Policy
from digipoort_msa.config.realm import Realm
from digipoort_msa.config.settings import Listener, Server, Settings
from tests.configurations import with_files

ETC = Path(__file__).parent.parent / "etc"
REQUIRED = {
    (Server, "hostname"),
    (Listener, "endpoint"),
    (Listener, "tls"),
    (Realm, "name"),
    (Policy, "rule"),
    (Certificate, "field"),
    (Certificate, "pattern"),
    (Certificate, "account"),
}

TABLES: dict[str, type[BaseModel]] = {
    "listener": Listener,
    "realm": Realm,
    "policy": Policy,
    "certificate": Certificate,
    "limits": RateLimit,
}


class Sample(SynchronousTestCase):
    """``etc/msa.toml``."""

    def setUp(self) -> None:
        self.text = (ETC / "msa.toml").read_text()

    def test_loads(self) -> None:
        """As it is, but for the place of its files."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        _, files = with_files(folder)
        for sample, real in {
            "/etc/digipoort-msa/tls/fullchain.pem": files.certificate,
            "/etc/digipoort-msa/tls/key.pem": files.private_key,
        }.items():
            self.assertIn(f'"{sample}"', self.text)
            self.text = self.text.replace(sample, str(real))
        path = folder / "msa.toml"
        path.write_text(self.text)
        settings = load(path)
        self.assertEqual(settings.server.hostname, "msa.example.nl")
        self.assertEqual([listener.tls for listener in settings.listener], ["starttls", "implicit"] * 2)

    def test_every_key_with_its_default(self) -> None:
        """Uncommented, the sample names every key; where a key has a default, that is its value."""
        whole = tomllib.loads(re.sub(r"(?m)^#(?=[a-z\[])", "", self.text))
        Settings.model_validate(whole)
        self.compare(whole, Settings, "")

    def compare(self, table: dict[str, Any], model: type[BaseModel], place: str) -> None:
        for name, field in model.model_fields.items():
            key = f"{place}{field.alias}"
            self.assertIn(field.alias, table, key)
            value = table[field.alias or name]
            inner = field.annotation
            if isinstance(value, list) and value and isinstance(value[0], dict):
                self.compare(value[0], TABLES[name], f"{key}[0].")
            elif isinstance(value, dict) and (field.default is None or isinstance(field.default, Lmtp)):
                continue  # a realm's own table, or one that is as another
            elif isinstance(inner, type) and issubclass(inner, BaseModel):
                self.compare(value, inner, f"{key}.")
            elif (model, name) in REQUIRED:
                self.assertTrue(field.is_required(), key)
            elif field.default is not None and name != "next_hops":
                default = field.default
                plain = list(default) if isinstance(default, tuple) else default
                self.assertEqual(value, str(plain) if isinstance(plain, Path) else plain, key)

    def test_no_key_is_invented(self) -> None:
        """What is commented without a space is a key or a table, which the test before has looked at."""
        for line in self.text.splitlines():
            if line.startswith("#") and not re.match(r"#( |$)", line):
                self.assertRegex(line, r"^#(\[[a-z.-]+\]|\[\[[a-z.-]+\]\]|[a-z0-9-]+ = .+)$")


class Units(SynchronousTestCase):
    """The systemd units."""

    def test_verified(self) -> None:
        """By systemd itself, with the programs of this environment in their place."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for unit in ("digipoort-msa.service", "digipoort-msa.socket"):
            text = (ETC / unit).read_text()
            text = re.sub(r"/usr/local/bin/(twistd|digipoort-msa)", sys.executable, text)
            (folder / unit).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", *map(str, sorted(folder.iterdir()))], capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_wrong_configuration_is_not_tried_for_ever(self) -> None:
        """The main process must be the one that says EX_CONFIG: systemd does not ask ExecStartPre= for it."""
        text = (ETC / "digipoort-msa.service").read_text()
        self.assertIn(f"\nRestartPreventExitStatus={os.EX_CONFIG}\n", text)
        self.assertNotIn("\nExecStartPre=", text)

    def test_hardened(self) -> None:
        """By systemd's own measure of exposure: at most 2.0 of 10."""
        done = subprocess.run(
            [
                "systemd-analyze",
                "security",
                "--offline=true",
                "--threshold=20",
                str(ETC / "digipoort-msa.service"),
            ],
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_sockets_fit_the_sample(self) -> None:
        """The sample's endpoints are the socket unit's, by index, family and port."""
        sockets = re.findall(r"(?m)^ListenStream=(.*):([0-9]+)$", (ETC / "digipoort-msa.socket").read_text())
        listeners = tomllib.loads((ETC / "msa.toml").read_text())["listener"]
        self.assertEqual(
            [(listener["endpoint"], listener["tls"]) for listener in listeners],
            [
                (
                    f"systemd:domain={'INET6' if '[' in address else 'INET'}:index={index}",
                    {"587": "starttls", "465": "implicit"}[port],
                )
                for index, (address, port) in enumerate(sockets)
            ],
        )
