"""What rules on trial would have refused."""

import sqlite3
from pathlib import Path
from unittest import mock

from click.testing import CliRunner, Result
from twisted.internet.defer import fail

from digipoort_msa.admin.commands import main
from digipoort_msa.identity import Identity
from digipoort_msa.interfaces import Unavailable
from digipoort_msa.policy import trials
from digipoort_msa.policy.applied import WouldRefuse
from digipoort_msa.policy.trials import Trials, TrialsError, forget, report
from digipoort_msa.smtp import reply
from digipoort_msa.smtp.reply import Refused, Reply
from tests.account_doubles import Inline
from tests.msa import ClockTestCase
from tests.test_submission import trace


class TrialsTestCase(ClockTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.trials = self.make()

    def make(self) -> Trials:
        return Trials(self.folder, Inline(), self.clock, self.clock.seconds)  # type: ignore[arg-type]

    def refuse(
        self,
        account: str = "piet",
        *,
        realm: str = "one.nl",
        rule: str = "strict",
        said: Reply = reply.SENDER_NOT_YOURS,
        reason: str = "no",
        session: str = "S1",
    ) -> None:
        identity = Identity(name=account, realm=realm)
        self.trials.begun(realm, rule)
        refused = Refused(said, reason)
        self.trials.would_refuse(WouldRefuse(rule, identity, trace(session_id=session), "MAIL", refused))


class ReportTests(TrialsTestCase):
    def test_nothing_yet(self) -> None:
        self.assertEqual((report(self.folder), forget(self.folder)), ([], 0))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_what_is_alike_is_one_row(self) -> None:
        for number in range(3):
            self.refuse(reason=f"no {number}", session=f"S{number}")
            self.clock.advance(0.1)
        self.refuse("jan", said=reply.RECIPIENT_NOT_ALLOWED)
        self.trials.begun("one.nl", "strict")
        self.clock.advance(1)
        ((trial, refusals),) = report(self.folder)
        self.assertEqual((trial.realm, trial.rule, trial.transactions), ("one.nl", "strict", 5))
        self.assertEqual([(each.account, each.times) for each in refusals], [("piet", 3), ("jan", 1)])
        first = refusals[0]
        self.assertEqual(
            (first.session, first.reason, first.reply), ("S2", "no 2", str(reply.SENDER_NOT_YOURS))
        )
        self.assertAlmostEqual(first.last - first.first, 0.2)
        self.assertEqual(len(self.events("would-refuse")), 4)

    def test_over_a_restart(self) -> None:
        for _ in range(2):
            self.refuse()
            self.successResultOf(self.trials.stop())
            self.trials = self.make()
        ((trial, (refusals,)),) = report(self.folder)
        self.assertEqual((trial.transactions, refusals.times), (2, 2))

    def test_one_realm_or_rule(self) -> None:
        for realm in ("one.nl", "two.nl"):
            for rule in ("a", "b"):
                self.refuse(realm=realm, rule=rule)
        self.clock.advance(1)
        self.assertEqual(len(report(self.folder)), 4)
        self.assertEqual([trial.rule for trial, _ in report(self.folder, realm="two.nl")], ["a", "b"])
        self.assertEqual([trial.realm for trial, _ in report(self.folder, rule="a")], ["one.nl", "two.nl"])
        self.assertEqual(forget(self.folder, "one.nl", "a"), 1)
        self.assertEqual(len(report(self.folder)), 3)

    def test_bounded(self) -> None:
        self.patch(trials, "_MOST", 10)
        for number in range(100):
            self.refuse(f"account {number}")
            if number % 20 == 19:
                self.clock.advance(1)
        ((trial, refusals),) = report(self.folder)
        self.assertEqual((trial.transactions, sum(each.times for each in refusals)), (100, 100))
        self.assertEqual(len(refusals), 11)
        self.assertEqual((refusals[0].account, refusals[0].reply, refusals[0].times), ("", "", 90))

    def test_bounded_whatever_a_milter_says(self) -> None:
        self.patch(trials, "_MOST", 10)
        for number in range(100):
            said = Reply(550, "5.7.1", (f"refused as {number}" + "x" * 60_000,))
            self.refuse(said=said, reason="x" * 60_000)
            if number % 20 == 19:
                self.clock.advance(1)
        ((_, refusals),) = report(self.folder)
        self.assertEqual((len(refusals), sum(each.times for each in refusals)), (11, 100))
        self.assertLess(sum(len(each.reply + each.reason) for each in refusals), 12_000)

    def test_how_long_to_wait_is_no_difference(self) -> None:
        for seconds in range(1, 40):
            self.refuse(said=reply.rate_exceeded("messages", seconds))
        self.clock.advance(1)
        ((_, (refusals,)),) = report(self.folder)
        self.assertEqual(refusals.times, 39)
        self.assertTrue(refusals.reply.endswith("come back in ... seconds"), refusals.reply)

    def test_what_goes_wrong_stops_nothing(self) -> None:
        (self.folder / trials.DATABASE).write_bytes(b"no database" * 1000)
        self.refuse()
        self.clock.advance(1)
        self.assertIn("move it away", self.events("trials-lost")[0]["reason"])
        self.trials._threads.call = lambda *_: fail(Unavailable("full"))  # type: ignore[method-assign]
        self.refuse()
        self.successResultOf(self.trials.stop())
        self.assertEqual(len(self.events("trials-lost")), 2)
        self.assertRaises(TrialsError, report, self.folder)

    def test_of_a_later_release(self) -> None:
        connection = sqlite3.connect(self.folder / trials.DATABASE)
        connection.execute("PRAGMA user_version = 2")
        connection.close()
        self.assertIn("later release", str(self.assertRaises(TrialsError, report, self.folder)))


class CommandTests(TrialsTestCase):
    def run_command(self, *words: str) -> Result:
        config = self.folder / "msa.toml"
        config.write_text(
            f'[server]\nhostname = "localhost"\nstate-directory = "{self.folder.absolute()}"\n'
            '[[listener]]\nendpoint = "tcp:0"\ntls = "starttls"\n[[realm]]\nname = "one.nl"\n'
            '[delivery.relay]\nnext-hops = ["localhost:25"]\n'
        )
        return CliRunner().invoke(main, ["--config", str(config), "policy", *words])

    def test_report(self) -> None:
        self.assertIn("no rule has been on trial", self.run_command("report").output)
        self.refuse(reason="\x1b[2J")
        self.refuse("jan")
        self.clock.advance(1)
        said = self.run_command("report").output
        self.assertIn("rule strict of realm one.nl, on trial since 2001-09-09T01:46:40+00:00", said)
        self.assertIn("asked about 2 transactions, it would have refused 2 times", said)
        self.assertIn("550 5.7.1 This account may not send from this address", said)
        self.assertNotIn("\x1b", said)

    def test_json(self) -> None:
        self.refuse()
        self.clock.advance(1)
        said = self.run_command("report", "--json").output
        self.assertIn('"would_refuse"', said)
        self.assertIn('"account": "piet"', said)

    def test_forget(self) -> None:
        self.refuse()
        self.clock.advance(1)
        self.assertEqual(self.run_command("forget", "--rule", "strict").output, "1 trial forgotten\n")
        self.assertEqual(self.run_command("forget").output, "0 trials forgotten\n")

    def test_a_damaged_file(self) -> None:
        (self.folder / trials.DATABASE).write_bytes(b"no database" * 1000)
        for command in ("report", "forget"):
            result = self.run_command(command)
            self.assertEqual(result.exit_code, 1)
            self.assertIn("move it away", result.output)

    def test_a_folder_that_is_the_services_alone(self) -> None:
        def exists(path: Path) -> bool:
            raise PermissionError(13, "Permission denied", str(path))

        for command in ("report", "forget"):
            with mock.patch.object(trials.Path, "exists", exists):
                result = self.run_command(command)
            self.assertEqual((result.exit_code, type(result.exception)), (1, SystemExit))
            self.assertIn("Permission denied", result.output)
