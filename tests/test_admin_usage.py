"""``account report``, and what ``account show`` tells of logins."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import evolve
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts.ledger import Changes, Ledger
from digipoort_msa.accounts.usage import UsageKey, Use
from digipoort_msa.admin import account as account_module
from digipoort_msa.admin.account import account
from digipoort_msa.admin.console import Console
from digipoort_msa.admin.usage import uses_of
from digipoort_msa.sasl.scram_keys import ScramKeys
from tests.account_doubles import account as make_account
from tests.test_admin_throttle import CONFIGURATION

DAY = 86_400.0
NOW = 1_800_000_000.0
KEYS = ScramKeys(b"s" * 16, 4096, b"k" * 32, b"v" * 32)


def use(days: float, *, first: float | None = None, logins: int = 1, source: str = "192.0.2.1") -> Use:
    """:param days: ago."""
    return Use(NOW - DAY * (days if first is None else first), NOW - DAY * days, source, logins)


class UsesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger = Ledger(Path(self.mktemp()), working=True)
        self.addCleanup(self.ledger.close)

    def record(self, **uses: Use) -> None:
        """``piet_PLAIN=use(3)``; ``DIGEST`` for DIGEST-MD5."""
        written: dict[UsageKey, Use] = {}
        for words, one in uses.items():
            name, mechanism = words.split("_")
            written["one.nl", name, mechanism.replace("DIGEST", "DIGEST-MD5")] = one
        self.ledger.exchange(Changes(usage=written))

    def test_who_needs_digest_md5(self) -> None:
        self.record(
            stays_DIGEST=use(1),
            moved_DIGEST=use(10),
            moved_PLAIN=use(2),
            back_PLAIN=use(10),
            back_DIGEST=use(2),
            gone_DIGEST=use(500),
            modern_PLAIN=use(1),
            removed_DIGEST=use(1),
        )
        names = ("stays", "moved", "back", "gone", "modern", "never")
        accounts = [evolve(make_account(name), scram=KEYS if name == "moved" else None) for name in names]
        uses = uses_of(self.ledger, "one.nl", accounts, NOW - 400 * DAY)
        self.assertEqual([one.name for one in uses.accounts if one.needs_digest], ["stays", "moved", "back"])
        self.assertEqual([one.name for one in uses.accounts if one.is_moving], ["moved"])
        self.assertEqual(
            uses.summary(400),
            "realm one.nl: of 6 accounts, 3 used DIGEST-MD5 in the last 400 days; 1 of these something else "
            "since; 2 of these have no SCRAM keys; without a login: 2",
        )
        self.assertEqual(
            uses.facts(),
            {
                "realm": "one.nl",
                "accounts": 6,
                "need_digest_md5": 3,
                "used_something_else_since": 1,
                "without_scram_keys": 2,
                "not_logged_in": 2,
            },
        )

    def test_nobody(self) -> None:
        self.record(modern_PLAIN=use(1))
        uses = uses_of(self.ledger, "one.nl", [make_account("modern")], NOW - DAY * 400)
        self.assertEqual(
            uses.summary(400),
            "realm one.nl: of 1 account, 0 used DIGEST-MD5 in the last 400 days; without a login: 0",
        )

    def test_a_store_that_does_not_list_its_accounts(self) -> None:
        self.record(stays_DIGEST=use(1), modern_PLAIN=use(1))
        uses = uses_of(self.ledger, "one.nl", None, NOW - 400 * DAY)
        self.assertEqual([one.name for one in uses.accounts], ["modern", "stays"])
        self.assertEqual(
            uses.summary(400),
            "realm one.nl: 1 used DIGEST-MD5 in the last 400 days; 0 of these something else since",
        )
        self.assertIsNone(uses.accounts[0].facts()["scram_keys"])
        self.assertIsNone(uses.facts()["accounts"])


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.state = folder / "state"
        self.config = folder / "msa.toml"
        self.config.write_text(CONFIGURATION.format(state=self.state))
        self.patch(account_module.time, "time", lambda: NOW)

    def run_command(self, *words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(account, words, obj=Console(self.config))
        self.assertEqual(result.exit_code, code, result.output)
        return result

    def printed(self, *words: str) -> str:
        return str(self.run_command(*words).stdout)

    def make_some(self) -> None:
        for name in ("piet", "jan", "kees"):
            self.printed("add", name, "--generate")
        with closing(Ledger(self.state, working=True)) as ledger:
            uses = {
                ("one.nl", "piet", "DIGEST-MD5"): use(3, first=30, logins=12),
                ("one.nl", "piet", "PLAIN"): use(2, source="2001:db8::1"),
                ("one.nl", "jan", "PLAIN"): use(100),
                ("two.nl", "els", "PLAIN"): use(1),
            }
            ledger.exchange(Changes(usage=uses))

    def test_before_anybody_logged_in(self) -> None:
        self.printed("add", "piet", "--generate")
        lines = self.printed("report").splitlines()
        self.assertEqual(lines[1].split(), ["one.nl", "piet", "active", "no", "never"])
        self.assertEqual(
            lines[2:],
            [
                "realm one.nl: of 1 account, 0 used DIGEST-MD5 in the last 400 days; without a login: 1",
                "realm two.nl: of 0 accounts, 0 used DIGEST-MD5 in the last 400 days; without a login: 0",
            ],
        )

    def test_report(self) -> None:
        self.make_some()
        lines = self.printed("report", "--realm", "one.nl").splitlines()
        rows = [line.split() for line in lines[1:-1]]
        self.assertEqual(
            [(row[1], row[4]) for row in rows],
            [("jan", "PLAIN"), ("kees", "never"), ("piet", "PLAIN"), ("piet", "DIGEST-MD5")],
        )
        self.assertIn("12", rows[3])
        self.assertIn("2027-01-12", rows[3])
        self.assertTrue(lines[-1].startswith("realm one.nl: of 3 accounts, 1 used DIGEST-MD5"))

    def test_filters(self) -> None:
        self.make_some()
        lines = self.printed("report", "--mechanism", "digest-md5").splitlines()
        self.assertEqual({line.split()[1] for line in lines[1:-2]}, {"piet"})
        self.assertEqual(len(lines), 1 + 2 + 2)
        document = json.loads(self.printed("report", "--since", "50", "--realm", "one.nl", "--json"))
        self.assertEqual(
            {one["name"]: [used["mechanism"] for used in one["logins"]] for one in document["accounts"]},
            {"jan": [], "kees": [], "piet": ["PLAIN", "DIGEST-MD5"]},
        )
        self.assertEqual([one["need_digest_md5"] for one in document["summary"]], [1])
        self.assertIn("not a realm", self.run_command("report", "--realm", "x.nl", code=2).stderr)

    def test_show(self) -> None:
        self.make_some()
        shown = self.printed("show", "piet")
        self.assertIn("used PLAIN", shown)
        self.assertIn("from 2001:db8::1; 1 login since", shown)
        self.assertIn("from 192.0.2.1; 12 logins since 2026-12-16 08:00:00Z", shown)
        document = json.loads(self.printed("show", "piet", "--json"))
        self.assertEqual(
            document["logins"][1],
            {
                "mechanism": "DIGEST-MD5",
                "last": "2027-01-12 08:00:00Z",
                "source": "192.0.2.1",
                "logins": 12,
                "first": "2026-12-16 08:00:00Z",
            },
        )
        self.assertEqual(json.loads(self.printed("show", "kees", "--json"))["logins"], [])

    def test_accounts_that_are_kept_elsewhere(self) -> None:
        """Only what they used is known."""
        self.make_some()
        self.patch(account_module, "is_ours", lambda realm: realm.name != "two.nl")
        self.assertIn("used PLAIN", self.printed("show", "els", "--realm", "two.nl"))
        document = json.loads(self.printed("show", "els@two.nl", "--realm", "two.nl", "--json"))
        self.assertEqual(
            {"name": "els", "realm": "two.nl"}, {key: document[key] for key in ("name", "realm")}
        )
        self.assertEqual([used["mechanism"] for used in document["logins"]], ["PLAIN"])
        lines = self.printed("report", "--realm", "two.nl").splitlines()
        self.assertEqual(lines[1].split()[:5], ["two.nl", "els", "?", "?", "PLAIN"])
        self.assertNotIn("of 0 accounts", lines[2])
