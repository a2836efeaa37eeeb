"""The pages that are made from the program are whole, and what the others name exists."""

import ast
import re
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from digipoort_msa import log

TESTS = Path(__file__).resolve().parent
DOCS = TESTS.parent / "docs"
sys.path.insert(0, str(DOCS))

import event_table  # noqa: E402
import reply_table  # noqa: E402
import settings_table  # noqa: E402


class ReplyTests(SynchronousTestCase):
    def test_every_reply_has_its_advice(self) -> None:
        self.assertEqual(set(reply_table.replies()), set(reply_table.advice()))

    def test_every_reply_is_shown(self) -> None:
        text = reply_table.text()
        for name, said in reply_table.replies().items():
            self.assertIn(f"``{' / '.join(said.lines)}``", text, name)


class EventTests(SynchronousTestCase):
    def test_every_event_is_shown(self) -> None:
        text = event_table.text()
        events = [event for event in vars(log).values() if isinstance(event, log.Event)]
        self.assertGreater(len(events), 20)
        for event in events:
            self.assertIn(f"``{event.name}``", text)

    def test_fields(self) -> None:
        """Those of the sentence, and those that only the call has."""
        self.assertEqual(event_table.sentence_fields(log.LISTENING), ["address", "tls"])
        self.assertLessEqual({"account", "realm", "queue_id"}, event_table.added_fields()["QUEUED"])

    def test_no_call_leaves_a_field_out(self) -> None:
        added = event_table.added_fields()
        for constant, fields in added.items():
            self.assertLessEqual(set(event_table.sentence_fields(getattr(log, constant))), fields, constant)


class SettingTests(SynchronousTestCase):
    def test_every_table_and_key(self) -> None:
        text = settings_table.text()
        headers = [header for header, _ in settings_table.tables()]
        for header in ("[server]", "[[listener]]", "[[realm]]", "[delivery.relay.timeouts]"):
            self.assertIn(header, headers)
        for header, model in settings_table.tables():
            self.assertIn(f"{header}\n", text)
            for name, field in model.model_fields.items():
                self.assertTrue(field.description or f"{field.alias or name}]" in text, f"{header} {name}")

    def test_numbers_have_a_unit_or_are_counts(self) -> None:
        """A float is a time, a factor or a share; a time says so."""
        without = [
            field.alias
            for _, model in settings_table.tables()
            for field in model.model_fields.values()
            if field.annotation is float and not settings_table.unit(field)
        ]
        self.assertEqual(without, ["delay-factor", "jitter"])


class ReferenceTests(SynchronousTestCase):
    def test_the_tests_on_the_security_page_exist(self) -> None:
        named = re.findall(r"``(test_[\w.]+)``", (DOCS / "security.rst").read_text(encoding="utf-8"))
        self.assertGreater(len(named), 15)
        for reference in named:
            module, *path = reference.split(".")
            here: list[ast.stmt] = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8")).body
            for name in path:
                found = [
                    node
                    for node in here
                    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                    and node.name == name
                ]
                self.assertEqual(len(found), 1, reference)
                here = found[0].body

    def test_the_settings_that_pages_name_exist(self) -> None:
        """``table.key``, as the pages on operating and integrating write it."""
        known = {
            f"{header.strip('[]')}.{field.alias}"
            for header, model in settings_table.tables()
            for field in model.model_fields.values()
        }
        tables = "server|listener|tls|realm|limits|passwords|spool|queue|delivery"
        for page in ("operating", "integrating", "security"):
            text = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
            for key in re.findall(rf"``((?:{tables})\.[a-z.-]+)``", text):
                prefix = key.removesuffix("...")
                found = key in known or (prefix != key and any(one.startswith(prefix) for one in known))
                self.assertTrue(found, f"{page}: {key}")
