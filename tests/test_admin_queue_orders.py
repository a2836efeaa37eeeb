"""``queue retry``, ``hold``, ``release``, ``return``, ``remove`` and ``move``."""

import json
from typing import Any

from digipoort_msa.spool import orders
from digipoort_msa.spool.states import State
from tests.inspecting import BIG
from tests.queue_commands import QueueCommandTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED

ORDERS: tuple[tuple[str, ...], ...] = (
    ("retry",),
    ("hold",),
    ("release",),
    ("return", "--yes"),
    ("remove", "--yes"),
    ("move", "--to", "other.example.nl:25"),
)


class OrdersTests(QueueCommandTestCase):
    def deferred(self, **fields: Any) -> str:
        queue_id = self.kept(recipients=("one@b.nl",), **fields)
        self.tried(queue_id, next_attempt=1e12, one=(State.DEFERRED, DEFERRED))
        return queue_id

    def test_which_messages(self) -> None:
        """IDs, or filters, or --all: one of them has to be said."""
        queue_id = self.deferred()
        for words in ORDERS:
            self.assertIn("Give the IDs of messages, or filters, or --all", self.complaint(*words, code=2))
            for more in (("--all",), ("--realm", "x")):
                self.assertIn("not IDs with the others", self.complaint(*words, queue_id, *more, code=2))
            self.assertIn("NONE: there is no such message", self.complaint(*words, "NONE"))
            self.assertIn("0 messages", self.printed(*words, "--realm", "x.nl"))
        self.assertEqual(["deferred"], self.states(queue_id))

    def test_what_was_done_is_told_of_beside_what_was_not(self) -> None:
        for words in ORDERS:
            queue_id = self.deferred()
            if words[0] == "release":
                orders.hold(self.inspection, [queue_id], "why")
            result = self.run_command(*words, queue_id, "NONE", "--json", code=1)
            pending = {"pending": [queue_id]} if words[0] in ("return", "remove") else {}
            self.assertEqual(
                {
                    "done": [queue_id],
                    "refused": [{"id": "NONE", "reason": "there is no such message"}],
                    **pending,
                },
                json.loads(result.stdout),
            )
            self.assertEqual("NONE: there is no such message\n", result.stderr)

    def test_retry(self) -> None:
        queue_id, held = self.deferred(), self.deferred()
        orders.hold(self.inspection, [held], "why")
        self.assertEqual("1 message to be tried now\n", self.printed("retry", "--all"))
        self.assertEqual(["queued"], self.states(queue_id))
        self.assertIn("release it", self.complaint("retry", held))

    @proves("D2")
    def test_hold_and_release(self) -> None:
        old, new = self.kept(), self.kept(received_at=4e9)
        self.assertIn(
            "1 message held", self.printed("hold", "--older-than", "4h", "--reason", "by telephone")
        )
        self.assertEqual((["held"], ["queued"]), (self.states(old), self.states(new)))
        self.assertIn("by telephone", self.printed("show", old))
        self.assertIn("0 messages held", self.printed("hold", "--older-than", "4h"), "it is held already")
        self.assertIn("1 message released", self.printed("release", "--all"))
        self.assertEqual(["queued"], self.states(old))

    @proves("D2")
    def test_nothing_tries_what_is_of_no_realm(self) -> None:
        deferred, held = self.deferred(), self.deferred()
        orders.hold(self.inspection, [held], "why")
        self.sql("UPDATE message SET realm = 'gone.nl'")
        why = "its realm gone.nl is not configured"
        self.assertEqual(f"{deferred}: {why}\n", self.complaint("retry", "--all"))
        self.assertEqual(f"{held}: {why}\n", self.complaint("release", "--realm", "gone.nl"))
        self.assertEqual((["deferred"], ["held"]), (self.states(deferred), self.states(held)))
        self.sql("UPDATE message SET realm = 'maildir.nl'")
        self.assertEqual("1 message released\n", self.printed("release", "--realm", "maildir.nl"))

    def test_release_without_the_file(self) -> None:
        queue_id = self.kept(BIG)
        self.printed("hold", queue_id)
        (self.directory / "bodies" / queue_id).unlink()
        self.assertIn("is missing: put it back first", self.complaint("release", "--all"))

    def test_move(self) -> None:
        queue_id = self.deferred()
        self.assertIn("to go to other.nl:26", self.printed("move", "--all", "--to", "other.nl:26"))
        self.assertIn("other.nl:26, an operator's choice", self.printed("show", queue_id))
        self.assertIn("the hops of their realm", self.printed("move", queue_id, "--to", "-"))
        self.assertIsNone(self.document("show", queue_id)["next-hop"])
        for hop in ("other.nl", "other.nl:0", "-oProxy:25:1", "", "a\nb:25"):
            self.assertIn("Invalid value", self.complaint("move", queue_id, "--to", hop, code=2))
        self.complaint("move", queue_id, code=2)

    def test_move_where_there_is_no_hop(self) -> None:
        maildir, gone = self.kept(), self.kept()
        self.sql("UPDATE message SET realm = 'maildir.nl' WHERE queue_id = ?", maildir)
        self.sql("UPDATE message SET realm = 'gone.nl' WHERE queue_id = ?", gone)
        output = self.complaint("move", "--all", "--to", "other.nl:25")
        self.assertIn(f'{maildir}: the realm maildir.nl has delivery.to = "maildir"', output)
        self.assertIn(f"{gone}: the realm gone.nl is not configured", output)

    def test_remove_asks(self) -> None:
        first, second = self.kept(), self.kept()
        output = self.complaint("remove", first, answer="n\n")
        self.assertIn(f"Remove {first} for good? [y/N]", output)
        self.assertIn("Remove 2 messages for good?", self.complaint("remove", "--all", answer="\n"))
        self.assertIn("Remove 1 message for good?", self.complaint("remove", first, "NONE", answer=""))
        self.assertEqual([None, None], [one["wish"] for one in self.document("list")])
        result = self.run_command("remove", "--all", answer="y\n")
        self.assertEqual("2 messages to be removed\n", result.stdout)
        self.assertEqual(["remove", "remove"], [one["wish"] for one in self.document("list")])
        self.stop(self.spool)
        self.assertEqual("2 messages removed\n", self.printed("remove", first, second, "--yes"))
        self.assertEqual([], self.document("list"))

    @proves("D2")
    def test_return(self) -> None:
        queue_id, stranger, elsewhere = self.kept(BIG), self.kept(), self.kept()
        self.sql("UPDATE message SET reverse_path = 'x@stranger.nl' WHERE queue_id = ?", stranger)
        self.sql("UPDATE message SET realm = 'gone.nl' WHERE queue_id = ?", elsewhere)
        self.stop(self.spool)
        self.assertIn("Return 3 messages to the sender?", self.complaint("return", "--all", answer="n\n"))
        result = self.run_command("return", "--all", "--yes", code=1)
        self.assertEqual("1 message returned\n", result.stdout)
        self.assertIn(
            f"{stranger}: <x@stranger.nl> is not known to be an address of the account", result.stderr
        )
        self.assertIn(f"{elsewhere}: the realm gone.nl is not configured", result.stderr)
        *left, notification = self.document("list")
        self.assertEqual([stranger, elsewhere], [one["id"] for one in left])
        self.assertEqual(("<>", "sender@example.nl"), (notification["sender"], notification["recipient"]))
        octets = self.run_command("cat", notification["id"]).stdout_bytes
        self.assertIn(b"multipart/report", octets)
        self.assertIn(b"An operator has returned the message", octets)
        self.assertFalse((self.directory / "bodies" / queue_id).exists())
        self.assertIn("nobody to tell", self.complaint("return", notification["id"], "--yes"))

    def test_return_beside_the_msa(self) -> None:
        queue_id = self.kept()
        self.assertEqual("1 message to be returned\n", self.printed("return", queue_id, "--yes"))
        (message,) = self.document("list")
        self.assertEqual((queue_id, "return"), (message["id"], message["wish"]))
