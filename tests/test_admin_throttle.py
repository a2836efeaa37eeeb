"""``throttle list``, ``throttle clear`` and ``account unlock``, with the MSA stopped and beside it."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from digipoort_msa.accounts import logins as logins_module
from digipoort_msa.accounts.ledger import DATABASE, Changes, Ledger
from digipoort_msa.accounts.logins import Logins
from digipoort_msa.accounts.throttle import Kind, Throttle
from digipoort_msa.accounts.usage import Usage
from digipoort_msa.admin import ledger as admin_ledger
from digipoort_msa.admin.account import account
from digipoort_msa.admin.console import Console
from digipoort_msa.admin.throttle import throttle
from digipoort_msa.interfaces import Throttled
from tests.requirements import proves

CONFIGURATION = """
[server]
hostname = "msa.example.nl"
state-directory = "{state}"
[[listener]]
endpoint = "tcp:587"
tls = "starttls"
[[realm]]
name = "one.nl"
[[realm]]
name = "two.nl"
mechanisms = ["PLAIN"]
[passwords]
memory-kib = 8
time-cost = 1
[delivery.relay]
next-hops = ["core.example.nl:25"]
"""


class Commands:
    """Runs the commands on a state directory."""

    def set_up(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir(parents=True)
        self.config = folder / "msa.toml"
        self.config.write_text(CONFIGURATION.format(state=self.state))

    def run_command(self, *words: str, code: int = 0) -> Any:
        group = {"throttle": throttle, "account": account}[words[0]]
        result = CliRunner().invoke(group, words[1:], obj=Console(self.config))
        assert result.exit_code == code, result.output
        return result

    def printed(self, *words: str) -> str:
        return str(self.run_command(*words).stdout)


@proves("A8")
class StoppedTests(Commands, SynchronousTestCase):
    """No MSA runs."""

    def setUp(self) -> None:
        self.set_up(Path(self.mktemp()).absolute())

    def keep(self, *rows: tuple[Kind, tuple[str, str, str], float]) -> None:
        """Write counts that drain in so many seconds."""
        now = time.time()
        with closing(Ledger(self.state, working=True)) as ledger:
            ledger.exchange(Changes([(kind, key, now + seconds) for kind, key, seconds in rows]))

    def keep_some(self) -> None:
        self.keep(
            (Kind.PAIR, ("one.nl", "piet", "192.0.2.1"), 895.0),  # 10 of 10
            (Kind.PAIR, ("two.nl", "piet", "192.0.2.1"), 200.0),
            (Kind.SOURCE, ("", "", "192.0.2.1"), 890.0),  # 50 of 50
            (Kind.NETWORK, ("", "", "192.0.2.0/24"), 450.0),
            (Kind.ACCOUNT, ("one.nl", "piet", ""), 89.0),
            (Kind.STRANGERS, ("", "", ""), 1.0),
            (Kind.TRUSTED, ("one.nl", "piet", "2001:db8::/64"), 1e6),
        )

    def test_nothing_yet(self) -> None:
        self.assertEqual(
            self.printed("throttle", "list").splitlines()[-1], "0 counts, 0 full; 0 trusted addresses"
        )
        self.assertEqual(self.printed("throttle", "clear", "--all"), "0 counts cleared\n")
        self.assertFalse((self.state / DATABASE).exists())

    def test_list(self) -> None:
        self.keep_some()
        lines = self.printed("throttle", "list").splitlines()
        self.assertEqual(
            [line.split()[:6] for line in lines[1:3]],
            [
                ["account-and-source", "one.nl", "piet", "192.0.2.1", "10", "10"],
                ["source", "192.0.2.1", "50", "50", *lines[2].split()[4:6]],
            ],
        )
        for line in lines[1:3]:
            self.assertRegex(line, r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ$")
        for line in lines[3:-1]:
            self.assertNotRegex(line, "Z$")
        self.assertEqual(lines[-1], "6 counts, 2 full; 1 trusted address")
        self.assertNotIn("trusted until", "".join(lines))
        self.assertIn("2001:db8::/64", self.printed("throttle", "list", "--trusted"))

    def test_filters(self) -> None:
        self.keep_some()
        for words, counts in (
            (("--realm", "two.nl"), 1),
            (("--account", "piet"), 3),
            (("--realm", "one.nl", "--account", "piet"), 2),
            (("--source", "192.0.2.1"), 4),
            (("--source", "192.0.0.0/16"), 4),
            (("--source", "192.0.2.9"), 1),  # its network
            (("--source", "2001:db8::7"), 0),
        ):
            document = json.loads(self.printed("throttle", "list", "--json", *words))
            self.assertEqual(len(document["counts"]), counts, words)
        self.assertEqual([one["source"] for one in document["trusted_sources"]], ["2001:db8::/64"])

    def test_json(self) -> None:
        self.keep_some()
        document = json.loads(self.printed("throttle", "list", "--json"))
        self.assertEqual(document["trusted"], 1)
        self.assertNotIn("trusted_sources", document)
        (first, *_) = document["counts"]
        self.assertRegex(first.pop("refused_until"), "Z$")
        self.assertEqual(
            first,
            {
                "kind": "account-and-source",
                "realm": "one.nl",
                "account": "piet",
                "source": "192.0.2.1",
                "failures": 10,
                "limit": 10,
            },
        )

    def test_what_strangers_typed_commands_no_terminal(self) -> None:
        self.keep((Kind.ACCOUNT, ("one.nl", "\x1b[2Jpiet\n", ""), 500.0))
        self.assertIn("\\x1b[2Jpiet\\n", self.printed("throttle", "list"))

    def test_clear(self) -> None:
        for words, cleared in (
            (("--account", "piet", "--realm", "one.nl"), 2),
            (("--account", "piet"), 3),
            (("--source", "192.0.2.1"), 4),
            (("--source", "192.0.2.1", "--account", "piet"), 2),
            (("--all",), 6),
            (("--all", "--trust"), 7),
        ):
            self.keep_some()
            plural = "counts"
            self.assertEqual(self.printed("throttle", "clear", *words), f"{cleared} {plural} cleared\n")
            self.assertEqual(
                json.loads(self.printed("throttle", "clear", "--json", *words)),
                {"cleared": 0, "pending": False},
            )

    def test_a_long_name(self) -> None:
        """Is known by what is remembered of it."""
        name = "x" * 300
        throttle = Throttle(time.monotonic)
        throttle.attempt("one.nl", name, "192.0.2.1").failed()
        ((_, kept, _),) = throttle.counts[Kind.ACCOUNT].current()
        self.keep((Kind.ACCOUNT, ("one.nl", kept, ""), 500.0))
        self.assertIn("1 count cleared", self.printed("account", "unlock", name))

    def test_a_peer_without_an_address(self) -> None:
        self.keep((Kind.SOURCE, ("", "", "local"), 500.0))
        self.assertEqual(self.printed("throttle", "clear", "--source", "local"), "1 count cleared\n")

    def test_a_name_as_it_is_typed_at_a_login(self) -> None:
        """With its realm, and in any spelling that means the same."""
        for words, cleared in (
            (("throttle", "clear", "--account", "jos\u00e9@TWO.nl"), 1),
            (("throttle", "clear", "--account", "jose\u0301"), 2),
            (("throttle", "clear", "--account", "jose\u0301@two.nl", "--realm", "one.nl"), 0),
            (("throttle", "clear", "--account", "\u0007"), 0),
            (("account", "unlock", "jose\u0301@two.nl"), 1),
            (("account", "unlock", "jose\u0301"), 1),
        ):
            self.keep(*[(Kind.ACCOUNT, (realm, "jos\u00e9", ""), 500.0) for realm in ("one.nl", "two.nl")])
            self.assertEqual(json.loads(self.printed(*words, "--json"))["cleared"], cleared, words)

    def test_wrong_words(self) -> None:
        for words, complaint in (
            (("list", "--realm", "x.nl"), "'x.nl' is not a realm; there is one.nl, two.nl"),
            (("list", "--source", "192.0.2.1/24"), "is not an address such as 192.0.2.1"),
            (("clear", "--source", "192.0.2.300"), "is not an address such as 192.0.2.1"),
            (("clear",), "one of them has to be said"),
            (("clear", "--all", "--account", "piet"), "one of them has to be said"),
        ):
            self.assertIn(complaint, self.run_command("throttle", *words, code=2).stderr)

    def test_unlock(self) -> None:
        self.keep_some()
        result = self.run_command("account", "unlock", "piet@ONE.nl")
        self.assertEqual(result.stdout, "piet@ONE.nl in realm one.nl: 2 counts cleared\n")
        self.assertEqual(
            result.stderr,
            "192.0.2.1 is refused still: digipoort-msa throttle clear --source 192.0.2.1\n",
        )
        self.assertEqual(
            json.loads(self.printed("account", "unlock", "piet", "--realm", "two.nl", "--json")),
            {"cleared": 1, "pending": False},
        )

    def test_a_damaged_ledger(self) -> None:
        (self.state / DATABASE).write_bytes(b"no database" * 1000)
        for words in (("throttle", "list"), ("throttle", "clear", "--all"), ("account", "unlock", "piet")):
            self.assertIn("stop the MSA and move it away", self.run_command(*words, code=1).stderr)

    def test_an_msa_that_does_not_answer(self) -> None:
        self.keep_some()
        self.patch(admin_ledger, "_PATIENCE", 0.0)
        with closing(Ledger(self.state, working=True)):
            self.assertEqual(
                self.printed("throttle", "clear", "--all"),
                "to be cleared: the MSA has not answered yet\n",
            )
            self.assertEqual(
                json.loads(self.printed("throttle", "clear", "--all", "--json")),
                {"cleared": None, "pending": True},
            )


@proves("A8")
class RunningTests(Commands, TestCase):
    """Beside what the MSA does in its own process, here on trial's reactor."""

    def setUp(self) -> None:
        self.set_up(Path(self.mktemp()).absolute())
        self.patch(logins_module, "INTERVAL", 0.05)
        self.throttle = Throttle(reactor.seconds, per_account_and_source=1)  # type: ignore[attr-defined]
        logins = Logins(self.throttle, Usage(time.time), self.state, reactor)
        logins.start()
        self.addCleanup(logins.stop)

    def looked_at(self) -> bool:
        try:
            self.throttle.attempt("one.nl", "piet", "192.0.2.1").admit()
        except Throttled:
            return False
        return True

    async def listed(self) -> list[Any]:
        printed = await deferToThread(self.printed, "throttle", "list", "--json")
        counts: list[Any] = json.loads(printed)["counts"]
        return counts

    async def test_unlock(self) -> None:
        for words in (("account", "unlock", "piet"), ("throttle", "clear", "--all")):
            self.throttle.attempt("one.nl", "piet", "192.0.2.1").failed()
            self.assertFalse(self.looked_at())
            self.assertRegex(await deferToThread(self.printed, *words), r"[2-5] counts cleared\n$")
            self.assertTrue(self.looked_at())
        self.assertEqual(await self.listed(), [])
