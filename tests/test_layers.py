"""The layering rule, read from the imports: who may know of whom."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import digipoort_msa

ROOT = Path(digipoort_msa.__file__).parent
PACKAGE = "digipoort_msa"

#: What a room may import of ours, besides itself.
SEAMS = {"interfaces", "log", "identity", "threads"}
PURE = {"smtp", "sasl"}
OURS = {
    "smtp": set(),
    "sasl": set(),
    "log": set(),
    "identity": set(),
    "secret_files": set(),
    "statements": set(),
    "database_urls": set(),
    "threads": {"interfaces"},
    "log_lines": {"log"},
    "interfaces": {"smtp"},  # its errors name their reply
    "config": {"secret_files", "statements", "database_urls"},
    **dict.fromkeys(("policy", "spool", "delivery", "submission", "server"), PURE | SEAMS),
    "accounts": PURE | SEAMS | {"secret_files", "statements", "database_urls"},
    "notification": {"smtp"} | SEAMS,
    "testing": {"accounts", "policy"} | PURE | SEAMS,
}
TWISTED = {"twisted", "zope", "attrs"}
#: What a room may import of others, besides the standard library.
THEIRS = {
    "smtp": {"attrs", "zope"},
    "sasl": {"attrs", "zope"},
    "log": TWISTED,
    "identity": {"attrs"},
    "secret_files": set(),
    "statements": {"attrs"},
    "database_urls": {"sqlalchemy"},
    "threads": TWISTED,
    "log_lines": TWISTED,
    "interfaces": {"attrs", "zope"},
    "config": TWISTED | {"pydantic", "pydantic_core", "cryptography", "re2"},
    "accounts": TWISTED
    | {"passlib", "sqlalchemy", "cryptography", "psycopg", "ldap", "OpenSSL", "service_identity", "treq"},
    "policy": TWISTED | {"re2"},
    "spool": TWISTED | {"nacl"},
    "delivery": TWISTED | {"OpenSSL", "service_identity", "cryptography", "scramp", "dns"},
    "notification": TWISTED,
    "submission": TWISTED,
    "server": TWISTED | {"OpenSSL", "cryptography"},
    "testing": TWISTED,
}
#: The rooms that may import anything.
ANYTHING = {"service", "admin"}
#: Those that may touch the global reactor; the suites in ``testing`` run on the one that trial runs.
ON_THE_REACTOR = ANYTHING | {"testing"}


def rooms() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class LayerTests(SynchronousTestCase):
    def test_every_room_is_known(self) -> None:
        self.assertEqual({room for room, _ in rooms()}, set(OURS) | ANYTHING)

    def test_who_imports_whom(self) -> None:
        wrong = []
        for room, path in rooms():
            if room in ANYTHING:
                continue
            for name in imports(path):
                top, *rest = name.split(".")
                if top == PACKAGE:
                    allowed = rest[0] == room or rest[0] in OURS[room]
                else:
                    allowed = top in sys.stdlib_module_names or top in THEIRS[room]
                if not allowed:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.assertEqual(wrong, [])

    def test_who_touches_the_reactor(self) -> None:
        """Everyone else is given one."""
        touching = {
            room
            for room, path in rooms()
            if any(re.match(r"twisted\.internet\.reactor\b", name) for name in imports(path))
        }
        self.assertLessEqual(touching, ON_THE_REACTOR)

    def test_the_pure_packages_read_no_clock_and_draw_no_randomness(self) -> None:
        impure = {"time", "random", "secrets", "os", "socket", "threading", "logging", "asyncio", "pathlib"}
        for room, path in rooms():
            if room in PURE:
                tops = {name.split(".")[0] for name in imports(path)}
                self.assertEqual(tops & impure, set(), path)
                text = path.read_text(encoding="utf-8")
                self.assertNotRegex(text, r"datetime\.(?:now|utcnow|today)\(", path)

    def test_the_standard_library_knows_what_the_rule_says(self) -> None:
        self.assertIn("email", sys.stdlib_module_names)
        self.assertNotIn("twisted", sys.stdlib_module_names)


#: A hop's replies, and what stands for them where there was none, are another matter.
NOT_TO_CLIENTS = {"delivery", "spool", "admin", "config"}


class ReplyTests(SynchronousTestCase):
    """What a client is told stands in one file."""

    def test_no_reply_stands_elsewhere(self) -> None:
        wrong = []
        for room, path in rooms():
            if path == ROOT / "smtp" / "reply.py" or room in NOT_TO_CLIENTS:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "id", getattr(node.func, "attr", "")) in {"Reply", "reply"}
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                ):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} makes a reply")
                if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                    text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                    if re.match(r"[2-5][0-5][0-9](?:[ -]|\r\n)", text):
                        wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} has a reply literal")
        self.assertEqual(wrong, [])
