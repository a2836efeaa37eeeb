"""Single keys: their types and bounds."""

from typing import get_args

from pydantic import ValidationError
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config.realm import Mechanism
from digipoort_msa.config.settings import Settings
from digipoort_msa.config.tables import host_and_port
from digipoort_msa.sasl.registry import MECHANISMS as REGISTRY
from tests.configurations import document


class Keys(SynchronousTestCase):
    """What a key takes."""

    def refuses(self, **tables: object) -> None:
        self.assertRaises(ValidationError, Settings.model_validate, document(**tables))

    def test_types_are_not_guessed(self) -> None:
        """A number in quotes is no number, true is no number, and a number is no flag."""
        for value in ("100", True, 1.5, None, [100]):
            self.refuses(limits={"errors": value})
        for value in ("true", 1):
            self.refuses(realm=[{"name": "a", "add-missing-headers": value}])

    def test_paths(self) -> None:
        """Absolute, since a daemon's working directory is anyone's guess."""
        for value in ("tls/key.pem", "", "/x\0y", 3):
            self.refuses(tls={"private-key": value})

    def test_names(self) -> None:
        for value in ("", "a b", "-a", "a..b", "a" * 64, "ma\nx", "msa.example.nl\n"):
            self.refuses(server={"hostname": value})
        for value in ("", "a b", 'a"b', "a\\b", "a@b", "é"):
            self.refuses(realm=[{"name": value}])

    def test_not_a_number(self) -> None:
        for value in (float("nan"), float("inf"), -1, 0, 10**400):
            self.refuses(limits={"idle-timeout": value})

    def test_mechanisms_are_the_registry(self) -> None:
        """The two lists are one."""
        self.assertEqual(get_args(Mechanism), tuple(REGISTRY))


class Hops(SynchronousTestCase):
    """``host:port``."""

    def test_right(self) -> None:
        self.assertEqual(host_and_port("core.example.nl:25"), ("core.example.nl", 25))
        self.assertEqual(host_and_port("[2001:db8::1]:465"), ("2001:db8::1", 465))
        self.assertEqual(host_and_port("127.0.0.1:65535"), ("127.0.0.1", 65535))

    def test_wrong_digits(self) -> None:
        for text in ("core:٢", "core:-1", "core:+1", "[core]:25"):
            self.assertRaises(ValueError, host_and_port, text)

    def test_wrong(self) -> None:
        for text in (
            "core",
            "core:",
            ":25",
            "core:0",
            "core:65536",
            "2001:db8::1:25",
            "core:25\n",
            "a b:1",
            "core:٢",
        ):
            self.assertRaises(ValueError, host_and_port, text)
