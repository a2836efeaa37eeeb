"""Messages as files: written, and read back to the letter."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa.smtp.envelope import MailParameters, Notify, RcptParameters
from digipoort_msa.smtp.envelope import Path as MailPath
from digipoort_msa.spool import orders
from digipoort_msa.spool.archive import Archived, NotAMessage, as_document, from_document
from digipoort_msa.spool.exporting import Export, Gone, NotExported
from digipoort_msa.spool.importing import AlreadyHere, Import, NotImported, Rules, envelopes
from digipoort_msa.spool.schema import SpoolError
from digipoort_msa.spool.sealing import Sealing
from digipoort_msa.spool.states import State
from digipoort_msa.spool.statistics import statistics
from tests.inspecting import BIG, InspectionTestCase
from tests.requirements import proves
from tests.spooling import DEFERRED, DELIVERED, envelope

QUEUE_ID = "CO6O1R29G9KUBHK7"
ONE, TWO = MailPath("one", "b.nl"), MailPath("two", "b.nl")
ARCHIVED = Archived(
    evolve(
        envelope(QUEUE_ID, recipients=("one@b.nl", "two@b.nl"), received_at=1000.25),
        recipient_parameters={TWO: RcptParameters(frozenset({Notify.NEVER}), "rfc822;two@b.nl")},
        parameters=MailParameters(5, True, True, "", "HDRS", "a+20b"),
        next_hop="other.nl:25",
    ),
    {ONE: State.DELIVERED, TWO: State.DEFERRED},
    5,
    "0" * 64,
)

#: Text that a path may hold, and JSON at its worst.
_words = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("C", "Z")), max_size=9
)
_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


class DocumentTests(SynchronousTestCase):
    def changed(self, **keys: Any) -> bytes:
        return json.dumps({**as_document(ARCHIVED), **keys}).encode()

    def refused(self, octets: bytes, text: str) -> None:
        with self.assertRaises(NotAMessage) as caught:
            from_document(octets)
        self.assertIn(text, str(caught.exception))

    def test_there_and_back(self) -> None:
        document = as_document(ARCHIVED)
        self.assertEqual(ARCHIVED, from_document(json.dumps(document).encode()))
        self.assertEqual("1970-01-01T00:16:40.250000Z", document["received"])
        self.assertEqual((TWO,), ARCHIVED.unfinished)

    def test_what_is_wrong_is_said(self) -> None:
        document = as_document(ARCHIVED)
        recipient = document["recipients"][1]
        for keys, text in (
            ({"format": "mbox"}, 'format = "mbox": should be "digipoort-msa message"'),
            ({"version": 2}, "version = 2: should be 1"),
            ({"version": True}, "version = true: should be 1"),
            ({"id": "../../etc/passwd"}, 'id = "../../etc/passwd": should be a queue id'),
            ({"id": 5}, "id = 5: should be a queue id"),
            ({"realm": "a\r\nb"}, "realm = "),
            ({"account": ""}, 'account = "": should be'),
            ({"session": "\ud800"}, "session = "),
            ({"received": "yesterday"}, 'received = "yesterday": should be a time'),
            ({"received": "2026-01-01T00:00:00"}, "received = "),
            ({"received": 5}, "received = 5"),
            ({"size": -1}, "size = -1: should be a number of octets"),
            ({"size": 1.5}, "size = 1.5"),
            ({"sha256": "ABC"}, "sha256 = "),
            ({"sender": "nobody"}, 'sender = "nobody": should be an address, or ""'),
            ({"sender": "a@b.nl> SIZE=5"}, "sender = "),
            ({"sender": "a@b.nl>\r\nRCPT TO:<x@y.nl"}, "sender = "),
            ({"sender": "@relay.nl:a@b.nl"}, "sender = "),
            ({"sender": None}, "sender = null"),
            ({"next-hop": ""}, "next-hop = "),
            ({"parameters": []}, "parameters: should be an object"),
            (
                {"parameters": {**document["parameters"], "ret": "full"}},
                'parameters.ret = "full": should be "FULL"',
            ),
            ({"parameters": {**document["parameters"], "x": 1}}, "parameters.x: unknown key"),
            ({"parameters": {**document["parameters"], "envid": "a b"}}, "parameters.envid = "),
            (
                {"parameters": {**document["parameters"], "smtputf8": 1}},
                "parameters.smtputf8 = 1: should be true",
            ),
            ({"recipients": []}, "recipients = []: should be a list of objects, not empty"),
            ({"recipients": [5]}, "recipients[0]: should be an object"),
            ({"recipients": [recipient, recipient]}, "one of them is there twice"),
            ({"recipients": [{**recipient, "path": "x"}]}, 'recipients[0].path = "x": should be an address'),
            ({"recipients": [{**recipient, "path": "é@b"}]}, "recipients[0].path"),
            ({"recipients": [{**recipient, "state": "active"}]}, "recipients[0].state"),
            ({"recipients": [{**recipient, "state": "lost"}]}, "recipients[0].state"),
            ({"recipients": [{**recipient, "notify": ["NEVER", "DELAY"]}]}, "recipients[0].notify"),
            ({"recipients": [{**recipient, "notify": ["DELAY", "DELAY"]}]}, "recipients[0].notify"),
            ({"recipients": [{**recipient, "notify": []}]}, "recipients[0].notify"),
            ({"recipients": [{**recipient, "notify": "NEVER"}]}, "recipients[0].notify"),
            ({"recipients": [{**recipient, "orcpt": "x400;a"}]}, "recipients[0].orcpt"),
            ({"surprise\n": 1}, "surprise\\n: unknown key"),
        ):
            self.refused(self.changed(**keys), text)
        for key in document:
            octets = json.dumps({name: value for name, value in document.items() if name != key}).encode()
            self.refused(octets, f"{key}: missing; should be" if key != "" else "")

    def test_what_is_no_document(self) -> None:
        for octets in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 1}', b"9" * 9999):
            with self.assertRaises(NotAMessage):
                from_document(octets)

    @given(st.binary(max_size=99) | _json.map(lambda value: json.dumps(value).encode()))
    def test_anything(self, octets: bytes) -> None:
        with self.assertRaises(NotAMessage):
            from_document(octets)

    @given(st.sampled_from(sorted(as_document(ARCHIVED))), _json)
    def test_any_value(self, key: str, value: Any) -> None:
        self.refused_or_the_same(key, value)

    @given(_words)
    def test_any_sender(self, word: str) -> None:
        self.refused_or_the_same("sender", f"{word}@b.nl")

    def refused_or_the_same(self, key: str, value: Any) -> None:
        octets = self.changed(**{key: value})
        try:
            archived = from_document(octets)
        except NotAMessage:
            return
        self.assertEqual(archived, from_document(json.dumps(as_document(archived)).encode()))

    def test_every_cut(self) -> None:
        octets = self.changed()
        for end in range(len(octets)):
            with self.assertRaises(NotAMessage):
                from_document(octets[:end])


class FilesTests(InspectionTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "out"
        self.objection: str | None = None

    def export(self, *queue_ids: str, sealing: Sealing | None = None, force: bool = False) -> None:
        with Export(self.inspection, self.folder, sealing, force=force) as export:
            for queue_id in queue_ids:
                export.write(queue_id)

    def taking(self, hold: str | None = None, **changes: Any) -> Import:
        rules = Rules(65536, 0, None, lambda realm, account: None, lambda envelope: self.objection)
        return Import(self.inspection, evolve(rules, **changes), hold=hold)

    def import_(self, hold: str | None = None, **changes: Any) -> list[str]:
        with self.taking(hold, **changes) as taking:
            return [taking.read(path) for path in envelopes((self.folder,))]

    def refused(self, text: str, **changes: Any) -> None:
        before = self.inspection.queue_ids(), sorted(os.listdir(self.directory / "bodies"))
        with self.assertRaises(NotImported) as caught:
            self.import_(**changes)
        self.assertIn(text, str(caught.exception))
        self.assertEqual(before, (self.inspection.queue_ids(), sorted(os.listdir(self.directory / "bodies"))))

    def gone(self, *queue_ids: str) -> None:
        """Remove from the spool, as an operator would who has exported."""
        self.stop(self.spool)
        orders.remove(self.inspection, list(queue_ids))
        self.spool = self.started()

    @proves("D2", "M2")
    def test_there_and_back(self) -> None:
        """With the MSA running, or not; in clear, or encrypted on the way back."""
        contents = [b"Subject: x\r\n\r\ny\r\n", b"\xe9\r\n", BIG, BIG + b"\xe9\r\n", b""]
        for running in (True, False):
            for sealing in (None, Sealing(bytes(32))):
                kept = [self.kept(octets) if octets else self.kept(b"\r\n") for octets in contents]
                before = [self.shown(queue_id) for queue_id in kept]
                self.export(*kept, force=True)
                self.gone(*kept)
                if not running:
                    self.stop(self.spool)
                self.assertEqual(kept, self.import_(sealing=sealing))
                for message, octets in zip(before, contents, strict=True):
                    queue_id = message.summary.queue_id
                    self.assertEqual(message.envelope, self.shown(queue_id).envelope)
                    self.assertEqual(message.eight_bit, self.shown(queue_id).eight_bit)
                    stored = self.inspection.stored(queue_id)
                    assert stored is not None
                    self.assertEqual(octets or b"\r\n", b"".join(self.inspection.content(stored, sealing)))
                    self.assertEqual(stored.sealed_by, sealing.name if sealing else None)
                    self.assertIsNotNone(stored.digest)
                    self.assertGreater(stored.since, 1e9)
                if not running:
                    self.spool = self.started()
                    self.assertEqual(0, self.recovery.orphans)
                self.gone(*kept)
                for path in self.folder.iterdir():
                    path.unlink()

    def test_files(self) -> None:
        small, big = self.kept(b"abc\r\n"), self.kept(BIG)
        self.export(small, big)
        self.assertEqual(
            sorted(f"{each}.{kind}" for each in (small, big) for kind in ("eml", "json")),
            sorted(os.listdir(self.folder)),
        )
        self.assertEqual(0o700, self.folder.stat().st_mode & 0o777)
        for path in self.folder.iterdir():
            self.assertEqual(0o600, path.stat().st_mode & 0o777)
        self.assertEqual(BIG, (self.folder / f"{big}.eml").read_bytes())
        document = json.loads((self.folder / f"{small}.json").read_text())
        self.assertEqual((5, hashlib.sha256(b"abc\r\n").hexdigest()), (document["size"], document["sha256"]))

    @proves("D2")
    def test_nobody_gets_it_twice(self) -> None:
        queue_id = self.kept(recipients=("one@b.nl", "two@b.nl"))
        self.tried(queue_id, one=(State.DELIVERED, DELIVERED), two=(State.DEFERRED, DEFERRED))
        self.export(queue_id)
        self.gone(queue_id)
        self.import_()
        (recipient,) = self.shown(queue_id).recipients
        self.assertEqual((TWO, State.QUEUED, 0), (recipient.path, recipient.state, recipient.attempts))

    def test_nothing_left(self) -> None:
        queue_id = self.kept()
        self.export(queue_id)
        self.rewrite(queue_id, lambda document: document["recipients"][0].update(state="returned"))
        self.gone(queue_id)
        self.refused("nothing is left to do")

    def test_held(self) -> None:
        queue_id = self.kept()
        self.export(queue_id)
        self.gone(queue_id)
        self.import_(hold="not yet")
        self.assertEqual(["held"], self.states(queue_id))
        self.assertIsNone(self.shown(queue_id).summary.next_attempt)

    def test_in_sequence(self) -> None:
        kept = [self.kept(), self.kept()]
        self.export(*kept)
        self.gone(*kept)
        self.import_(sequences=lambda realm, account: f"{realm} {account}")
        self.assertEqual(kept[0], self.shown(kept[1]).waits_for)
        self.assertEqual(1, statistics(self.inspection).in_line)

    def test_what_is_here_is_skipped(self) -> None:
        for octets in (b"x\r\n", BIG):
            queue_id = self.kept(octets)
            self.export(queue_id)
            with self.assertRaises(AlreadyHere):
                self.import_()
            # Even where it was not here a moment ago: its body file is not touched.
            with (
                mock.patch.object(self.inspection, "unknown", return_value=[queue_id]),
                self.assertRaises(AlreadyHere),
            ):
                self.import_()
            stored = self.inspection.stored(queue_id)
            assert stored is not None
            self.assertEqual(octets, b"".join(self.inspection.content(stored, None)))
            for path in self.folder.iterdir():
                path.unlink()
        self.assertEqual([queue_id], os.listdir(self.directory / "bodies"))

    def rewrite(self, queue_id: str, change: Callable[[Any], object]) -> None:
        path = self.folder / f"{queue_id}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def test_what_is_not_as_its_envelope_says(self) -> None:
        for octets in (b"abc\r\n", BIG):
            queue_id = self.kept(octets)
            self.export(queue_id)
            self.gone(queue_id)
            body = self.folder / f"{queue_id}.eml"
            for changed, text in (
                (octets + b"x", "it has more than"),
                (octets[:-2], "octets where its envelope says"),
                (b"X" + octets[1:], "SHA-256"),
                (octets[:-2] + b"\n\n", "stands alone"),
                (octets[:-2] + b"\rx", "stands alone"),
                (octets[:-1] + b"\r", "stands alone"),
                (b"", "it has 0 octets"),
            ):
                body.write_bytes(changed)
                self.refused(text)
            body.write_bytes(octets)
            self.objection = "realm = x: is not configured here"
            self.refused(f"{queue_id}.json: realm = x: is not configured here")
            self.objection = None
            self.assertEqual([queue_id], self.import_())
            for path in self.folder.iterdir():
                path.unlink()

    def test_what_changes_while_it_is_read(self) -> None:
        from digipoort_msa.spool import importing

        for octets in (b"abc\r\n", BIG):
            queue_id = self.kept(octets)
            self.export(queue_id)
            self.gone(queue_id)
            body = self.folder / f"{queue_id}.eml"
            checked = importing._checked

            def then_changed(*arguments: Any, body: Path = body, octets: bytes = octets) -> bool:
                result = checked(*arguments)  # noqa: B023
                body.write_bytes(b"Y" + octets[1:])
                return result

            with mock.patch.object(importing, "_checked", then_changed):
                self.refused("it has changed")
            for path in self.folder.iterdir():
                path.unlink()

    def test_an_envelope_under_another_name(self) -> None:
        queue_id = self.kept()
        self.export(queue_id)
        self.gone(queue_id)
        (self.folder / f"{queue_id}.json").rename(self.folder / "x.json")
        self.refused("should be the file's name")

    def test_links_and_other_things(self) -> None:
        queue_id = self.kept()
        self.export(queue_id)
        self.gone(queue_id)
        for name in (f"{queue_id}.eml", f"{queue_id}.json"):
            path, aside = self.folder / name, self.folder / "aside"
            path.rename(aside)
            path.symlink_to(aside)
            self.refused("cannot be read")
            path.unlink()
            os.mkfifo(path)
            self.refused("is not a file")
            path.unlink()
            path.mkdir()
            self.refused("is not a file")
            path.rmdir()
            if name.endswith("eml"):
                self.refused("cannot be read: No such file")
            aside.rename(path)
        self.assertEqual([queue_id], self.import_())

    def test_a_huge_envelope(self) -> None:
        self.folder.mkdir()
        with open(self.folder / f"{QUEUE_ID}.json", "wb") as file:
            file.truncate(10**9)
        self.refused("more than")

    def test_paths(self) -> None:
        queue_id = self.kept()
        self.export(queue_id)
        (self.folder / ".hidden.json").write_text("x")
        body, document = self.folder / f"{queue_id}.eml", self.folder / f"{queue_id}.json"
        for path in (self.folder, body, document):
            self.assertEqual([document], list(envelopes((path,))))
        with self.assertRaisesRegex(NotImported, "No such file"):
            list(envelopes((self.folder / "none",)))

    @proves("D2")
    def test_a_full_disk(self) -> None:
        queue_id = self.kept(BIG)
        self.export(queue_id)
        self.gone(queue_id)
        with self.assertRaisesRegex(SpoolError, "octets free"):
            self.import_(watermark=2**60)
        with (
            mock.patch("os.write", side_effect=OSError(28, "No space left on device")),
            self.assertRaisesRegex(SpoolError, "No space left"),
        ):
            self.import_()
        self.assertEqual([], os.listdir(self.directory / "bodies"))
        with (
            mock.patch("os.fsync", side_effect=OSError(5, "Input/output error")),
            self.assertRaisesRegex(SpoolError, "Input/output"),
        ):
            self.import_()
        self.assertEqual([], os.listdir(self.directory / "bodies"))
        self.assertEqual([], self.inspection.queue_ids())

    def test_left_by_a_killed_import(self) -> None:
        queue_id = self.kept(BIG)
        self.export(queue_id)
        self.gone(queue_id)
        bodies = self.directory / "bodies"
        for left in (bodies / f"{queue_id}.incoming", bodies / queue_id):
            left.write_bytes(b"x")
        self.assertEqual([queue_id], self.import_())
        self.assertEqual([queue_id], os.listdir(bodies))
        self.assertEqual(len(BIG), self.inspection.show(queue_id).summary.size)  # type: ignore[union-attr]

    def test_one_at_a_time(self) -> None:
        self.kept(BIG)
        with self.taking():
            self.assertRaisesRegex(SpoolError, "another import is at work", self.taking)
        with self.taking():
            pass

    # -- export -------------------------------------------------------------------------------------------

    def test_nothing_is_overwritten(self) -> None:
        queue_id = self.kept(b"x\r\n")
        self.folder.mkdir()
        target = self.folder.parent / "precious"
        target.write_text("precious")
        for name in (f"{queue_id}.eml", f"{queue_id}.json"):
            for make in (Path.touch, lambda path: path.symlink_to(target)):
                make(self.folder / name)
                with self.assertRaisesRegex(NotExported, "already"):
                    self.export(queue_id)
                self.assertEqual([name], os.listdir(self.folder))
                (self.folder / name).unlink()
        body = self.folder / f"{queue_id}.eml"
        body.symlink_to(target)
        self.export(queue_id, force=True)
        self.assertFalse(body.is_symlink())
        self.assertEqual(b"x\r\n", body.read_bytes())
        self.assertEqual("precious", target.read_text())

    def test_what_cannot_be_exported(self) -> None:
        damaged, unreadable = self.kept(BIG), self.kept()
        (self.directory / "bodies" / damaged).write_bytes(b"z" * len(BIG))
        self.sql("UPDATE recipient SET state = 'lost' WHERE queue_id = ?", unreadable)
        for queue_id, text in ((damaged, "SHA-256"), (unreadable, "make no sense")):
            with self.assertRaisesRegex(NotExported, text):
                self.export(queue_id)
        for queue_id in ("NONE", "../../etc/passwd"):
            with self.assertRaises(Gone):
                self.export(queue_id)
        self.assertEqual([], os.listdir(self.folder))

    def test_a_message_that_goes_meanwhile(self) -> None:
        queue_id = self.kept(BIG)
        message = self.shown(queue_id)
        self.gone(queue_id)
        with mock.patch.object(self.inspection, "show", return_value=message), self.assertRaises(Gone):
            self.export(queue_id)
        self.assertEqual([], os.listdir(self.folder))

    def test_folders(self) -> None:
        queue_id = self.kept()
        with self.assertRaisesRegex(SpoolError, "inside the spool"):
            Export(self.inspection, self.directory / "bodies" / "x", None)
        link = self.folder.parent / "link"
        link.symlink_to(self.directory)
        with self.assertRaisesRegex(SpoolError, "inside the spool"):
            Export(self.inspection, link, None)
        for folder in (self.folder / "a" / "b", Path("/dev/null")):
            with self.assertRaisesRegex(SpoolError, "cannot be used"):
                Export(self.inspection, folder, None)
        with (
            mock.patch("os.write", side_effect=OSError(28, "No space left on device")),
            self.assertRaisesRegex(SpoolError, "No space left"),
        ):
            self.export(queue_id)
        self.assertEqual([], os.listdir(self.folder))

    def test_encrypted(self) -> None:
        sealing = Sealing(bytes(32))
        self.stop(self.spool)
        self.spool = self.started(sealing=sealing)
        queue_id = self.kept(BIG)
        with self.assertRaisesRegex(NotExported, "not configured"):
            self.export(queue_id)
        self.export(queue_id, sealing=sealing)
        self.assertEqual(BIG, (self.folder / f"{queue_id}.eml").read_bytes())
