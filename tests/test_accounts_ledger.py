import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.accounts import ledger as module
from digipoort_msa.accounts.ledger import DATABASE, Changes, Ledger, LedgerError, Wish, lock
from digipoort_msa.accounts.networks import place_of
from digipoort_msa.accounts.throttle import Kind
from digipoort_msa.accounts.usage import Use

PIET = ("one.nl", "piet", "")
FROM_HOME = ("one.nl", "piet", "192.0.2.1")
HOME = ("", "", "192.0.2.1")
AROUND = ("", "", "192.0.2.0/24")
STANDING = (
    (Kind.PAIR, FROM_HOME, 30.0),
    (Kind.PAIR, ("one.nl", "piet", "2001:db8::/64"), 31.0),
    (Kind.PAIR, ("two.nl", "piet", "192.0.2.1"), 32.0),
    (Kind.SOURCE, HOME, 40.0),
    (Kind.NETWORK, AROUND, 50.0),
    (Kind.ACCOUNT, PIET, 60.0),
    (Kind.STRANGERS, ("", "", ""), 70.0),
    (Kind.TRUSTED, FROM_HOME, 1e6),
)


class LedgerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.ledger = self.open(working=True)

    def open(self, *, working: bool) -> Ledger:
        ledger = Ledger(self.directory, working=working)
        self.addCleanup(ledger.close)
        return ledger

    def kept(self, ledger: Ledger) -> set[tuple[Kind, tuple[str, str, str], float]]:
        return {(kind, key, until) for kind in Kind for key, until in ledger.standing(kind)}


class LedgerTests(LedgerTestCase):
    def test_what_is_written_is_there_for_the_next(self) -> None:
        self.ledger.exchange(Changes(STANDING))
        self.ledger.close()
        again = self.open(working=True)
        self.assertEqual(self.kept(again), set(STANDING))
        again.exchange(Changes([(Kind.SOURCE, HOME, 45.0), (Kind.NETWORK, AROUND, None)]))
        self.assertEqual(dict(again.standing(Kind.SOURCE)), {HOME: 45.0})
        self.assertEqual(dict(again.standing(Kind.NETWORK)), {})
        again.exchange(Changes([(Kind.SOURCE, HOME, 46.0)], whole=True))
        self.assertEqual(self.kept(again), {(Kind.SOURCE, HOME, 46.0)})

    def test_those_that_hold_longest(self) -> None:
        self.ledger.exchange(Changes(STANDING))
        self.assertEqual([until for _, until in self.ledger.standing(Kind.PAIR, 2)], [31.0, 32.0])
        self.ledger.sweep(45.0)
        self.assertEqual(
            {kind for kind, _, _ in self.kept(self.ledger)},
            {Kind.NETWORK, Kind.ACCOUNT, Kind.STRANGERS, Kind.TRUSTED},
        )

    def test_usage_adds_up(self) -> None:
        plain, digest = ("one.nl", "piet", "PLAIN"), ("one.nl", "piet", "DIGEST-MD5")
        self.ledger.exchange(Changes(usage={plain: Use(10, 20, "192.0.2.1", 2)}))
        self.ledger.exchange(
            Changes(usage={plain: Use(30, 40, "192.0.2.2", 3), digest: Use(5, 5, "192.0.2.3", 1)})
        )
        self.ledger.exchange(Changes(usage={plain: Use(15, 15, "192.0.2.9", 1)}))  # the clock was turned back
        expected = {plain: Use(10, 40, "192.0.2.2", 6), digest: Use(5, 5, "192.0.2.3", 1)}
        self.assertEqual(self.ledger.usage("one.nl"), expected)
        self.assertEqual(self.ledger.usage("one.nl", "piet"), expected)
        self.assertEqual(self.ledger.usage("one.nl", "jan"), {})
        self.assertEqual(self.ledger.usage("two.nl"), {})

    def test_for_the_services_user_alone(self) -> None:
        self.ledger.exchange(Changes(STANDING))
        for file in self.directory.iterdir():
            self.assertEqual(stat.S_IMODE(file.stat().st_mode) & 0o077, 0, file)
        names = {file.name for file in self.directory.iterdir()}
        self.assertLessEqual({"logins.sqlite", "logins.lock"}, names)

    def test_one_works_with_it(self) -> None:
        self.patch(module, "_PATIENCE", 0.0)
        with self.assertRaisesRegex(LedgerError, "another MSA works with"):
            self.open(working=True)
        self.ledger.close()
        self.open(working=True)

    def test_a_command_does_not_keep_an_msa_from_it(self) -> None:
        """A command holds the lock for a moment; the MSA that starts just then waits."""
        self.ledger.close()
        held = lock(self.directory)
        assert held is not None
        self.patch(module.time, "sleep", lambda seconds: os.close(held))
        self.open(working=True)

    def test_a_later_release(self) -> None:
        with closing(sqlite3.connect(self.directory / DATABASE)) as connection:
            connection.execute("PRAGMA user_version = 99")
        with self.assertRaisesRegex(LedgerError, "is of version 99, made by a later release"):
            self.open(working=False)

    def test_damaged(self) -> None:
        self.ledger.close()
        (self.directory / DATABASE).write_bytes(b"no database" * 1000)
        for working in (True, False):
            with self.assertRaisesRegex(LedgerError, "stop the MSA and move it away"):
                self.open(working=working)

    def test_no_folder(self) -> None:
        with self.assertRaises(LedgerError):
            Ledger(Path("/dev/null/state"), working=True)

    def test_hostile_names(self) -> None:
        for name in ("'; DROP TABLE standing; --", "a\0b", "\u202e\u0000\U0010ffff", "%", "x" * 80):
            key = ("one.nl", name, "")
            self.ledger.exchange(Changes([(Kind.ACCOUNT, key, 10.0)]))
            self.assertEqual(dict(self.ledger.standing(Kind.ACCOUNT)), {key: 10.0})
            self.ledger.exchange(Changes([(Kind.ACCOUNT, key, None)]))
            self.assertEqual(dict(self.ledger.standing(Kind.ACCOUNT)), {})


class WishTests(LedgerTestCase):
    def wanted(self, wish: Wish) -> set[tuple[str, str]]:
        return {(kind.value, "/".join(key)) for kind, key in self.ledger.matching(wish)}

    def test_what_fits(self) -> None:
        self.ledger.exchange(Changes(STANDING))
        of_piet = {
            ("account", "one.nl/piet/"),
            ("account-and-source", "one.nl/piet/192.0.2.1"),
            ("account-and-source", "one.nl/piet/2001:db8::/64"),
        }
        self.assertEqual(self.wanted(Wish("one.nl", "piet")), of_piet)
        self.assertEqual(
            self.wanted(Wish("one.nl", "piet", trust=True)), of_piet | {("trusted", "one.nl/piet/192.0.2.1")}
        )
        self.assertEqual(
            self.wanted(Wish(place=place_of("192.0.2.1"))),
            {
                ("source", "//192.0.2.1"),
                ("network", "//192.0.2.0/24"),
                ("account-and-source", "one.nl/piet/192.0.2.1"),
                ("account-and-source", "two.nl/piet/192.0.2.1"),
            },
        )
        self.assertEqual(
            self.wanted(Wish("one.nl", within="192.0.0.0/16")),
            {("account-and-source", "one.nl/piet/192.0.2.1")},
        )
        self.assertEqual(len(self.wanted(Wish())), len(STANDING) - 1)
        self.assertEqual(len(self.wanted(Wish(trust=True))), len(STANDING))

    def test_left_to_the_one_who_works(self) -> None:
        self.ledger.exchange(Changes(STANDING))
        command = self.open(working=False)
        wish = Wish("one.nl", "piet", place_of("192.0.2.1"), "192.0.0.0/8", trust=True)
        self.assertIsNone(command.fulfil(wish))
        number = command.leave(wish)
        self.assertIsNone(command.outcome(number))
        for _ in range(2):  # until it is said that it is done
            ((seen, unwanted),) = self.ledger.exchange(Changes())
            self.assertEqual(
                (seen, set(unwanted)), (number, {(Kind.PAIR, FROM_HOME), (Kind.TRUSTED, FROM_HOME)})
            )
        self.assertEqual(self.ledger.exchange(Changes(wishes={number: 2})), [])
        self.assertEqual(command.outcome(number), 2)
        self.assertEqual(self.ledger.exchange(Changes()), [])

    def test_an_answer_that_nobody_has_waited_for(self) -> None:
        """Goes at the next start."""
        number = self.ledger.leave(Wish())
        self.ledger.exchange(Changes(wishes={number: 2}))
        self.ledger.sweep(0)
        rows = self.ledger._connection.execute("SELECT * FROM wish").fetchall()
        self.assertEqual(rows, [])
        self.assertEqual(self.ledger.outcome(number), 0)

    def test_looked_for_only_when_something_was_written(self) -> None:
        self.ledger.exchange(Changes())
        self.patch(self.ledger, "wishes", lambda: self.fail("nobody has written"))
        self.ledger.exchange(Changes(STANDING))
        self.ledger.exchange(Changes())

    def test_carried_out_where_no_msa_runs(self) -> None:
        self.ledger.exchange(Changes(STANDING))
        self.ledger.close()
        command = self.open(working=False)
        self.assertEqual(command.fulfil(Wish("one.nl", "piet")), 3)
        self.assertEqual(len(self.kept(command)), len(STANDING) - 3)
