"""The settings of an external filter, and what the service makes of them."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.config.checks import across
from digipoort_msa.config.policies.external import ExternalTable
from digipoort_msa.config.settings import Settings
from digipoort_msa.interfaces import Facilities
from digipoort_msa.policy.applied import Applied
from digipoort_msa.policy.milter.judgement import MilterRule
from digipoort_msa.policy.milter.milter import Times
from digipoort_msa.service.policies import make_policies
from tests.configurations import document


def settings(**external: Any) -> Settings:
    policy = [{"rule": "external", "external": external}]
    return Settings.model_validate(document(realm=[{"name": "example.nl", "policy": policy}]))


class SocketTests(SynchronousTestCase):
    def test_right(self) -> None:
        for socket in (
            "unix:/run/milter",
            "unix:/" + "x" * 106,
            "localhost:8891",
            "192.0.2.1:1",
            "[::1]:65535",
        ):
            self.assertEqual(ExternalTable(socket=socket).socket, socket)

    def test_wrong(self) -> None:
        for socket, words in {
            "": "unix:/path",
            "unix:": "unix:/path",
            "unix:run/milter": "unix:/path",
            "unix:/a\0b": "unix:/path",
            "unix:/" + "x" * 107: "at most 107 octets",
            "/run/milter": "unix:/path",
            "localhost": "host:port",
            "localhost:0": "host:port",
            "localhost:65536": "host:port",
            "::1:8891": "host:port",
            "inet:8891@localhost": "which milters write inet:8891@",
            "tcp:localhost:8891": "host:port",
        }.items():
            with self.assertRaises(ValidationError) as raised:
                ExternalTable(socket=socket)
            self.assertIn(words, str(raised.exception))

    def test_missing(self) -> None:
        (problem,) = across(settings())
        self.assertRegex(str(problem), r"\Arealm\[0\]\.policy\[0\]\.external\.socket: missing; ")

    def test_bounds(self) -> None:
        for name, wrong in {
            "maximum-time": 541,
            "timeout": 0,
            "maximum-size": 0,
            "on-failure": "defer",
        }.items():
            with self.assertRaises(ValidationError):
                ExternalTable.model_validate({name: wrong})


class RuleTests(SynchronousTestCase):
    def rule(self, **external: Any) -> MilterRule:
        facilities = Facilities(MemoryReactorClock(), None, Path("/nowhere"))
        (realm,) = settings(**external).realm
        (applied,) = make_policies(realm, facilities, lambda would: None)
        assert isinstance(applied, Applied)
        assert isinstance(applied.policy, MilterRule)
        return applied.policy

    def test_made(self) -> None:
        rule = self.rule(socket="unix:/run/milter")
        self.assertIsInstance(rule.milter._endpoint, UNIXClientEndpoint)
        self.assertEqual((rule.passes_on_failure, rule.maximum_size), (False, None))
        self.assertEqual((rule.milter.name, rule.milter.times), ("unix:/run/milter", Times()))

    def test_made_otherwise(self) -> None:
        times = {"connect-timeout": 1, "timeout": 2, "maximum-time": 3}
        rule = self.rule(**{"socket": "[::1]:8891", "on-failure": "pass", "maximum-size": 7, **times})
        self.assertIsInstance(rule.milter._endpoint, HostnameEndpoint)
        self.assertEqual((rule.passes_on_failure, rule.maximum_size), (True, 7))
        self.assertEqual(rule.milter.times, Times(1, 2, 3))
