"""Plug-ins that are right, and all the ways in which one can be wrong: told by ``check``."""

import json
import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from digipoort_msa.admin.commands import main
from digipoort_msa.config import checks, toml_document
from digipoort_msa.interfaces import Facilities, IAccountStore, IPasswordVerifier, IPolicy
from digipoort_msa.policy.rule import Rule
from digipoort_msa.service import plugins
from digipoort_msa.service.plugins import load_plugin, open_plugin
from tests.account_doubles import Inline, MemoryStore
from tests.configurations import with_files

opened: list[Any] = []


class Store(MemoryStore):
    stopped = False

    def stop(self) -> None:
        self.stopped = True


def right(realm: str, settings: dict[str, Any], facilities: Facilities) -> Store:
    """A plug-in as it should be."""
    if settings != {"size": 3}:
        raise ValueError("size: should be 3")
    opened.append((realm, facilities, Store()))
    return opened[-1][2]  # type: ignore[no-any-return]


def policy(realm: str, settings: dict[str, Any], facilities: Facilities) -> Rule:
    if settings:
        raise ValueError(f"there are no settings, and so no {', '.join(settings)}")
    return Rule()


def unreadable(*_: Any) -> None:
    Path("/no/such/file").read_bytes()


def clumsy(realm: str) -> None:
    """Takes too few arguments."""


def nothing(*_: Any) -> None:
    """Forgets what it made."""


def talkative(*_: Any) -> None:
    raise ValueError("one\n  two \x1b[31mthree")


def leaving(*_: Any) -> None:
    raise SystemExit("enough")


@implementer(IAccountStore)
class Half:
    mechanisms = frozenset({"PLAIN"})

    def account(self, username: str) -> None: ...


@implementer(IPasswordVerifier)
class Unverifying(Half):
    def stop(self) -> None: ...


@implementer(IAccountStore)
class Listing(Half):
    mechanisms = ["PLAIN"]  # type: ignore[assignment]  # noqa: RUF012

    def stop(self) -> None: ...


def half(*_: Any) -> Half:
    return Half()


def unverifying(*_: Any) -> Half:
    return Unverifying()


def listing(*_: Any) -> Half:
    return Listing()


number = 5

HERE = {
    "stores": {
        "right": "tests.test_service_plugins:right",
        "unreadable": "tests.test_service_plugins:unreadable",
        "clumsy": "tests.test_service_plugins:clumsy",
        "nothing": "tests.test_service_plugins:nothing",
        "number": "tests.test_service_plugins:number",
        "talkative": "tests.test_service_plugins:talkative",
        "leaving": "tests.test_service_plugins:leaving",
        "half": "tests.test_service_plugins:half",
        "unverifying": "tests.test_service_plugins:unverifying",
        "listing": "tests.test_service_plugins:listing",
        "gone": "tests.no_such_module:store",
        "misspelt": "tests.test_service_plugins:rigth",
    },
    "policies": {"agreeable": "tests.test_service_plugins:policy"},
}

#: What is wrong with each store, in the operator's words.
WRONG = {
    "right": "the plug-in 'right' of realm one.nl: size: should be 3",
    "unreadable": "the plug-in 'unreadable' of realm one.nl: [Errno 2] No such file or directory: '/no/such",
    "clumsy": "the plug-in 'clumsy' of realm one.nl fails: TypeError: clumsy() takes 1 positional argument",
    "nothing": "the plug-in 'nothing' of realm one.nl gives a NoneType, which does not provide IAccountStore",
    "number": "the plug-in 'number' is tests.test_service_plugins:number, which cannot be called",
    "talkative": "the plug-in 'talkative' of realm one.nl: one two ?[31mthree",
    "leaving": "the plug-in 'leaving' of realm one.nl fails: SystemExit: enough",
    "half": "the plug-in 'half' of realm one.nl is no IAccountStore: The object <tests.",
    "unverifying": "the plug-in 'unverifying' of realm one.nl is no IPasswordVerifier: ",
    "listing": "the plug-in 'listing' of realm one.nl has mechanisms ['PLAIN']: should be a frozenset",
    "gone": "the plug-in 'gone' cannot be loaded: ModuleNotFoundError: No module named 'tests.no_such_",
    "misspelt": "the plug-in 'misspelt' cannot be loaded: AttributeError: ",
}


class PluginCase(SynchronousTestCase):
    """A world in which the packages' entry points are those above."""

    def setUp(self) -> None:
        opened.clear()

        def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
            found = HERE[group.removeprefix("digipoort_msa.")]
            return [EntryPoint(each, found[each], group) for each in found if name in {None, each}]

        self.patch(plugins, "entry_points", entry_points)
        self.patch(checks, "entry_points", entry_points)


class OpenTests(PluginCase):
    def setUp(self) -> None:
        super().setUp()
        self.facilities = Facilities(None, Inline(), Path("/nowhere"))

    def open(self, name: str, **settings: Any) -> Any:
        return open_plugin("stores", name, IAccountStore, "one.nl", settings, self.facilities)

    def test_right(self) -> None:
        self.assertIs(self.open("right", size=3), opened[0][2])
        self.assertEqual(opened[0][:2], ("one.nl", self.facilities))

    def test_wrong(self) -> None:
        for name, text in WRONG.items():
            error = self.assertRaises(ValueError, self.open, name)
            self.assertIn(text, str(error))

    def test_policies(self) -> None:
        def make(**settings: Any) -> Any:
            return open_plugin("policies", "agreeable", IPolicy, "one.nl", settings, self.facilities)

        self.assertIsInstance(make(), Rule)
        self.assertIn("there are no settings, and so no x", str(self.assertRaises(ValueError, make, x=1)))

    def test_unknown(self) -> None:
        error = self.assertRaises(ValueError, load_plugin, "stores", "none")
        self.assertEqual(str(error), "no installed package has 'none' among its digipoort_msa.stores")

    def test_of_two_packages(self) -> None:
        """Which of them is meant is not for the order of installation to say."""
        self.patch(plugins, "entry_points", lambda group, name: [EntryPoint(name, "x:y", group)] * 2)
        error = self.assertRaises(ValueError, load_plugin, "stores", "right")
        self.assertIn("several installed packages have 'right'", str(error))


class OperatorTests(PluginCase):
    """``digipoort-msa check``."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "msa.toml"
        self.tables, _ = with_files(self.folder)

    def problems(self, **realm: Any) -> list[dict[str, str]]:
        self.tables["realm"] = [{"name": "one.nl", **realm}]
        self.path.write_text(toml_document(self.tables))
        result = CliRunner().invoke(main, ["--config", str(self.path), "check", "--json"])
        self.assertIn(result.exit_code, {0, os.EX_CONFIG}, result.output)
        found: list[dict[str, str]] = json.loads(result.stdout).get("problems", [])
        self.assertEqual(result.exit_code != 0, bool(found))
        return found

    def test_right(self) -> None:
        """What ``check`` opens, it lets go of; and it writes nothing."""
        rule = {"rule": "plugin", "plugin": {"name": "agreeable"}}
        self.assertEqual(self.problems(store="right", plugin={"size": 3}, policy=[rule]), [])
        self.assertTrue(opened[0][2].stopped)
        self.assertFalse((self.folder / "state").exists())

    def test_unknown(self) -> None:
        (problem,) = self.problems(store="none")
        self.assertEqual(problem["key"], "realm[0].store")
        for known in ("sql", *HERE["stores"]):
            self.assertIn(known, problem["text"])
        (problem,) = self.problems(policy=[{"rule": "plugin", "plugin": {"name": "none"}}])
        self.assertEqual(problem["key"], "realm[0].policy[0].plugin.name")

    def test_wrong(self) -> None:
        for name, text in WRONG.items():
            (problem,) = self.problems(store=name)
            self.assertEqual(problem["key"], "realm[0].plugin")
            self.assertIn(text, problem["text"])

    def test_a_policy(self) -> None:
        rule = {"rule": "plugin", "plugin": {"name": "agreeable", "settings": {"x": 1}}}
        (problem,) = self.problems(policy=[rule])
        self.assertEqual(problem["key"], "realm[0].policy[0].plugin.settings")
        self.assertIn("the plug-in 'agreeable' of realm one.nl: there are no settings", problem["text"])
